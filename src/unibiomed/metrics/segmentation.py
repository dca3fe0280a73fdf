"""Overlap of masks and of whole volumes, with a written rule for empty ones.

The rule, here and in `surface` and `instances`: every pair counts, none is skipped. Where truth and prediction are both
empty they agree, and get the best value; where only one of them is empty they get the worst.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .arguments import mask_pair


def dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Dice coefficient 2|P∩G| / (|P| + |G|) of two masks of one shape, in [0, 1].

    Two empty masks agree: 1. One empty and one not: 0. Nothing is skipped.

    Parameters
    ----------
    prediction, truth : np.ndarray
        Of one shape, any number of dimensions; anything but zero is inside.

    Raises
    ------
    InputError
        If the shapes differ, or a mask holds NaN.
    """
    return overlap(prediction, truth).dice


def iou(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union of two masks of one shape, in [0, 1]; 1 for two empty masks, 0 for one.

    Raises
    ------
    InputError
        If the shapes differ, or a mask holds NaN.
    """
    return overlap(prediction, truth).iou


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many pixels two masks have, and share; the sum of two is the overlap of both pairs taken together."""

    shared: int = 0
    predicted: int = 0
    true: int = 0

    @property
    def dice(self) -> float:
        """Dice coefficient in [0, 1]; 1 where both are empty."""
        total = self.predicted + self.true
        return 2 * self.shared / total if total else 1.0

    @property
    def iou(self) -> float:
        """Intersection over union in [0, 1]; 1 where both are empty."""
        union = self.predicted + self.true - self.shared
        return self.shared / union if union else 1.0

    def __add__(self, other: Overlap) -> Overlap:
        return Overlap(self.shared + other.shared, self.predicted + other.predicted, self.true + other.true)


def overlap(prediction: np.ndarray, truth: np.ndarray) -> Overlap:
    """Count the pixels of two masks of one shape.

    Raises
    ------
    InputError
        If the shapes differ, or a mask holds NaN.
    """
    p, g = mask_pair(prediction, truth)
    return Overlap(int(np.count_nonzero(p & g)), int(np.count_nonzero(p)), int(np.count_nonzero(g)))


class VolumeOverlap:
    """Overlap over all the slices of one volume, which are given one after the other and not kept.

    Slices that do not show the target count as well: a mask painted on one of them lowers the score. It equals the
    score of the stacked masks.

    Examples
    --------
    >>> volume = VolumeOverlap()
    >>> volume.add(np.array([[1, 0]]), np.array([[1, 1]]))
    >>> volume.add(np.array([[1, 0]]), np.array([[0, 0]]))
    >>> volume.slices, volume.dice
    (2, 0.5)
    """

    def __init__(self) -> None:
        self.total = Overlap()
        self.slices = 0

    def add(self, prediction: np.ndarray, truth: np.ndarray) -> None:
        """Count one more slice.

        Parameters
        ----------
        prediction, truth : np.ndarray
            (height, width) of one slice; another slice may have another size.

        Raises
        ------
        InputError
            If the shapes differ, or a mask holds NaN.
        """
        self.total = self.total + overlap(prediction, truth)
        self.slices += 1

    @property
    def dice(self) -> float:
        """Dice coefficient in [0, 1] of the slices so far; 1 where truth and prediction are empty in all of them."""
        return self.total.dice

    @property
    def iou(self) -> float:
        """Intersection over union in [0, 1] of the slices so far; 1 where both are empty in all of them."""
        return self.total.iou
