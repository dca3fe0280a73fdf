"""Measurements of a mask: position, size, number of parts and shape of a region.

Training texts are generated from these measurements, and generated texts are checked against them, so that sentences
agree with the pixels (UniBiomed, section "Dataset": region information turned into text). All measurements are
geometry of one 2-D mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import find_objects, label
from scipy.spatial import ConvexHull, QhullError

from .checks import Box
from .masks import mask_box

__all__ = ["PATIENT_SIDED", "RegionFacts", "describe_region", "split_parts"]

SPECK_SHARE, SPECK_PIXELS = 0.0005, 4
"""Parts smaller than this fraction of the image, or than this number of pixels, are annotation noise: not counted."""
MAX_SIDE = 256
"""Larger regions are subsampled to about this side, which is accurate enough for a description in words."""
EXTENTS = ((0.005, "tiny"), (0.03, "small"), (0.12, "medium-sized"))
PATIENT_SIDED = {"CT": ("abdomen", "chest", "lung", "thorax"), "X-ray": ("chest", "lung", "thorax")}
"""Modalities and sites with the radiological display convention: the right of the image is the patient's left."""


@dataclass(frozen=True, slots=True)
class RegionFacts:
    """Measurements of one region, computed from its mask.

    Attributes
    ----------
    place : str
        Position of the centroid in the image: ``"upper left"``, ``"lower middle"``, ``"right"``, ``"centre"``, ...
    side : str
        ``"left"``, ``"right"`` or ``"both sides"`` of the image; ``""`` if none applies.
    patient_side : str
        Side of the patient, ``"left"`` or ``"right"``; ``""`` if the display convention is not known.
    extent : str
        ``"tiny"`` (below 0.5 % of the image), ``"small"`` (below 3 %), ``"medium-sized"`` (below 12 %) or ``"large"``.
    area_fraction : float
        Fraction of the image, in [0, 1].
    area_mm2 : float or None
        Area in mm²; None if the spacing is unknown.
    parts : int
        Number of connected parts, without very small ones.
    shape : str
        Shape of the largest part: ``"round"``, ``"oval"``, ``"elongated"`` or ``"irregular"``.
    touches_border : bool
        Whether the region reaches the border of the image.
    box : tuple of int or None
        ``(x0, y0, x1, y1)`` in pixels, the last two exclusive; None for an empty mask.
    """

    place: str
    side: str
    patient_side: str
    extent: str
    area_fraction: float
    area_mm2: float | None
    parts: int
    shape: str
    touches_border: bool
    box: Box | None

    @property
    def empty(self) -> bool:
        """Whether the mask is empty."""
        return self.box is None


def describe_region(
    mask: np.ndarray, *, modality: str, site: str, spacing: tuple[float, float] | None = None, plane: str = ""
) -> RegionFacts:
    """Measure a region.

    Parameters
    ----------
    mask : numpy.ndarray
        Bool array of shape ``(height, width)``.
    modality, site : str
        Modality and body site of the image; they determine whether the side of the patient is known.
    spacing : tuple of float, optional
        ``(row, column)`` spacing in mm per pixel.
    plane : str
        Plane of a slice, for example ``"sagittal"``, whose left and right are not those of the patient.

    Returns
    -------
    RegionFacts
        For an empty mask: no parts, no shape and an area of 0.
    """
    height, width = mask.shape
    box = mask_box(mask)
    if box is None:
        return RegionFacts("", "", "", "", 0.0, None if spacing is None else 0.0, 0, "", False, None)
    x0, y0, x1, y1 = box
    pixels = int(np.count_nonzero(mask))
    step = _step(box)
    crop = mask[y0:y1:step, x0:x1:step]
    numbered, sizes, counted = _parts(crop, height * width / step**2)
    largest = numbered == (int(np.argmax(sizes)) + 1) if sizes.size else crop
    rows, columns = np.nonzero(crop)
    if not rows.size:
        # The region was lost in subsampling: use the centre of its box.
        rows, columns = np.array([(y1 - y0) / step / 2]), np.array([(x1 - x0) / step / 2])
    down = (y0 + (rows.mean() + 0.5) * step) / height
    across = columns * step + x0 + 0.5
    place = _place(float(across.mean()) / width, float(down))
    left_share = float(np.mean(across < width / 2))
    side = _side(left_share, float(across.mean()) / width)
    return RegionFacts(
        place=place,
        side=side,
        patient_side="" if plane == "sagittal" else _patient_side(side, modality, site),
        extent=next((word for limit, word in EXTENTS if pixels < limit * mask.size), "large"),
        area_fraction=pixels / mask.size,
        area_mm2=None if spacing is None else pixels * spacing[0] * spacing[1],
        parts=max(1, int(counted.sum())),
        shape=_shape(largest, spacing),
        touches_border=x0 == 0 or y0 == 0 or x1 == width or y1 == height,
        box=box,
    )


def split_parts(mask: np.ndarray, limit: int = 64) -> list[Box]:
    """Bounding boxes of the connected parts of a mask, in descending order of area, without very small parts.

    Parameters
    ----------
    mask : numpy.ndarray
        Bool array of shape ``(height, width)``.
    limit : int
        Maximum number of boxes.

    Returns
    -------
    list of tuple of int
        ``(x0, y0, x1, y1)`` in pixels, the last two exclusive.
    """
    box = mask_box(mask)
    if box is None:
        return []
    x0, y0, x1, y1 = box
    step = _step(box)
    numbered, sizes, counted = _parts(mask[y0:y1:step, x0:x1:step], mask.size / step**2)
    if not counted.any():
        return [box]
    places = find_objects(numbered)
    boxes = []
    for k in [int(k) for k in np.argsort(-sizes, kind="stable") if counted[k]][:limit]:
        # Subsampling may miss the ends of a part: the box is enlarged, then shrunk to the pixels inside.
        rows, columns = places[k]
        wider = 2 * (step - 1)
        top, left = max(0, y0 + rows.start * step - wider), max(0, x0 + columns.start * step - wider)
        bottom, right = y0 + (rows.stop - 1) * step + 1 + wider, x0 + (columns.stop - 1) * step + 1 + wider
        inside = mask_box(mask[top:bottom, left:right])
        assert inside is not None
        boxes.append((left + inside[0], top + inside[1], left + inside[2], top + inside[3]))
    return boxes


def _step(box: Box) -> int:
    return max(1, -(-max(box[2] - box[0], box[3] - box[1]) // MAX_SIDE))


def _parts(crop: np.ndarray, image_pixels: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labelled parts (8-connected), their sizes in pixels, and which of them are large enough to count."""
    numbered, _ = label(crop, structure=np.ones((3, 3), dtype=np.uint8))
    sizes = np.bincount(numbered.ravel())[1:]
    return numbered, sizes, (sizes >= SPECK_SHARE * image_pixels) & (sizes >= SPECK_PIXELS)


def _place(across: float, down: float) -> str:
    vertical = "upper" if down < 0.4 else "lower" if down > 0.6 else ""
    horizontal = "left" if across < 0.4 else "right" if across > 0.6 else ""
    if vertical and not horizontal:
        return f"{vertical} middle"
    return f"{vertical} {horizontal}".strip() or "centre"


def _side(left_share: float, across: float) -> str:
    if left_share > 0.9 and across < 0.45:
        return "left"
    if left_share < 0.1 and across > 0.55:
        return "right"
    return "both sides" if 0.25 < left_share < 0.75 else ""


def _patient_side(side: str, modality: str, site: str) -> str:
    if side not in ("left", "right") or not any(word in site.lower() for word in PATIENT_SIDED.get(modality, ())):
        return ""
    return "right" if side == "left" else "left"


def _shape(part: np.ndarray, spacing: tuple[float, float] | None) -> str:
    """Shape of one part, from its elongation (second moments) and the fraction of its convex hull that it fills."""
    x0, y0, x1, y1 = mask_box(part) or (0, 0, 1, 1)
    part = part[y0:y1, x0:x1]
    rows, columns = np.nonzero(part)
    if not rows.size:
        return "elongated"
    if rows.size < 12:
        return "round" if np.ptp(rows) <= 3 and np.ptp(columns) <= 3 else "elongated"
    row_size, column_size = spacing or (1.0, 1.0)
    y, x = rows * row_size, columns * column_size
    # The variance of a square pixel is added, so that lines of one pixel do not have zero width.
    yy, xx, xy = (
        y.var() + row_size**2 / 12,
        x.var() + column_size**2 / 12,
        float(np.mean((y - y.mean()) * (x - x.mean()))),
    )
    spread = float(np.hypot(yy - xx, 2 * xy))
    ratio = float(np.sqrt((yy + xx + spread) / max(yy + xx - spread, 1e-9)))
    if _solidity(part) < 0.85:
        return "irregular"
    return "round" if ratio < 1.25 else "oval" if ratio < 2.2 else "elongated"


def _solidity(part: np.ndarray) -> float:
    """Fraction of the convex hull that a part fills, in (0, 1]."""
    rows = np.flatnonzero(part.any(axis=1))
    first = part[rows].argmax(axis=1)
    last = part.shape[1] - part[rows, ::-1].argmax(axis=1)
    x = np.concatenate([first, last, first, last])
    y = np.concatenate([rows, rows, rows + 1, rows + 1])
    try:
        hull = float(ConvexHull(np.stack([x, y], axis=1)).volume)
    except QhullError:
        return 1.0
    return float(np.count_nonzero(part)) / hull
