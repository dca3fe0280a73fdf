"""Flat mask files: the numbers that pictures hold, in the ways in which people save them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

from unibiomed.errors import DataError, InputError
from unibiomed.images.tiff import stack_size
from unibiomed.images.volume import as_labels

__all__ = ["MAX_MASK_PIXELS", "mask_numbers"]

MAX_MASK_PIXELS = 100_000_000
_LOSSLESS = ("PNG", "BMP", "TIFF", "GIF")
"""A GIF's numbers are those of its palette."""
_ONE_CHANNEL = ("1", "L", "P", "I", "I;16", "I;16B", "F")
_EQUAL_CHANNELS = ("RGB", "RGBA", "LA")
_STRETCHED: dict[object, int] = {"L;2": 85, "L;2I": 85, "L;4": 17, "L;4I": 17}
"""Pillow stretches greys of 2 and 4 bits to 0 to 255: by how much, by its name of how they are stored."""
_BITS, _SAMPLE_FORMAT = 258, 339
_JPEG_NOISE = 8
"""Levels by which JPEG makes the channels of a grey picture differ at most."""
_JPEG_BLACK, _JPEG_WHITE, _JPEG_SHARE = 64, 191, 0.97
"""A JPEG is black and white if this share of its pixels is nearly one of both."""


def mask_numbers(path: Path) -> np.ndarray:
    """Read the numbers of a flat mask file.

    Parameters
    ----------
    path : Path
        PNG, BMP, TIFF or GIF, of one channel or of several that are equal; or a black and white JPEG.

    Returns
    -------
    numpy.ndarray
        ``(height, width)`` bool or whole numbers, as stored; of a JPEG 0 and 255.

    Raises
    ------
    DataError
        The file is missing, broken or too large, has colours or fractions, or is a JPEG with other numbers than black
        and white, which JPEG does not keep.
    """
    try:
        with Image.open(path, formats=(*_LOSSLESS, "JPEG")) as image:
            if getattr(image, "n_frames", 1) > 1 and image.format in _LOSSLESS:
                raise DataError(f"{path.name}: mask has several pages: save each as a file of its own")
            if image.format == "TIFF" and stack_size(image, path.name) > 1:
                raise DataError(f"{path.name}: mask is a stack of several planes: save each as a file of its own")
            width, height = image.size
            if width * height > MAX_MASK_PIXELS:
                raise DataError(f"{path.name}: mask of {width} x {height} pixels is too large: scale it down")
            return _from_jpeg(image, path.name) if image.format not in _LOSSLESS else _stored(image, path.name)
    except FileNotFoundError as error:
        raise DataError(f"{path.name}: mask file is missing from {path.parent}: restore it") from error
    except InputError as error:
        raise DataError(str(error)) from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path.name}: cannot be read as a mask: save it again as PNG") from error


def _stored(image: ImageFile.ImageFile, name: str) -> np.ndarray:
    """Numbers of a file that keeps them."""
    mode = image.mode
    if mode not in (*_ONE_CHANNEL, *_EQUAL_CHANNELS):
        raise DataError(f"{name}: mask has mode {mode}: save it with one channel of class numbers")
    if mode in _EQUAL_CHANNELS:
        return _of_equal_channels(image, name)
    stretched = _stretched(image)
    numbers: np.ndarray = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    if mode == "L" and tags.get(_SAMPLE_FORMAT, (1,))[0] == 2:
        numbers = numbers.view(np.int8)
    if mode == "F":
        numbers = as_labels(numbers, name)
    return numbers // stretched if stretched > 1 else numbers


def _of_equal_channels(image: ImageFile.ImageFile, name: str) -> np.ndarray:
    """The one channel of a grey mask that was saved as a colour picture, 0 where it is transparent."""
    tags, tiles = getattr(image, "tag_v2", {}), image.tile
    if int(tags.get(_BITS, (8,))[0]) > 8 or any(";16" in str(tile[3]) for tile in tiles):
        # Pillow keeps the upper half of each number alone.
        raise DataError(f"{name}: mask has 16-bit colours: save it with one channel of class numbers")
    channels = np.asarray(image)
    numbers = channels[..., 0]
    if image.mode != "LA" and not all(np.array_equal(numbers, channels[..., k]) for k in (1, 2)):
        raise DataError(f"{name}: mask has colours (mode {image.mode}): save it with one channel of class numbers")
    if image.mode == "RGB":
        return numbers
    alpha = channels[..., -1]
    if not np.isin(alpha, (0, 255)).all():
        raise DataError(f"{name}: mask is half transparent: save it with one channel of class numbers")
    return np.where(alpha > 0, numbers, 0).astype(np.uint8)


def _from_jpeg(image: ImageFile.ImageFile, name: str) -> np.ndarray:
    """0 and 255 of a black and white JPEG: compression changes numbers, so that others cannot be told."""
    cure = "JPEG changes the numbers of a mask, so that only black and white can be told: save it as PNG"
    if image.mode not in ("L", "RGB"):
        raise DataError(f"{name}: mask is a JPEG of mode {image.mode}; {cure}")
    values = np.asarray(image)
    if values.ndim == 3:
        if int(np.ptp(values.astype(np.int16), axis=2).max(initial=0)) > _JPEG_NOISE:
            raise DataError(f"{name}: mask is a JPEG with colours; {cure}")
        values = np.rint(values.mean(axis=2)).astype(np.uint8)
    clear = (values <= _JPEG_BLACK) | (values >= _JPEG_WHITE)
    marked = values >= 128
    # Without white, what is dark may be classes with small numbers.
    if values.any() and (clear.mean() < _JPEG_SHARE or not marked.any()):
        raise DataError(f"{name}: mask is a JPEG with grey levels; {cure}")
    return marked.astype(np.uint8) * np.uint8(255)


def _stretched(image: ImageFile.ImageFile) -> int:
    """By how much the numbers of a picture that is not decoded yet are going to be stretched; 1 for most."""
    stored = image.tile[0][3] if image.tile else None
    # of a TIFF it is the first of several arguments
    return _STRETCHED.get(stored[0] if isinstance(stored, tuple) else stored, 1)
