"""Overlap of masks, with a written rule for empty ones."""

from __future__ import annotations

import numpy as np


def dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Dice coefficient 2|P∩G| / (|P| + |G|) of two masks of one shape, in [0, 1].

    Two empty masks agree: 1. One empty and one not: 0. Nothing is skipped.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    p, g = _pair(prediction, truth)
    total = int(p.sum()) + int(g.sum())
    return 1.0 if total == 0 else 2 * int((p & g).sum()) / total


def iou(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union of two masks of one shape, in [0, 1]; 1 for two empty masks.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    p, g = _pair(prediction, truth)
    union = int((p | g).sum())
    return 1.0 if union == 0 else int((p & g).sum()) / union


def _pair(prediction: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p, g = np.asarray(prediction).astype(bool), np.asarray(truth).astype(bool)
    if p.shape != g.shape:
        raise ValueError(f"the prediction has shape {p.shape}, the truth {g.shape}")
    return p, g
