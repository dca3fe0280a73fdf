"""What a model calls each finding: the confusion matrix of recognition and of region classification, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .style import INK, legend, words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["confusion_size", "plot_confusion"]


LONGEST, WRAP = 80, 36
"""Letters of a label, and of a line of it: the names of two findings in full."""
LETTER = 0.062
"""Inches of a letter of the labels."""


def confusion_size(rows: Sequence[str], columns: Sequence[str]) -> tuple[float, float]:
    """Height and width in inches: cells, the longest names, and what stands round them."""
    cell = 0.34 if len(rows) <= 12 else 0.23
    down, across = (max(len(line) for name in names for line in _label(name).splitlines()) for names in (columns, rows))
    return 1.0 + cell * len(rows) + LETTER * down, max(4.2, 1.5 + cell * len(columns) + LETTER * (across + 6))


def _label(name: str) -> str:
    return words(name, LONGEST, WRAP)


def plot_confusion(
    figure: Figure, matrix: np.ndarray, rows: Sequence[str], columns: Sequence[str], *, title: str, of: str = "images"
) -> None:
    """Each row in percent of its images or boxes; shares below 1 % have no number.

    Parameters
    ----------
    figure : Figure
    matrix : numpy.ndarray
        (true labels, answers) counts.
    rows, columns : sequence of str
        Their names.
    title : str
    of : str
        What is counted.
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
    axes.set_yticks(range(len(rows)), [f"{_label(name)} ({n:,})" for name, n in zip(rows, totals, strict=True)])
    axes.set_xticks(range(len(columns)), [_label(name) for name in columns], rotation=90)
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="0.92", linewidth=0.4)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="answer", ylabel=f"truth ({of})")
    bar = figure.colorbar(shown, ax=axes, shrink=0.5, aspect=25, pad=0.02, label="% of the row")
    bar.outline.set_visible(False)
    legend(figure, [], title)
