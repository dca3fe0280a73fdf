"""Means, proportions and other statistics with 95 % confidence intervals, with subjects as the unit of sampling.

Images of one subject are correlated, so a bootstrap resamples subjects with all their images.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

__all__ = [
    "Estimate",
    "bootstrap_estimate",
    "bootstrap_sums",
    "dyadic_proportion",
    "macro_mean",
    "mean_estimate",
    "proportion_estimate",
    "upper_bound_of_zero",
]

RESAMPLES = 1000
BLOCK_SIZE = 1_000_000
"""Numbers held in memory at once, unless a single resample has more."""
MULTINOMIAL_LIMIT = 5_000
"""Number of subjects above which they are drawn one by one, because a multinomial takes seconds."""
SEED = 20
MIN_DEFINED = 0.9
"""Fraction of resamples in which a statistic must be defined."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % confidence interval.

    Parameters
    ----------
    value : float
        NaN if there is no data.
    low, high : float
        Bounds of the interval. NaN if the variation between subjects is unknown.
    count : int
        Number of values.
    subjects : int
        Number of patients, cases or groups that they belong to.
    """

    value: float
    low: float
    high: float
    count: int
    subjects: int

    def to_dict(self) -> dict[str, float | int | None]:
        """Return the fields rounded to six digits, with None for NaN, which JSON does not have."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        rounded = {name: None if math.isnan(number) else round(number, 6) for name, number in numbers.items()}
        return {**rounded, "count": self.count, "subjects": self.subjects}


def mean_estimate(values: Sequence[float], subjects: Sequence[str]) -> Estimate:
    """Estimate the mean of values, each of which belongs to a subject."""
    return macro_mean([("", subject, value) for value, subject in zip(values, subjects, strict=True)])


def proportion_estimate(values: Sequence[bool], subjects: Sequence[str]) -> Estimate:
    """Estimate the proportion of true values, each of which belongs to a subject.

    The interval of a proportion of 0 or 1 has an exact bound.
    """
    return macro_mean([("", subject, value) for value, subject in zip(values, subjects, strict=True)], proportion=True)


def upper_bound_of_zero(subjects: float) -> float:
    """Return the upper bound of the exact interval (Clopper and Pearson, 1934) of a proportion of 0."""
    return 1 - (0.05 / 2) ** (1 / subjects)


def macro_mean(
    values: Iterable[tuple[str, str, float]], *, proportion: bool = False, resamples: int = RESAMPLES
) -> Estimate:
    """Estimate the mean over classes of the mean of each class.

    A class without a value in a resample contributes its overall mean. The variance of a bootstrap is too small for
    classes with few subjects and zero for classes with one. The interval is therefore widened about the value by the
    ratio of the unbiased to the bootstrap standard error and by the ratio of Student's t to the normal quantile. A
    class with one subject is assigned the average variance per subject of the other classes, as in surveys with one
    unit per stratum. The interval is clipped to the range of the values.

    A proportion of 0 or 1 does not vary in a bootstrap. The distance to the exact bound of these classes, whose
    subjects are counted by their harmonic mean, is added to the interval in quadrature.

    Parameters
    ----------
    values : iterable of (str, str, float)
        Class, subject and value.
    proportion : bool
        Whether all values are 0 or 1.
    resamples : int
        Number of bootstrap resamples. The random seed is fixed.

    Returns
    -------
    Estimate
        Without an interval if no class has two subjects.
    """
    rows = list(values)
    if not rows:
        return Estimate(math.nan, math.nan, math.nan, 0, 0)
    classes = {name: i for i, name in enumerate(sorted({row[0] for row in rows}))}
    subjects = {name: i for i, name in enumerate(sorted({row[1] for row in rows}))}
    sums, counts = np.zeros((len(subjects), len(classes))), np.zeros((len(subjects), len(classes)))
    cells = (np.array([subjects[row[1]] for row in rows]), np.array([classes[row[0]] for row in rows]))
    numbers = np.array([row[2] for row in rows])
    np.add.at(sums, cells, numbers)
    np.add.at(counts, cells, 1.0)
    means = sums.sum(0) / counts.sum(0)
    value, factor = float(means.mean()), _widening_factor(sums - means * counts, counts)
    if math.isnan(factor):
        return Estimate(value, math.nan, math.nan, len(rows), len(subjects))

    def statistic(weights: np.ndarray) -> np.ndarray:
        total, number = weights @ sums, weights @ counts
        resampled: np.ndarray = np.where(number > 0, total / np.maximum(number, 1), means).mean(1)
        return resampled

    bounds = np.quantile(_bootstrap(statistic, len(subjects), len(subjects), resamples), [0.025, 0.975])
    low, high = np.clip(value + factor * (bounds - value), numbers.min(), numbers.max())
    if proportion:
        sizes = (counts > 0).sum(0)
        down, up = (_exact_margin(sizes[means == end], len(classes), len(subjects)) for end in (1, 0))
        low, high = max(0.0, value - math.hypot(value - low, down)), min(1.0, value + math.hypot(high - value, up))
    return Estimate(value, float(low), float(high), len(rows), len(subjects))


def _exact_margin(sizes: np.ndarray, classes: int, subjects: int) -> float:
    """Return the margin of the mean due to the classes (with `sizes` subjects) whose proportion is 0 or 1."""
    if not len(sizes):
        return 0.0
    # a subject that occurs in several classes is still one subject
    effective = min(len(sizes) ** 2 / (1 / sizes).sum(), subjects)
    return len(sizes) / classes * upper_bound_of_zero(float(effective))


def _widening_factor(deviations: np.ndarray, counts: np.ndarray) -> float:
    """Return the factor by which a bootstrap interval is too narrow; NaN if no class has two subjects.

    Both arrays are (subjects, classes): the deviation of a subject's sum from its expectation, and its number of
    values.
    """
    subjects = (counts > 0).sum(0)
    several = subjects > 1
    if not several.any():
        return math.nan
    degrees = min((subjects[several] - 1).sum(), len(counts) - 1)
    student = float(stats.t.ppf(0.975, degrees) / stats.norm.ppf(0.975))
    # variance of the mean of each class
    bootstrap = ((deviations / counts.sum(0)) ** 2).sum(0)
    unbiased = bootstrap * subjects / np.maximum(subjects - 1, 1)
    unbiased[~several] = (unbiased * subjects)[several].mean()
    return student * math.sqrt(unbiased.sum() / bootstrap.sum()) if bootstrap.any() else 1.0


def bootstrap_estimate(
    statistic: Callable[[np.ndarray], np.ndarray], subjects: Sequence[str], *, centred: bool = False
) -> Estimate:
    """Estimate a non-negative statistic by the bootstrap.

    Parameters
    ----------
    statistic : callable
        Maps the weight of each sample, (resamples, samples) float, to (resamples,) values, NaN where it is undefined.
        Undefined resamples are left out; if they are more than one in ten, there is no interval.
    subjects : sequence of str
        Subject of each sample.
    centred : bool
        Shift the resampled values so that their mean is the value. For statistics that resampling inflates, such as a
        mean of absolute differences.
    """
    value = float(statistic(np.ones((1, len(subjects))))[0])
    index = {name: i for i, name in enumerate(sorted(set(subjects)))}
    owners = np.array([index[name] for name in subjects])
    without_interval = Estimate(value, math.nan, math.nan, len(subjects), len(index))
    if len(index) < 2 or math.isnan(value):
        return without_interval
    resampled = _bootstrap(lambda weights: statistic(weights[:, owners]), len(index), len(subjects), RESAMPLES)
    defined = resampled[~np.isnan(resampled)]
    if defined.size < MIN_DEFINED * RESAMPLES:
        return without_interval
    low, high = np.quantile(defined, [0.025, 0.975]) + (value - defined.mean() if centred else 0.0)
    return Estimate(value, max(0.0, float(low)), float(high), len(subjects), len(index))


def bootstrap_sums(sums: np.ndarray, resamples: int) -> np.ndarray:
    """Resample sums over subjects: (subjects, columns) to (resamples, columns)."""
    columns = [
        _bootstrap(lambda weights, column=column: weights @ column, len(sums), len(sums), resamples)  # type: ignore[misc]
        for column in sums.T
    ]
    return np.stack(columns, axis=1)


def _bootstrap(statistic: Callable[[np.ndarray], np.ndarray], subjects: int, width: int, resamples: int) -> np.ndarray:
    """Return (resamples,) values of a statistic of subject weights; `width` is the width of its widest array."""
    rng = np.random.default_rng(SEED)
    values = np.empty(resamples)
    block = max(1, BLOCK_SIZE // width)
    for first in range(0, resamples, block):
        size = min(block, resamples - first)
        values[first : first + size] = statistic(_draw_weights(rng, subjects, size).astype(float))
    return values


def _draw_weights(rng: np.random.Generator, subjects: int, size: int) -> np.ndarray:
    """Draw subjects with replacement; return how often each was drawn, (size, subjects) int."""
    if subjects <= MULTINOMIAL_LIMIT:
        return rng.multinomial(subjects, np.full(subjects, 1 / subjects), size=size)
    return np.stack([np.bincount(rng.integers(subjects, size=subjects), minlength=subjects) for _ in range(size)])


def dyadic_proportion(values: Sequence[float], subjects: Sequence[tuple[str, str]]) -> Estimate:
    """Estimate a proportion over pairs of images, where pairs that share a subject are correlated.

    Such pairs link nearly all subjects, so that a bootstrap of connected groups has too few units. The interval is
    that of the normal distribution with the variance of Aronow et al. (2015), which is robust to dyadic clusters. For
    a proportion of 0 or 1 it is the exact one for the number of pairs that share no subject.

    Parameters
    ----------
    values : sequence of float
        0 or 1.
    subjects : sequence of (str, str)
        Subjects of both images of each pair.
    """
    people = {subject for pair in subjects for subject in pair}
    if not values:
        return Estimate(math.nan, math.nan, math.nan, 0, 0)
    mean = sum(values) / len(values)
    # with a single combination of subjects the variation between subjects is unknown
    if len({frozenset(pair) for pair in subjects}) < 2:
        return Estimate(mean, math.nan, math.nan, len(values), len(people))
    by_subject: dict[str, float] = defaultdict(float)
    by_pair: dict[frozenset[str], float] = defaultdict(float)
    for value, pair in zip(values, subjects, strict=True):
        for subject in set(pair):
            by_subject[subject] += value - mean
        by_pair[frozenset(pair)] += value - mean
    pair_variance = sum(total**2 for total in by_pair.values())
    # pairs of the same two subjects were counted for both of them
    repeated = sum(total**2 for pair_, total in by_pair.items() if len(pair_) == 2)
    dyadic_variance = sum(total**2 for total in by_subject.values()) - repeated
    margin = 1.96 * math.sqrt(max(dyadic_variance, pair_variance)) / len(values)
    if mean in (0, 1):
        margin = upper_bound_of_zero(_disjoint_pairs(subjects))
    return Estimate(mean, max(0.0, mean - margin), min(1.0, mean + margin), len(values), len(people))


def _disjoint_pairs(subjects: Sequence[tuple[str, str]]) -> int:
    """Count pairs, chosen greedily in order, of which no two share a subject."""
    used: set[str] = set()
    number = 0
    for pair in subjects:
        if used.isdisjoint(pair):
            used.update(pair)
            number += 1
    return number
