"""Numbers with 95 % intervals: subjects are drawn again, with all their images, not single images as if independent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

__all__ = ["Estimate", "drawn_sums", "estimate_of", "macro_mean", "mean_of", "share_of", "unseen"]

DRAWS = 1000
BLOCK = 1_000_000
"""Numbers of a block of draws: no more are in memory at once, or those of one draw."""
MANY = 5_000
"""Subjects above which a draw picks them one by one: a multinomial takes seconds there."""
SEED = 20
FEWEST_KNOWN = 0.9
"""Share of draws that have to have a number."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval.

    Parameters
    ----------
    value : float
        NaN of nothing.
    low, high : float
        95 % interval of the bootstrap by subject; NaN where nothing tells how subjects differ.
    count : int
        Values.
    subjects : int
        Patients, cases or groups they belong to.
    """

    value: float
    low: float
    high: float
    count: int
    subjects: int

    def to_dict(self) -> dict[str, float | int | None]:
        """For JSON, which knows no NaN."""
        clean = {k: (None if v != v else round(v, 6)) for k, v in (("value", self.value), ("low", self.low))}
        return clean | {
            "high": None if self.high != self.high else round(self.high, 6),
            "count": self.count,
            "subjects": self.subjects,
        }


def mean_of(values: Sequence[float], subjects: Sequence[str]) -> Estimate:
    """Mean of values, each belonging to a subject."""
    return macro_mean([("", subject, value) for value, subject in zip(values, subjects, strict=True)])


def share_of(values: Sequence[bool], subjects: Sequence[str]) -> Estimate:
    """Share of what is true, each value belonging to a subject; that of none, or of all, has an exact bound."""
    return macro_mean([("", subject, value) for value, subject in zip(values, subjects, strict=True)], shares=True)


def unseen(subjects: float) -> float:
    """The largest share that so many subjects may show nothing of: the exact upper end of 0 (Clopper and Pearson)."""
    return 1 - (0.05 / 2) ** (1 / subjects)


def macro_mean(values: Iterable[tuple[str, str, float]], *, shares: bool = False, draws: int = DRAWS) -> Estimate:
    """The mean over classes of the mean in each class.

    A class that a draw misses counts with its mean: the mean over the others would be that of something else. Draws
    vary too little where a class has few subjects, and not at all where it has one. So the interval is made wider,
    about the value, by as much as the variance that so many subjects let expect is larger than that of the draws, and
    by Student's t over the normal distribution. A class with one subject is taken to vary as a subject of the other
    classes does on the mean, as surveys treat strata with one unit. The interval stays within the range of the values.

    Draws of a share of 0 or 1 do not vary, though the truth may be another. So the way to the exact bound of all such
    classes, whose subjects count by their harmonic mean, is added to the interval, as the root of the sum of squares.

    Parameters
    ----------
    values : iterable of (str, str, float)
        Class, subject and value.
    shares : bool
        Whether all values are 0 or 1, and their means shares.
    draws : int
        Of the bootstrap; the same numbers each time.

    Returns
    -------
    Estimate
        Without an interval where no class has two subjects.
    """
    rows = list(values)
    if not rows:
        return Estimate(float("nan"), float("nan"), float("nan"), 0, 0)
    classes = {name: i for i, name in enumerate(sorted({row[0] for row in rows}))}
    people = {name: i for i, name in enumerate(sorted({row[1] for row in rows}))}
    sums, counts = np.zeros((len(people), len(classes))), np.zeros((len(people), len(classes)))
    at = (np.array([people[row[1]] for row in rows]), np.array([classes[row[0]] for row in rows]))
    given = np.array([row[2] for row in rows])
    np.add.at(sums, at, given)
    np.add.at(counts, at, 1.0)
    means = sums.sum(0) / counts.sum(0)
    value, widened = float(means.mean()), _widened(sums - means * counts, counts)
    if math.isnan(widened):
        return Estimate(value, float("nan"), float("nan"), len(rows), len(people))

    def drawn(often: np.ndarray) -> np.ndarray:
        total, number = often @ sums, often @ counts
        found: np.ndarray = np.where(number > 0, total / np.maximum(number, 1), means).mean(1)
        return found

    ends = np.quantile(_over_draws(drawn, len(people), len(people), draws), [0.025, 0.975])
    low, high = np.clip(value + widened * (ends - value), given.min(), given.max())
    if shares:
        sizes = (counts > 0).sum(0)
        down, up = (_room(sizes[means == end], len(classes), len(people)) for end in (1, 0))
        low, high = max(0.0, value - math.hypot(value - low, down)), min(1.0, value + math.hypot(high - value, up))
    return Estimate(value, float(low), float(high), len(rows), len(people))


def _room(sizes: np.ndarray, classes: int, people: int) -> float:
    """How far the mean may be off, as the shares of some of its classes, with so many subjects, are all 0 or all 1."""
    if not len(sizes):
        return 0.0
    # one subject in many classes is still one
    subjects = min(len(sizes) ** 2 / (1 / sizes).sum(), people)
    return len(sizes) / classes * unseen(float(subjects))


def _widened(gaps: np.ndarray, counts: np.ndarray) -> float:
    """By how much the interval has to be wider than that of the draws; NaN where no class has two subjects.

    Both are (subjects, classes): a subject's sum less what the mean of the class would make it, and its values.
    """
    people = (counts > 0).sum(0)
    several = people > 1
    if not several.any():
        return math.nan
    # of so few the spread itself is not known well
    freedom = min((people[several] - 1).sum(), len(counts) - 1)
    student = float(stats.t.ppf(0.975, freedom) / stats.norm.ppf(0.975))
    # of the mean of each class
    drawn = ((gaps / counts.sum(0)) ** 2).sum(0)
    expected = drawn * people / np.maximum(people - 1, 1)
    expected[~several] = (expected * people)[several].mean()
    return student * math.sqrt(expected.sum() / drawn.sum()) if drawn.any() else 1.0


def estimate_of(
    statistic: Callable[[np.ndarray], np.ndarray], subjects: Sequence[str], *, centred: bool = False
) -> Estimate:
    """Any number of 0 or more that follows from how often each sample counts, with its interval.

    Parameters
    ----------
    statistic : callable
        Takes (draws, samples) float, how often each sample was drawn, and gives (draws,), NaN where there is no number.
        Such draws are left out; where they are more than one in ten, there is no interval.
    subjects : sequence of str
        Whose each sample is.
    centred : bool
        Move the draws so that their mean is the value: for numbers such as a mean of absolute gaps, which noise, and so
        drawing again, makes larger.
    """
    value = float(statistic(np.ones((1, len(subjects))))[0])
    people = {name: i for i, name in enumerate(sorted(set(subjects)))}
    at = np.array([people[name] for name in subjects])
    nothing = Estimate(value, float("nan"), float("nan"), len(subjects), len(people))
    if len(people) < 2 or math.isnan(value):
        return nothing
    found = _over_draws(lambda often: statistic(often[:, at]), len(people), len(subjects), DRAWS)
    known = found[~np.isnan(found)]
    if known.size < FEWEST_KNOWN * DRAWS:
        return nothing
    low, high = np.quantile(known, [0.025, 0.975]) + (value - known.mean() if centred else 0.0)
    return Estimate(value, max(0.0, float(low)), float(high), len(subjects), len(people))


def _over_draws(statistic: Callable[[np.ndarray], np.ndarray], people: int, width: int, draws: int) -> np.ndarray:
    """(draws,) numbers, from how often each of so many people was drawn; `width` is that of the widest array made."""
    rng = np.random.default_rng(SEED)
    drawn = np.empty(draws)
    block = max(1, BLOCK // width)
    for first in range(0, draws, block):
        size = min(block, draws - first)
        drawn[first : first + size] = statistic(_draw(rng, people, size).astype(float))
    return drawn


def drawn_sums(sums: np.ndarray, draws: int) -> np.ndarray:
    """Of each draw the sums over its subjects, (draws, columns), from those of each subject, (subjects, columns)."""
    columns = [_over_draws(lambda often, one=one: often @ one, len(sums), len(sums), draws) for one in sums.T]  # type: ignore[misc]
    return np.stack(columns, axis=1)


def _draw(rng: np.random.Generator, people: int, size: int) -> np.ndarray:
    """(size, people) int: how often each of so many people was drawn, `people` times with replacement."""
    if people <= MANY:
        return rng.multinomial(people, np.full(people, 1 / people), size=size)
    return np.stack([np.bincount(rng.integers(people, size=people), minlength=people) for _ in range(size)])
