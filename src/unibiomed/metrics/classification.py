"""Accuracy, ranking and calibration of scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.stats import rankdata


def accuracy(predictions: Sequence[str], truths: Sequence[str]) -> float:
    """Share of exact matches, in [0, 1], without regard to case and a final full stop; NaN for none.

    Raises
    ------
    ValueError
        If the lengths differ.
    """
    if len(predictions) != len(truths):
        raise ValueError(f"{len(predictions)} predictions for {len(truths)} truths")
    pairs = zip(map(_plain, predictions), map(_plain, truths), strict=True)
    same = [p == t for p, t in pairs]
    return float(np.mean(same)) if same else float("nan")


def auroc(scores: Sequence[float], truths: Sequence[bool]) -> float:
    """Area under the ROC curve, in [0, 1]; NaN if there are no positives or no negatives.

    It is the chance that a positive scores above a negative, ties counted half.
    """
    s, t = np.asarray(scores, float), np.asarray(truths, bool)
    positive, negative = int(t.sum()), int((~t).sum())
    if not positive or not negative:
        return float("nan")
    return float((rankdata(s)[t].sum() - positive * (positive + 1) / 2) / (positive * negative))


def calibration_error(scores: Sequence[float], truths: Sequence[float], bins: int = 10) -> float:
    """Expected calibration error, in [0, 1] (Guo, 2017).

    The mean gap between score and truth over `bins` equal bins, weighted by how many scores they hold.

    Parameters
    ----------
    scores : sequence of float
        In [0, 1].
    truths : sequence of float
        What the scores foretell: 0 or 1, or a value in [0, 1] such as an IoU.
    """
    s, t = np.asarray(scores, float), np.asarray(truths, float)
    place = np.minimum((s * bins).astype(int), bins - 1)
    gaps = [abs(s[place == b].mean() - t[place == b].mean()) * np.mean(place == b) for b in np.unique(place)]
    return float(sum(gaps))


def fit_platt(logits: Sequence[float], truths: Sequence[float]) -> tuple[float, float]:
    """Scale and offset that make ``sigmoid(scale * logit + offset)`` foretell `truths` best (Platt, 1999).

    Parameters
    ----------
    logits : sequence of float
    truths : sequence of float
        In [0, 1].

    Returns
    -------
    tuple of float
        The minimum of the cross-entropy; (1, 0) when there are fewer than two examples.
    """
    x, t = np.asarray(logits, float), np.asarray(truths, float)
    if len(x) < 2:
        return 1.0, 0.0

    def cross_entropy(parameters: np.ndarray) -> float:
        z = parameters[0] * x + parameters[1]
        # a weak pull to (1, 0) keeps the answer finite where the two sides do not overlap
        return float(np.mean(np.logaddexp(0, z) - t * z) + 1e-3 * ((parameters - [1, 0]) ** 2).sum())

    scale, offset = minimize(cross_entropy, np.array([1.0, 0.0])).x
    return float(scale), float(offset)


def _plain(text: str) -> str:
    return text.strip().rstrip(".").lower()
