"""What a model calls each finding: the counts behind the tables and the figures of recognition and region classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from .rows import Row

__all__ = ["FAILED", "MOST_LABELS", "OTHER", "RARER", "count_answers", "fold", "joined"]

FAILED, OTHER, RARER = "(failure)", "(other)", "(rarer labels)"
MOST_LABELS = 48
"""Labels that a table or a figure has room for."""


def count_answers(rows: Iterable[Row]) -> dict[str, dict[str, int]]:
    """How often each true label got each answer.

    Letter case, blanks and a final full stop do not matter. Several labels of one image, in whatever order, are one
    label, joined by ``+``.

    Parameters
    ----------
    rows : iterable of Row
        Of ``recognize`` or of ``classify``.

    Returns
    -------
    dict of str to dict of str to int
        True label to answer to images: labels in alphabetical order, answers from the most frequent on. ``(other)`` is
        an answer that is nobody's true label, ``(failure)`` none at all. Every row is counted once.
    """
    pairs = [(joined(row.wanted or []), None if row.failure is not None else joined(row.said or [])) for row in rows]
    # a label that is spelled in two ways is one
    spelled = {true.lower(): true for true, _ in sorted(pairs, key=lambda pair: pair[0])}
    counts: dict[str, Counter[str]] = {name: Counter() for name in sorted(spelled)}
    for true, said in pairs:
        counts[true.lower()][FAILED if said is None else spelled.get(said.lower(), OTHER)] += 1
    return {
        spelled[name]: dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
        for name, found in counts.items()
    }


def joined(labels: Sequence[str]) -> str:
    """Labels of one image as one name, the same in whatever order they come."""
    return " + ".join(sorted((" ".join(label.split()).strip(" .") for label in labels), key=str.lower))


def fold(counts: Mapping[str, Mapping[str, int]], most: int = MOST_LABELS) -> tuple[np.ndarray, list[str], list[str]]:
    """The counts as a matrix that can be read.

    Parameters
    ----------
    counts : mapping
        From `count_answers`.
    most : int
        Labels beyond which the rarest share one row and one column, ``(rarer labels)``.

    Returns
    -------
    numpy.ndarray
        (true labels, answers) int; its sum is that of `counts`.
    list of str
        True labels in alphabetical order.
    list of str
        The same, then ``(other)`` and ``(failure)``, where there are any.
    """
    common = sorted(counts, key=lambda name: (-sum(counts[name].values()), name.lower()))[:most]
    kept = sorted(common, key=str.lower)
    rows = kept + ([RARER] if len(kept) < len(counts) else [])
    spoken = {said for found in counts.values() for said in found}
    columns = rows + [name for name in (OTHER, FAILED) if name in spoken]
    at, to = {name: i for i, name in enumerate(rows)}, {name: i for i, name in enumerate(columns)}
    matrix = np.zeros((len(rows), len(columns)), dtype=int)
    for true, found in counts.items():
        for said, number in found.items():
            matrix[at.get(true, len(kept)), to.get(said, len(kept))] += number
    return matrix, rows, columns
