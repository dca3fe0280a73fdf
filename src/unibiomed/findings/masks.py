"""Compressed COCO run-length encoding of masks, and bounding boxes of masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pycocotools import mask as coco  # type: ignore[import-untyped,unused-ignore]

from unibiomed.errors import InputError

from .checks import MAX_MASK_PIXELS, Box, check_mask, check_size

__all__ = ["MAX_MASK_PIXELS", "check_rle", "mask_box", "rle_decode", "rle_encode"]


def mask_box(mask: np.ndarray) -> Box | None:
    """Bounding box of a mask.

    Parameters
    ----------
    mask : numpy.ndarray
        Bool array of shape (height, width).

    Returns
    -------
    tuple of int or None
        (x0, y0, x1, y1) in pixels, x1 and y1 exclusive; None for an empty mask.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def rle_encode(mask: np.ndarray) -> dict[str, Any]:
    """Encode a mask as compressed COCO run lengths in JSON types.

    Parameters
    ----------
    mask : numpy.ndarray
        Array of shape (height, width), bool or integer; non-zero pixels belong to the mask.

    Returns
    -------
    dict
        ``{"size": [height, width], "counts": str}``, the format of pycocotools.

    Raises
    ------
    InputError
        If the array is not a mask, or has more than ``MAX_MASK_PIXELS`` pixels.
    """
    rle = coco.encode(np.asfortranarray(check_mask(mask), dtype=np.uint8))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def rle_decode(rle: object) -> np.ndarray:
    """Decode compressed COCO run lengths; size and runs are validated before memory is allocated.

    Parameters
    ----------
    rle : dict
        ``{"size": [height, width], "counts": str}``.

    Returns
    -------
    numpy.ndarray
        Bool array of shape (height, width), C-contiguous.

    Raises
    ------
    InputError
        If the run lengths are not valid, do not sum to the size, or exceed ``MAX_MASK_PIXELS`` pixels.
    """
    height, width, counts = check_rle(rle)
    runs = _runs(counts, height * width)
    inside = np.arange(runs.size) % 2 == 1
    return np.ascontiguousarray(np.repeat(inside, runs).reshape((height, width), order="F"))


def check_rle(rle: object) -> tuple[int, int, str]:
    """Validate the format of compressed COCO run lengths without decoding them.

    Parameters
    ----------
    rle : dict
        As for `rle_decode`.

    Returns
    -------
    tuple of int, int and str
        Height and width in pixels, and the encoded runs.

    Raises
    ------
    InputError
        If the format is not valid, or the mask exceeds ``MAX_MASK_PIXELS`` pixels. Whether the runs sum to the size is
        not checked.
    """
    size = rle.get("size") if isinstance(rle, Mapping) else None
    if not isinstance(rle, Mapping) or not isinstance(size, list | tuple) or len(size) != 2:
        raise InputError("a mask lacks 'size' [height, width] or 'counts': export the mask again")
    # Very large masks are refused before they are decoded.
    height, width = check_size(size[0], size[1])
    counts = rle.get("counts")
    if isinstance(counts, bytes):
        counts = counts.decode("latin-1")
    if not isinstance(counts, str) or not counts.isascii() or not 0 < len(counts) <= 7 * (height * width + 1):
        raise InputError("'counts' of a mask are not compressed COCO run lengths: export the mask again")
    return height, width, counts


def _runs(counts: str, pixels: int) -> np.ndarray:
    """Decode COCO's text: 5 bits per character; from the third run on, differences to the run two before."""
    broken = InputError("the run lengths of a mask do not sum to its size: the file is damaged, export the mask again")
    codes = np.frombuffer(counts.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    if codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise broken
    ends = np.flatnonzero(codes & 32 == 0)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > 7 or lengths.size > pixels + 1:
        raise broken
    shifts = 5 * (np.arange(codes.size) - np.repeat(starts, lengths))
    runs = np.add.reduceat((codes & 31) << shifts, starts)
    runs -= np.where(codes[ends] & 16, np.int64(1) << (5 * lengths), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    # Each run is checked first, so that the sum cannot overflow.
    if runs.min() < 0 or runs.max() > pixels or runs.sum() != pixels:
        raise broken
    return runs
