"""From any array to the RGB pixels the model sees: (height, width, 3) uint8, read-only."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InputError
from .notes import bits_note, range_note
from .windowing import apply_range, apply_window, is_named_window, parse_window, percentile_range

Window = str | tuple[float, float] | None
"""A window as users give it: a name, ``"centre,width"``, a pair of numbers, or None."""

Prepared = tuple[np.ndarray, dict[str, Any]]
"""RGB pixels ``(height, width, 3)`` uint8 read-only; what was done: ``window``, ``scaling``, ``range``, ``notes``."""


def grey_to_rgb(values: np.ndarray, window: Window, name: str, *, ignore: np.ndarray | None = None) -> Prepared:
    """Show a grey image: through ``window`` if there is one, 8 bits as they are, all else by percentiles.

    Parameters
    ----------
    values
        Bool, integers or floats of shape ``(height, width)``. NaN is background and becomes black.
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
        If the values are not real numbers, hold infinity, or are 8-bit greys with a named CT window.
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
    notes = [range_note(low, high)] if high > low else []
    done = {"window": None, "scaling": "percentile", "range": (low, high), "notes": notes}
    return stack_grey(apply_range(values, low, high)), done


def color_to_rgb(values: np.ndarray, window: Window, name: str, *, bits: int | None = None) -> Prepared:
    """Show a colour image; alpha is composited on black.

    Parameters
    ----------
    values
        RGB or RGBA of shape ``(height, width, 3 or 4)``: uint8, other unsigned integers (whose full range, or
        ``bits`` bits of it, is scaled to 255), or floats in 0..1 or 0..255. Of 16-bit colours that use fewer bits
        (8, 10 or 12), these are scaled to 255, with a note: they would be nearly black.
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
    if values.dtype.kind == "f" and np.isnan(values).any():
        raise InputError(f"{name}: the colours hold NaN values: replace them with numbers first")
    notes: list[str] = []
    if values.dtype == np.uint8 and bits in (None, 8):
        eight = values
    elif values.dtype.kind == "u":
        size = 8 * values.dtype.itemsize
        # Alpha says nothing of the range of the colours: it is opaque also where these are dark.
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


def used_bits(colours: np.ndarray, told: int = 16) -> int:
    """How many bits 16-bit colours are likely to use.

    Parameters
    ----------
    colours
        uint16 of any shape.
    told
        What the header says: 16, which is often no more than the room there is, or fewer, which is believed unless
        the values fit into 8 bits.

    Returns
    -------
    int
        8, 10, 12 or ``told``, by the largest value.
    """
    largest = int(colours.max(initial=0))
    choices = (8, 10, 12) if told == 16 else (8,)
    return next((bits for bits in choices if 0 < largest < 1 << bits < 1 << told), told)


def composite_on_black(values: np.ndarray) -> np.ndarray:
    """Lay uint8 ``(..., channels + alpha)`` over black; returns uint8 ``(..., channels)``."""
    alpha = values[..., -1:].astype(np.uint16)
    return ((values[..., :-1] * alpha + 127) // 255).astype(np.uint8)


def check_values(values: np.ndarray, name: str) -> np.ndarray:
    """Return real values; half and long floats become float64. NaN stays: it is the background of many float images.

    Raises
    ------
    InputError
        If the values are not real numbers, or any of them is infinite.
    """
    if values.dtype.kind not in "buif":
        raise InputError(f"{name}: the pixels are not real numbers: give 8- or 16-bit integers or floats")
    if values.dtype.kind == "f":
        if np.isinf(values).any():
            raise InputError(f"{name}: the image holds infinite values: replace them with numbers first")
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
