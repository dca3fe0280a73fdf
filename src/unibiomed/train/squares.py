"""Images and masks as squares of one size, which a small model reads."""

from __future__ import annotations

import numpy as np
from PIL import Image

from unibiomed.data.records import Record, Region


def read_square(record: Record, side: int) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """As :meth:`ImageStore.load`, from the files of the record.

    Parameters
    ----------
    record : Record
    side : int
        Side in pixels of the square; the aspect ratio is not kept, as in the paper.

    Returns
    -------
    tuple
        (side, side, 3) uint8, and region number to (side, side) uint8, 255 inside: the mask, or the filled box where
        only that is known. Regions that are not there are left out.
    """
    image = record.load_image()
    record.check_masks()
    masks = {}
    for j, region in enumerate(record.regions):
        if (mask := region_mask(region, image.shape[:2])) is not None and mask.any():
            masks[j] = square_mask(mask, side)
    return square_image(image, side), masks


def region_mask(region: Region, height_width: tuple[int, int]) -> np.ndarray | None:
    """(height, width) bool: a region's mask, or its filled box where only that is known; None where it is absent."""
    if region.mask is not None:
        return region.load(height_width)
    if region.box is None:
        return None
    x0, y0, x1, y1 = region.box
    mask = np.zeros(height_width, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def square_image(pixels: np.ndarray, side: int) -> np.ndarray:
    """(height, width, 3) uint8 to (side, side, 3)."""
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC))


def square_mask(mask: np.ndarray, side: int) -> np.ndarray:
    """(height, width) bool to (side, side) uint8: the share of each cell that the target covers, of 255."""
    # thin vessels keep their weight
    scaled = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(scaled.resize((side, side), Image.Resampling.BOX))
