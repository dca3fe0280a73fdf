"""Boxes in pixel coordinates with exclusive ends: ``pixels[y0:y1, x0:x1]`` is the content of a box."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence

import numpy as np

from ..errors import InputError

Box = tuple[int, int, int, int]
"""``(x0, y0, x1, y1)`` in pixels from the top left corner; ``x1`` and ``y1`` are exclusive."""

_BOX = re.compile(r"\s*[(\[]?\s*" + r"\s*,\s*".join([r"([+-]?\d{1,9})"] * 4) + r"\s*[)\]]?\s*", re.ASCII)
_FORM = "give x0,y0,x1,y1 in whole pixels, such as 10,20,110,90"


def mask_box(mask: np.ndarray) -> Box | None:
    """Bounding box of a mask.

    Parameters
    ----------
    mask
        Array of shape ``(height, width)``; non-zero pixels belong to the mask.

    Returns
    -------
    Box or None
        None for an empty mask.

    Raises
    ------
    InputError
        If the mask is not two-dimensional.
    """
    inside = np.asarray(mask) != 0
    if inside.ndim != 2:
        raise InputError(f"the mask has the shape {inside.shape}: give a mask of shape (height, width)")
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if rows.size == 0:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def parse_box(text: str) -> Box:
    """Parse a box from the text ``"x0,y0,x1,y1"``.

    Raises
    ------
    InputError
        If the text is not four integers, or the box has no area.
    """
    match = _BOX.fullmatch(text) if isinstance(text, str) else None
    if not match:
        raise InputError(f"the box cannot be read: {_FORM}")
    x0, y0, x1, y1 = (int(v) for v in match.groups())
    return _with_area((x0, y0, x1, y1))


def check_box(box: Sequence[int], height: int, width: int) -> Box:
    """Check that a box is inside an image.

    Parameters
    ----------
    box
        Four integers ``x0, y0, x1, y1``.
    height, width
        Size of the image in pixels.

    Returns
    -------
    Box
        The same box as Python ints.

    Raises
    ------
    InputError
        If the box is not four integers, has no area, or extends outside the image.
    """
    try:
        x0, y0, x1, y1 = (operator.index(v) for v in box)
    except (TypeError, ValueError):
        raise InputError(f"the box is not four integers: {_FORM}") from None
    x0, y0, x1, y1 = _with_area((x0, y0, x1, y1))
    if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
        raise InputError(
            f"the box {x0},{y0},{x1},{y1} extends outside the image of {width}x{height} pixels: "
            f"keep it within 0,0,{width},{height}"
        )
    return x0, y0, x1, y1


def draw_box(
    pixels: np.ndarray, box: Sequence[int], *, width: int = 2, color: tuple[int, int, int] = (0, 255, 0)
) -> np.ndarray:
    """Draw the outline of a box, the form in which the model receives a region.

    The model was trained on images with a green outline of 2 pixels, which are the defaults.

    Parameters
    ----------
    pixels
        uint8 RGB of shape ``(height, width, 3)``.
    box
        The box; the outline is drawn inside it.
    width
        Thickness of the outline in pixels, at least 1.
    color
        RGB, each 0 to 255.

    Returns
    -------
    numpy.ndarray
        Copy of ``pixels`` with the outline.

    Raises
    ------
    InputError
        If the box is not inside the image, or the width is not positive.
    """
    x0, y0, x1, y1 = check_box(box, pixels.shape[0], pixels.shape[1])
    if width < 1:
        raise InputError("the outline of the box has no width: give at least 1 pixel")
    drawn = np.array(pixels, order="C")
    region = drawn[y0:y1, x0:x1]
    region[:width] = region[-width:] = color
    region[:, :width] = region[:, -width:] = color
    return drawn


def box_iou(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes ``x0, y0, x1, y1``, in [0, 1]; 0 if neither has an area."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(wide, 0.0) * max(high, 0.0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (areas - shared) if areas > shared else 0.0


def _with_area(box: Box) -> Box:
    x0, y0, x1, y1 = box
    if x1 <= x0 or y1 <= y0:
        raise InputError(f"the box {x0},{y0},{x1},{y1} has no area: give x1 > x0 and y1 > y0")
    return box
