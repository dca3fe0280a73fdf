"""Volumes with label volumes, cut into slices."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from unibiomed.data.adapters.common import VOLUME_ENDINGS, Item, base_record, find_places, list_images
from unibiomed.data.adapters.regions import Folders, find_masks, mask_region
from unibiomed.data.adapters.tables import join_rows
from unibiomed.data.entries import DatasetEntry, Target
from unibiomed.data.records import Record
from unibiomed.errors import DataError, InputError
from unibiomed.images import Grid, read_volume, read_volume_header

Masks = Sequence[tuple[Target, Sequence[Path]]]


def read_volumes(entry: DatasetEntry) -> Iterator[Record]:
    """Records of the adapter ``volumes``, see `unibiomed.data.entries`."""
    items = list_images(entry, VOLUME_ENDINGS, folders=True)
    rows, official = join_rows(entry, items)
    folders = Folders(entry.folder)
    for name, place in sorted(find_places(entry, rows, official).items()):
        grid, modality = _header(entry, items[name].path, entry.channel)
        masks = list(find_masks(entry, items[name], folders))
        _check_grids(entry, grid, items[name], masks)
        known = base_record(entry, name, place, rows[name])
        known["modality"] = _modality(entry, name, known["modality"], modality)
        shown = _slices_with_targets(entry, grid, masks) if entry.skip_empty else None
        for index in range(0, grid.shape[0], entry.every):
            if shown is None or shown[index]:
                yield Record(
                    image=items[name].path,
                    slice_index=index,
                    channel=entry.channel,
                    spacing=(grid.spacing[1], grid.spacing[2]),
                    regions=tuple(mask_region(target, found, index) for target, found in masks),
                    **known | {"key": f"{known['key']}@{index}"},
                )


def _header(entry: DatasetEntry, path: Path, channel: int | None = None) -> tuple[Grid, str | None]:
    try:
        return read_volume_header(path, channel)
    except InputError as error:
        raise DataError(f"{entry.name}/{error}") from error


def _check_grids(entry: DatasetEntry, grid: Grid, item: Item, masks: Masks) -> None:
    for path in dict.fromkeys(path for _, found in masks for path in found):
        other, _ = _header(entry, path)
        if not grid.matches(other):
            what = "has other voxels" if grid.shape != other.shape else "lies elsewhere in the patient"
            raise DataError(
                f"{entry.name}/{path.relative_to(entry.folder).as_posix()}: the label volume {what} than its image "
                f"{item.path.name} (slices, rows, columns {other.shape} and {grid.shape}); resample it to the image"
            )


def _modality(entry: DatasetEntry, name: str, said: str, stored: str | None) -> str:
    if said and stored and said != stored:
        raise DataError(f"{entry.name}/{name}: its header says {stored}, the entry {said}; mend the entry")
    if not said and not stored:
        raise DataError(f"{entry.name}/{name}: the file does not tell its modality; give it in the entry")
    return said or str(stored)


def _slices_with_targets(entry: DatasetEntry, grid: Grid, masks: Masks) -> np.ndarray:
    """(slices,) bool: whether any target is on a slice. Each label volume is read once and let go."""
    wanted: dict[Path, list[Target]] = defaultdict(list)
    for target, found in masks:
        for path in found:
            wanted[path].append(target)
    shown = np.zeros(grid.shape[0], dtype=bool)
    for path, targets in wanted.items():
        try:
            volume = read_volume(path)
            for index in np.flatnonzero(~shown):
                numbers = volume.labels(int(index))
                shown[index] = any(
                    bool((numbers > 0).any() if target.values is None else np.isin(numbers, target.values).any())
                    for target in targets
                )
        except InputError as error:
            raise DataError(f"{entry.name}/{error}") from error
    return shown
