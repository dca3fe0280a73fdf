"""Pictures: PNG, JPEG, TIFF and BMP files, and PIL images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..errors import InputError
from .limits import check_size, check_slice, quiet, too_large, whole_number
from .pixels import Prepared, Window, color_to_rgb, composite_on_black, freeze, grey_to_rgb

_MAX_PAGES = 10_000
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SUBFILE, _SAMPLE_FORMAT = 258, 262, 254, 339


def read_raster(path: Path, kind: str, name: str, *, slice_index: int | None, window: Window) -> Prepared:
    """Decode a picture.

    Parameters
    ----------
    path
        The file.
    kind
        ``"PNG"``, ``"JPEG"``, ``"TIFF"`` or ``"BMP"``, found by its first bytes; no other decoder is tried.
    name
        What to call the file in messages.
    slice_index
        Page of a TIFF that has several, from 0; None for all other pictures.
    window
        Window for grey values, or None.

    Returns
    -------
    Prepared
        Pixels ``(height, width, 3)`` and details: ``format``, ``bits``, ``window``, ``scaling``, ``slice``.

    Raises
    ------
    InputError
        If the file is damaged, too large, of an unsupported kind, or the slice or window does not fit it.
    """
    with quiet():
        try:
            # Given a path, Pillow maps the file into memory, which scrambles TIFF files with a rotation tag.
            with path.open("rb") as file, Image.open(file, formats=[kind]) as picture:
                check_size(picture.height, picture.width, name)
                page = _choose_page(picture, slice_index, name)
                pixels, done = _prepare(picture, window, name)
        except InputError:
            raise
        except Image.DecompressionBombError:
            raise InputError(too_large(name)) from None
        except Exception:
            # Decoders raise whatever they like on damaged data: OSError, SyntaxError, struct.error, MemoryError...
            raise InputError(
                f"{name}: this {kind} file is truncated, damaged or of a rare kind: save it as RGB or 16-bit grey PNG"
            ) from None
    return pixels, {"format": kind, **done, **({} if page is None else {"slice": page})}


def prepare_picture(picture: Image.Image, window: Window, name: str) -> Prepared:
    """Turn a PIL image of any mode into RGB pixels, upright by its EXIF orientation.

    Parameters
    ----------
    picture
        The image; it may still be unread.
    window
        Window for grey values, or None.
    name
        What to call the image in messages.

    Returns
    -------
    Prepared
        Pixels ``(height, width, 3)`` and what was done.

    Raises
    ------
    InputError
        If the image is damaged, too large, of a mode without defined colours, or holds NaN.
    """
    with quiet():
        try:
            return _prepare(picture, window, name)
        except InputError:
            raise
        except Exception:
            # A picture that is still unread is decoded here, and may turn out to be damaged.
            raise InputError(f"{name}: this picture cannot be decoded: load it first, or give its file") from None


def _prepare(picture: Image.Image, window: Window, name: str) -> Prepared:
    check_size(picture.height, picture.width, name)
    bits, white_is_zero, unsigned = _stored(picture)
    reduced = picture.mode not in ("F", "I") and not picture.mode.startswith("I;16") and bits > 8
    picture.load()
    if picture.format != "TIFF":
        # Pillow turns TIFF files itself while loading, and would turn them again after a change of page.
        picture = ImageOps.exif_transpose(picture)
    check_size(picture.height, picture.width, name)
    mode = picture.mode
    if mode in ("1", "L", "P", "RGB") and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    elif mode == "1":
        picture = picture.convert("L")
    elif mode == "La":
        picture = picture.convert("LA")
    elif mode in ("PA", "RGBa"):
        picture = picture.convert("RGBA")
    elif mode in ("P", "RGBX", "CMYK", "YCbCr", "HSV"):
        picture = picture.convert("RGB")
    if picture.mode not in ("L", "LA", "RGB", "RGBA", "I", "F") and not picture.mode.startswith("I;16"):
        raise InputError(f"{name}: pictures of the kind {picture.mode} are not supported: save it as RGB or grey PNG")
    values = np.asarray(picture)
    if reduced and values.max(initial=0) < 16:
        # Pillow keeps the upper 8 of 16 bits; a 12-bit scan stored that way would silently turn black.
        raise InputError(
            f"{name}: its 16-bit colours use only the lowest values, which 8 bits cannot show: save it as 16-bit grey"
        )
    if picture.mode == "LA":
        values = composite_on_black(values)[..., 0]
    if picture.mode == "I" and unsigned:
        values = values.view(np.uint32)
    if values.ndim == 3:
        pixels, done = color_to_rgb(values, window, name)
    else:
        pixels, done = grey_to_rgb(values, window, name)
        if white_is_zero and values.dtype != np.uint8:
            pixels = freeze(255 - pixels)
    return pixels, {"bits": bits, **done}


def _stored(picture: Image.Image) -> tuple[int, bool, bool]:
    """Bits a sample, whether 0 is white (which Pillow mends for 8 bits only), whether integers are unsigned."""
    tags = getattr(picture, "tag_v2", None)
    if tags is not None:
        bits = tags.get(_BITS_PER_SAMPLE, (1,))
        sample_format = tags.get(_SAMPLE_FORMAT, (1,))
        return int(bits[0]), tags.get(_PHOTOMETRIC) == 0, sample_format[0] == 1
    tiles = getattr(picture, "tile", None) or []
    if picture.mode.startswith("I;16") or (tiles and ";16" in str(tiles[0][3])):
        return 16, False, False
    return {"1": 1, "I": 32, "F": 32}.get(picture.mode, 8), False, False


def _choose_page(picture: Image.Image, slice_index: int | None, name: str) -> int | None:
    """Move a TIFF to the page asked for; None where there is one page only."""
    if picture.format != "TIFF" or not _has_pages(picture):
        if slice_index is not None:
            raise InputError(f"{name}: it is a single picture, so no slice can be chosen: leave the slice out")
        return None
    if slice_index is None:
        raise InputError(f"{name}: this TIFF has several pages: choose one with the slice option, counted from 0")
    index = whole_number(slice_index)
    try:
        # Counting all pages of a hostile file could take hours, so pages are walked only as far as asked.
        picture.seek(check_slice(index, _MAX_PAGES, name))
    except EOFError:
        raise InputError(f"{name}: slice {index} does not exist in this TIFF: choose a smaller one") from None
    return index


def _has_pages(picture: Image.Image) -> bool:
    """Tell whether a second page is a picture of its own, not a smaller copy of the first."""
    try:
        picture.seek(1)
    except EOFError:
        return False
    copy = bool(int(getattr(picture, "tag_v2", {}).get(_SUBFILE, 0)) & 1)
    picture.seek(0)
    return not copy
