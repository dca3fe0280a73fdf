"""Notes on assumptions and problems of an image, which are shown with the results."""

from __future__ import annotations

import numpy as np

NEARLY_ONE_VALUE = 16
"""Range of grey levels (of 256) below which an image is nearly blank; it covers 99 % of the pixels."""
_MAX_SAMPLES = 250
"""Maximum number of rows and columns that are sampled."""


def blank_note(pixels: np.ndarray) -> str | None:
    """Note for an image in which nearly all pixels have the same value, so that a negative result is not reliable.

    Parameters
    ----------
    pixels
        uint8 of shape ``(height, width, 3)``.

    Returns
    -------
    str or None
        None if the image has enough contrast.
    """
    height, width = pixels.shape[:2]
    sample = pixels[:: -(-height // _MAX_SAMPLES), :: -(-width // _MAX_SAMPLES)].reshape(-1, 3)
    spans = [_span(sample[:, channel]) for channel in range(3)]
    if max(spans) >= NEARLY_ONE_VALUE:
        return None
    if (pixels == pixels[0, 0]).all():
        what = "every pixel of the image has the same value"
    else:
        what = "nearly all pixels of the image have the same value"
    return f"{what}, so that hardly anything is visible: check the file, or give another window or slice"


def _span(greys: np.ndarray) -> int:
    """Number of grey levels between the 0.5th and the 99.5th percentile."""
    # A histogram is four times as fast as sorting, which matters for volumes.
    below = np.cumsum(np.bincount(greys, minlength=256)) / greys.size
    return int(np.searchsorted(below, 0.995)) - int(np.searchsorted(below, 0.005))


def range_note(low: float, high: float) -> str:
    """Note that the grey levels were scaled between percentiles of the values."""
    return (
        f"no window is known, so the grey levels were scaled from the values {low:g} to {high:g}: give a window if the "
        "image is too dark or too bright"
    )


def bits_note(bits: int) -> str:
    """Note that 16-bit colours use only some of their bits."""
    return f"the 16-bit colours use only the lowest {bits} bits and were scaled to the full range"


def geometry_notes(*, orientation_known: bool, sizes_known: bool) -> list[str]:
    """Notes on missing geometry of a volume file."""
    notes = []
    if not orientation_known:
        notes.append(
            "the file does not give the orientation of the patient, so left and right may be swapped: check the "
            "side of every finding"
        )
    if not sizes_known:
        notes.append("the file does not give the size of its voxels, so no lengths in mm are known")
    return notes
