"""What a stage sees of an image: a random view of the cached square, or the whole image as it is."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F

from unibiomed.data.records import Record, Region
from unibiomed.images.geometry import mask_box

from .augment import augment
from .squares import read_square
from .store import ImageStore


@dataclass(frozen=True)
class View:
    """An image with its masks, before the processor.

    Attributes
    ----------
    record : Record
        What is seen; boxes that stand for outlines are where they are in the view, those outside of it are left out.
    image : numpy.ndarray
        (height, width, 3) uint8.
    masks : dict of int to torch.Tensor
        Number of a region of `record` to (side, side) float32 in [0, 1]; regions that are not there are left out.
    side : int
        Side of the masks in pixels.
    whole : dict of int to numpy.ndarray
        Region number to (height, width) bool, where `masks` have another size than the image: a target too small for
        them is there all the same.
    """

    record: Record
    image: np.ndarray
    masks: dict[int, torch.Tensor]
    side: int
    whole: dict[int, np.ndarray] = field(default_factory=dict)

    def mask(self, region: int | None) -> torch.Tensor:
        """(side, side); empty where the region, or None, is not there."""
        empty = torch.zeros(self.side, self.side)
        return empty if region is None else self.masks.get(region, empty)

    def has(self, region: int) -> bool:
        """Whether any pixel is the region's."""
        return region in self.whole or (region in self.masks and bool(self.masks[region].max() > 0.5))

    def solid(self, region: int) -> np.ndarray:
        """(height, width) bool on the pixels of the image."""
        if region in self.whole:
            return self.whole[region]
        if region not in self.masks:
            return np.zeros(self.image.shape[:2], dtype=bool)
        return (self.masks[region] > 0.5).numpy()


class Viewer:
    """Makes views.

    Parameters
    ----------
    size : int
        Side in pixels of the square that SAM2 reads.
    store : ImageStore, optional
        Images at hand as squares. Without it, or for a record that it does not hold, images are read from their files.
    squared : bool
        The model reads squares alone: views are random and square. Else the whole image is shown with its own aspect
        ratio, as published, and the truth has the size of SAM2's masks.
    """

    def __init__(self, size: int, store: ImageStore | None = None, *, squared: bool = True) -> None:
        self.size, self.store, self.squared = size, store, squared

    def view(self, record: Record, rng: random.Random, strength: float) -> View:
        """A view of a record; `strength` is that of :func:`~unibiomed.train.augment.augment`."""
        if not self.squared:
            return self._whole(record)
        if self.store is not None and record.key in self.store.row:
            pixels, masks = self.store.load(record.key)
        else:
            pixels, masks = read_square(record, self.size)
        image, moved = augment(record, pixels, masks, rng, size=self.size, strength=strength)
        array = (image.permute(1, 2, 0) * 255).round().byte().numpy()
        record, moved = _with_boxes(record, moved)
        return View(record, array, moved, self.size)

    def _whole(self, record: Record) -> View:
        image = record.load_image()
        side = self.size // 4
        masks, whole = {}, {}
        for j, region in enumerate(record.regions):
            if region.mask is not None and (mask := region.load(image.shape[:2])).any():
                whole[j] = mask
                solid = torch.from_numpy(mask)[None, None].float()
                masks[j] = F.interpolate(solid, (side, side), mode="nearest")[0, 0]
        return View(record, image, masks, side, whole)


def _with_boxes(record: Record, moved: dict[int, torch.Tensor]) -> tuple[Record, dict[int, torch.Tensor]]:
    """`record` with the boxes where a view shows them, and `moved` without their fillings."""
    if not any(region.box for region in record.regions):
        return record, moved
    regions: list[Region] = []
    masks = {}
    for j, region in enumerate(record.regions):
        if region.box is not None:
            box = _seen_box(moved[j]) if j in moved else None
            if box is None:
                # left out: a region without mask and box is one that is known to be absent, and teaches an empty mask
                continue
            region = replace(region, box=box)
        elif j in moved:
            masks[len(regions)] = moved[j]
        regions.append(region)
    return replace(record, regions=tuple(regions)), masks


def _seen_box(filled: torch.Tensor) -> tuple[int, int, int, int] | None:
    """Box of a filled box after it was moved; one that is smaller than a pixel is still there."""
    return mask_box((filled > 0.5).numpy()) or mask_box((filled > 0).numpy())
