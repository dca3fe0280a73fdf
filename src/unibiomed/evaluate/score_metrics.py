"""Evaluation of the scores that a model reports: presence score and predicted IoU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from scipy.special import digamma

from unibiomed.metrics.calibration import reliability
from unibiomed.metrics.intervals import bootstrap_estimate

from .sample_scores import SampleScore

__all__ = ["presence_auroc", "reported_presence", "summarise_scores"]

BINS = 10
"""Number of bins of equal width of the calibration error."""


def summarise_scores(samples: Sequence[SampleScore]) -> dict[str, Any]:
    """Evaluate presence scores and predicted IoU of masks.

    Parameters
    ----------
    samples : sequence of SampleScore
        Samples of ``segment``.

    Returns
    -------
    dict
        ``presence`` and, without out-of-context targets, ``presence_in_context``: ``auroc``, ``calibration_error``
        and ``reliability``. A failure counts as confidently wrong. ``mask``: ``calibration_error`` of the predicted
        IoU of present targets. ``risk``: ``aurc`` over all in-context samples, most confident first, if the model
        reports either score. A model that is given the ground-truth box has neither presence nor ``risk``.
    """
    in_context = [s for s in samples if not s.out_of_context and not s.true_box]
    out: dict[str, Any] = {}
    reported = any(s.presence is not None for s in samples)
    for name, part in (("presence", samples), ("presence_in_context", in_context)):
        # failures alone do not show that the model reports scores
        scored = [s for s in part if reported and s.target_present is not None and reported_presence(s) is not None]
        if len({s.target_present for s in scored}) == 2:
            presence, truths = [reported_presence(s) or 0.0 for s in scored], [bool(s.target_present) for s in scored]
            subjects = [s.subject for s in scored]
            out[name] = {
                "auroc": presence_auroc(presence, truths, subjects),
                "calibration_error": _calibration_error(presence, truths, subjects),
                "count": len(scored),
                "reliability": [
                    [round(one.score, 6), round(one.truth, 6), one.count]
                    for one in reliability(presence, truths, BINS)
                    if one.count
                ],
            }
    with_mask_score = [s for s in samples if s.target_present and s.mask_score is not None]
    if with_mask_score:
        mask_scores, ious = [s.mask_score or 0.0 for s in with_mask_score], [s.iou for s in with_mask_score]
        error = _calibration_error(mask_scores, ious, [s.subject for s in with_mask_score])
        out["mask"] = {"calibration_error": error, "count": len(with_mask_score)}
    if any(s.presence is not None or s.mask_score is not None for s in in_context):
        losses, subjects = [1 - s.dice for s in in_context], [s.subject for s in in_context]
        out["risk"] = {"aurc": _aurc([s.confidence for s in in_context], losses, subjects), "count": len(in_context)}
    return out


def reported_presence(score: SampleScore) -> float | None:
    """Return the presence score in [0, 1], None if the model reports none; a failure counts as the wrong answer."""
    return float(not score.target_present) if score.failure is not None else score.presence


def presence_auroc(scores: Sequence[float], present: Sequence[bool], subjects: Sequence[str]) -> dict[str, Any]:
    """Return the AUROC of presence scores with its interval as a JSON value; both classes must occur."""
    order = np.argsort(scores, kind="stable")
    score, true = np.asarray(scores, float)[order], np.asarray(present, float)[order]
    ties = np.flatnonzero(np.diff(score, prepend=-np.inf))

    def auroc(weights: np.ndarray) -> np.ndarray:
        weights = weights[:, order]
        positives = np.add.reduceat(weights * true, ties, axis=1)
        negatives = np.add.reduceat(weights * (1 - true), ties, axis=1)
        # ties count half
        concordant = (positives * (negatives.cumsum(1) - negatives / 2)).sum(1)
        pairs = positives.sum(1) * negatives.sum(1)
        values: np.ndarray = np.divide(concordant, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
        return values

    return bootstrap_estimate(auroc, subjects).to_dict()


def _aurc(confidence: Sequence[float], losses: Sequence[float], subjects: Sequence[str]) -> dict[str, Any]:
    """Return the area of `unibiomed.metrics.risk_coverage` with its interval."""
    statistic = partial(_weighted_aurc, np.asarray(confidence, float), np.asarray(losses, float))
    return bootstrap_estimate(statistic, subjects).to_dict()


def _weighted_aurc(confidence: np.ndarray, losses: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the area under the risk-coverage curve for weights of the images: (resamples, images) to (resamples,)."""
    order = np.argsort(-confidence, kind="stable")
    weights, ties = weights[:, order], np.flatnonzero(np.diff(confidence[order], prepend=np.inf))
    size, loss = np.add.reduceat(weights, ties, axis=1), np.add.reduceat(weights * losses[order], ties, axis=1)
    size_before, loss_before = size.cumsum(1) - size, loss.cumsum(1) - loss
    mean = np.divide(loss, size, out=np.zeros_like(loss), where=size > 0)
    # for images of equal confidence the sum over j = 1..size of (loss_before + j * mean) / (size_before + j)
    sums = size * mean + (loss_before - size_before * mean) * (
        digamma(size_before + size + 1) - digamma(size_before + 1)
    )
    areas: np.ndarray = sums.sum(1) / size.sum(1)
    return areas


def _calibration_error(scores: Sequence[float], truths: Sequence[float], subjects: Sequence[str]) -> dict[str, Any]:
    """Return `unibiomed.metrics.calibration_error` with its interval."""
    score = np.asarray(scores, float)
    differences = np.zeros((len(score), BINS))
    bins = np.minimum((score * BINS).astype(int), BINS - 1)
    differences[np.arange(len(score)), bins] = score - np.asarray(truths, float)

    def error(weights: np.ndarray) -> np.ndarray:
        values: np.ndarray = np.abs(weights @ differences).sum(1) / weights.sum(1)
        return values

    return bootstrap_estimate(error, subjects, centred=True).to_dict()
