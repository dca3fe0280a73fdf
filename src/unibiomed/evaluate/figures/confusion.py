"""What a model calls each finding: the confusion matrix of recognition and of region classification."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .gather import FAILED, OTHER
from .style import INK, legend, words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["confusion", "confusion_size", "plot_confusion"]

MOST_LABELS = 36
RARER = "(rarer labels)"


def confusion(pairs: Sequence[tuple[str, str]]) -> tuple[np.ndarray, list[str], list[str]]:
    """Counts of true labels against what was said.

    Parameters
    ----------
    pairs : sequence of (str, str)
        True label and answer of each image.

    Returns
    -------
    numpy.ndarray
        (true labels, answers) int.
    list of str
        True labels; the rarest share one row where there are more than 36.
    list of str
        The same, then answers that are nobody's label, and failures, where there are any.
    """
    spelled = {true.lower(): true for true, _ in sorted(pairs)}
    counts = Counter(true.lower() for true, _ in pairs)
    kept = sorted(sorted(counts, key=lambda name: (-counts[name], name))[:MOST_LABELS])
    rows = kept + ([RARER] if len(kept) < len(counts) else [])

    def column(said: str) -> str:
        said = said.lower()
        return said if said in kept or said == FAILED else RARER if said in counts else OTHER

    spoken = {column(said) for _, said in pairs}
    columns = rows + [name for name in (OTHER, FAILED) if name in spoken]
    at, to = {name: i for i, name in enumerate(rows)}, {name: i for i, name in enumerate(columns)}
    matrix = np.zeros((len(rows), len(columns)), dtype=int)
    for true, said in pairs:
        matrix[at.get(true.lower(), len(kept)), to[column(said)]] += 1
    return matrix, [spelled.get(name, name) for name in rows], [spelled.get(name, name) for name in columns]


def confusion_size(rows: int, columns: int) -> tuple[float, float]:
    """Height and width in inches."""
    cell = 0.34 if rows <= 12 else 0.23
    return max(2.6, 2.3 + cell * rows), max(4.2, 2.8 + cell * columns)


def plot_confusion(
    figure: Figure, matrix: np.ndarray, rows: Sequence[str], columns: Sequence[str], *, title: str
) -> None:
    """Each row in percent of its images; shares below 1 % have no number.

    Parameters
    ----------
    figure : Figure
    matrix : numpy.ndarray
        (true labels, answers) counts.
    rows, columns : sequence of str
        Their names.
    title : str
    """
    share = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes = figure.subplots()
    shown = axes.imshow(share, cmap="Blues", vmin=0, vmax=100, aspect="equal")
    size = 6 if len(rows) <= 12 else 5
    for (i, j), value in np.ndenumerate(share):
        if value >= 1:
            color = "w" if value > 55 else INK
            number = axes.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=size, color=color)
            # inside the axes anyway: the layout need not measure hundreds of them
            number.set_in_layout(False)
    totals = matrix.sum(axis=1)
    axes.set_yticks(range(len(rows)), [f"{words(name, 34)} ({n:,})" for name, n in zip(rows, totals, strict=True)])
    axes.set_xticks(range(len(columns)), [words(name, 34) for name in columns], rotation=90)
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="0.92", linewidth=0.4)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="answer", ylabel="truth (images)")
    bar = figure.colorbar(shown, ax=axes, shrink=0.5, aspect=25, pad=0.02, label="% of the row")
    bar.outline.set_visible(False)
    legend(figure, [], title)
