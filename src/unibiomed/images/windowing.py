"""Conversion of values to 256 grey levels: display windows and percentile scaling."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

from ..errors import InputError

WINDOWS: dict[str, tuple[float, float]] = {
    "lung": (-600.0, 1500.0),
    "abdomen": (40.0, 400.0),
    "bone": (400.0, 1800.0),
    "brain": (40.0, 80.0),
    "mediastinum": (40.0, 400.0),
}
"""CT display windows by name: (centre, width) in Hounsfield units."""

PERCENTILES = (0.5, 99.5)
"""Percentiles that become black and white if no window is known, as in the preprocessing of BiomedParse."""

VoiFunction = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_PAIR = re.compile(rf"\s*({_NUMBER})\s*,\s*({_NUMBER})\s*", re.ASCII)


def is_named_window(window: object) -> bool:
    """Whether ``window`` is a name in `WINDOWS`, which apply only to Hounsfield units."""
    return isinstance(window, str) and window.strip().lower() in WINDOWS


def parse_window(window: str | Sequence[float]) -> tuple[float, float]:
    """Parse a window that is given by name or by numbers.

    Parameters
    ----------
    window
        A name of `WINDOWS` in any case, ``"centre,width"``, or a pair of numbers.

    Returns
    -------
    tuple of float
        Centre and width in the unit of the image's values (Hounsfield units for CT); the width is positive.

    Raises
    ------
    InputError
        If the name is unknown, the text is not two numbers, or the width is not positive.
    """
    if isinstance(window, str):
        if is_named_window(window):
            return WINDOWS[window.strip().lower()]
        match = _PAIR.fullmatch(window)
        if not match:
            raise InputError(f"unknown window: choose {', '.join(WINDOWS)}, or give CENTRE,WIDTH such as 40,400")
        center, width = float(match[1]), float(match[2])
    else:
        try:
            center, width = (float(v) for v in window)
        except (TypeError, ValueError):
            raise InputError("the window is not two numbers: give (centre, width), for example (40, 400)") from None
    if not (math.isfinite(center) and math.isfinite(width)):
        raise InputError("the centre or width of the window is not finite: give CENTRE,WIDTH such as 40,400")
    if width <= 0:
        raise InputError(
            f"the width of the window is {width:g}: give CENTRE,WIDTH with a width above 0, such as 40,400"
        )
    return center, width


def apply_window(
    values: np.ndarray, center: float, width: float, *, function: VoiFunction = "LINEAR_EXACT"
) -> np.ndarray:
    """Map values to grey levels with a window.

    Parameters
    ----------
    values
        Real numbers of any shape, not infinite; NaN becomes 0.
    center, width
        The window, in the unit of ``values``; the width is positive.
    function
        VOI LUT function of DICOM PS3.3 C.11.2.1.2. ``LINEAR_EXACT`` maps ``center - width / 2`` to 0 and ``center +
        width / 2`` to 255; ``LINEAR``, the default in DICOM files, differs by half a unit; ``SIGMOID`` is smooth.

    Returns
    -------
    numpy.ndarray
        uint8 of the same shape; the mapping is monotonic.

    Raises
    ------
    InputError
        If the width is not positive or a number is not finite.
    """
    center, width = parse_window((center, width))
    if function == "SIGMOID":
        # An overflow to infinity is correct here: the result is black or white.
        with np.errstate(over="ignore"):
            exponent = np.exp(-4.0 * ((np.asarray(values, dtype=np.float64) - center) / width))
        return _to_bytes(1.0 / (1.0 + exponent))
    if function == "LINEAR":
        if width <= 1:
            return (np.asarray(values) > center - 0.5).astype(np.uint8) * np.uint8(255)
        center, width = center - 0.5, width - 1
    return _ramp(values, center - width / 2, width)


def percentile_range(values: np.ndarray, *, ignore: np.ndarray | None = None) -> tuple[float, float]:
    """Values that become black and white if no window is known.

    Parameters
    ----------
    values
        Real numbers of shape ``(height, width)``, not infinite; NaN is ignored.
    ignore
        Boolean mask of padding pixels, of the same shape.

    Returns
    -------
    tuple of float
        The 0.5th and 99.5th percentile. In images without negative values, zeros are ignored, because they are usually
        background, which would otherwise determine the range. If both percentiles are equal, the smallest and the
        largest value are returned; these are equal only for an image of one value.
    """
    kept = values if ignore is None or ignore.all() else values[~ignore]
    if kept.dtype.kind == "f" and (empty := np.isnan(kept)).any():
        kept = kept[~empty]
    if kept.size == 0:
        return 0.0, 0.0
    inside = kept[kept > 0] if kept.min() >= 0 else kept
    if inside.size == 0:
        return 0.0, 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = (float(v) for v in np.percentile(inside, PERCENTILES))
    return (low, high) if high > low else (float(kept.min()), float(kept.max()))


def apply_range(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map ``low`` to 0 and ``high`` to 255, with clipping; all values become 0 if both are equal.

    Parameters
    ----------
    values
        Real numbers of any shape, not infinite; NaN becomes 0.
    low, high
        Ends of the range, ``low <= high``.

    Returns
    -------
    numpy.ndarray
        uint8 of the same shape.
    """
    if high <= low:
        return np.zeros(values.shape, dtype=np.uint8)
    if not math.isfinite(high - low):
        # The division keeps the difference of very large floats finite.
        values, low, high = values / 4, low / 4, high / 4
    return _ramp(values, low, high - low)


def _ramp(values: np.ndarray, low: float, width: float) -> np.ndarray:
    # In-place operations avoid further copies, which need 800 MB each at the size limit.
    scaled = np.array(values, dtype=np.float64)
    with np.errstate(over="ignore"):
        scaled -= low
        scaled /= width
    return _to_bytes(scaled)


def _to_bytes(scaled: np.ndarray) -> np.ndarray:
    np.clip(scaled, 0.0, 1.0, out=scaled)
    if np.isnan(scaled).any():
        scaled[np.isnan(scaled)] = 0.0
    scaled *= 255.0
    return np.rint(scaled, out=scaled).astype(np.uint8)
