"""Raster images: PNG, JPEG, TIFF, BMP, GIF, WebP and JPEG 2000 files, and PIL images."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from ..errors import InputError
from .limits import check_size, check_slice, quiet, too_large, whole_number
from .pixels import Prepared, Window, color_to_rgb, composite_on_black, freeze, grey_to_rgb
from .tiff import has_wide_planes, read_planes, read_stack, stack_size

_MAX_PAGES = 10_000
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SUBFILE, _SAMPLE_FORMAT = 258, 262, 254, 339
_ANIMATED = ("GIF", "WEBP", "PNG")
_SHOWN_KINDS = {"WEBP": "WebP", "JPEG2000": "JPEG 2000"}
_J2K_START = b"\xff\x4f\xff\x51"
_J2K_HEADER = 2**16
_NEARLY_BLACK = 16
"""Upper byte (of 255) below which 16-bit colours use at most 12 bits, so that the lower byte is needed as well."""


def read_raster(path: Path, kind: str, name: str, *, slice_index: int | None, window: Window) -> Prepared:
    """Decode a raster image.

    Parameters
    ----------
    path
        The file.
    kind
        ``"PNG"``, ``"JPEG"``, ``"TIFF"``, ``"BMP"``, ``"GIF"``, ``"WEBP"`` or ``"JPEG2000"``, from its first bytes; no
        other decoder is tried.
    name
        Name of the file for messages.
    slice_index
        Page of a TIFF file or frame of an animation with several, counted from 0; None for other images.
    window
        Window for grey values, or None.

    Returns
    -------
    Prepared
        RGB pixels and details: ``format``, ``bits``, ``window``, ``scaling``, ``slice``.

    Raises
    ------
    InputError
        If the file is damaged, too large or not supported, or if the slice or window does not apply to it.
    """
    with quiet():
        try:
            # With a path, Pillow would memory-map the file and read TIFF files with an orientation tag wrongly.
            with path.open("rb") as file, Image.open(file, formats=[kind]) as picture:
                check_size(picture.height, picture.width, name)
                pixels, done = _read(file, picture, slice_index, window, name)
        except InputError:
            raise
        except Image.DecompressionBombError:
            raise InputError(too_large(name)) from None
        except Exception:
            # Decoders raise various exceptions for damaged data: OSError, SyntaxError, struct.error, MemoryError, ...
            shown_kind = _SHOWN_KINDS.get(kind, kind)
            raise InputError(
                f"{name}: this {shown_kind} file is truncated, damaged or not supported: save it as RGB or 16-bit "
                "grey PNG"
            ) from None
    return pixels, {"format": kind, **done}


def _read(file: BinaryIO, picture: Image.Image, slice_index: int | None, window: Window, name: str) -> Prepared:
    """Select the page and convert it; TIFF variants that Pillow cannot read correctly are read with `tiff`."""
    planes = stack_size(picture, name) if picture.format == "TIFF" else 1
    if planes > 1:
        if slice_index is None:
            raise InputError(
                f"{name}: this TIFF has {planes} planes: choose one with the slice option, 0 to {planes - 1}"
            )
        pixels, done = _show(read_stack(file, picture, slice_index, planes, name), window, name)
        return pixels, {**done, "slice": slice_index, "slices": planes}
    page = _choose_page(picture, slice_index, name)
    chosen = {} if page is None else {"slice": page}
    if picture.format == "TIFF" and has_wide_planes(picture):
        pixels, done = _show(read_planes(file, picture, name), window, name)
        return pixels, {**done, **chosen}

    def again() -> Image.Image:
        file.seek(0)
        fresh = Image.open(io.BytesIO(file.read()), formats=[str(picture.format)])
        if page is not None:
            fresh.seek(page)
        return fresh

    bits = _codestream_bits(file) if picture.format == "JPEG2000" else None
    pixels, done = _prepare(picture, window, name, again=again, bits=bits)
    return pixels, {**done, **chosen}


def _show(values: np.ndarray, window: Window, name: str) -> Prepared:
    """Convert values that were read without Pillow."""
    pixels, done = color_to_rgb(values, window, name) if values.ndim == 3 else grey_to_rgb(values, window, name)
    return pixels, {"bits": 8 * values.dtype.itemsize, **done}


def _codestream_bits(file: BinaryIO) -> int | None:
    """Bits of the first component of a JPEG 2000 file; None if its header is not found."""
    file.seek(0)
    head = file.read(_J2K_HEADER)
    start = head.find(_J2K_START)
    return None if start < 0 or len(head) <= start + 42 else (head[start + 42] & 0x7F) + 1


def prepare_picture(picture: Image.Image, window: Window, name: str) -> Prepared:
    """Convert a PIL image of any mode to RGB pixels; its EXIF orientation is applied.

    Parameters
    ----------
    picture
        The image; it may not be loaded yet.
    window
        Window for grey values, or None.
    name
        Name of the image for messages.

    Returns
    -------
    Prepared
        RGB pixels and details of the conversion.

    Raises
    ------
    InputError
        If the image is damaged or too large, has a mode without defined colours, or contains NaN.
    """
    with quiet():
        try:
            if picture.format == "TIFF" and has_wide_planes(picture):
                raise InputError(
                    f"{name}: Pillow cannot read planar 16-bit colours: give the path of the TIFF file instead"
                )
            planes = stack_size(picture, name) if picture.format == "TIFF" else 1
            pixels, done = _prepare(picture, window, name)
            if planes > 1:
                done["notes"] = [*done.get("notes", ()), f"this is the first of {planes} planes of a TIFF file"]
            return pixels, done
        except InputError:
            raise
        except Exception:
            # An image that is not loaded yet is decoded here and may be damaged.
            raise InputError(f"{name}: this image cannot be decoded: load it first, or give its file") from None


def _prepare(
    picture: Image.Image,
    window: Window,
    name: str,
    *,
    again: Callable[[], Image.Image] | None = None,
    bits: int | None = None,
) -> Prepared:
    """Convert an image; `again` reopens its file, `bits` are the bits per sample if Pillow does not give them."""
    check_size(picture.height, picture.width, name)
    stored_bits, white_is_zero, sample_format = _stored(picture)
    bits = bits or stored_bits
    reduced = picture.mode not in ("F", "I") and not picture.mode.startswith("I;16") and bits > 8
    raw_modes = {str(_raw_mode(tile.args)) for tile in getattr(picture, "tile", None) or []}
    if again is not None and any(mode.startswith("LA;16") for mode in raw_modes):
        return _grey_with_alpha(again(), window, name)
    picture = _load(picture)
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
        raise InputError(f"{name}: images of mode {picture.mode} are not supported: save it as RGB or grey PNG")
    values = np.asarray(picture)
    # Pillow keeps only the upper 8 of 16 bits, so that colours of 12 bits would become nearly black.
    colours = values[..., : 3 if values.ndim == 3 and values.shape[2] > 2 else 1] if values.ndim == 3 else values
    if reduced and colours.max(initial=0) < _NEARLY_BLACK:
        low = _lower_bytes(again, picture.mode) if again is not None else None
        if low is not None and low.shape == values.shape:
            pixels, done = color_to_rgb(values.astype(np.uint16) << 8 | low, window, name)
            return pixels, {"bits": bits, **done}
        raise InputError(
            f"{name}: its 16-bit colours use only the lowest values, which 8 bits cannot represent: save it as 16-bit "
            "grey"
        )
    if picture.mode == "LA":
        values = composite_on_black(values)[..., 0]
    if picture.mode == "I" and sample_format == 1:
        values = values.view(np.uint32)
    if bits == 8 and sample_format == 2:
        if values.ndim == 3:
            raise InputError(f"{name}: signed colours are not supported: save it as RGB of unsigned 8 bits")
        values = values.view(np.int8)  # Pillow reads all bytes as unsigned
    if values.ndim == 3:
        pixels, done = color_to_rgb(values, window, name)
    else:
        pixels, done = grey_to_rgb(values, window, name)
        if white_is_zero and values.dtype != np.uint8:
            pixels = freeze(255 - pixels)
    return pixels, {"bits": bits, **done}


def _load(picture: Image.Image) -> Image.Image:
    picture.load()
    # Pillow applies the orientation of TIFF files while loading; it must not be applied twice.
    return picture if picture.format == "TIFF" else ImageOps.exif_transpose(picture)


def _raw_mode(args: object) -> object:
    """Raw mode of a tile, by Pillow's name; for TIFF it is the first of several arguments."""
    return args[0] if isinstance(args, tuple) and args else args


def _lower_bytes(again: Callable[[], Image.Image], mode: str) -> np.ndarray | None:
    """Lower bytes of 16-bit colours, which Pillow discards; None if they are not accessible."""
    other = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
    with again() as picture:
        tiles = []
        for tile in getattr(picture, "tile", None) or []:
            raw = str(_raw_mode(tile.args))
            if picture.mode != mode or raw[:-1] not in ("RGB;16", "RGBA;16") or raw[-1] not in other:
                return None
            # With the opposite byte order, Pillow keeps the lower bytes.
            swapped = raw[:-1] + other[raw[-1]]
            args = (swapped, *tile.args[1:]) if isinstance(tile.args, tuple) else swapped
            tiles.append(tile._replace(args=args))
        picture.tile = tiles  # type: ignore[attr-defined]
        return np.asarray(_load(picture)) if tiles else None


def _grey_with_alpha(picture: Image.Image, window: Window, name: str) -> Prepared:
    """Convert 16-bit grey with alpha: Pillow would reduce it to 8 bits, so its bytes are read as four channels."""
    picture.tile = [tile._replace(args="RGBA") for tile in picture.tile]  # type: ignore[attr-defined]
    both = np.asarray(_load(picture)).astype(np.uint16)
    grey, alpha = both[..., 0] << 8 | both[..., 1], both[..., 2] << 8 | both[..., 3]
    clear = alpha == 0
    values = np.rint(grey * (alpha / 65535.0)).astype(np.uint16)
    pixels, done = grey_to_rgb(values, window, name, ignore=clear if clear.any() else None)
    return pixels, {"bits": 16, **done}


def _stored(picture: Image.Image) -> tuple[int, bool, int]:
    """Bits per sample, whether 0 is white, and the sample format of TIFF.

    Pillow inverts images with white as 0 only for 8 bits. The sample format is 1 for unsigned and 2 for signed
    integers, 3 for floats, and 0 for files other than TIFF.
    """
    tags = getattr(picture, "tag_v2", None)
    if tags is not None:
        bits = tags.get(_BITS_PER_SAMPLE, (1,))
        sample_format = tags.get(_SAMPLE_FORMAT, (1,))
        return int(bits[0]), tags.get(_PHOTOMETRIC) == 0, int(sample_format[0])
    tiles = getattr(picture, "tile", None) or []
    if picture.mode.startswith("I;16") or (tiles and ";16" in str(tiles[0][3])):
        return 16, False, 0
    return {"1": 1, "I": 32, "F": 32}.get(picture.mode, 8), False, 0


def _choose_page(picture: Image.Image, slice_index: int | None, name: str) -> int | None:
    """Seek to the selected page of a TIFF file or frame of an animation; None if there is only one."""
    animated = picture.format in _ANIMATED and getattr(picture, "is_animated", False)
    if not animated and (picture.format != "TIFF" or not _has_pages(picture)):
        if slice_index is not None:
            raise InputError(f"{name}: the file has a single image, so no slice can be chosen: leave the slice out")
        return None
    kind, what = _SHOWN_KINDS.get(str(picture.format), picture.format), "frames" if animated else "pages"
    if slice_index is None:
        raise InputError(f"{name}: this {kind} has several {what}: choose one with the slice option, counted from 0")
    index = whole_number(slice_index)
    try:
        # Counting all pages of a malicious file could take hours, so only the pages up to the selected one are read.
        picture.seek(check_slice(index, _MAX_PAGES, name))
    except EOFError:
        raise InputError(f"{name}: slice {index} does not exist in this {kind}: choose a smaller one") from None
    return index


def _has_pages(picture: Image.Image) -> bool:
    """Whether the second page is a separate image and not a thumbnail of the first."""
    try:
        picture.seek(1)
    except EOFError:
        return False
    copy = bool(int(getattr(picture, "tag_v2", {}).get(_SUBFILE, 0)) & 1)
    picture.seek(0)
    return not copy
