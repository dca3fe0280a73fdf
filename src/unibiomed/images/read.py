"""Reading of image files; the format is detected from the content, not from the file extension."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..errors import InputError
from .dicom import read_dicom
from .image import MedicalImage, prepared_image
from .limits import MAX_BYTES, shown, whole_number
from .nifti import HEADER_BYTES, is_truncated_nifti, nifti_kind, read_nifti, unzip_head
from .raster import read_raster
from .windowing import parse_window

FORMATS = "PNG, JPEG, TIFF, BMP, GIF, WebP, JPEG 2000, DICOM or NIfTI"
"""Supported formats of single images, for messages."""

_RASTER_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
)


def read_image(
    path: str | os.PathLike[str],
    *,
    slice_index: int | None = None,
    window: str | tuple[float, float] | None = None,
) -> MedicalImage:
    """Read one image from a PNG, JPEG, TIFF, BMP, GIF, WebP, JPEG 2000, DICOM or NIfTI file.

    Parameters
    ----------
    path
        The file; its extension is ignored.
    slice_index
        Frame of a multi-frame DICOM file or an animation, page of a TIFF file, or slice of a NIfTI volume, counted from
        0. Required if there are several frames or pages; the default for volumes is the middle slice.
    window
        Display window for grey values: a name of `WINDOWS`, ``"centre,width"``, or a pair of numbers. By default, DICOM
        files use the window in their header, 8-bit values are not scaled, and other values are scaled from their 0.5th
        to 99.5th percentile.

    Returns
    -------
    MedicalImage
        The image, with spacing and modality if the file gives them.

    Raises
    ------
    InputError
        If the file is missing, empty, a folder, not an image, damaged or too large, contains infinite values, or if the
        slice or window does not apply to it.
    """
    if window is not None:
        window = window if isinstance(window, str) else parse_window(window)
        parse_window(window)
    if slice_index is not None:
        slice_index = whole_number(slice_index)
    file, name = check_file(path)
    try:
        with file.open("rb") as stream:
            head = stream.read(HEADER_BYTES)
    except OSError:
        raise InputError(f"{name}: the file cannot be read: check its permissions") from None
    kind = sniff(head)
    if kind == "gzip":
        head = unzip_head(file)
        inner = nifti_kind(head)
        if inner is None and is_truncated_nifti(head):
            raise InputError(f"{name}: this NIfTI file is truncated in its header: copy or export it again")
        if inner is None:
            raise InputError(f"{name}: this gzip file contains no NIfTI volume: unpack it and give the image inside")
        kind = "NIfTI pair" if inner == "pair" else "NIfTI gzip"
    if kind is None and is_truncated_nifti(head):
        raise InputError(f"{name}: this NIfTI file is truncated in its header: copy or export it again")
    if kind is None:
        raise InputError(f"{name}: not an image in a supported format: give {FORMATS}")
    if kind == "NIfTI pair":
        raise InputError(f"{name}: a NIfTI pair (.hdr and .img) is not supported: save it as one .nii file")
    if kind == "DICOM":
        return read_dicom(file, name, slice_index=slice_index, window=window)
    if kind in ("NIfTI", "NIfTI gzip"):
        return read_nifti(file, name, zipped=kind == "NIfTI gzip", slice_index=slice_index, window=window)
    pixels, details = read_raster(file, kind, name, slice_index=slice_index, window=window)
    return prepared_image(pixels, details, None, None, name)


def sniff(head: bytes) -> str | None:
    """Format of a file by its first bytes.

    Parameters
    ----------
    head
        The first 540 bytes, or the whole content of shorter files.

    Returns
    -------
    str or None
        ``"DICOM"``, ``"PNG"``, ``"JPEG"``, ``"TIFF"``, ``"BMP"``, ``"GIF"``, ``"WEBP"``, ``"JPEG2000"``, ``"NIfTI"``,
        ``"NIfTI pair"``, ``"gzip"`` (which may contain NIfTI), or None for other formats.
    """
    # DICOM is checked first, because its preamble of 128 bytes may be a TIFF header.
    if head[128:132] == b"DICM":
        return "DICOM"
    for magic, kind in _RASTER_MAGIC:
        if head.startswith(magic):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    nifti = nifti_kind(head)
    if nifti is not None:
        return "NIfTI" if nifti == "single" else "NIfTI pair"
    return "DICOM" if _bare_dicom(head) else None


def _bare_dicom(head: bytes) -> bool:
    """Whether a DICOM data set without preamble starts here: an element of group 2 or 8 with a valid VR or length."""
    if len(head) < 8 or head[:2] not in (b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08"):
        return False
    big = head[0] == 0
    if head[4:6].isalpha() and head[4:6].isupper():
        return True
    return not big and int.from_bytes(head[2:4], "little") <= 0x0070 and int.from_bytes(head[4:8], "little") <= 1024


def check_file(path: str | os.PathLike[str]) -> tuple[Path, str]:
    """Return the path of an existing regular file that is neither empty nor too large, and its name for messages."""
    try:
        file = Path(path)
        name = shown(file.name or str(file))
        status = file.stat()
    except FileNotFoundError:
        raise InputError(f"{shown(str(path))}: no such file: check the path") from None
    except (OSError, ValueError, TypeError):
        raise InputError(f"{shown(str(path))}: the path cannot be opened: check it and its permissions") from None
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{name}: this is a folder: give one image file inside it")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{name}: this is not a regular file: save the image to one")
    if status.st_size == 0:
        raise InputError(f"{name}: the file is empty: copy or export it again")
    if status.st_size > MAX_BYTES:
        raise InputError(f"{name}: the file exceeds {MAX_BYTES >> 30} GiB: crop or downsample the image first")
    return file, name
