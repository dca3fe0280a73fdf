"""What a reader of a result should know of how a picture came about."""

from __future__ import annotations

import numpy as np

NEARLY_ONE_VALUE = 16
"""Grey levels of 256: if 99 % of the pixels lie within fewer, hardly anything can be seen."""
_LOOKED_AT = 250
"""Rows and columns of pixels that are looked at."""


def blank_note(pixels: np.ndarray) -> str | None:
    """Say that a picture is nearly one value, so that finding nothing on it means little.

    Parameters
    ----------
    pixels
        uint8 ``(height, width, 3)``.

    Returns
    -------
    str or None
        None for a picture on which there is something to see.
    """
    height, width = pixels.shape[:2]
    some = pixels[:: -(-height // _LOOKED_AT), :: -(-width // _LOOKED_AT)].reshape(-1, 3)
    spans = [_span(some[:, channel]) for channel in range(3)]
    if max(spans) >= NEARLY_ONE_VALUE:
        return None
    if (pixels == pixels[0, 0]).all():
        what = "every pixel of the picture has the same value"
    else:
        what = "nearly all pixels of the picture have the same value"
    return f"{what}, so that hardly anything can be seen: check the file, or give another window or slice"


def _span(greys: np.ndarray) -> int:
    """Number of grey levels between the 0.5th and the 99.5th percentile."""
    # Counting is four times as fast as sorting: every slice of every volume comes by here.
    below = np.cumsum(np.bincount(greys, minlength=256)) / greys.size
    return int(np.searchsorted(below, 0.995)) - int(np.searchsorted(below, 0.005))


def range_note(low: float, high: float) -> str:
    """Say that the greys were scaled by the values of the picture, and from which values."""
    return (
        f"no window is known, so that the grey levels were chosen from the values ({low:g} to {high:g}): give a window "
        "if the picture is too dark or too bright"
    )


def bits_note(bits: int) -> str:
    """Say that colours were taken to have fewer bits than the file has room for."""
    return f"the 16-bit colours use only the lowest {bits} bits, and were brightened to the full range"


def geometry_notes(*, orientation_known: bool, sizes_known: bool) -> list[str]:
    """Say what a volume file leaves open of its geometry."""
    notes = []
    if not orientation_known:
        notes.append(
            "the file does not say how the patient lies in it, so that left and right of the image may be exchanged: "
            "check the side of every finding"
        )
    if not sizes_known:
        notes.append("the file does not give the size of its voxels, so that no sizes in mm are known")
    return notes
