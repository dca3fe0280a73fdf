"""Boxes around nothing that a data set annotates: what ``classify`` should call "something else"."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np

from unibiomed.data.scene import Scene
from unibiomed.findings.regions import split_parts
from unibiomed.images.geometry import box_iou

__all__ = ["MAX_COVERED", "MAX_IOU", "box_elsewhere"]

Box = tuple[int, int, int, int]

MIN_SIDE, MAX_SIDE = 0.08, 0.5
"""Shortest and longest side of a random box, as a share of the image's side."""
MAX_ASPECT = 2.0
MIN_PIXELS = 6
MOVED_SHARE = 0.5
"""Share of boxes that are moved or scaled copies of a region's box, so that size and shape do not tell them apart."""
MAX_IOU = 0.2
MAX_COVERED = 0.1
"""Share of a box that annotated regions may cover."""
MAX_DENSITY = 0.25
"""The same as a share of how densely a region fills its own box: vessels are sparse everywhere."""
MAX_HELD = 0.25
"""Share of a region's pixels that the box may hold."""
TRIES = 24
PARTS = 4096


def box_elsewhere(scene: Scene, rng: random.Random) -> Box | None:
    """Draw a box that is around no region of an image.

    Its sides are 8 % to 50 % of the image's and its aspect ratio is between 1:2 and 2:1, or it is the moved or scaled
    box of a region or of one of its parts. It overlaps every known box with an IoU below `MAX_IOU`, less than
    `MAX_COVERED` of it are covered by regions, and it contains no whole region and no whole part of one.

    Parameters
    ----------
    scene : Scene
        The image. Without an outlined region, or where a region of the record was not loaded, no box is drawn: it is
        not known what is elsewhere.
    rng : random.Random
        Decides everything.

    Returns
    -------
    tuple of int or None
        ``(x0, y0, x1, y1)`` in pixels, the last two exclusive; None where no such box was found in `TRIES` draws.
    """
    if not scene.outlined or len(scene.known) < len(scene.record.regions):
        return None
    height, width = scene.masks[scene.outlined[0]].shape
    regions = [scene.masks[index] for index in scene.outlined]
    covered = np.logical_or.reduce(regions)
    named = [box for index in scene.present if (box := scene.box(index)) is not None]
    for index in scene.present:
        # where only a box is known, all of it may be the region
        if index not in scene.outlined and (box := scene.box(index)) is not None:
            covered[box[1] : box[3], box[0] : box[2]] = True
    densities = [(mask, _share(mask, scene.box(index))) for index, mask in zip(scene.outlined, regions, strict=True)]
    parts = [part for mask in regions for part in split_parts(mask, PARTS)]
    for box in _draws((height, width), named + parts, rng):
        if any(box_iou(box, other) >= MAX_IOU or _contains(box, other) for other in (*named, *parts)):
            continue
        x0, y0, x1, y1 = box
        if _share(covered, box) >= MAX_COVERED:
            continue
        if any(
            _share(mask, box) >= MAX_DENSITY * density
            or np.count_nonzero(mask[y0:y1, x0:x1]) >= MAX_HELD * np.count_nonzero(mask)
            for mask, density in densities
        ):
            continue
        return box
    return None


def _draws(size: tuple[int, int], boxes: list[Box], rng: random.Random) -> Iterator[Box]:
    """Random boxes, and moved copies of `boxes`, that lie within an image of (height, width) pixels."""
    height, width = size
    for _ in range(TRIES):
        if rng.random() < MOVED_SHARE:
            x0, y0, x1, y1 = rng.choice(boxes)
            wide, high = (x1 - x0) * rng.uniform(0.6, 1.6), (y1 - y0) * rng.uniform(0.6, 1.6)
            across = (x0 + x1) / 2 + rng.uniform(-1.5, 1.5) * (x1 - x0)
            down = (y0 + y1) / 2 + rng.uniform(-1.5, 1.5) * (y1 - y0)
            left, top = across - wide / 2, down - high / 2
        else:
            wide = rng.uniform(MIN_SIDE, MAX_SIDE) * width
            high = wide * MAX_ASPECT ** rng.uniform(-1, 1)
            if not MIN_SIDE * height <= high <= MAX_SIDE * height:
                continue
            left, top = rng.uniform(0, width - wide), rng.uniform(0, height - high)
        box = (round(left), round(top), round(left + wide), round(top + high))
        inside = box[0] >= 0 and box[1] >= 0 and box[2] <= width and box[3] <= height
        if inside and min(box[2] - box[0], box[3] - box[1]) >= MIN_PIXELS:
            yield box


def _share(mask: np.ndarray, box: Box | None) -> float:
    """Share of a box that a mask covers, in [0, 1]."""
    assert box is not None, "an outlined region has a box"
    return float(mask[box[1] : box[3], box[0] : box[2]].mean())


def _contains(box: Box, other: Box) -> bool:
    return box[0] <= other[0] and box[1] <= other[1] and box[2] >= other[2] and box[3] >= other[3]
