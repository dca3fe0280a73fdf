"""Means with 95 % intervals: subjects are drawn again, with all their images, not single images as if independent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Estimate", "macro_mean", "mean_of"]

DRAWS = 1000
BLOCK = 1_000_000
"""Numbers of a block of draws: no more are in memory at once, or those of one draw."""
MANY = 5_000
"""Subjects above which a draw picks them one by one: a multinomial takes seconds there."""
SEED = 20


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its interval.

    Parameters
    ----------
    value : float
        NaN of nothing.
    low, high : float
        95 % percentile interval of the bootstrap by subject; NaN with fewer than two subjects.
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


def macro_mean(values: Iterable[tuple[str, str, float]], *, draws: int = DRAWS) -> Estimate:
    """The mean over classes of the mean in each class.

    Parameters
    ----------
    values : iterable of (str, str, float)
        Class, subject and value.
    draws : int
        Of the bootstrap; the same numbers each time. A class that a draw misses does not count in it.

    Returns
    -------
    Estimate
    """
    rows = list(values)
    if not rows:
        return Estimate(float("nan"), float("nan"), float("nan"), 0, 0)
    classes = {name: i for i, name in enumerate(sorted({row[0] for row in rows}))}
    people = {name: i for i, name in enumerate(sorted({row[1] for row in rows}))}
    sums, counts = np.zeros((len(people), len(classes))), np.zeros((len(people), len(classes)))
    at = (np.array([people[row[1]] for row in rows]), np.array([classes[row[0]] for row in rows]))
    np.add.at(sums, at, np.array([row[2] for row in rows]))
    np.add.at(counts, at, 1.0)
    value = float((sums.sum(0) / counts.sum(0)).mean())
    if len(people) < 2:
        return Estimate(value, float("nan"), float("nan"), len(rows), len(people))
    rng = np.random.default_rng(SEED)
    drawn = np.empty(draws)
    block = max(1, BLOCK // len(people))
    for first in range(0, draws, block):
        size = min(block, draws - first)
        # each row says how often each subject was drawn
        often = _draw(rng, len(people), size).astype(float)
        total, number = often @ sums, often @ counts
        seen = number > 0
        means = np.where(seen, total / np.where(seen, number, 1), 0.0)
        drawn[first : first + size] = means.sum(1) / np.maximum(seen.sum(1), 1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(value, float(low), float(high), len(rows), len(people))


def _draw(rng: np.random.Generator, people: int, size: int) -> np.ndarray:
    """(size, people) int: how often each of so many people was drawn, `people` times with replacement."""
    if people <= MANY:
        return rng.multinomial(people, np.full(people, 1 / people), size=size)
    return np.stack([np.bincount(rng.integers(people, size=people), minlength=people) for _ in range(size)])
