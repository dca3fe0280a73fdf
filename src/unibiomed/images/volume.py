"""Reading whole volumes: NIfTI, NRRD, MHA and MHD files and folders that hold a DICOM series."""

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
from .nrrd_mha import open_worded, worded_kind
from .pixels import Window, check_values, grey_to_rgb, stack_grey
from .read import check_file, sniff
from .series import open_series
from .windowing import apply_window, is_named_window, percentile_range

T = TypeVar("T")

_LOOKED_AT = 2_000_000
"""Voxels that the percentiles of a volume are taken from: every n-th is enough, and all would take seconds."""


@dataclass(frozen=True, eq=False)
class Volume:
    """A grey volume, or one of labels, in the order in which it is looked at.

    Slices are cut, counted and turned exactly as `read_image` does it, whatever the order in the file: slice `k` here
    is the picture that ``read_image(path, slice_index=k)`` gives of a NIfTI file.

    Raises
    ------
    InputError
        If the values are not real numbers of the shape of the grid.
    """

    values: np.ndarray = field(repr=False)
    """(slices, rows, columns), read-only: rescaled (Hounsfield units for CT), integers where they were stored so."""

    grid: Grid
    """Where the voxels lie in the patient and in the file."""

    modality: str | None = None
    """One of `MODALITIES`: from a DICOM header, CT where the values are Hounsfield units, else None."""

    source: str = "array"
    """Name of the file or folder, without the folder that it is in."""

    details: dict[str, Any] = field(default_factory=dict)
    """What is known of the file, such as ``{"format": "NIfTI", "orientation_known": True}``; no patient data."""

    def __post_init__(self) -> None:
        if self.values.dtype.kind not in "buif" or self.values.shape != self.grid.shape:
            raise InputError(
                f"{self.source}: {self.values.dtype} of shape {self.values.shape} is not a grey volume of shape "
                f"{self.grid.shape}: give one number a voxel"
            )
        if self.values.flags.writeable:
            view = self.values.view()
            view.flags.writeable = False
            object.__setattr__(self, "values", view)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance of voxel centres in mm: between slices, rows, columns."""
        return self.grid.spacing

    @property
    def plane(self) -> str:
        """``"axial"``, ``"coronal"`` or ``"sagittal"``."""
        return self.grid.plane

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) float64: (slice, row, column, 1) to mm in the patient, axes to the right, front and head (RAS)."""
        return self.grid.affine

    def __len__(self) -> int:
        return self.grid.shape[0]

    @cached_property
    def range_window(self) -> tuple[float, float]:
        """One window (centre, width) for all slices, so that they stay comparable: 0.5th to 99.5th percentile.

        Zeros are left out of volumes without negative values, as for single images. The width is positive, also of a
        volume of one value, which is then black.
        """
        step = max(1, round((self.values.size / _LOOKED_AT) ** (1 / 3)))
        values = self.values[::step, ::step, ::step]
        values = values[np.isfinite(values)] if values.dtype.kind == "f" else values.reshape(-1)
        ignore = self._padding(values)
        low, high = percentile_range(values, ignore=ignore) if values.size else (0.0, 0.0)
        width = max(high - low, 1e-6)
        return low + width / 2, width

    def slice_image(self, index: int, window: Window = None) -> MedicalImage:
        """Show a slice.

        Parameters
        ----------
        index
            The slice, from 0.
        window
            A name of `WINDOWS`, ``"centre,width"``, or a pair of numbers, such as `range_window`. Without it, as
            `read_image` does: by the window in the headers of a DICOM series, 8-bit values as they are, all else by
            the percentiles of the slice.

        Returns
        -------
        MedicalImage
            The slice, with what `mask_to_slice` needs in its details.

        Raises
        ------
        InputError
            If there is no such slice, it holds infinite values, or the window does not fit.
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
        """Mark the voxels outside the scanner's field; None where the file names no value for them."""
        ends = self.details.get("padding")
        return None if ends is None else (values >= ends[0]) & (values <= ends[1])

    def labels(self, index: int) -> np.ndarray:
        """Numbers of the labels on a slice.

        Parameters
        ----------
        index
            The slice, from 0.

        Returns
        -------
        numpy.ndarray
            (rows, columns) of integers.

        Raises
        ------
        InputError
            If there is no such slice, or values are not whole numbers; NaN is background.
        """
        return as_labels(self.values[check_slice(index, len(self), self.source)], self.source)

    def to_file_order(self, mask: np.ndarray) -> np.ndarray:
        """Turn a mask of the volume back to the order of its file, to be written beside it.

        Parameters
        ----------
        mask
            Array of the shape (slices, rows, columns).

        Returns
        -------
        numpy.ndarray
            The same along the axes of the file: with ``grid.file_affine`` it makes a NIfTI file on the same voxels. Of
            a DICOM series, the axes are columns, rows and slices in the order of ``details["files"]``.

        Raises
        ------
        InputError
            If the mask has another shape.
        """
        return self.grid.to_file_order(mask)


def as_labels(values: np.ndarray, name: str) -> np.ndarray:
    """Return label numbers as integers, 0 for NaN; InputError where they have fractions or are infinite."""
    if values.dtype.kind != "f":
        return values
    if (empty := np.isnan(values)).any():
        values = np.where(empty, 0, values)
    # Label maps are often stored as floats; what is no whole number is an image or a probability.
    if not np.isfinite(values).all() or not np.array_equal(values, np.rint(values)) or np.abs(values).max() > 2**31:
        raise InputError(f"{name}: labels are whole numbers, and this file holds fractions: give the label file")
    return values.astype(np.int32)


def read_volume(path: str | os.PathLike[str], channel: int | None = None, *, series: int | None = None) -> Volume:
    """Read a NIfTI, NRRD, MHA or MHD file, the DICOM series in a folder or zip file, or the frames of a DICOM file.

    Parameters
    ----------
    path
        The file, whatever its suffix; or a folder or zip file with the files of a series. A zip file may also hold a
        single file of another format.
    channel
        Which of several volumes in one NIfTI file (4-D: sequences, frames), from 0; without it there must be one.
    series
        Which of several DICOM series in a folder or zip file, from 1; see `unibiomed.images.series.open_series`.

    Returns
    -------
    Volume
        All voxels, turned as they are looked at.

    Raises
    ------
    InputError
        If the path is missing, no grey volume, damaged or too large; a folder holds no series, several, or one with
        missing slices. A file holds several volumes and no channel was chosen, or not this one.
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
    """Read where the voxels of a volume lie, without reading them.

    Parameters
    ----------
    path, channel
        As for `read_volume`.

    Returns
    -------
    tuple of Grid and str or None
        The grid, and the modality where the header of the file gives one, as DICOM does.

    Raises
    ------
    InputError
        As for `read_volume`.
    """
    stored, _ = _open(path, channel)
    return stored.grid, stored.modality


def count_channels(path: str | os.PathLike[str]) -> int:
    """Count the volumes in a file, such as the sequences or frames of a 4-D NIfTI file; 1 for other formats.

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
            raise InputError(f"{name}: {reason.replace('the folder holds', 'the zip file holds')}") from None
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
        # A folder named "." is called by what it is.
        name = shown(Path(path).resolve().name)
        check_slice(channel or 0, 1, name, "channel")
        return open_series(Path(path), name, series), name
    file, name = check_file(path)
    head = _head(file)
    if kind := worded_kind(head):
        check_slice(channel or 0, 1, name, "channel")
        return open_worded(file, kind, name), name
    kind = sniff(head)
    zipped = kind == "gzip"
    if kind == "DICOM":
        check_slice(channel or 0, 1, name, "channel")
        return open_frames(file, name), name
    if nifti_kind(unzip_head(file) if zipped else head) != "single":
        raise InputError(f"{name}: not a volume this reads: give NIfTI, NRRD, MHA, or the folder of a DICOM series")
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
                # nibabel, gzip and zlib each have their own errors for damaged data.
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
            raise InputError(f"{name}: the volume holds more than {MAX_BYTES >> 30} GiB as rescaled: crop it first")
        return StoredVolume(grid, lambda: reading(voxels), None, nifti_details(image) | channels)

    def voxels(image: Any) -> np.ndarray:
        further = image.shape[3:]
        chosen = np.unravel_index(channel or 0, further, order="F") if further else ()
        values = np.asarray(image.dataobj[(..., *map(int, chosen))])
        return values.reshape((*values.shape, 1, 1)[:3])

    return reading(header)


def _is_hounsfield(values: np.ndarray) -> bool:
    """Ask of about sixteen slices, as `read_image` asks of one."""
    some = values[:: max(1, len(values) // 16)]
    return values.size > 0 and values.dtype.kind in "if" and not np.isinf(some).any() and looks_like_hounsfield(some)
