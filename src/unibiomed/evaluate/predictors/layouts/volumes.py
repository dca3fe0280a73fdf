"""Masks as volumes with the voxels of the volume that an image is a slice of: NIfTI files and NumPy archives."""

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
from .base import MaskFiles, MaskSource, normalise_name

__all__ = ["LABELS_FILE", "VolumeMasks", "read_labels"]

LABELS_FILE = "labels.json"
MAX_LABELS_BYTES = 1_000_000
ARRAY_NAMES = ("segs", "seg", "masks", "mask", "labels", "pred", "arr_0")
"""Names of the array in an archive with several arrays, in order of preference."""
CACHE_BYTES = 2**30
_DAMAGED = (OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error, struct.error)


class VolumeMasks(MaskFiles):
    """Volumes in ``FOLDER/DATASET/``: one file per target, or a label map of all targets."""

    extensions = (".nii", ".nii.gz", ".npz")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._labels: dict[str, dict[str, tuple[int, ...]] | str] = {}
        self._archives = _Archives()

    def files(self, case: Case, label: str) -> tuple[list[Path], list[Path]]:
        """Return the volumes of a single target, and the label maps."""
        record = case.record
        if record.slice_index is None or not isinstance(record.image, Path) or case.perturbation is not None:
            return [], []
        name = record.key.removeprefix(f"{record.dataset}/").removesuffix(f"@{record.slice_index}")
        single = self._find(record.dataset, {f"{name} {label}", f"{label} {name}", f"seg {name} {label}"})
        return single, self._find(record.dataset, {name, f"seg {name}"})

    def find(self, case: Case, label: str) -> list[MaskSource]:
        """Return the masks of a target; there should be at most one.

        Raises
        ------
        DataError
            There is a label map whose labels are unknown.
        """
        single, label_maps = self.files(case, label)
        # SAT writes both; where targets overlap, only the files of single targets are correct
        if single:
            return [MaskSource(path.name, partial(self._load, case, path, None)) for path in single]
        if not label_maps:
            return []
        labels = self._labels_of(case.record.dataset)
        if isinstance(labels, str):
            raise DataError(f"{label_maps[0].name}: {labels}")
        values = labels.get(normalise_name(label))
        return [MaskSource(path.name, partial(self._load, case, path, values)) for path in label_maps if values]

    def _labels_of(self, dataset: str) -> dict[str, tuple[int, ...]] | str:
        """Return the values of each target in the label maps of a data set, or the reason why they are unknown."""
        if dataset not in self._labels:
            paths = [p for p in (self.folder / dataset / LABELS_FILE, self.folder / LABELS_FILE) if p.exists()]
            missing = f"label map without {LABELS_FILE}: add a file with the names of its values"
            self._labels[dataset] = read_labels(paths[0]) if paths else missing
        return self._labels[dataset]

    def _load(self, case: Case, path: Path, values: tuple[int, ...] | None, size: tuple[int, int]) -> np.ndarray:
        record = case.record
        assert isinstance(record.image, Path) and record.slice_index is not None
        try:
            grid = _grid(record.image, record.channel)
            if path.suffix.lower() == ".npz":
                array = self._archives.read(path, grid)[record.slice_index]
                mask = np.isin(array, values) if values else array > 0
            else:
                other = read_volume_header(path)[0]
                if grid.shape != other.shape:
                    raise DataError(
                        f"{path.name}: has {_format(other.shape)} voxels, its image {_format(grid.shape)} (slices, "
                        "rows, columns): resample it to the image"
                    )
                if not grid.matches(other) and not np.allclose(other.file_affine, np.eye(4)):
                    raise DataError(f"{path.name}: its position differs from that of the image: resample it")
                mask = load_mask(path, size, values, record.slice_index)
        except InputError as error:
            raise DataError(str(error)) from error
        if mask.shape != size:
            raise DataError(f"{path.name}: slice is {_format(mask.shape)} pixels (rows, columns), its image {size}")
        return mask


def read_labels(path: Path) -> dict[str, tuple[int, ...]] | str:
    """Read the values of each target from ``{"1": "liver"}`` or ``{"liver": 1}``, or return an error message."""
    try:
        if path.stat().st_size > MAX_LABELS_BYTES:
            return f"{path.name} is too large"
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return f"{path.name} cannot be read"
    labels: dict[str, tuple[int, ...]] = {}
    for key, value in content.items() if isinstance(content, dict) else ():
        number, name = (key, value) if isinstance(value, str) else (value, key)
        if isinstance(number, str) and number.isascii() and number.isdigit() and len(number) < 10:
            number = int(number)
        if type(number) is not int or number < 0 or not isinstance(name, str):
            return f"{path.name} does not give a number and a name for each label"
        if number:
            labels[normalise_name(name)] = (*labels.get(normalise_name(name), ()), number)
    return labels or f"{path.name} contains no label"


@lru_cache(maxsize=64)
def _grid(path: Path, channel: int | None) -> Grid:
    return read_volume_header(path, channel)[0]


def _format(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)


class _Archives:
    """Cache of the last archives, so that each is decoded once for all slices."""

    def __init__(self) -> None:
        self._cache: dict[Path, np.ndarray] = {}

    def read(self, path: Path, grid: Grid) -> np.ndarray:
        """Return (slices, rows, columns) integers in the orientation of the image.

        Raises
        ------
        DataError
            The archive does not match the image.
        """
        values = self._cache.pop(path, None)
        if values is None or values.shape != grid.shape:
            values = _read_archive(path, grid)
        self._cache[path] = values
        size = sum(array.nbytes for array in self._cache.values())
        while size > CACHE_BYTES and len(self._cache) > 1:
            size -= self._cache.pop(next(iter(self._cache))).nbytes
        return values


def _read_archive(path: Path, grid: Grid) -> np.ndarray:
    """Read the array with the size of the image. Larger arrays are not unpacked and pickled ones are not read."""
    shape = grid.file_shape
    try:
        with zipfile.ZipFile(path) as archive:
            headers = {name: _header(archive, name) for name in archive.namelist() if name.endswith(".npy")}
            named = [name for key in ARRAY_NAMES for name in headers if name == f"{key}.npy"][:1]
            three_dimensional = [name for name, (size, _) in headers.items() if len(size) == 3]
            chosen = named or (three_dimensional if len(three_dimensional) == 1 else [])
            if not chosen:
                raise DataError(f"{path.name}: it is not clear which array is the mask: name it 'segs'")
            size, dtype = headers[chosen[0]]
            if size not in (shape, shape[::-1]) or dtype.kind not in "buif":
                raise DataError(
                    f"{path.name}: has {_format(size)} values of type {dtype}, its image {_format(shape)} in the order "
                    "of its file: resample it to the image"
                )
            if shape == shape[::-1]:
                raise DataError(f"{path.name}: the order of its axes is ambiguous for this volume: save it as NIfTI")
            with archive.open(chosen[0]) as stream:
                values = np.lib.format.read_array(stream, allow_pickle=False)
    except _DAMAGED as error:
        raise DataError(f"{path.name}: damaged or not a NumPy archive: save it again") from error
    # nibabel uses the order of the file, SimpleITK and SAT the reverse
    oriented = grid.turn(values.T if size == shape[::-1] else values)
    labels = as_labels(oriented, path.name)
    small = labels.dtype == bool or (labels.min() >= 0 and labels.max() < 256)
    return np.ascontiguousarray(labels, dtype=np.uint8 if small else labels.dtype)


def _header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    with archive.open(name) as stream:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            size, _, dtype = np.lib.format.read_array_header_1_0(stream)
        else:
            size, _, dtype = np.lib.format.read_array_header_2_0(stream)
    return size, dtype
