"""What a stage sees of an image: a random view of the cached square, or the whole image as it is."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from unibiomed.data.records import Record
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
        What is seen; boxes that stand for outlines are where they are in the view.
    image : numpy.ndarray
        (height, width, 3) uint8.
    masks : dict of int to torch.Tensor
        Region number to (side, side) float32 in [0, 1]; regions that are not there are left out.
    side : int
        Side of the masks in pixels.
    """

    record: Record
    image: np.ndarray
    masks: dict[int, torch.Tensor]
    side: int

    def mask(self, region: int | None) -> torch.Tensor:
        """(side, side); empty where the region, or None, is not there."""
        empty = torch.zeros(self.side, self.side)
        return empty if region is None else self.masks.get(region, empty)

    def has(self, region: int) -> bool:
        """Whether any pixel is the region's."""
        return region in self.masks and bool(self.masks[region].max() > 0.5)

    def solid(self, region: int) -> np.ndarray:
        """(height, width) bool on the pixels of the image."""
        shape = self.image.shape[:2]
        if region not in self.masks:
            return np.zeros(shape, dtype=bool)
        mask = self.masks[region]
        if mask.shape != shape:
            mask = F.interpolate(mask[None, None], shape, mode="nearest")[0, 0]
        return (mask > 0.5).numpy()


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
        return View(_with_boxes(record, moved), array, moved, self.size)

    def _whole(self, record: Record) -> View:
        image = record.load_image()
        side = self.size // 4
        masks = {}
        for j, region in enumerate(record.regions):
            if region.mask is not None and (mask := region.load(image.shape[:2])).any():
                solid = torch.from_numpy(mask)[None, None].float()
                masks[j] = F.interpolate(solid, (side, side), mode="nearest")[0, 0]
        return View(record, image, masks, side)


def _with_boxes(record: Record, moved: dict[int, torch.Tensor]) -> Record:
    """`record` with the boxes of a view, and without those that it does not show; their fillings leave `moved`."""
    if not any(region.box for region in record.regions):
        return record
    regions = []
    for j, region in enumerate(record.regions):
        if region.box is None:
            regions.append(region)
        elif (filled := moved.pop(j, None)) is not None and (box := mask_box((filled > 0.5).numpy())) is not None:
            regions.append(replace(region, box=box))
        else:
            # its number must stay: regions are known by it
            regions.append(replace(region, box=None))
    return replace(record, regions=tuple(regions))
