"""Masks as volumes on the voxels of the volume that an image is a slice of: NIfTI files and NumPy archives."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from unibiomed.data.pixels import load_mask
from unibiomed.errors import DataError, InputError
from unibiomed.images import Grid, read_volume_header
from unibiomed.images.volume import as_labels

from ...samples import Case
from .base import MaskFiles
from .names import MaskSource, plain

__all__ = ["LABELS", "VolumeMasks"]

LABELS = "labels.json"
MAX_LABELS_BYTES = 1_000_000
ARRAYS = ("segs", "seg", "masks", "mask", "labels", "pred", "arr_0")
"""What the array of an archive may be called where there are several."""
KEPT_BYTES = 2**30
_DAMAGED = (OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error, struct.error)


class VolumeMasks(MaskFiles):
    """The volumes under ``FOLDER/DATASET/``, a file for each target or one with numbers for all."""

    endings = (".nii", ".nii.gz", ".npz")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._numbers: dict[str, dict[str, tuple[int, ...]] | str] = {}
        self._archives = _Archives()

    def files(self, case: Case, label: str) -> tuple[list[Path], list[Path]]:
        """The volumes of a target alone, and those with numbers for all targets."""
        record = case.record
        if record.slice_index is None or not isinstance(record.image, Path) or case.change is not None:
            return [], []
        name = record.key.removeprefix(f"{record.dataset}/").removesuffix(f"@{record.slice_index}")
        alone = self._named(record.dataset, {f"{name} {label}", f"{label} {name}", f"seg {name} {label}"})
        return alone, self._named(record.dataset, {name, f"seg {name}"})

    def find(self, case: Case, label: str) -> list[MaskSource]:
        """The masks of a target; there should be one at most.

        Raises
        ------
        DataError
            A volume has numbers, and nothing tells what they mean.
        """
        alone, merged = self.files(case, label)
        # SAT writes both, and where targets overlap only the files of one target are right
        if alone:
            return [MaskSource(path.name, partial(self._load, case, path, None)) for path in alone]
        if not merged:
            return []
        meaning = self._meaning(case.record.dataset)
        if isinstance(meaning, str):
            raise DataError(f"{merged[0].name}: {meaning}")
        values = meaning.get(plain(label))
        return [MaskSource(path.name, partial(self._load, case, path, values)) for path in merged if values]

    def _meaning(self, dataset: str) -> dict[str, tuple[int, ...]] | str:
        """Numbers of each target in the label volumes of a data set, or why they are not known."""
        if dataset not in self._numbers:
            found = [p for p in (self.folder / dataset / LABELS, self.folder / LABELS) if p.exists()]
            self._numbers[dataset] = read_labels(found[0]) if found else f"no {LABELS} tells what its numbers mean"
        return self._numbers[dataset]

    def _load(self, case: Case, path: Path, values: tuple[int, ...] | None, size: tuple[int, int]) -> np.ndarray:
        record = case.record
        assert isinstance(record.image, Path) and record.slice_index is not None
        try:
            grid = _grid(record.image, record.channel)
            if path.suffix.lower() == ".npz":
                numbers = self._archives.read(path, grid)[record.slice_index]
                mask = np.isin(numbers, values) if values else numbers > 0
            else:
                other = read_volume_header(path)[0]
                if grid.shape != other.shape:
                    raise DataError(
                        f"{path.name}: has {_words(other.shape)} voxels, its image {_words(grid.shape)} (slices, rows, "
                        "columns); resample it to the image"
                    )
                if not grid.matches(other) and not np.allclose(other.file_affine, np.eye(4)):
                    raise DataError(f"{path.name}: lies elsewhere in the patient than its image; resample it")
                mask = load_mask(path, size, values, record.slice_index)
        except InputError as error:
            raise DataError(str(error)) from error
        if mask.shape != size:
            raise DataError(f"{path.name}: slice is {_words(mask.shape)} pixels (rows, columns), its image {size}")
        return mask


def read_labels(path: Path) -> dict[str, tuple[int, ...]] | str:
    """Numbers of each target, from ``{"1": "liver"}`` or ``{"liver": 1}``; or what is wrong with the file."""
    try:
        if path.stat().st_size > MAX_LABELS_BYTES:
            return f"{path.name} is too large"
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return f"{path.name} cannot be read"
    found: dict[str, tuple[int, ...]] = {}
    for key, value in values.items() if isinstance(values, dict) else ():
        number, name = (key, value) if isinstance(value, str) else (value, key)
        if isinstance(number, str) and number.isascii() and number.isdigit() and len(number) < 10:
            number = int(number)
        if type(number) is not int or number < 0 or not isinstance(name, str):
            return f"{path.name} does not give a number and a name for each label"
        if number:
            found[plain(name)] = (*found.get(plain(name), ()), number)
    return found or f"{path.name} names no label"


@lru_cache(maxsize=64)
def _grid(path: Path, channel: int | None) -> Grid:
    return read_volume_header(path, channel)[0]


def _words(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)


class _Archives:
    """The archives that were read last, so that each is decoded once for all slices."""

    def __init__(self) -> None:
        self._kept: dict[Path, np.ndarray] = {}

    def read(self, path: Path, grid: Grid) -> np.ndarray:
        """(slices, rows, columns) of whole numbers, turned like the image; DataError where it does not fit."""
        values = self._kept.pop(path, None)
        if values is None or values.shape != grid.shape:
            values = _read_archive(path, grid)
        self._kept[path] = values
        held = sum(known.nbytes for known in self._kept.values())
        while held > KEPT_BYTES and len(self._kept) > 1:
            held -= self._kept.pop(next(iter(self._kept))).nbytes
        return values


def _read_archive(path: Path, grid: Grid) -> np.ndarray:
    """Read the one array whose size is that of the image; nothing larger is ever unpacked, nothing pickled is read."""
    shape = grid.file_shape
    try:
        with zipfile.ZipFile(path) as archive:
            headers = {name: _header(archive, name) for name in archive.namelist() if name.endswith(".npy")}
            named = [name for key in ARRAYS for name in headers if name == f"{key}.npy"][:1]
            solid = [name for name, (size, _) in headers.items() if len(size) == 3]
            chosen = named or (solid if len(solid) == 1 else [])
            if not chosen:
                raise DataError(f"{path.name}: which array holds the mask is not clear; name it 'segs'")
            size, dtype = headers[chosen[0]]
            if size not in (shape, shape[::-1]) or dtype.kind not in "buif":
                raise DataError(
                    f"{path.name}: has {_words(size)} values of type {dtype}, its image {_words(shape)} in the order "
                    "of its file; resample it to the image"
                )
            if shape == shape[::-1]:
                raise DataError(f"{path.name}: the order of its axes is not clear for this volume; save it as NIfTI")
            with archive.open(chosen[0]) as stream:
                values = np.lib.format.read_array(stream, allow_pickle=False)
    except _DAMAGED as error:
        raise DataError(f"{path.name}: this archive is damaged or no NumPy archive; save it again") from error
    # nibabel's order is that of the file, SimpleITK's and SAT's the reverse of it
    turned = grid.turn(values.T if size == shape[::-1] else values)
    numbers = as_labels(turned, path.name)
    small = numbers.dtype == bool or (numbers.min() >= 0 and numbers.max() < 256)
    return np.ascontiguousarray(numbers, dtype=np.uint8 if small else numbers.dtype)


def _header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    with archive.open(name) as stream:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            size, _, dtype = np.lib.format.read_array_header_1_0(stream)
        else:
            size, _, dtype = np.lib.format.read_array_header_2_0(stream)
    return size, dtype
