"""What the numbers in mask files mean: one thing or nothing, classes, or one number for each object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import label

from unibiomed.data.layouts.survey import spread
from unibiomed.data.pixels import mask_numbers
from unibiomed.errors import DataError, InputError
from unibiomed.images import read_volume

__all__ = ["MaskValues", "look_at_masks"]

FLAT_LOOKED_AT = 24
VOLUMES_LOOKED_AT = 4
MAX_VOLUME_BYTES = 200_000_000
MANY_CLASSES = 40
OBJECTS = 5
"""So many numbered objects on at least one mask, or the numbers are taken for classes."""


@dataclass(frozen=True, slots=True)
class MaskValues:
    """What was found in some mask files.

    Parameters
    ----------
    kind : {"empty", "binary", "classes", "objects", "soft"}
        Nothing is marked; one value beside 0; a few values; a number for each object; grey levels at the edges.
    values : tuple of int
        The values beside 0, where they are classes or the one of a binary mask.
    files : int
        How many files were looked at.
    unreadable : tuple of str
        What is wrong with those that could not be read; each begins with the name of the file.
    whole : bool
        Nearly every value is of one piece on each of them, as an object is, and there are `OBJECTS` or more.
    """

    kind: str
    values: tuple[int, ...]
    files: int
    unreadable: tuple[str, ...] = ()
    whole: bool = False


def look_at_masks(paths: Sequence[Path], *, volumes: bool = False) -> MaskValues:
    """Open some of the mask files of a data set.

    Parameters
    ----------
    paths : sequence of Path
        All of them; at most `FLAT_LOOKED_AT` or `VOLUMES_LOOKED_AT` are opened.
    volumes : bool
        They are label volumes.

    Returns
    -------
    MaskValues
        What their numbers seem to mean.

    Raises
    ------
    DataError
        More than half of them cannot be read as masks.
    """
    small = [p for p in paths if not volumes or p.stat().st_size <= MAX_VOLUME_BYTES]
    by_name = {str(path): path for path in small or paths}
    chosen = [by_name[name] for name in spread(list(by_name), VOLUMES_LOOKED_AT if volumes else FLAT_LOOKED_AT)]
    found: list[set[int]] = []
    unreadable: list[str] = []
    numbered = whole = not volumes
    between = marked = 0
    for path in chosen:
        try:
            numbers = [_volume_values(path)] if volumes else [mask_numbers(path)]
        except (DataError, InputError) as error:
            # Its image often has the same name: the folder tells them apart.
            unreadable.append(f"{path.parent.name}/{error}")
            continue
        values: set[int] = set()
        for part in numbers:
            seen, often = np.unique(part, return_counts=True)
            values |= {int(value) for value in seen if value > 0}
            marked += int(often[seen > 0].sum())
            between += int(often[(seen > 0) & (seen < 255)].sum())
            whole = whole and _are_whole(part, seen[seen > 0])
            numbered = whole and numbered and np.array_equal(seen[seen > 0], np.arange(1, (seen > 0).sum() + 1))
        found.append(values)
    if len(unreadable) > 0.5 * len(chosen):
        raise DataError(unreadable[0])
    kind, all_values = _meaning(found, numbered, between / max(1, marked))
    return MaskValues(kind, all_values, len(found), tuple(unreadable), whole and len(all_values) >= OBJECTS)


def _volume_values(path: Path) -> np.ndarray:
    volume = read_volume(path)
    return np.concatenate([np.unique(volume.labels(index)) for index in range(len(volume))])


def _are_whole(numbers: np.ndarray, values: np.ndarray) -> bool:
    """Whether nearly each of the values is of one piece."""
    looked_at = values[:30]
    whole = sum(label(numbers == value)[1] == 1 for value in looked_at)
    return whole >= 0.8 * len(looked_at)


def _meaning(found: list[set[int]], numbered: bool, between: float) -> tuple[str, tuple[int, ...]]:
    values = tuple(sorted(set().union(*found))) if found else ()
    if not values:
        return "empty", ()
    counts = {len(one) for one in found if one}
    if len(values) == 1:
        return "binary", values
    if numbered and max(counts) >= OBJECTS and (len(counts) > 1 or max(counts) > MANY_CLASSES):
        return "objects", ()
    if len(values) <= MANY_CLASSES and not (values[-1] == 255 and len(values) > 12):
        return "classes", values
    # Antialiased or stored as JPEG before: most marked pixels are white, and between lies every grey.
    return ("soft", ()) if values[-1] == 255 and between < 0.5 else ("objects", ())
