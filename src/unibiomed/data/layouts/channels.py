"""Volumes with several channels in one file: which one is read has to be said."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unibiomed.data.adapters.common import VOLUME_ENDINGS
from unibiomed.data.layouts.proposal import Found
from unibiomed.data.layouts.survey import Survey
from unibiomed.errors import InputError
from unibiomed.images import count_channels

__all__ = ["choose_channel"]

LOOKED_AT = 4


def choose_channel(survey: Survey, described: Mapping[str, Any], found: Found) -> None:
    """Add ``channel = 0`` to an entry whose images hold several volumes each, and ask about it.

    Parameters
    ----------
    survey : Survey
        The folder.
    described : mapping
        Contents of its JSON files by path: a ``dataset.json`` may name the channels.
    found : Found
        What the folder was taken for; changed.
    """
    if found.keys.get("adapter") != "volumes" or "channel" in found.keys:
        return
    counts = set()
    for path in _some_images(survey.folder, str(found.keys.get("images", "."))):
        try:
            counts.add(count_channels(path))
        except InputError:
            continue  # named when the entry is tried
    several = max(counts, default=1)
    if several == 1:
        return
    names = _names(described.get("dataset.json"), several)
    listed = f" ({', '.join(f'{number} {name}' for number, name in enumerate(names))})" if names else ""
    found.keys["channel"] = 0
    found.questions.append(
        f"each image file holds {several} channels{listed}; channel = 0 is read: set another in dataset.toml"
    )


def _some_images(folder: Path, pattern: str) -> list[Path]:
    place = folder / pattern
    paths = place.iterdir() if place.is_dir() else folder.glob(pattern)
    volumes = sorted(path for path in paths if path.name.lower().endswith(VOLUME_ENDINGS))
    return volumes[:LOOKED_AT]


def _names(described: Any, count: int) -> list[str]:
    """Names of the channels in a ``dataset.json``; none where they are not as many as the channels."""
    if not isinstance(described, dict):
        return []
    channels = described.get("channel_names") or described.get("modality")
    if not isinstance(channels, dict):
        return []
    found = {int(key): str(name) for key, name in channels.items() if str(key).isdecimal()}
    return [found[number] for number in range(count)] if set(found) == set(range(count)) else []
