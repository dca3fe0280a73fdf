"""Volumes with label volumes, cut into slices."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from unibiomed.data.adapters.common import (
    VOLUME_ENDINGS,
    Item,
    Place,
    Row,
    Tell,
    base_record,
    find_places,
    list_images,
    refuse,
)
from unibiomed.data.adapters.regions import Folders, find_masks, mask_region
from unibiomed.data.adapters.tables import join_rows
from unibiomed.data.entries import DatasetEntry, Target
from unibiomed.data.records import PLANE, Record
from unibiomed.errors import DataError, InputError
from unibiomed.images import Grid, read_volume, read_volume_header

Masks = Sequence[tuple[Target, Sequence[Path]]]


def read_volumes(entry: DatasetEntry, tell: Tell = refuse) -> Iterator[Record]:
    """Records of the adapter ``volumes``, see `unibiomed.data.entries`."""
    items = list_images(entry, VOLUME_ENDINGS, folders=True, tell=tell)
    rows, official = join_rows(entry, items, tell)
    folders = Folders(entry.folder)
    for name, place in sorted(find_places(entry, rows, official).items()):
        try:
            yield from _slices(entry, items[name], place, rows[name], folders)
        except DataError as error:
            tell(error)


def _slices(entry: DatasetEntry, item: Item, place: Place, row: Row, folders: Folders) -> Iterator[Record]:
    grid, modality = _header(entry, item.path, entry.channel)
    masks = list(find_masks(entry, item, row, folders))
    _check_grids(entry, grid, item, masks)
    known = base_record(entry, item.name, place, row)
    known["modality"] = _modality(entry, item.name, known["modality"], modality)
    if grid.plane == "sagittal":
        known["attributes"] = {**known["attributes"], PLANE: grid.plane}
    shown = _slices_with_targets(entry, grid, masks) if entry.skip_empty else None
    for index in range(0, grid.shape[0], entry.every):
        if shown is None or shown[index]:
            yield Record(
                image=item.path,
                slice_index=index,
                channel=entry.channel,
                spacing=grid.pixel_spacing,
                regions=tuple(mask_region(target, found, index, entry.ignore_values) for target, found in masks),
                **known | {"key": f"{known['key']}@{index}"},
            )


def _header(entry: DatasetEntry, path: Path, channel: int | None = None) -> tuple[Grid, str | None]:
    try:
        return read_volume_header(path, channel)
    except InputError as error:
        raise _unreadable(entry, path, error) from error


def _unreadable(entry: DatasetEntry, path: Path, error: InputError) -> DataError:
    """The error with the folder before the name of the file: image and label volume often have the same name."""
    folder = path.relative_to(entry.folder).as_posix().removesuffix(path.name)
    return DataError(f"{entry.name}/{folder}{error}")


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
            raise _unreadable(entry, path, error) from error
    return shown
