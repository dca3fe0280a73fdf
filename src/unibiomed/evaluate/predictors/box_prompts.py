"""Base class of models that segment the content of a box and do not read text.

They are given the tight box of the ground truth of each target, which is more information than other models get. Their
names therefore end in ``(box)``.
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
"""For each box its mask, (height, width) bool, and the predicted IoU in [0, 1]."""


class BoxPredictor(ABC):
    """Base class of models that are given the ground-truth box.

    Attributes
    ----------
    name : str
        Name in the tables; see `.base.add_box_suffix`.
    """

    tasks = frozenset({"segment", "outline"})
    paraphrase_tasks: frozenset[str] = frozenset()
    true_box = True
    note = "is given the ground-truth box; presence is not evaluated"
    name: str

    @abstractmethod
    def outline(self, pixels: np.ndarray, boxes: list[Box]) -> BoxOutlines:
        """Segment the content of each box.

        Parameters
        ----------
        pixels : numpy.ndarray
            (height, width, 3) uint8.
        boxes : list of tuple of int
            At least one box, without repetitions: x0, y0, x1, y1 in pixels, x1 and y1 exclusive.
        """

    def predict(self, case: Case, pixels: np.ndarray) -> list[Prediction]:
        """Predict the samples of a case; the image is encoded once and each box is used once."""
        started = time.perf_counter()
        size = (pixels.shape[0], pixels.shape[1])
        masks = case.masks(size) if any(sample.box is None for sample in case.samples) else {}

        def box_of(sample: Sample) -> Box | None:
            return sample.box or mask_box(case.truths(sample, masks, size)[0])

        boxes = {sample.id: box_of(sample) for sample in case.samples}
        distinct = list(dict.fromkeys(box for box in boxes.values() if box))
        outlines = self.outline(pixels, distinct) if distinct else {}
        empty: tuple[np.ndarray, float | None] = (np.zeros(size, dtype=bool), None)
        predictions = []
        for sample in case.samples:
            box = boxes[sample.id]
            mask, mask_score = outlines[box] if box else empty
            prediction = Prediction.from_masks(sample.id, "", [sample.target], [mask], mask_scores=[mask_score])
            predictions.append(prediction)
        seconds = (time.perf_counter() - started) / max(len(predictions), 1)
        return [replace(prediction, seconds=seconds) for prediction in predictions]
