"""Pixels of records: pictures, masks and slices of volumes from files, pictures from the bytes of a shard."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from unibiomed.errors import DataError, InputError
from unibiomed.images import read_image

__all__ = ["MAX_MASK_PIXELS", "load_mask", "load_picture"]

MAX_MASK_PIXELS = 100_000_000
_MASK_FORMATS = ("PNG", "BMP", "TIFF")
_MASK_MODES = ("1", "L", "P", "I", "I;16", "I;16B")
_BROKEN = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def load_picture(
    source: Path | bytes, name: str, modality: str, slice_index: int | None, window: str | None
) -> np.ndarray:
    """Read a picture.

    Parameters
    ----------
    source : Path or bytes
        A file that `unibiomed.images` reads, or a whole PNG or JPEG file.
    name : str
        What to call it in messages.
    modality : str
        Gives the slices of a volume their window where `window` does not.
    slice_index : int or None
        Slice of a volume; None for a flat image.
    window : str or None
        Window of a volume's slices.

    Returns
    -------
    numpy.ndarray
        ``(height, width, 3)`` uint8.

    Raises
    ------
    DataError
        The file is missing, broken or too large.
    """
    try:
        if isinstance(source, bytes):
            with Image.open(io.BytesIO(source), formats=("PNG", "JPEG")) as picture:
                if picture.width * picture.height > MAX_MASK_PIXELS:
                    raise DataError(f"{name}: image of {picture.width} x {picture.height} pixels is too large")
                return np.asarray(picture.convert("RGB"))
        return read_image(source, slice_index=slice_index, window=window).pixels
    except InputError as error:
        raise DataError(str(error)) from error
    except _BROKEN as error:
        raise DataError(f"{name}: the image in the shard is broken; build the shard again") from error


def load_mask(
    path: Path, height_width: tuple[int, int] | None, values: tuple[int, ...] | None, slice_index: int | None
) -> np.ndarray:
    """Read a mask file.

    Parameters
    ----------
    path : Path
        Single-channel PNG, BMP or TIFF, or a label volume.
    height_width : tuple of int or None
        Size that the mask has to have.
    values : tuple of int or None
        Values that count; None for every non-zero one.
    slice_index : int or None
        Slice of a label volume.

    Returns
    -------
    numpy.ndarray
        ``(height, width)`` bool.

    Raises
    ------
    DataError
        The file is missing, broken, too large, has colours, or does not fit.
    """
    assert slice_index is None, "label volumes are read by read_volume"
    numbers = _flat_numbers(path)
    if height_width is not None and numbers.shape != tuple(height_width):
        expected = f"{height_width[1]} x {height_width[0]}"
        raise DataError(
            f"{path.name}: mask is {numbers.shape[1]} x {numbers.shape[0]} pixels, its image {expected}; "
            "make them equal"
        )
    return numbers > 0 if values is None else np.isin(numbers, values)


def _flat_numbers(path: Path) -> np.ndarray:
    try:
        with Image.open(path, formats=_MASK_FORMATS) as image:
            width, height = image.size
            if width * height > MAX_MASK_PIXELS:
                raise DataError(f"{path.name}: mask of {width} x {height} pixels is too large; scale it down")
            if image.mode not in _MASK_MODES:
                raise DataError(f"{path.name}: mask has mode {image.mode}; save it with one channel of class numbers")
            return np.asarray(image)
    except FileNotFoundError as error:
        raise DataError(f"{path.name}: mask file is missing from {path.parent}; restore it") from error
    except _BROKEN as error:
        raise DataError(f"{path.name}: cannot be read as a mask; save it again as PNG") from error
