"""Confusion matrices as heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .style import INK, add_legend, shorten_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["confusion_size", "plot_confusion"]


MAX_LABEL_LENGTH, WRAP_WIDTH = 80, 36
"""Characters of a label and of one line of it. The names of two findings fit."""
CHARACTER_WIDTH = 0.062
"""Width of a character of the labels in inches."""


def confusion_size(rows: Sequence[str], columns: Sequence[str]) -> tuple[float, float]:
    """Return height and width in inches for cells and labels."""
    cell = 0.34 if len(rows) <= 12 else 0.23
    column_label, row_label = (
        max(len(line) for name in names for line in _label(name).splitlines()) for names in (columns, rows)
    )
    height = 1.0 + cell * len(rows) + CHARACTER_WIDTH * column_label
    return height, max(4.2, 1.5 + cell * len(columns) + CHARACTER_WIDTH * (row_label + 6))


def _label(name: str) -> str:
    return shorten_label(name, MAX_LABEL_LENGTH, WRAP_WIDTH)


def plot_confusion(
    figure: Figure, matrix: np.ndarray, rows: Sequence[str], columns: Sequence[str], *, title: str, unit: str = "images"
) -> None:
    """Plot each row in percent of its images or boxes; values below 1 % are not printed.

    Parameters
    ----------
    figure : Figure
    matrix : numpy.ndarray
        (true labels, predicted labels) counts.
    rows, columns : sequence of str
        Labels.
    title : str
    unit : str
        What is counted.
    """
    percent = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes = figure.subplots()
    image = axes.imshow(percent, cmap="Blues", vmin=0, vmax=100, aspect="equal")
    size = 6 if len(rows) <= 12 else 5
    for (i, j), value in np.ndenumerate(percent):
        if value >= 1:
            color = "w" if value > 55 else INK
            number = axes.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=size, color=color)
            # inside of the axes: measuring hundreds of texts would slow down the layout
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
    axes.set(xlabel="predicted label", ylabel=f"true label ({unit})")
    bar = figure.colorbar(image, ax=axes, shrink=0.5, aspect=25, pad=0.02, label="% of the row")
    bar.outline.set_visible(False)
    add_legend(figure, [], title)
