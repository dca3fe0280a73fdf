"""Whether a score means what it says: calibration, and what is gained by leaving out the doubtful.

A score is a presence score, whose truth is 0 or 1, or a mask score, whose truth is the IoU or Dice that it foretells.
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
    """One point of a reliability diagram: what scores of one height said, and what came true; all in [0, 1]."""

    low: float
    high: float
    count: int
    score: float
    """Mean score in the bin; NaN where it is empty."""
    truth: float
    """Mean truth in the bin; NaN where it is empty."""


def reliability(scores: Sequence[float], truths: Sequence[float], bins: int = 10) -> list[ReliabilityBin]:
    """Points of a reliability diagram, over `bins` bins of equal width.

    A bin holds its lower bound; the last one holds 1 as well. Empty bins are there, with a count of 0.

    Parameters
    ----------
    scores : sequence of float
        In [0, 1].
    truths : sequence of float
        What the scores foretell: 0 or 1, or a value in [0, 1] such as an IoU.
    bins : int
        1 or more.

    Raises
    ------
    InputError
        If the lengths differ, or a value is NaN or outside of [0, 1].
    """
    s, t = _pair(scores, truths)
    if bins < 1:
        raise InputError(f"{bins} bins; at least one is needed")
    place = np.minimum((s * bins).astype(int), bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums = (np.bincount(place, values, minlength=bins) for values in (s, t))
    scored, true = (np.divide(total, counts, out=np.full(bins, np.nan), where=counts > 0) for total in sums)
    return [
        ReliabilityBin(b / bins, (b + 1) / bins, int(counts[b]), float(scored[b]), float(true[b])) for b in range(bins)
    ]


def calibration_error(scores: Sequence[float], truths: Sequence[float], bins: int = 10) -> float:
    """Expected calibration error, in [0, 1] (Guo, 2017); NaN for none.

    The mean gap between score and truth over `bins` equal bins, weighted by how many scores they hold.

    Parameters
    ----------
    scores : sequence of float
        In [0, 1].
    truths : sequence of float
        What the scores foretell: 0 or 1, or a value in [0, 1] such as an IoU.
    bins : int
        1 or more.

    Raises
    ------
    InputError
        If the lengths differ, or a value is NaN or outside of [0, 1].
    """
    filled = [one for one in reliability(scores, truths, bins) if one.count]
    if not filled:
        return float("nan")
    return sum(abs(one.score - one.truth) * one.count for one in filled) / sum(one.count for one in filled)


def brier(scores: Sequence[float], truths: Sequence[float]) -> float:
    """Mean squared difference of score and truth, in [0, 1]; 0 is best; NaN for none (Brier, 1950).

    Raises
    ------
    InputError
        If the lengths differ, or a value is NaN or outside of [0, 1].
    """
    s, t = _pair(scores, truths)
    return float(((s - t) ** 2).mean()) if s.size else float("nan")


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """How the mean loss falls when only the surest answers are given."""

    coverage: np.ndarray
    """(n,) shares of images answered, 1/n to 1."""
    risk: np.ndarray
    """(n,) mean loss of the images answered, the surest first."""
    area: float
    """AURC, the mean of `risk`; lower is better; NaN for no images."""


def risk_coverage(scores: Sequence[float], losses: Sequence[float]) -> RiskCoverage:
    """Risk-coverage curve and the area under it (Geifman and El-Yaniv, 2017; Geifman et al., 2019).

    Parameters
    ----------
    scores : sequence of float
        How sure each answer is; any numbers, higher is surer. Equal scores are taken in no order: their images share
        the mean of their losses, so that the curve does not hang on how the list was sorted.
    losses : sequence of float
        0 or more: 1 for a wrong answer and 0 for a right one, or 1 − Dice of a mask.

    Raises
    ------
    InputError
        If the lengths differ, a value is NaN or infinite, or a loss is below 0.
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
    logits: Sequence[float], truths: Sequence[float], beside: Sequence[float] | None = None
) -> tuple[float, ...]:
    """Scale and offset that make ``sigmoid(scale * logit + offset)`` foretell `truths` best (Platt, 1999).

    Parameters
    ----------
    logits : sequence of float
    truths : sequence of float
        In [0, 1].
    beside : sequence of float, optional
        A second number of each example, which gets a scale of its own.

    Returns
    -------
    tuple of float
        Scale, offset and, with `beside`, its scale, at the minimum of the cross-entropy; (1, 0, 0) when there are fewer
        than two examples.

    Raises
    ------
    InputError
        If the lengths differ, a value is NaN or infinite, or a truth is outside of [0, 1].
    """
    x, t = as_numbers(logits, "logits"), as_numbers(truths, "truths", 0, 1)
    columns = [x, np.ones_like(x)] + ([] if beside is None else [as_numbers(beside, "beside")])
    start = np.array([1.0, 0.0, 0.0][: len(columns)])
    if check_lengths(logits=x, truths=t, beside=columns[-1]) < 2:
        return tuple(float(value) for value in start)
    inputs = np.stack(columns, 1)

    def cross_entropy(parameters: np.ndarray) -> float:
        z = inputs @ parameters
        # a weak pull to the start keeps the answer finite where the two sides do not overlap
        return float(np.mean(np.logaddexp(0, z) - t * z) + 1e-3 * ((parameters - start) ** 2).sum())

    return tuple(float(value) for value in minimize(cross_entropy, start).x)


def _pair(scores: Sequence[float], truths: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    s, t = as_numbers(scores, "scores", 0, 1), as_numbers(truths, "truths", 0, 1)
    check_lengths(scores=s, truths=t)
    return s, t
