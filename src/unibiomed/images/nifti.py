"""NIfTI files read with nibabel: one slice in radiological orientation."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ..errors import InputError
from .grid import Grid, make_grid
from .image import MedicalImage, prepared_image
from .limits import MAX_BYTES, check_size, check_slice, quiet
from .modality import looks_like_hounsfield
from .notes import geometry_notes
from .pixels import Window, color_to_rgb, grey_to_rgb
from .windowing import is_named_window

HEADER_BYTES = 540
"""Size of the NIfTI-2 header in bytes; that of NIfTI-1 is 348."""

_MAX_OFFSET = 16 * 2**20
_MM_PER_UNIT = {"meter": 1000.0, "mm": 1.0, "micron": 0.001}


def nifti_kind(head: bytes) -> str | None:
    """Kind of NIfTI file by its first bytes: ``"single"`` (.nii), ``"pair"`` (.hdr of a .hdr/.img pair), or None."""
    magic = head[344:348]
    if magic == b"n+1\0" or head[4:8] == b"n+2\0":
        return "single"
    return "pair" if magic == b"ni1\0" or head[4:8] == b"ni2\0" else None


def is_truncated_nifti(head: bytes) -> bool:
    """Whether the bytes are the start of a NIfTI file that ends within its header."""
    sizes = {int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")}
    return (348 in sizes and len(head) < 348) or (540 in sizes and len(head) < 540)


def read_nifti(path: Path, name: str, *, zipped: bool, slice_index: int | None, window: Window) -> MedicalImage:
    """Read one slice of a NIfTI volume.

    Plane, order and orientation of the slices are defined in `unibiomed.images.grid`.

    Parameters
    ----------
    path
        The file.
    name
        Name of the file for messages.
    zipped
        Whether the file is gzip-compressed.
    slice_index
        The slice, counted from 0; None for the middle slice.
    window
        Window for the values, or None.

    Returns
    -------
    MedicalImage
        The slice. Its details contain ``slice``, ``slices``, ``plane``, ``orientation`` (of the file, for example
        "LPS"), ``orientation_known`` (False if the file does not define it), and the fields that `mask_to_slice` needs:
        ``file_shape``, ``file_axis``, ``file_slice``, ``file_transpose`` and ``file_flip``. The modality is CT if the
        window is named or the values are Hounsfield units, otherwise None, because NIfTI does not store it.

    Raises
    ------
    InputError
        If the file is damaged or too large, has more than three dimensions, no valid orientation or infinite values, or
        if the slice or window does not apply to it.
    """
    with quiet():
        try:
            with open_nifti(path, zipped) as file:
                image = read_header(file, name)
                check_single(image, name, "save the volume you want as a 3-D file")
                return _show(image, name, slice_index, window)
        except InputError:
            raise
        except Exception:
            # nibabel, gzip and zlib raise different exceptions for damaged data.
            raise InputError(f"{name}: this NIfTI file is truncated or damaged: export it again") from None


def mask_to_slice(mask: np.ndarray, details: Mapping[str, Any]) -> np.ndarray:
    """Reorder a mask of a slice to the orientation of the file.

    Parameters
    ----------
    mask
        Array of shape ``(height, width)``, on the pixels of the image.
    details
        ``MedicalImage.details`` of a slice of a volume.

    Returns
    -------
    numpy.ndarray
        The mask for index ``details["file_slice"]`` of axis ``details["file_axis"]`` in a volume of shape
        ``details["file_shape"]``, which is the shape of the file, extended with 1 to three axes.

    Raises
    ------
    InputError
        If the details are not those of a slice, or the mask has another size.
    """
    try:
        flip, transpose = details["file_flip"], details["file_transpose"]
        shape = [n for axis, n in enumerate(details["file_shape"]) if axis != details["file_axis"]]
    except KeyError:
        raise InputError("the details are not those of a slice: give MedicalImage.details of a NIfTI slice") from None
    turned = np.flip(mask, axis=tuple(axis for axis in (0, 1) if flip[axis]))
    turned = turned.T if transpose else turned
    if list(turned.shape) != shape:
        raise InputError(f"the mask of shape {mask.shape} does not match the slice: give it on the pixels of the image")
    return np.ascontiguousarray(turned)


def open_nifti(path: Path, zipped: bool) -> io.BufferedIOBase:
    """Open a NIfTI file, with decompression if needed."""
    return gzip.GzipFile(path, "rb") if zipped else path.open("rb")


def unzip_head(path: Path, count: int = HEADER_BYTES) -> bytes:
    """Decompress at most the first ``count`` bytes of a gzip file."""
    with path.open("rb") as file:
        inflater, head = zlib.decompressobj(16 + zlib.MAX_WBITS), b""
        try:
            while len(head) < count and not inflater.eof and (chunk := inflater.unconsumed_tail or file.read(4096)):
                head += inflater.decompress(chunk, count - len(head))
        except zlib.error:
            return head
    return head


def read_header(file: io.BufferedIOBase, name: str) -> Any:
    """Read and check the header; return a nibabel image whose voxels are not read yet."""
    head = file.read(HEADER_BYTES)
    file.seek(0)
    kind = nib.Nifti2Image if head[4:8] == b"n+2\0" else nib.Nifti1Image
    header = kind.header_class.from_fileobj(file, check=False)
    shape = [int(n) for n in header.get_data_shape()]
    if len(shape) < 2 or min(shape) <= 0:
        raise InputError(f"{name}: this NIfTI file contains no image (shape {tuple(shape)}): give another file")
    total = header.get_data_dtype().itemsize
    for n in shape:
        total *= n
    if total > MAX_BYTES:
        raise InputError(f"{name}: the volume has {total >> 30} GiB, more than {MAX_BYTES >> 30} GiB: crop it first")
    # Header extensions end at the offset and are read completely.
    if not 0 <= float(header["vox_offset"]) <= _MAX_OFFSET:
        raise InputError(f"{name}: this NIfTI file is damaged (invalid data offset): export it again")
    # Checked here, because nibabel replaces sizes of 0 by 1.
    sizes = np.asarray(header["pixdim"][1 : 1 + min(len(shape), 3)], dtype=np.float64)
    known = bool(header["sform_code"] > 0) or bool(np.isfinite(sizes).all() and (sizes != 0).all())
    file.seek(0)
    image = kind.from_stream(file)
    image.extra["sizes_known"] = known
    return image


def channel_count(image: Any) -> int:
    """Number of volumes in a nibabel image, for example the sequences of an MRI."""
    return math.prod(int(n) for n in image.shape[3:])


def check_single(image: Any, name: str, advice: str) -> None:
    """Raise InputError with this advice if a nibabel image has several volumes."""
    if channel_count(image) > 1:
        raise InputError(f"{name}: this NIfTI file has the shape {'x'.join(map(str, image.shape))}: {advice}")


def nifti_grid(image: Any, name: str) -> Grid:
    """Geometry of a nibabel image; InputError if its orientation is not valid."""
    shape = tuple(int(n) for n in (*image.shape, 1, 1)[:3])
    unit = _MM_PER_UNIT.get(image.header.get_xyzt_units()[0], 1.0)
    known: bool = image.extra["sizes_known"]
    return make_grid(shape, image.affine, name, unit=unit, flat=len(image.shape) < 3, sizes_known=known)


def nifti_details(image: Any) -> dict[str, Any]:
    """Details of the file that apply to all slices."""
    known = bool(image.header["sform_code"] > 0 or image.header["qform_code"] > 0)
    return {
        "format": "NIfTI",
        "bits": 8 * image.get_data_dtype().itemsize,
        "orientation_known": known,
        "notes": tuple(geometry_notes(orientation_known=known, sizes_known=image.extra["sizes_known"])),
    }


def _show(image: Any, name: str, slice_index: int | None, window: Window) -> MedicalImage:
    """Read a slice, reorient it, and create the image."""
    if len(image.shape) < 3 and slice_index is not None:
        raise InputError(f"{name}: this NIfTI file is a single image, so no slice can be chosen: leave the slice out")
    grid = nifti_grid(image, name)
    count = grid.shape[0]
    place = grid.slice_details(count // 2 if slice_index is None else check_slice(slice_index, count, name))
    check_size(*grid.shape[1:], name)
    values = _cut(image, place["file_axis"], place["file_slice"])
    turned = np.swapaxes(values, 0, 1) if place["file_transpose"] else values
    flips = tuple(axis for axis in (0, 1) if place["file_flip"][axis])
    turned = np.ascontiguousarray(np.flip(turned, axis=flips))

    modality = None
    if turned.ndim == 3:
        pixels, done = color_to_rgb(turned, window, name)
    else:
        pixels, done = grey_to_rgb(turned, window, name)
        if is_named_window(window) or looks_like_hounsfield(turned):
            modality = "CT"
    known = nifti_details(image)
    return prepared_image(pixels, {**known, **done, **place}, grid.pixel_spacing, modality, name, notes=known["notes"])


def _cut(image: Any, file_axis: int, file_slice: int) -> np.ndarray:
    """Read one rescaled slice with its two axes in file order; RGB voxels have a third axis."""
    cutter: list[Any] = [slice(None)] * 2 + [0] * (len(image.shape) - 2)
    if len(image.shape) > 2:
        cutter[2] = slice(None)
        cutter[file_axis] = file_slice
    values = np.asarray(image.dataobj[tuple(cutter)])
    if values.dtype.fields:
        return np.stack([values[channel] for channel in values.dtype.fields], axis=-1)
    return values
