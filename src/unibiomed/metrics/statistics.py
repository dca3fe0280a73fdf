"""Paired tests with effect sizes, correction for multiple tests, and mean ± s.d. over runs.

Images of one subject are correlated. Average within subjects before a test; see `intervals` for confidence intervals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from unibiomed.errors import InputError

from .arguments import as_numbers, check_lengths

MAX_EXACT_PAIRS = 50
"""Number of differing pairs up to which the p-value of Wilcoxon's test is exact."""


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Result of a two-sided test of paired scores.

    Parameters
    ----------
    statistic : float
    p : float
        P-value in [0, 1].
    effect : float
        Cohen's dz of the t-test, or the rank-biserial correlation in [-1, 1] of Wilcoxon's test. Positive if a is
        higher.
    difference : float
        Mean of a − b.
    pairs : int
    """

    statistic: float
    p: float
    effect: float
    difference: float
    pairs: int


def paired_t_test(a: Sequence[float], b: Sequence[float]) -> PairedTest:
    """Compute a paired two-sided t-test with Cohen's dz.

    If all differences are 0, p is 1 and the effect 0; if all are equal and not 0, p is 0 and the effect infinite.

    Parameters
    ----------
    a, b : sequence of float
        Scores of two models on the same images or subjects, in the same order; two or more.

    Raises
    ------
    InputError
        The lengths differ, a score is NaN or infinite, or there are fewer than two pairs.
    """
    d = _differences(a, b)
    mean, sd = float(d.mean()), float(d.std(ddof=1))
    # equal differences of decimal numbers vary by rounding errors
    if sd <= 1e-12 * max(1.0, abs(mean)):
        if abs(mean) <= 1e-12:
            return PairedTest(0.0, 1.0, 0.0, mean, d.size)
        return PairedTest(math.copysign(math.inf, mean), 0.0, math.copysign(math.inf, mean), mean, d.size)
    t = mean / sd * math.sqrt(d.size)
    return PairedTest(t, float(2 * stats.t.sf(abs(t), d.size - 1)), mean / sd, mean, d.size)


def wilcoxon(a: Sequence[float], b: Sequence[float]) -> PairedTest:
    """Compute Wilcoxon's signed-rank test, two-sided, with the rank-biserial correlation; equal pairs are ignored.

    The p-value is exact for up to 50 differing pairs, with or without ties, and otherwise that of the normal
    approximation without continuity correction. If all pairs are equal, p is 1 and the effect 0.

    Parameters
    ----------
    a, b : sequence of float
        Scores of two models on the same images or subjects, in the same order; two or more.

    Raises
    ------
    InputError
        The lengths differ, a score is NaN or infinite, or there are fewer than two pairs.
    """
    # rounding makes differences equal that differ by rounding errors only
    d = np.round(_differences(a, b), 12)
    unequal = d[d != 0]
    if not unequal.size:
        return PairedTest(0.0, 1.0, 0.0, 0.0, d.size)
    ranks = stats.rankdata(np.abs(unequal))
    up, down = float(ranks[unequal > 0].sum()), float(ranks[unequal < 0].sum())
    p = min(1.0, 2 * _rank_sum_probability(ranks, min(up, down)))
    return PairedTest(min(up, down), p, (up - down) / (up + down), float(d.mean()), d.size)


def _rank_sum_probability(ranks: np.ndarray, maximum: float) -> float:
    """Return the probability that the sum of positive ranks is at most `maximum` if signs are random."""
    if ranks.size > MAX_EXACT_PAIRS:
        return float(stats.norm.cdf((maximum - ranks.sum() / 2) / math.sqrt((ranks**2).sum() / 4)))
    doubled = np.rint(2 * ranks).astype(int)  # ranks of ties are multiples of one half
    counts = np.zeros(doubled.sum() + 1)
    counts[0] = 1
    for rank in doubled:
        counts[rank:] = counts[rank:] + counts[:-rank]
    return float(counts[: round(2 * maximum) + 1].sum() / counts.sum())


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Correct p-values for multiple tests by controlling the family-wise error rate (Holm, 1979).

    Returns
    -------
    np.ndarray
        In [0, 1], in the order of `p_values`.

    Raises
    ------
    InputError
        A p-value is NaN or not in [0, 1].
    """
    p = as_numbers(p_values, "p-values", 0, 1)
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)).clip(max=1)
    return corrected


def mean_sd(runs: Sequence[float]) -> tuple[float, float]:
    """Compute mean and standard deviation (n − 1) over runs; the deviation of one run is NaN.

    Raises
    ------
    InputError
        A value is NaN or infinite.
    """
    values = as_numbers(runs, "runs")
    mean = float(values.mean()) if values.size else math.nan
    return mean, float(values.std(ddof=1)) if values.size > 1 else math.nan


def _differences(a: Sequence[float], b: Sequence[float]) -> np.ndarray:
    first, second = as_numbers(a, "scores of a"), as_numbers(b, "scores of b")
    if check_lengths(a=first, b=second) < 2:
        raise InputError(f"{first.size} pairs of scores: a test needs two or more")
    return first - second
