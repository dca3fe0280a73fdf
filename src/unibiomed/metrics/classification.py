"""Answers against truths: accuracy, errors for each label, ranking, and false findings on normal images.

Answers are compared without regard to case, blanks around them and a final full stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .arguments import as_flags, as_numbers, check_lengths

# callers of before `calibration` had its own file
from .calibration import calibration_error, fit_platt

__all__ = [
    "FalseFindings",
    "LabelScore",
    "accuracy",
    "auroc",
    "balanced_accuracy",
    "calibration_error",
    "confusion_matrix",
    "false_findings",
    "fit_platt",
    "label_scores",
    "substring_accuracy",
]


def accuracy(predictions: Sequence[str], truths: Sequence[str]) -> float:
    """Share of exact matches, in [0, 1]; NaN for none.

    Raises
    ------
    InputError
        If the lengths differ.
    """
    check_lengths(predictions=predictions, truths=truths)
    return _mean([plain(p) == plain(t) for p, t in zip(predictions, truths, strict=True)])


def substring_accuracy(predictions: Sequence[str], truths: Sequence[str]) -> float:
    """Share of answers that hold the true label anywhere, in [0, 1]; NaN for none.

    This is the accuracy of the published evaluation of UniBiomed. It is lenient: "no liver tumor" holds "tumor", and an
    answer that names every label is always right. Report `accuracy` beside it.

    Raises
    ------
    InputError
        If the lengths differ.
    """
    check_lengths(predictions=predictions, truths=truths)
    return _mean([plain(t) in plain(p) for p, t in zip(predictions, truths, strict=True)])


def confusion_matrix(
    predictions: Sequence[str], truths: Sequence[str], labels: Sequence[str] | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Count how often each true label got each answer.

    Parameters
    ----------
    predictions, truths : sequence of str
        One answer and one label for each image.
    labels : sequence of str, optional
        Labels that come first, in this order, whether they occur or not. All others that occur follow in alphabetical
        order: no answer is left out.

    Returns
    -------
    np.ndarray
        (labels, labels) int: a row for each true label, a column for each answer.
    tuple of str
        The labels, in lower case.

    Raises
    ------
    InputError
        If the lengths differ.
    """
    check_lengths(predictions=predictions, truths=truths)
    p, t = [plain(text) for text in predictions], [plain(text) for text in truths]
    first = list(dict.fromkeys(plain(text) for text in labels or ()))
    names = (*first, *sorted({*p, *t} - set(first)))
    place = {name: i for i, name in enumerate(names)}
    matrix = np.zeros((len(names), len(names)), int)
    np.add.at(matrix, ([place[name] for name in t], [place[name] for name in p]), 1)
    return matrix, names


@dataclass(frozen=True, slots=True)
class LabelScore:
    """How well one label is told, all in [0, 1]."""

    precision: float
    """Share of the answers with this label that are right; NaN where it was never answered."""
    recall: float
    """Share of the images with this label that got it; NaN where there are none."""
    f1: float
    """2TP / (2TP + FP + FN); NaN where the label occurs nowhere."""
    support: int
    """Images that have the label."""


def label_scores(
    predictions: Sequence[str], truths: Sequence[str], labels: Sequence[str] | None = None
) -> dict[str, LabelScore]:
    """Precision, recall and F1 of every label, in the order of `confusion_matrix`.

    Raises
    ------
    InputError
        If the lengths differ.
    """
    matrix, names = confusion_matrix(predictions, truths, labels)
    right, answered, true = np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1)
    return {
        name: LabelScore(
            _share(right[i], answered[i]),
            _share(right[i], true[i]),
            _share(2 * right[i], answered[i] + true[i]),
            int(true[i]),
        )
        for i, name in enumerate(names)
    }


def balanced_accuracy(predictions: Sequence[str], truths: Sequence[str]) -> float:
    """Mean recall of the labels that the truths have, in [0, 1], so that rare ones weigh as much; NaN for none.

    Raises
    ------
    InputError
        If the lengths differ.
    """
    return _mean([score.recall for score in label_scores(predictions, truths).values() if score.support])


def auroc(scores: Sequence[float], truths: Sequence[bool]) -> float:
    """Area under the ROC curve, in [0, 1]; NaN if there are no positives or no negatives.

    It is the chance that a positive scores above a negative, ties counted half.

    Raises
    ------
    InputError
        If the lengths differ, a score is NaN or infinite, or a truth is neither true nor false.
    """
    s, t = as_numbers(scores, "scores"), as_flags(truths, "truths")
    check_lengths(scores=s, truths=t)
    if t.all() or not t.any():
        return float("nan")
    negatives = np.sort(s[~t])
    below, not_above = np.searchsorted(negatives, s[t], "left"), np.searchsorted(negatives, s[t], "right")
    return float((below + not_above).mean() / 2 / negatives.size)


@dataclass(frozen=True, slots=True)
class FalseFindings:
    """What is told of images that show nothing abnormal."""

    share: float
    """Normal images with at least one finding, in [0, 1]; NaN for no images."""
    per_image: float
    """Mean number of findings on a normal image, 0 or more; NaN for no images."""
    images: int
    """Normal images that were read."""


def false_findings(findings: Sequence[int]) -> FalseFindings:
    """Sum up the findings on normal images, each of which is false.

    Parameters
    ----------
    findings : sequence of int
        How many findings each normal image got, 0 or more.

    Raises
    ------
    InputError
        If a count is NaN or below 0.
    """
    counts = as_numbers(findings, "numbers of findings", low=0)
    return FalseFindings(_mean(counts > 0), _mean(counts), counts.size)


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _share(part: int, whole: int) -> float:
    return float(part / whole) if whole else float("nan")


def plain(text: str) -> str:
    """What counts of an answer: not its letter case, nor how many blanks, nor blanks and full stops around it."""
    return " ".join(text.lower().split()).strip(" .")
