"""Confusion matrices of recognition and region classification."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from .sample_scores import SampleScore

__all__ = ["FAILED", "MAX_LABELS", "OTHER", "RARE", "count_predicted_labels", "join_labels", "merge_rare_labels"]

FAILED, OTHER, RARE = "(failure)", "(other)", "(rare labels)"
MAX_LABELS = 48
"""Maximum number of labels in a table or figure."""


def count_predicted_labels(scores: Iterable[SampleScore]) -> dict[str, dict[str, int]]:
    """Count the predicted labels of each true label.

    Labels are compared without case, blanks and a final full stop. Several labels of one image are joined by ``+`` in
    alphabetical order and count as one label.

    Parameters
    ----------
    scores : iterable of SampleScore
        Scores of ``recognize`` or of ``classify``.

    Returns
    -------
    dict of str to dict of str to int
        For each true label in alphabetical order the number of images per predicted label, most frequent first.
        ``(other)`` is a predicted label that is no true label of the suite, ``(failure)`` a missing answer. Every
        sample is counted once.
    """
    pairs = [
        (
            join_labels(score.true_labels or []),
            None if score.failure is not None else join_labels(score.predicted_labels or []),
        )
        for score in scores
    ]
    # labels that differ in case only are the same
    spelling = {true.lower(): true for true, _ in sorted(pairs, key=lambda pair: pair[0])}
    counts: dict[str, Counter[str]] = {name: Counter() for name in sorted(spelling)}
    for true, predicted in pairs:
        counts[true.lower()][FAILED if predicted is None else spelling.get(predicted.lower(), OTHER)] += 1
    return {
        spelling[name]: dict(sorted(row.items(), key=lambda item: (-item[1], item[0]))) for name, row in counts.items()
    }


def join_labels(labels: Sequence[str]) -> str:
    """Join the labels of one image into one name that does not depend on their order."""
    return " + ".join(sorted((" ".join(label.split()).strip(" .") for label in labels), key=str.lower))


def merge_rare_labels(
    counts: Mapping[str, Mapping[str, int]], limit: int = MAX_LABELS
) -> tuple[np.ndarray, list[str], list[str]]:
    """Convert counts to a confusion matrix of limited size.

    Parameters
    ----------
    counts : mapping
        From `count_predicted_labels`.
    limit : int
        Number of labels. The rarest labels beyond it share one row and one column, ``(rare labels)``.

    Returns
    -------
    numpy.ndarray
        (true labels, predicted labels) int.
    list of str
        True labels in alphabetical order.
    list of str
        Predicted labels: the same, followed by ``(other)`` and ``(failure)`` if they occur.
    """
    common = sorted(counts, key=lambda name: (-sum(counts[name].values()), name.lower()))[:limit]
    labels = sorted(common, key=str.lower)
    rows = labels + ([RARE] if len(labels) < len(counts) else [])
    occurring = {predicted for row in counts.values() for predicted in row}
    columns = rows + [name for name in (OTHER, FAILED) if name in occurring]
    row_of, column_of = ({name: i for i, name in enumerate(names)} for names in (rows, columns))
    matrix = np.zeros((len(rows), len(columns)), dtype=int)
    for true, row in counts.items():
        for predicted, number in row.items():
            matrix[row_of.get(true, len(labels)), column_of.get(predicted, len(labels))] += number
    return matrix, rows, columns
