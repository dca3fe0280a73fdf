"""Calibration of reported scores, and selective prediction.

A score is a presence score, whose ground truth is 0 or 1, or a mask score, whose ground truth is the IoU that it
predicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from unibiomed.errors import InputError

from .arguments import as_numbers, check_lengths


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """One bin of a reliability diagram.

    Parameters
    ----------
    low, high : float
        Bounds of the bin.
    count : int
        Number of samples.
    score, truth : float
        Mean score and mean ground truth in [0, 1]; NaN if the bin is empty.
    """

    low: float
    high: float
    count: int
    score: float
    truth: float


def reliability(scores: Sequence[float], truths: Sequence[float], bins: int = 10) -> list[ReliabilityBin]:
    """Compute a reliability diagram with bins of equal width.

    A bin includes its lower bound; the last one also includes 1. Empty bins are returned with a count of 0.

    Parameters
    ----------
    scores : sequence of float
        In [0, 1].
    truths : sequence of float
        Ground truth of each score: 0 or 1, or a value in [0, 1] such as an IoU.
    bins : int
        Number of bins, 1 or more.

    Raises
    ------
    InputError
        The lengths differ, or a value is NaN or not in [0, 1].
    """
    s, t = _pair(scores, truths)
    if bins < 1:
        raise InputError(f"{bins} bins: give 1 or more")
    index = np.minimum((s * bins).astype(int), bins - 1)
    counts = np.bincount(index, minlength=bins)
    sums = (np.bincount(index, values, minlength=bins) for values in (s, t))
    score, truth = (np.divide(total, counts, out=np.full(bins, np.nan), where=counts > 0) for total in sums)
    return [
        ReliabilityBin(b / bins, (b + 1) / bins, int(counts[b]), float(score[b]), float(truth[b])) for b in range(bins)
    ]


def calibration_error(scores: Sequence[float], truths: Sequence[float], bins: int = 10) -> float:
    """Compute the expected calibration error in [0, 1] (Guo et al., 2017); NaN without scores.

    It is the mean absolute difference of score and ground truth over bins of equal width, weighted by their counts.

    Parameters
    ----------
    scores : sequence of float
        In [0, 1].
    truths : sequence of float
        Ground truth of each score: 0 or 1, or a value in [0, 1] such as an IoU.
    bins : int
        Number of bins, 1 or more.

    Raises
    ------
    InputError
        The lengths differ, or a value is NaN or not in [0, 1].
    """
    filled = [one for one in reliability(scores, truths, bins) if one.count]
    if not filled:
        return float("nan")
    return sum(abs(one.score - one.truth) * one.count for one in filled) / sum(one.count for one in filled)


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """Risk-coverage curve.

    Parameters
    ----------
    coverage : numpy.ndarray
        (n,) fraction of samples that are answered, 1/n to 1.
    risk : numpy.ndarray
        (n,) mean loss of the answered samples, most confident first.
    area : float
        Area under the curve (AURC), the mean of `risk`. Lower is better. NaN without samples.
    """

    coverage: np.ndarray
    risk: np.ndarray
    area: float


def risk_coverage(scores: Sequence[float], losses: Sequence[float]) -> RiskCoverage:
    """Compute the risk-coverage curve and its area (Geifman and El-Yaniv, 2017; Geifman et al., 2019).

    Parameters
    ----------
    scores : sequence of float
        Confidence of each answer; any numbers, higher is more confident. Samples with equal scores share the mean of
        their losses, so that the curve does not depend on the order of the samples.
    losses : sequence of float
        0 or more: 1 for a wrong answer and 0 for a correct one, or 1 − Dice of a mask.

    Raises
    ------
    InputError
        The lengths differ, a value is NaN or infinite, or a loss is negative.
    """
    s, loss = as_numbers(scores, "scores"), as_numbers(losses, "losses", low=0)
    n = check_lengths(scores=s, losses=loss)
    if not n:
        return RiskCoverage(np.empty(0), np.empty(0), float("nan"))
    _, group, size = np.unique(-s, return_inverse=True, return_counts=True)
    shared = np.repeat(np.bincount(group, loss) / size, size)
    answered = np.arange(1, n + 1)
    risk = np.cumsum(shared) / answered
    return RiskCoverage(answered / n, risk, float(risk.mean()))


def fit_platt(
    logits: Sequence[float], truths: Sequence[float], covariate: Sequence[float] | None = None
) -> tuple[float, ...]:
    """Fit scale and offset of ``sigmoid(scale * logit + offset)`` to `truths` (Platt, 1999).

    Parameters
    ----------
    logits : sequence of float
    truths : sequence of float
        In [0, 1].
    covariate : sequence of float, optional
        Second predictor of each sample, with a scale of its own.

    Returns
    -------
    tuple of float
        Scale, offset and, with `covariate`, its scale, at the minimum of the cross-entropy with a weak L2 penalty;
        (1, 0, 0) for fewer than two samples.

    Raises
    ------
    InputError
        The lengths differ, a value is NaN or infinite, or a truth is not in [0, 1].
    """
    x, t = as_numbers(logits, "logits"), as_numbers(truths, "truths", 0, 1)
    columns = [x, np.ones_like(x)] + ([] if covariate is None else [as_numbers(covariate, "covariate")])
    start = np.array([1.0, 0.0, 0.0][: len(columns)])
    if check_lengths(logits=x, truths=t, covariate=columns[-1]) < 2:
        return tuple(float(value) for value in start)
    inputs = np.stack(columns, 1)

    def cross_entropy(parameters: np.ndarray) -> float:
        z = inputs @ parameters
        # the penalty keeps the solution finite if the classes are separable
        return float(np.mean(np.logaddexp(0, z) - t * z) + 1e-3 * ((parameters - start) ** 2).sum())

    return tuple(float(value) for value in minimize(cross_entropy, start).x)


def _pair(scores: Sequence[float], truths: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    s, t = as_numbers(scores, "scores", 0, 1), as_numbers(truths, "truths", 0, 1)
    check_lengths(scores=s, truths=t)
    return s, t
