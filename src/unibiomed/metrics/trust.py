"""Whether answers hang on the image and not on the question.

The paired test follows MediConfusion (Sepehri et al., 2025): two images, one question, and opposite truths.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from unibiomed.errors import InputError

from .arguments import as_mask, check_lengths
from .segmentation import dice
from .statistics import Interval, bootstrap_mean, wilson_interval


@dataclass(frozen=True, slots=True)
class Trust:
    """Outcome of the paired test; guessing by a coin gives 0.25 and 0.5, one answer for all images 0 and 1."""

    set_accuracy: Interval
    """Share of pairs with both answers right."""
    confusion: Interval
    """Share of pairs with the same answer for both images, whose truths differ."""
    pairs: int
    unreadable: int
    """Answers that were neither yes nor no."""


def paired_trust(
    with_target: Sequence[bool | None],
    without_target: Sequence[bool | None],
    subjects: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    seed: int = 0,
) -> Trust:
    """Test whether a model tells two images apart of which one shows the target.

    Parameters
    ----------
    with_target, without_target : sequence of bool or None
        For each pair, what was answered of the image that shows the target and of the one that does not: whether a mask
        came back, or yes or no in words. None is an answer that cannot be read: it is never right, and its pair is not
        confused.
    subjects : sequence of hashable, optional
        Whose pair each is, where several pairs share one: then intervals are those of `bootstrap_mean`, else Wilson's.
    level : float
        Confidence in (0, 1).
    seed : int
        Of the bootstrap.

    Raises
    ------
    InputError
        If the lengths differ, or an answer is NaN or anything else.
    """
    pairs = check_lengths(with_target=with_target, without_target=without_target)
    for answer in (*with_target, *without_target):
        if not (answer is None or isinstance(answer, (bool, np.bool_))):
            raise InputError("answers must be true, false or None")
    both = list(zip(with_target, without_target, strict=True))
    right = [bool(a is not None and b is not None and a and not b) for a, b in both]
    same = [bool(a is not None and b is not None and a == b) for a, b in both]
    unreadable = sum(answer is None for pair in both for answer in pair)

    def interval(flags: list[bool]) -> Interval:
        if subjects is None:
            return wilson_interval(sum(flags), pairs, level=level)
        return bootstrap_mean(flags, subjects, level=level, seed=seed)

    return Trust(interval(right), interval(same), pairs, unreadable)


def paraphrase_agreement(masks: Sequence[np.ndarray]) -> float:
    """Mean Dice of all pairs of masks that paraphrases of one question gave for one image, in [0, 1].

    Two empty masks agree: 1. It says nothing of whether the masks are right.

    Parameters
    ----------
    masks : sequence of np.ndarray
        Two or more, of one shape.

    Raises
    ------
    InputError
        If there are fewer than two, their shapes differ, or one holds NaN.
    """
    if len(masks) < 2:
        raise InputError(f"{len(masks)} masks; agreement needs two or more")
    solid = [as_mask(mask, "mask") for mask in masks]
    if len({mask.shape for mask in solid}) > 1:
        raise InputError("the masks have different shapes; they must be of one image")
    return float(np.mean([dice(a, b) for a, b in combinations(solid, 2)]))
