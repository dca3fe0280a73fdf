"""Models that know no words: given a box, they outline what is in it.

Each target is asked for with the tight box of its truth. That is more than a model that reads words is given, so their
names in the tables end in ``(box)``.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import replace

import numpy as np

from unibiomed.images.geometry import Box, mask_box

from ..predictions import Prediction
from ..samples import Case, Sample

__all__ = ["BoxOutlines", "BoxPredictor"]

BoxOutlines = dict[Box, tuple[np.ndarray, float | None]]
"""For each box its mask, (height, width) bool, and the IoU with the truth that the model predicts, in [0, 1]."""


class BoxPredictor(ABC):
    """Base of the models that are given the box of the truth.

    Attributes
    ----------
    name : str
        In the tables; see `.base.mark_boxed`.
    """

    tasks = frozenset({"segment", "outline"})
    worded: frozenset[str] = frozenset()
    boxed = True
    note = "is given the box of the truth: not judged on whether the target is there"
    name: str

    @abstractmethod
    def outline(self, pixels: np.ndarray, boxes: list[Box]) -> BoxOutlines:
        """Outline what is in each box.

        Parameters
        ----------
        pixels : numpy.ndarray
            (height, width, 3) uint8.
        boxes : list of tuple of int
            One or more, each once: x0, y0, x1, y1 in pixels, x1 and y1 exclusive.
        """

    def predict(self, case: Case, pixels: np.ndarray) -> list[Prediction]:
        """The image is encoded once; each box is asked about once."""
        started = time.perf_counter()
        size = (pixels.shape[0], pixels.shape[1])
        masks = case.masks(size) if any(sample.box is None for sample in case.samples) else {}

        def box_of(sample: Sample) -> Box | None:
            return sample.box or mask_box(case.truths(sample, masks, size)[0])

        boxes = {sample.id: box_of(sample) for sample in case.samples}
        distinct = list(dict.fromkeys(box for box in boxes.values() if box))
        outlines = self.outline(pixels, distinct) if distinct else {}
        nothing: tuple[np.ndarray, float | None] = (np.zeros(size, dtype=bool), None)
        out = []
        for sample in case.samples:
            box = boxes[sample.id]
            mask, quality = outlines[box] if box else nothing
            out.append(Prediction.of_masks(sample.id, "", [sample.target], [mask], mask_scores=[quality]))
        seconds = (time.perf_counter() - started) / max(len(out), 1)
        return [replace(prediction, seconds=seconds) for prediction in out]
