"""How sure a comparison is: intervals by subject, paired tests with the size of the effect, many tests at once.

Images of one subject are alike. Wherever there are several, give `subjects`, or average within them before a test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from unibiomed.errors import InputError

from .arguments import as_numbers, check_lengths

RESAMPLES = 10_000
_EXACT = 50  # pairs up to which Wilcoxon's p counts all signs
_CELLS = 2_000_000  # draws held at once


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its confidence interval; NaN where it cannot be told."""

    value: float
    low: float
    high: float
    level: float
    subjects: int
    """Subjects, or samples where none were named, that it rests on."""


def bootstrap_mean(
    values: Sequence[float],
    subjects: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Mean with a percentile interval of the cluster bootstrap: subjects are drawn, each with all of its images.

    For the difference of two models, give the differences of their scores, image by image.

    Parameters
    ----------
    values : sequence of float
        One score for each image.
    subjects : sequence of hashable, optional
        Whose image each is; without it every image is its own.
    level : float
        Confidence in (0, 1).
    resamples : int
        Draws, 1 or more.
    seed : int
        Same seed, same interval.

    Returns
    -------
    Interval
        NaN for no values; low and high are NaN for a single subject, which cannot tell how subjects differ.

    Raises
    ------
    InputError
        If the lengths differ, a value is NaN or infinite, or an option cannot be used.
    """
    scores = as_numbers(values, "values")
    groups, count = _groups(subjects, scores.size)
    _check(level, resamples)
    sums, sizes = np.bincount(groups, scores, minlength=count), np.bincount(groups, minlength=count)
    if count < 2:
        return Interval(float(scores.mean()) if scores.size else math.nan, math.nan, math.nan, level, count)
    rng, means, step = np.random.default_rng(seed), [], max(1, _CELLS // count)
    for start in range(0, resamples, step):
        drawn = rng.integers(0, count, size=(min(step, resamples - start), count))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    return Interval(float(scores.mean()), *_ends(np.concatenate(means), level), level, count)


def bootstrap(
    statistic: Callable[[np.ndarray], float],
    samples: int,
    subjects: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    resamples: int = 1_000,
    seed: int = 0,
) -> Interval:
    """Any statistic with a percentile interval of the cluster bootstrap; `bootstrap_mean` is faster for means.

    Parameters
    ----------
    statistic : callable
        From an (n,) int array of the places of the samples drawn, with repeats, to a number; for example
        ``lambda rows: auroc(scores[rows], truths[rows])``. Draws for which it is NaN are left out; where they are more
        than one in ten, the interval is NaN.
    samples : int
        How many there are.
    subjects : sequence of hashable, optional
        Whose sample each is.
    level, resamples, seed
        As for `bootstrap_mean`.

    Raises
    ------
    InputError
        If the lengths differ or an option cannot be used.
    """
    groups, count = _groups(subjects, samples)
    _check(level, resamples)
    value = float(statistic(np.arange(samples)))
    if count < 2:
        return Interval(value, math.nan, math.nan, level, count)
    order = np.argsort(groups, kind="stable")
    rows = np.split(order, np.cumsum(np.bincount(groups, minlength=count))[:-1])
    rng = np.random.default_rng(seed)
    found = np.array(
        [statistic(np.concatenate([rows[g] for g in rng.integers(0, count, count)])) for _ in range(resamples)], float
    )
    known = found[~np.isnan(found)]
    ends = _ends(known, level) if known.size >= 0.9 * resamples else (math.nan, math.nan)
    return Interval(value, *ends, level, count)


def wilson_interval(successes: int, trials: int, *, level: float = 0.95) -> Interval:
    """Share of successes with Wilson's (1927) interval, which holds near 0 and 1 as well; NaN for no trials.

    Raises
    ------
    InputError
        If the counts or the level cannot be used.
    """
    _check(level, 1)
    if not 0 <= successes <= trials:
        raise InputError(f"{successes} successes in {trials} trials cannot be")
    if not trials:
        return Interval(math.nan, math.nan, math.nan, level, 0)
    z, share = float(stats.norm.ppf((1 + level) / 2)), successes / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    # at the ends rounding would leave the share itself outside
    return Interval(share, max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)), level, trials)


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Outcome of a two-sided test of paired scores."""

    statistic: float
    p: float
    """Chance of a difference as large if there were none, in [0, 1]."""
    effect: float
    """Cohen's dz of the t-test, the rank-biserial correlation in [-1, 1] of Wilcoxon; above 0 where a is higher."""
    difference: float
    """Mean of a − b."""
    pairs: int


def paired_t_test(a: Sequence[float], b: Sequence[float]) -> PairedTest:
    """Paired two-sided t-test, with Cohen's dz: the mean difference in standard deviations of the differences.

    Where all differences are 0, p is 1 and the effect 0; where all are the same other number, p is 0 and the effect
    infinite.

    Parameters
    ----------
    a, b : sequence of float
        Scores of two models on the same images, or subjects, in the same order; two or more.

    Raises
    ------
    InputError
        If the lengths differ, a score is NaN or infinite, or there are fewer than two pairs.
    """
    d = _differences(a, b)
    mean, sd = float(d.mean()), float(d.std(ddof=1))
    # differences of decimals that are all the same are so but for rounding
    if sd <= 1e-12 * max(1.0, abs(mean)):
        if abs(mean) <= 1e-12:
            return PairedTest(0.0, 1.0, 0.0, mean, d.size)
        return PairedTest(math.copysign(math.inf, mean), 0.0, math.copysign(math.inf, mean), mean, d.size)
    t = mean / sd * math.sqrt(d.size)
    return PairedTest(t, float(2 * stats.t.sf(abs(t), d.size - 1)), mean / sd, mean, d.size)


def wilcoxon(a: Sequence[float], b: Sequence[float]) -> PairedTest:
    """Wilcoxon's signed-rank test, two-sided, with the rank-biserial correlation; equal pairs are left out.

    Exact for up to 50 differing pairs, ties or not, else by the normal approximation without a continuity correction.
    Where all pairs are equal, p is 1 and the effect 0.

    Parameters
    ----------
    a, b : sequence of float
        Scores of two models on the same images, or subjects, in the same order; two or more.

    Raises
    ------
    InputError
        If the lengths differ, a score is NaN or infinite, or there are fewer than two pairs.
    """
    # scores are of decimals: differences that are alike but for rounding are the same
    d = np.round(_differences(a, b), 12)
    unequal = d[d != 0]
    if not unequal.size:
        return PairedTest(0.0, 1.0, 0.0, 0.0, d.size)
    ranks = stats.rankdata(np.abs(unequal))
    up, down = float(ranks[unequal > 0].sum()), float(ranks[unequal < 0].sum())
    p = min(1.0, 2 * _rank_sum_chance(ranks, min(up, down)))
    return PairedTest(min(up, down), p, (up - down) / (up + down), float(d.mean()), d.size)


def _rank_sum_chance(ranks: np.ndarray, most: float) -> float:
    """Chance that the ranks with one sign add up to `most` at most, if each sign is a coin's."""
    if ranks.size > _EXACT:
        return float(stats.norm.cdf((most - ranks.sum() / 2) / math.sqrt((ranks**2).sum() / 4)))
    doubled = np.rint(2 * ranks).astype(int)  # ties have halves
    ways = np.zeros(doubled.sum() + 1)
    ways[0] = 1
    for rank in doubled:
        ways[rank:] = ways[rank:] + ways[:-rank]
    return float(ways[: round(2 * most) + 1].sum() / ways.sum())


def holm(p_values: Sequence[float]) -> np.ndarray:
    """P-values of many tests, corrected so that the chance of any false claim is held (Holm, 1979).

    Returns
    -------
    np.ndarray
        In [0, 1], in the order given.

    Raises
    ------
    InputError
        If a p-value is NaN or outside of [0, 1].
    """
    p = as_numbers(p_values, "p-values", 0, 1)
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)).clip(max=1)
    return corrected


def benjamini_hochberg(p_values: Sequence[float]) -> np.ndarray:
    """P-values of many tests, corrected so that the share of false claims is held (Benjamini and Hochberg, 1995).

    Returns
    -------
    np.ndarray
        In [0, 1], in the order given.

    Raises
    ------
    InputError
        If a p-value is NaN or outside of [0, 1].
    """
    p = as_numbers(p_values, "p-values", 0, 1)
    order = np.argsort(-p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum.accumulate(p[order] * p.size / np.arange(p.size, 0, -1)).clip(max=1)
    return corrected


def mean_sd(runs: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (n − 1) over runs; the deviation is NaN for one run, both are for none.

    Raises
    ------
    InputError
        If a value is NaN or infinite.
    """
    values = as_numbers(runs, "runs")
    mean = float(values.mean()) if values.size else math.nan
    return mean, float(values.std(ddof=1)) if values.size > 1 else math.nan


def _differences(a: Sequence[float], b: Sequence[float]) -> np.ndarray:
    first, second = as_numbers(a, "scores of a"), as_numbers(b, "scores of b")
    if check_lengths(a=first, b=second) < 2:
        raise InputError(f"{first.size} pairs of scores; a test needs two or more")
    return first - second


def _groups(subjects: Sequence[Hashable] | None, samples: int) -> tuple[np.ndarray, int]:
    """Number of each sample's subject, from 0 on in the order of their first samples, and how many subjects."""
    if subjects is None:
        return np.arange(samples), samples
    if len(subjects) != samples:
        raise InputError(f"{samples} samples for {len(subjects)} subjects; one each is needed")
    if any(subject != subject for subject in subjects):
        raise InputError("a subject is NaN; every sample must be somebody's")
    places: dict[Hashable, int] = {}
    groups = np.array([places.setdefault(subject, len(places)) for subject in subjects], int)
    return groups, len(places)


def _ends(drawn: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _check(level: float, resamples: int) -> None:
    if not 0 < level < 1:
        raise InputError(f"the confidence level is {level}; give a number between 0 and 1")
    if resamples < 1:
        raise InputError(f"{resamples} resamples; give 1 or more")
