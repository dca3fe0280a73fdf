"""Data of the figures, read from the sample scores of each model line by line."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from sys import intern
from typing import Any, NamedTuple

import numpy as np

from unibiomed.metrics.statistics import holm, paired_t_test

from ..compare import MIN_SUBJECTS
from ..sample_scores import read_sample_scores
from ..score_metrics import reported_presence

__all__ = [
    "FigureData",
    "MaskScore",
    "SampleSize",
    "modality_tests",
    "p_values",
    "read_figure_data",
    "sample_sizes",
    "stars",
]

ScoreAndTruth = tuple[float, float, str]
"""Reported score, its ground truth in [0, 1], and the subject."""


class MaskScore(NamedTuple):
    """Score of one present target.

    Parameters
    ----------
    dataset, modality, subject : str
    dice : float
        In [0, 1].
    image_index : int
        Index of the image in its data set.
    """

    dataset: str
    modality: str
    subject: str
    dice: float
    image_index: int = 0


class SampleSize(NamedTuple):
    """Number of masks, images and subjects behind a score. An image with three targets has three masks."""

    masks: int
    images: int
    subjects: int

    def describe(self, separator: str = "\n") -> str:
        """Return the numbers with their units."""
        names = {"mask": self.masks, "image": self.images, "subject": self.subjects}
        return separator.join(f"{number:,} {name}{'' if number == 1 else 's'}" for name, number in names.items())


@dataclass
class FigureData:
    """Data of one model.

    Parameters
    ----------
    masks : list of MaskScore
        Segmentation of present targets.
    presence : list of (float, float, str)
        Presence score, whether the target is present (0 or 1), and subject, including out-of-context targets.
    overlap : list of (float, float, str)
        Mask score, IoU and subject of present targets.
    risk : list of (float, float, str)
        Confidence, 1 - Dice and subject, including absent in-context targets. Empty if the model reports no scores or
        is given the ground-truth box.
    """

    masks: list[MaskScore] = field(default_factory=list)
    presence: list[ScoreAndTruth] = field(default_factory=list)
    overlap: list[ScoreAndTruth] = field(default_factory=list)
    risk: list[ScoreAndTruth] = field(default_factory=list)


def read_figure_data(path: Path) -> FigureData:
    """Read the sample scores of one model without perturbed images and paraphrases.

    Raises
    ------
    DataError
        The file is missing or invalid.
    """
    data = FigureData()
    has_scores = has_presence = False
    for score in read_sample_scores(path):
        if score.task != "segment" or not score.original:
            continue
        has_presence = has_presence or score.presence is not None
        if (presence := reported_presence(score)) is not None:
            data.presence.append((presence, float(bool(score.target_present)), score.subject))
        if score.target_present and score.mask_score is not None:
            data.overlap.append((score.mask_score, score.iou, score.subject))
        if score.out_of_context:
            continue
        if not score.true_box:
            has_scores = has_scores or score.presence is not None or score.mask_score is not None
            data.risk.append((score.confidence, 1 - score.dice, score.subject))
        if score.target_present:
            names = intern(score.dataset), intern(score.modality), intern(score.subject)
            data.masks.append(MaskScore(*names, score.dice, score.image_index))
    if not has_scores:
        data.risk = []
    if not has_presence:
        # failures alone do not show that the model reports scores
        data.presence = []
    return data


def sample_sizes(data: Mapping[str, FigureData], group: Callable[[MaskScore], str]) -> dict[str, SampleSize]:
    """Return the sample size of each group, of the model with the most samples."""
    sizes: dict[str, SampleSize] = {}
    for one in data.values():
        parts: dict[str, list[MaskScore]] = defaultdict(list)
        for mask in one.masks:
            parts[group(mask)].append(mask)
        for key, part in parts.items():
            images, subjects = {(mask.dataset, mask.image_index) for mask in part}, {mask.subject for mask in part}
            size = SampleSize(len(part), len(images), len(subjects))
            sizes[key] = max(sizes.get(key, SampleSize(0, 0, 0)), size)
    return sizes


def p_values(
    data: Mapping[str, FigureData], group: Callable[[MaskScore], str], min_subjects: int = MIN_SUBJECTS
) -> dict[tuple[str, str], float]:
    """Test the first model against each other one in each group: two-sided paired t-tests of Dice by subject.

    Parameters
    ----------
    data : mapping of str to FigureData
    group : callable
        Group of a mask, such as its modality.
    min_subjects : int
        No test is made with fewer subjects.

    Returns
    -------
    dict
        P-value of each model and group, with Holm's correction over all tests.
    """
    means = {name: _subject_means(one.masks, group) for name, one in data.items()}
    if len(means) < 2:
        return {}
    first, *others = means
    raw: dict[tuple[str, str], float] = {}
    for other in others:
        for key, a in means[first].items():
            b = means[other].get(key, {})
            subjects = sorted(a.keys() & b.keys())
            if len(subjects) >= min_subjects:
                raw[other, key] = paired_t_test([a[s] for s in subjects], [b[s] for s in subjects]).p
    return dict(zip(raw, map(float, holm(list(raw.values()))), strict=True))


def modality_tests(data: Mapping[str, FigureData]) -> list[dict[str, Any]]:
    """Return the tests of the figure by modality, first model (``a``) against each other one (``b``).

    Parameters
    ----------
    data : mapping of str to FigureData

    Returns
    -------
    list of dict
        ``a``, ``b``, ``modality`` and ``p_adjusted``.
    """
    return [
        {"a": next(iter(data)), "b": other, "modality": modality, "p_adjusted": p}
        for (other, modality), p in p_values(data, lambda mask: mask.modality).items()
    ]


def _subject_means(masks: Sequence[MaskScore], group: Callable[[MaskScore], str]) -> dict[str, dict[str, float]]:
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for mask in masks:
        values[group(mask)][mask.subject].append(mask.dice)
    return {key: {s: float(np.mean(v)) for s, v in subjects.items()} for key, subjects in values.items()}


def stars(p: float | None) -> str:
    """Return ``*`` for p < 0.05, ``**`` for p < 0.01, ``***`` for p < 0.001, and nothing otherwise."""
    return "" if p is None else "*" * sum(p < level for level in (0.05, 0.01, 0.001))
