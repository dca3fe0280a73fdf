"""Boxes on the pixel grid: pixel units, the far corner exclusive, so that ``pixels[y0:y1, x0:x1]`` is the box."""

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
    """Find the smallest box around a mask.

    Parameters
    ----------
    mask
        Array of shape ``(height, width)``; everything that is not zero counts.

    Returns
    -------
    Box or None
        None when the mask is empty.
    """
    inside = np.asarray(mask) != 0
    if inside.ndim != 2:
        raise InputError(f"a mask has the shape (height, width), not {inside.shape}")
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if rows.size == 0:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def parse_box(text: str) -> Box:
    """Read ``"x0,y0,x1,y1"``.

    Raises
    ------
    InputError
        If the text is not four whole numbers, or the box has no area.
    """
    match = _BOX.fullmatch(text) if isinstance(text, str) else None
    if not match:
        raise InputError(f"the box cannot be read: {_FORM}")
    x0, y0, x1, y1 = (int(v) for v in match.groups())
    return _with_area((x0, y0, x1, y1))


def check_box(box: Sequence[int], height: int, width: int) -> Box:
    """Make sure that a box lies inside an image.

    Parameters
    ----------
    box
        Four whole numbers ``x0, y0, x1, y1``.
    height, width
        Size of the image in pixels.

    Returns
    -------
    Box
        The same box as plain ints.

    Raises
    ------
    InputError
        If it is not four whole numbers, has no area, or reaches outside the image.
    """
    try:
        x0, y0, x1, y1 = (operator.index(v) for v in box)
    except (TypeError, ValueError):
        raise InputError(f"a box is four whole numbers: {_FORM}") from None
    x0, y0, x1, y1 = _with_area((x0, y0, x1, y1))
    if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
        raise InputError(
            f"the box {x0},{y0},{x1},{y1} reaches outside the image of {width}x{height} pixels: "
            f"keep it within 0,0,{width},{height}"
        )
    return x0, y0, x1, y1


def draw_box(
    pixels: np.ndarray, box: Sequence[int], *, width: int = 2, color: tuple[int, int, int] = (0, 255, 0)
) -> np.ndarray:
    """Draw the outline by which a region is pointed out to the model.

    Region questions were learnt on images with a green box of 2 pixels, so the defaults should stay for them.

    Parameters
    ----------
    pixels
        uint8 RGB of shape ``(height, width, 3)``.
    box
        The box; the outline lies inside it.
    width
        Thickness of the outline in pixels, at least 1.
    color
        RGB, each 0 to 255.

    Returns
    -------
    numpy.ndarray
        A changed copy of ``pixels``.

    Raises
    ------
    InputError
        If the box does not fit the image.
    """
    x0, y0, x1, y1 = check_box(box, pixels.shape[0], pixels.shape[1])
    if width < 1:
        raise InputError("the outline of a box must be at least 1 pixel wide")
    drawn = np.array(pixels, order="C")
    region = drawn[y0:y1, x0:x1]
    region[:width] = region[-width:] = color
    region[:, :width] = region[:, -width:] = color
    return drawn


def box_iou(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes ``x0, y0, x1, y1``, in [0, 1]; 0 where both have no area."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(wide, 0.0) * max(high, 0.0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (areas - shared) if areas > shared else 0.0


def _with_area(box: Box) -> Box:
    x0, y0, x1, y1 = box
    if x1 <= x0 or y1 <= y0:
        raise InputError(f"the box {x0},{y0},{x1},{y1} has no area: x1 must exceed x0 and y1 must exceed y0")
    return box
