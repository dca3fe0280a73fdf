"""Validation of the fields of a finding, whether they come from a model or from a JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

import numpy as np

from unibiomed.errors import InputError

Box = tuple[int, int, int, int]

MAX_MASK_PIXELS = 2**27
MAX_TEXT = 1_000_000


def check_text(value: object, name: str) -> str:
    """Check a string of limited length."""
    if not isinstance(value, str):
        raise InputError(f"'{name}' is not text: give a string")
    if len(value) > MAX_TEXT:
        raise InputError(f"'{name}' is longer than {MAX_TEXT} characters: shorten it")
    return value


def check_details(value: object) -> dict[str, Any]:
    """Return a copy in JSON types; NumPy numbers are converted."""
    try:
        text = json.dumps(dict(value), allow_nan=False, default=lambda number: number.item())  # type: ignore[call-overload]
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(
            "'details' is not valid JSON: give strings, numbers, and lists or dictionaries of them"
        ) from error
    copy: dict[str, Any] = json.loads(check_text(text, "details"))
    return copy


def check_items(value: object, name: str, most: int) -> Iterable[Any]:
    """Check a list of at most ``most`` entries."""
    if not isinstance(value, list | tuple):
        raise InputError(f"'{name}' is not a list: give a list")
    if len(value) > most:
        raise InputError(f"'{name}' has {len(value)} entries: give at most {most}")
    return value


def check_number(value: object, name: str, high: float) -> float:
    """Check a finite number in [0, ``high``]."""
    limits = f"from 0 to {high:g}" if math.isfinite(high) else "of 0 or more"
    message = f"'{name}' is not valid: give a finite number {limits}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputError(message)
    try:
        number = float(value)
    except OverflowError:
        raise InputError(message) from None
    if not (math.isfinite(number) and 0 <= number <= high):
        raise InputError(message)
    return number


def check_optional(value: object, name: str, high: float) -> float | None:
    """Check a number as `check_number` does, or None."""
    return None if value is None else check_number(value, name, high)


def check_integer(value: object, message: str) -> int:
    """Check an integer of 0 or more."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
        raise InputError(message)
    return int(value)


def check_box(value: object) -> Box:
    """Check a box (x0, y0, x1, y1) in whole pixels, x1 and y1 exclusive."""
    message = "the box is not valid: give [x0, y0, x1, y1] in whole pixels with 0 <= x0 < x1 and 0 <= y0 < y1"
    if not isinstance(value, list | tuple) or len(value) != 4:
        raise InputError(message)
    x0, y0, x1, y1 = (check_integer(side, message) for side in value)
    if not (x0 < x1 and y0 < y1):
        raise InputError(message)
    return x0, y0, x1, y1


def check_spacing(value: object) -> tuple[float, float] | None:
    """Check (row, column) spacing in mm per pixel, or None."""
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise InputError("'spacing' is not a pair: give (row, column) in mm per pixel")
    row, column = (check_number(side, "spacing", 1e6) for side in value)
    if row == 0 or column == 0:
        raise InputError("'spacing' is not positive: give (row, column) in mm per pixel")
    return row, column


def check_size(height: object, width: object) -> tuple[int, int]:
    """Check height and width in pixels; their product is at most `MAX_MASK_PIXELS`."""
    message = "height or width of the image is not valid: give whole numbers of 1 or more pixels"
    rows, columns = check_integer(height, message), check_integer(width, message)
    if not (rows and columns):
        raise InputError(message)
    if rows * columns > MAX_MASK_PIXELS:
        raise InputError(f"the image or mask is larger than {MAX_MASK_PIXELS} pixels: crop or downsample it first")
    return rows, columns


def check_mask(value: object) -> np.ndarray:
    """Return a read-only bool copy of a mask of shape (height, width)."""
    if not isinstance(value, np.ndarray) or value.ndim != 2 or value.dtype.kind not in "biu":
        raise InputError("the mask is not valid: give a (height, width) array of booleans or integers")
    check_size(*value.shape)
    mask = np.array(value != 0, dtype=bool, order="C")
    mask.flags.writeable = False
    return mask
