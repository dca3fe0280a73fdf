"""Reading of volumes: NIfTI, NRRD, MHA and MHD files, and folders with a DICOM series."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..errors import InputError
from .archive import is_zip, unpacked
from .dicom_segmentation import is_segmentation, open_segmentation
from .frames import open_frames
from .grid import Grid, StoredVolume
from .image import MedicalImage, prepared_image
from .limits import MAX_BYTES, check_size, check_slice, quiet, shown
from .modality import looks_like_hounsfield
from .nifti import (
    HEADER_BYTES,
    channel_count,
    check_single,
    nifti_details,
    nifti_grid,
    nifti_kind,
    open_nifti,
    read_header,
    unzip_head,
)
from .nrrd_mha import open_text_header, text_header_kind
from .pixels import Window, check_values, grey_to_rgb, stack_grey
from .read import check_file, sniff
from .series import open_series
from .windowing import apply_window, is_named_window, percentile_range

T = TypeVar("T")

_MAX_SAMPLES = 2_000_000
"""Approximate number of voxels that are sampled for the percentiles of a volume."""


@dataclass(frozen=True, eq=False)
class Volume:
    """A volume of grey values or labels in display order.

    Plane, order and orientation of the slices are those of `read_image`, independent of the order in the file: slice
    `k` equals ``read_image(path, slice_index=k)`` of a NIfTI file.

    Raises
    ------
    InputError
        If the values are not real numbers, or do not have the shape of the grid.
    """

    values: np.ndarray = field(repr=False)
    """Rescaled values of shape (slices, rows, columns), read-only: Hounsfield units for CT; integers if stored so."""

    grid: Grid
    """Geometry of the voxels in the patient and in the file."""

    modality: str | None = None
    """One of `MODALITIES`: from a DICOM header, or CT if the values are Hounsfield units; otherwise None."""

    source: str = "array"
    """Name of the file or folder, without its parent folder."""

    details: dict[str, Any] = field(default_factory=dict)
    """Properties of the file, for example ``{"format": "NIfTI", "orientation_known": True}``; no patient data."""

    def __post_init__(self) -> None:
        if self.values.dtype.kind not in "buif" or self.values.shape != self.grid.shape:
            raise InputError(
                f"{self.source}: {self.values.dtype} of shape {self.values.shape} is not a grey volume of shape "
                f"{self.grid.shape}: give one number per voxel"
            )
        if self.values.flags.writeable:
            view = self.values.view()
            view.flags.writeable = False
            object.__setattr__(self, "values", view)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance of voxel centres in mm, between slices, rows and columns."""
        return self.grid.spacing

    @property
    def plane(self) -> str:
        """``"axial"``, ``"coronal"`` or ``"sagittal"``."""
        return self.grid.plane

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) float64 matrix from (slice, row, column, 1) to mm in patient coordinates (RAS)."""
        return self.grid.affine

    def __len__(self) -> int:
        return self.grid.shape[0]

    @cached_property
    def range_window(self) -> tuple[float, float]:
        """Window (centre, width) from the 0.5th to the 99.5th percentile of the volume, for comparable slices.

        In volumes without negative values, zeros are ignored, as for single images. The width is positive, even for a
        volume of one value, which becomes black.
        """
        step = max(1, round((self.values.size / _MAX_SAMPLES) ** (1 / 3)))
        values = self.values[::step, ::step, ::step]
        values = values[np.isfinite(values)] if values.dtype.kind == "f" else values.reshape(-1)
        ignore = self._padding(values)
        low, high = percentile_range(values, ignore=ignore) if values.size else (0.0, 0.0)
        width = max(high - low, 1e-6)
        return low + width / 2, width

    def slice_image(self, index: int, window: Window = None) -> MedicalImage:
        """Convert a slice to an image.

        Parameters
        ----------
        index
            The slice, counted from 0.
        window
            A name of `WINDOWS`, ``"centre,width"``, or a pair of numbers, for example `range_window`. By default, as in
            `read_image`: the window in the headers of a DICOM series; 8-bit values unchanged; other values scaled
            between the percentiles of the slice.

        Returns
        -------
        MedicalImage
            The slice; its details contain the fields that `mask_to_slice` needs.

        Raises
        ------
        InputError
            If the slice does not exist or contains infinite values, or the window does not apply to it.
        """
        index = check_slice(index, len(self), self.source)
        check_size(*self.grid.shape[1:], self.source)
        named = is_named_window(window)
        if named and self.modality not in (None, "CT"):
            raise InputError(
                f"{self.source}: the window '{str(window).strip()}' is for CT and this is {self.modality}: leave the "
                "window out or give CENTRE,WIDTH"
            )
        values = np.ascontiguousarray(self.values[index])
        header = self.details.get("header_window")
        if window is None and header is not None:
            center, width, function = header
            pixels = stack_grey(apply_window(check_values(values, self.source), center, width, function=function))
            done: dict[str, Any] = {"window": (center, width), "scaling": "window"}
        else:
            pixels, done = grey_to_rgb(values, window, self.source, ignore=self._padding(values))
        known: dict[str, Any] = {
            key: self.details[key] for key in ("format", "bits", "orientation_known") if key in self.details
        }
        details = {**known, **done, **self.grid.slice_details(index)}
        modality = "CT" if named else self.modality
        notes = self.details.get("notes", ())
        return prepared_image(pixels, details, self.grid.pixel_spacing, modality, self.source, notes=notes)

    def _padding(self, values: np.ndarray) -> np.ndarray | None:
        """Mask of padding voxels, which are outside the field of view; None if the file defines no padding value."""
        ends = self.details.get("padding")
        return None if ends is None else (values >= ends[0]) & (values <= ends[1])

    def labels(self, index: int) -> np.ndarray:
        """Labels of a slice.

        Parameters
        ----------
        index
            The slice, counted from 0.

        Returns
        -------
        numpy.ndarray
            Integer labels of shape (rows, columns); NaN becomes 0, the background.

        Raises
        ------
        InputError
            If the slice does not exist, or its values are not integers.
        """
        return as_labels(self.values[check_slice(index, len(self), self.source)], self.source)

    def to_file_order(self, mask: np.ndarray) -> np.ndarray:
        """Reorder a mask of the volume to the order of its file.

        Parameters
        ----------
        mask
            Array of shape (slices, rows, columns).

        Returns
        -------
        numpy.ndarray
            The mask along the axes of the file, the data of a NIfTI file with the affine ``grid.file_affine``. For a
            DICOM series, the axes are columns, rows and slices in the order of ``details["files"]``.

        Raises
        ------
        InputError
            If the mask has another shape.
        """
        return self.grid.to_file_order(mask)


def as_labels(values: np.ndarray, name: str) -> np.ndarray:
    """Return labels as integers, 0 for NaN; InputError if they have fractions or are infinite."""
    if values.dtype.kind != "f":
        return values
    if (empty := np.isnan(values)).any():
        values = np.where(empty, 0, values)
    # Label maps are often stored as floats; values with fractions are those of an image or a probability map.
    if not np.isfinite(values).all() or not np.array_equal(values, np.rint(values)) or np.abs(values).max() > 2**31:
        raise InputError(f"{name}: the values are not labels, because they have fractions: give the label file")
    return values.astype(np.int32)


def read_volume(path: str | os.PathLike[str], channel: int | None = None, *, series: int | None = None) -> Volume:
    """Read a volume from a NIfTI, NRRD, MHA or MHD file, a DICOM series or multi-frame file, or a DICOM SEG.

    Parameters
    ----------
    path
        The file, whose extension is ignored, or a folder or zip file with the files of a DICOM series. A zip file may
        also contain a single file of another format.
    channel
        Index of the volume in a 4-D NIfTI file (sequences, frames), counted from 0; required if there are several.
    series
        Number of the DICOM series in a folder or zip file, from 1; see `unibiomed.images.series.open_series`.

    Returns
    -------
    Volume
        The volume in display order.

    Raises
    ------
    InputError
        If the path does not exist, is not a grey volume, is damaged or too large; if a folder contains no series,
        several, or one with missing slices; or if the channel is missing or does not exist.
    """
    if (file := Path(path)).is_file() and is_zip(_head(file)):
        return _read_zip(file, channel, series)
    stored, name = _open(path, channel, series)
    values = stored.grid.turn(stored.load())
    modality = stored.modality
    if modality is None and not stored.details["format"].startswith("DICOM"):
        modality = "CT" if _is_hounsfield(values) else None
    return Volume(values, stored.grid, modality, name, stored.details)


def read_volume_header(path: str | os.PathLike[str], channel: int | None = None) -> tuple[Grid, str | None]:
    """Read the geometry of a volume without its voxels.

    Parameters
    ----------
    path, channel
        As for `read_volume`.

    Returns
    -------
    tuple of Grid and str or None
        The grid, and the modality in the header, which only DICOM has.

    Raises
    ------
    InputError
        As for `read_volume`.
    """
    stored, _ = _open(path, channel)
    return stored.grid, stored.modality


def count_channels(path: str | os.PathLike[str]) -> int:
    """Number of volumes in a file, for example the sequences or frames of a 4-D NIfTI file; 1 for other formats.

    Raises
    ------
    InputError
        As for `read_volume`.
    """
    stored, _ = _open(path, 0)
    return int(stored.details.get("channels", 1))


def _read_zip(file: Path, channel: int | None, series: int | None) -> Volume:
    _, name = check_file(file)
    with unpacked(file, name) as (folder, names):
        files = sorted(folder.iterdir())
        alone = files[0] if len(files) == 1 and sniff(_head(files[0])) != "DICOM" else folder
        try:
            volume = read_volume(alone, channel, series=series)
        except InputError as error:
            # what the temporary files are called is of no use to anybody
            reason = str(error).replace(f"{shown(folder.name)}/", "").removeprefix(f"{shown(alone.name)}: ")
            raise InputError(f"{name}: {reason.replace('the folder contains', 'the zip file contains')}") from None
    members = {"files": tuple(names[one] for one in volume.details["files"])} if "files" in volume.details else {}
    return replace(volume, source=name, details={**volume.details, **members})


def _head(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(HEADER_BYTES)
    except OSError:
        raise InputError(f"{shown(file.name)}: the file cannot be read: check its permissions") from None


def _open(path: str | os.PathLike[str], channel: int | None, series: int | None = None) -> tuple[StoredVolume, str]:
    if Path(path).is_dir():
        # Resolved, because the name of "." is empty.
        name = shown(Path(path).resolve().name)
        check_slice(channel or 0, 1, name, "channel")
        return open_series(Path(path), name, series), name
    file, name = check_file(path)
    head = _head(file)
    if kind := text_header_kind(head):
        check_slice(channel or 0, 1, name, "channel")
        return open_text_header(file, kind, name), name
    kind = sniff(head)
    zipped = kind == "gzip"
    if kind == "DICOM" and is_segmentation(file):
        check_slice(channel or 0, 1, name, "channel")
        return open_segmentation(file, name), name
    if kind == "DICOM":
        check_slice(channel or 0, 1, name, "channel")
        return open_frames(file, name), name
    if nifti_kind(unzip_head(file) if zipped else head) != "single":
        raise InputError(
            f"{name}: not a volume in a supported format: give NIfTI, NRRD, MHA, or the folder of a DICOM series"
        )
    return _open_nifti(file, name, zipped, channel), name


def _open_nifti(file: Path, name: str, zipped: bool, channel: int | None) -> StoredVolume:
    def reading(look: Callable[[Any], T]) -> T:
        with quiet():
            try:
                with open_nifti(file, zipped) as stream:
                    return look(read_header(stream, name))
            except InputError:
                raise
            except Exception:
                # nibabel, gzip and zlib raise different exceptions for damaged data.
                raise InputError(f"{name}: this NIfTI file is truncated or damaged: export it again") from None

    def header(image: Any) -> StoredVolume:
        if channel is None:
            check_single(image, name, "choose a channel, or save the volume you want as a 3-D file")
        else:
            check_slice(channel, channel_count(image), name, "channel")
        channels = {"channels": channel_count(image)} if channel_count(image) > 1 else {}
        if image.get_data_dtype().kind not in "buif":
            raise InputError(f"{name}: the voxels are not grey values: give single slices of this file")
        scaled = image.dataobj.slope != 1 or image.dataobj.inter != 0
        grid = nifti_grid(image, name)
        if scaled and 8 * np.prod(grid.shape, dtype=np.float64) > MAX_BYTES:
            raise InputError(f"{name}: the rescaled volume has more than {MAX_BYTES >> 30} GiB: crop it first")
        return StoredVolume(grid, lambda: reading(voxels), None, nifti_details(image) | channels)

    def voxels(image: Any) -> np.ndarray:
        further = image.shape[3:]
        chosen = np.unravel_index(channel or 0, further, order="F") if further else ()
        values = np.asarray(image.dataobj[(..., *map(int, chosen))])
        return values.reshape((*values.shape, 1, 1)[:3])

    return reading(header)


def _is_hounsfield(values: np.ndarray) -> bool:
    """Apply `looks_like_hounsfield` to about sixteen slices."""
    some = values[:: max(1, len(values) // 16)]
    return values.size > 0 and values.dtype.kind in "if" and not np.isinf(some).any() and looks_like_hounsfield(some)
