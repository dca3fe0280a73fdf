"""From any array to the RGB pixels the model sees: (height, width, 3) uint8, read-only."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InputError
from .windowing import apply_range, apply_window, is_named_window, parse_window, percentile_range

Window = str | tuple[float, float] | None
"""A window as users give it: a name, ``"centre,width"``, a pair of numbers, or None."""

Prepared = tuple[np.ndarray, dict[str, Any]]
"""RGB pixels ``(height, width, 3)`` uint8 read-only, and what was done: ``window``, ``scaling``, ``range``."""


def grey_to_rgb(values: np.ndarray, window: Window, name: str, *, ignore: np.ndarray | None = None) -> Prepared:
    """Show a grey image: through ``window`` if there is one, 8 bits as they are, all else by percentiles.

    Parameters
    ----------
    values
        Bool, integers or floats of shape ``(height, width)``.
    window
        The window in the unit of ``values``, or None.
    name
        What to call the image in messages.
    ignore
        Boolean mask of padding that should not influence the percentiles.

    Returns
    -------
    Prepared
        Pixels ``(height, width, 3)`` and what was done to them.

    Raises
    ------
    InputError
        If the values are not real numbers, hold NaN or infinity, or are 8-bit greys with a named CT window.
    """
    values = check_values(values, name)
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * np.uint8(255)
    if values.dtype == np.uint8 and is_named_window(window):
        raise InputError(
            f"{name}: the window '{str(window).strip()}' is for CT numbers, and this image holds 8-bit greys: "
            "leave the window out"
        )
    if window is not None:
        center, width = parse_window(window)
        return stack_grey(apply_window(values, center, width)), {"window": (center, width), "scaling": "window"}
    if values.dtype == np.uint8:
        return stack_grey(values), {"window": None, "scaling": "none"}
    low, high = percentile_range(values, ignore=ignore)
    done = {"window": None, "scaling": "percentile", "range": (low, high)}
    return stack_grey(apply_range(values, low, high)), done


def color_to_rgb(values: np.ndarray, window: Window, name: str, *, bits: int | None = None) -> Prepared:
    """Show a colour image; alpha is composited on black.

    Parameters
    ----------
    values
        RGB or RGBA of shape ``(height, width, 3 or 4)``: uint8, other unsigned integers (whose full range, or
        ``bits`` bits of it, is scaled to 255), or floats in 0..1 or 0..255.
    window
        Must be None: windows are for grey values.
    name
        What to call the image in messages.
    bits
        Bits in use, for integers that do not use their whole range.

    Returns
    -------
    Prepared
        Pixels ``(height, width, 3)`` and what was done to them.

    Raises
    ------
    InputError
        If a window is given, or the values are NaN, infinite or outside the ranges above.
    """
    if window is not None:
        raise InputError(f"{name}: a window is for grey images, and this one is in colour: leave the window out")
    values = check_values(values, name)
    if values.dtype == np.uint8 and bits in (None, 8):
        eight = values
    elif values.dtype.kind == "u":
        top = float(2 ** (bits or 8 * values.dtype.itemsize) - 1)
        eight = apply_range(values, 0.0, top)
    elif values.dtype.kind == "f" and values.size and values.min() >= 0 and values.max() <= 255:
        eight = apply_range(values, 0.0, 1.0 if values.max() <= 1 else 255.0)
    else:
        raise InputError(f"{name}: colour values must be uint8, uint16, or floats in 0..1 or 0..255: convert them")
    if eight.shape[2] == 4:
        eight = composite_on_black(eight)
    return freeze(np.array(eight, order="C")), {"window": None, "scaling": "none"}


def composite_on_black(values: np.ndarray) -> np.ndarray:
    """Lay uint8 ``(..., channels + alpha)`` over black; returns uint8 ``(..., channels)``."""
    alpha = values[..., -1:].astype(np.uint16)
    return ((values[..., :-1] * alpha + 127) // 255).astype(np.uint8)


def check_values(values: np.ndarray, name: str) -> np.ndarray:
    """Return real, finite values; half and long floats become float64.

    Raises
    ------
    InputError
        If the values are not real numbers, or any of them is NaN or infinite.
    """
    if values.dtype.kind not in "buif":
        raise InputError(f"{name}: the pixels are not real numbers: give 8- or 16-bit integers or floats")
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            what = "NaN" if np.isnan(values).any() else "infinite"
            raise InputError(f"{name}: the image holds {what} values: replace them with numbers first")
        if values.dtype.itemsize not in (4, 8):
            values = values.astype(np.float64)
    return values


def stack_grey(grey: np.ndarray) -> np.ndarray:
    """Repeat uint8 greys ``(height, width)`` in three channels, read-only."""
    return freeze(np.repeat(grey[:, :, None], 3, axis=2))


def freeze(array: np.ndarray) -> np.ndarray:
    """Make an array that nobody else holds read-only, and return it."""
    array.setflags(write=False)
    return array
