"""Conversion of grey and colour arrays to RGB pixels, uint8 of shape (height, width, 3), read-only."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InputError
from .notes import bits_note, range_note
from .windowing import apply_range, apply_window, is_named_window, parse_window, percentile_range

Window = str | tuple[float, float] | None
"""A window as given by a user: a name, ``"centre,width"``, a pair of numbers, or None."""

Prepared = tuple[np.ndarray, dict[str, Any]]
"""RGB pixels, uint8 of shape ``(height, width, 3)``, and details: ``window``, ``scaling``, ``range``, ``notes``."""


def grey_to_rgb(values: np.ndarray, window: Window, name: str, *, ignore: np.ndarray | None = None) -> Prepared:
    """Convert a grey image: with ``window`` if given; 8-bit values unchanged; other values scaled between percentiles.

    Parameters
    ----------
    values
        Bool, integers or floats of shape ``(height, width)``. NaN is background and becomes black.
    window
        Window in the unit of ``values``, or None.
    name
        Name of the image for messages.
    ignore
        Boolean mask of padding pixels, which are excluded from the percentiles.

    Returns
    -------
    Prepared
        RGB pixels and details of the conversion.

    Raises
    ------
    InputError
        If the values are not real numbers, are infinite, or are 8-bit values with a named CT window.
    """
    values = check_values(values, name)
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * np.uint8(255)
    if values.dtype == np.uint8 and is_named_window(window):
        raise InputError(
            f"{name}: the window '{str(window).strip()}' is for CT, and this image has 8-bit grey values: "
            "leave the window out"
        )
    if window is not None:
        center, width = parse_window(window)
        return stack_grey(apply_window(values, center, width)), {"window": (center, width), "scaling": "window"}
    if values.dtype == np.uint8:
        return stack_grey(values), {"window": None, "scaling": "none"}
    low, high = percentile_range(values, ignore=ignore)
    notes = [range_note(low, high)] if high > low else []
    done = {"window": None, "scaling": "percentile", "range": (low, high), "notes": notes}
    return stack_grey(apply_range(values, low, high)), done


def color_to_rgb(values: np.ndarray, window: Window, name: str, *, bits: int | None = None) -> Prepared:
    """Convert a colour image; alpha is composited on black.

    Parameters
    ----------
    values
        RGB or RGBA of shape ``(height, width, 3 or 4)``: uint8, other unsigned integers (whose full range, or ``bits``
        bits, is scaled to 255), or floats in 0..1 or 0..255. 16-bit colours that use only 8, 10 or 12 bits would be
        nearly black: this range is scaled to 255, with a note.
    window
        Must be None, because windows apply to grey values.
    name
        Name of the image for messages.
    bits
        Number of bits in use, for integers that do not use their full range.

    Returns
    -------
    Prepared
        RGB pixels and details of the conversion.

    Raises
    ------
    InputError
        If a window is given, or the values are NaN, infinite or outside the ranges above.
    """
    if window is not None:
        raise InputError(f"{name}: a window applies to grey images, and this image has colours: leave the window out")
    values = check_values(values, name)
    if values.dtype.kind == "f" and np.isnan(values).any():
        raise InputError(f"{name}: the colours contain NaN: replace them with numbers first")
    notes: list[str] = []
    if values.dtype == np.uint8 and bits in (None, 8):
        eight = values
    elif values.dtype.kind == "u":
        size = 8 * values.dtype.itemsize
        # Alpha is excluded, because opaque pixels have the maximum alpha even if the colours use fewer bits.
        used = used_bits(values[..., :3], bits or size) if size == 16 else bits or size
        eight = apply_range(values[..., :3], 0.0, float(2**used - 1))
        if values.shape[2] == 4:
            eight = np.concatenate([eight, apply_range(values[..., 3:], 0.0, float(2**size - 1))], axis=2)
        notes = [bits_note(used)] if used < (bits or size) else []
    elif values.dtype.kind == "f" and values.size and values.min() >= 0 and values.max() <= 255:
        eight = apply_range(values, 0.0, 1.0 if values.max() <= 1 else 255.0)
    else:
        raise InputError(f"{name}: colour values must be uint8, uint16, or floats in 0..1 or 0..255: convert them")
    if eight.shape[2] == 4:
        eight = composite_on_black(eight)
    done = {"window": None, "scaling": "none", **({"notes": notes} if notes else {})}
    return freeze(np.array(eight, order="C")), done


def used_bits(colours: np.ndarray, stated: int = 16) -> int:
    """Estimate the number of bits that 16-bit colours use.

    Parameters
    ----------
    colours
        uint16 of any shape.
    stated
        Number of bits in the header. 16 is often only the size of the integers; a lower number is used unless the
        values need only 8 bits.

    Returns
    -------
    int
        8, 10, 12 or ``stated``, from the largest value.
    """
    largest = int(colours.max(initial=0))
    choices = (8, 10, 12) if stated == 16 else (8,)
    return next((bits for bits in choices if 0 < largest < 1 << bits < 1 << stated), stated)


def composite_on_black(values: np.ndarray) -> np.ndarray:
    """Composite uint8 ``(..., channels + alpha)`` on black; returns uint8 ``(..., channels)``."""
    alpha = values[..., -1:].astype(np.uint16)
    return ((values[..., :-1] * alpha + 127) // 255).astype(np.uint8)


def check_values(values: np.ndarray, name: str) -> np.ndarray:
    """Check that values are real and finite; float16 and long double become float64. NaN is allowed as background.

    Raises
    ------
    InputError
        If the values are not real numbers, or any of them is infinite.
    """
    if values.dtype.kind not in "buif":
        raise InputError(f"{name}: the pixels are not real numbers: give 8- or 16-bit integers or floats")
    if values.dtype.kind == "f":
        if np.isinf(values).any():
            raise InputError(f"{name}: the image contains infinite values: replace them with numbers first")
        if values.dtype.itemsize not in (4, 8):
            values = values.astype(np.float64)
    return values


def stack_grey(grey: np.ndarray) -> np.ndarray:
    """Repeat uint8 grey values ``(height, width)`` in three channels, read-only."""
    return freeze(np.repeat(grey[:, :, None], 3, axis=2))


def freeze(array: np.ndarray) -> np.ndarray:
    """Make a new array read-only, and return it."""
    array.setflags(write=False)
    return array
