"""Overlap of masks.

Every pair of masks counts, here and in `surface` and `instances`: two empty masks agree and get the best value, and a
pair with one empty mask gets the worst value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .arguments import mask_pair


def dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Compute the Dice coefficient 2|P∩G| / (|P| + |G|) of two masks, in [0, 1].

    It is 1 for two empty masks and 0 if one mask is empty.

    Parameters
    ----------
    prediction, truth : np.ndarray
        Masks of the same shape with any number of dimensions; non-zero values are inside.

    Raises
    ------
    InputError
        The shapes differ, or a mask contains NaN.
    """
    return overlap(prediction, truth).dice


def iou(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Compute the intersection over union of two masks, in [0, 1]; 1 for two empty masks, 0 if one is empty.

    Raises
    ------
    InputError
        The shapes differ, or a mask contains NaN.
    """
    return overlap(prediction, truth).iou


@dataclass(frozen=True, slots=True)
class Overlap:
    """Pixel counts of two masks. The sum of two overlaps is that of the concatenated masks, such as a volume.

    Parameters
    ----------
    intersection, predicted, true : int
        Pixels in both masks, in the prediction and in the ground truth.
    """

    intersection: int = 0
    predicted: int = 0
    true: int = 0

    @property
    def dice(self) -> float:
        """Dice coefficient in [0, 1]; 1 if both masks are empty."""
        total = self.predicted + self.true
        return 2 * self.intersection / total if total else 1.0

    @property
    def iou(self) -> float:
        """Intersection over union in [0, 1]; 1 if both masks are empty."""
        union = self.predicted + self.true - self.intersection
        return self.intersection / union if union else 1.0

    def __add__(self, other: Overlap) -> Overlap:
        return Overlap(self.intersection + other.intersection, self.predicted + other.predicted, self.true + other.true)


def overlap(prediction: np.ndarray, truth: np.ndarray) -> Overlap:
    """Count the pixels of two masks of the same shape.

    Raises
    ------
    InputError
        The shapes differ, or a mask contains NaN.
    """
    p, g = mask_pair(prediction, truth)
    return Overlap(int(np.count_nonzero(p & g)), int(np.count_nonzero(p)), int(np.count_nonzero(g)))
