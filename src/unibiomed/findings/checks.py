"""What each field of a finding may be, whether it comes from the model or from a JSON file."""

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
    """A text that is not endless."""
    if not isinstance(value, str):
        raise InputError(f"'{name}' must be text.")
    if len(value) > MAX_TEXT:
        raise InputError(f"'{name}' is longer than {MAX_TEXT} characters.")
    return value


def check_details(value: object) -> dict[str, Any]:
    """A copy in which all is JSON's own."""
    try:
        text = json.dumps(dict(value), allow_nan=False, default=lambda number: number.item())  # type: ignore[call-overload]
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError("'details' must be an object of texts, numbers and lists of them.") from error
    copy: dict[str, Any] = json.loads(check_text(text, "details"))
    return copy


def check_items(value: object, name: str, most: int) -> Iterable[Any]:
    """A list of at most so many entries."""
    if not isinstance(value, list | tuple):
        raise InputError(f"'{name}' must be a list.")
    if len(value) > most:
        raise InputError(f"'{name}' has {len(value)} entries; at most {most} can be used.")
    return value


def check_number(value: object, name: str, high: float) -> float:
    """Check a finite number from 0 to ``high``."""
    message = (
        f"'{name}' must be a number from 0 to {high:g}." if math.isfinite(high) else f"'{name}' must be 0 or more."
    )
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
    """A number as for `check_number`, or nothing."""
    return None if value is None else check_number(value, name, high)


def check_integer(value: object, message: str) -> int:
    """A whole number, 0 or more."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
        raise InputError(message)
    return int(value)


def check_box(value: object) -> Box:
    """x0, y0, x1, y1 in whole pixels, x1 and y1 exclusive."""
    message = "A box must be [x0, y0, x1, y1] in whole pixels with 0 <= x0 < x1 and 0 <= y0 < y1."
    if not isinstance(value, list | tuple) or len(value) != 4:
        raise InputError(message)
    x0, y0, x1, y1 = (check_integer(side, message) for side in value)
    if not (x0 < x1 and y0 < y1):
        raise InputError(message)
    return x0, y0, x1, y1


def check_spacing(value: object) -> tuple[float, float] | None:
    """Row and column spacing in mm per pixel, or nothing."""
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise InputError("'spacing' must be (row, column) in mm per pixel.")
    row, column = (check_number(side, "spacing", 1e6) for side in value)
    if row == 0 or column == 0:
        raise InputError("'spacing' must be two positive numbers of mm per pixel.")
    return row, column


def check_size(height: object, width: object) -> tuple[int, int]:
    """Height and width in pixels, not more together than a mask may have."""
    message = "An image's height and width must be whole numbers of pixels, 1 or more."
    rows, columns = check_integer(height, message), check_integer(width, message)
    if not (rows and columns):
        raise InputError(message)
    if rows * columns > MAX_MASK_PIXELS:
        raise InputError(f"The image or mask is larger than {MAX_MASK_PIXELS} pixels; crop or shrink it first.")
    return rows, columns


def check_mask(value: object) -> np.ndarray:
    """Return a read-only (height, width) bool copy."""
    if not isinstance(value, np.ndarray) or value.ndim != 2 or value.dtype.kind not in "biu":
        raise InputError("A mask must be a (height, width) array of booleans or integers.")
    check_size(*value.shape)
    mask = np.array(value != 0, dtype=bool, order="C")
    mask.flags.writeable = False
    return mask
