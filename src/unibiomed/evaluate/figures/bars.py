"""Bar charts: scores by group and model with intervals, and ablations with the seeds as points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unibiomed.errors import InputError
from unibiomed.metrics.statistics import mean_sd

from .style import (
    COLORS,
    FORMATS,
    GREY,
    INK,
    LABEL_CHARACTERS,
    ModelStyle,
    add_legend,
    legend_patches,
    max_labels_per_row,
    saved_figure,
    shorten_label,
    split_into_rows,
    with_format,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["bar_rows", "draw_ablation", "plot_ablation", "plot_bars"]

MAX_BARS = 45
"""Number of bars in one row of a figure of full width."""
Cell = Mapping[str, Any]


def bar_rows(groups: Sequence[str], models: int) -> list[list[str]]:
    """Split groups into rows of axes with enough space for bars and labels."""
    return split_into_rows(groups, min(max(2, MAX_BARS // max(models, 1)), max_labels_per_row(groups)))


def plot_bars(
    figure: Figure,
    styles: Mapping[str, ModelStyle],
    groups: Sequence[str],
    values: Mapping[tuple[str, str], Cell],
    signs: Mapping[tuple[str, str], str],
    sizes: Mapping[str, str],
    *,
    title: str,
    label: str,
    note: str = "",
) -> None:
    """Plot grouped bars with whiskers and significance stars.

    Parameters
    ----------
    figure : Figure
    styles : mapping of str to ModelStyle
        Models in the order of the bars.
    groups : sequence of str
        Groups in the order of the axis.
    values : mapping of (str, str) to mapping
        ``value``, ``low`` and ``high`` (or None) for each model and group. Missing entries have no bar.
    signs : mapping of (str, str) to str
        Stars above the bar of each model and group.
    sizes : mapping of str to str
        Sample size below the name of each group.
    title, label, note : str
        Title of the figure, label of the axis, and note.
    """
    rows = bar_rows(groups, len(styles))
    most = max(len(row) for row in rows)
    width = 0.84 / len(styles)
    for axes, row in zip(figure.subplots(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
        for i, (name, style) in enumerate(styles.items()):
            cells = [
                (j, values[name, g]) for j, g in enumerate(row) if values.get((name, g), {}).get("value") is not None
            ]
            if not cells:
                continue
            x = [j + (i - (len(styles) - 1) / 2) * width for j, _ in cells]
            heights = [cell["value"] for _, cell in cells]
            axes.bar(x, heights, 0.92 * width, color=style.color, hatch=style.hatch, edgecolor="white", linewidth=0)
            # a line distinguishes a score of 0 from a missing score
            for at in (at for at, height in zip(x, heights, strict=True) if not height):
                axes.plot([at - 0.46 * width, at + 0.46 * width], [0, 0], color=style.color, linewidth=2, zorder=3)
            tops = []
            for at, height, (_, cell) in zip(x, heights, cells, strict=True):
                low, high = (height if cell.get(key) is None else cell[key] for key in ("low", "high"))
                axes.plot([at, at], [low, high], color=INK, linewidth=0.7, solid_capstyle="butt")
                tops.append(max(height, high))
            for at, top, (j, _) in zip(x, tops, cells, strict=True):
                if top and (sign := signs.get((name, row[j]))):
                    # rotated, so that neighbouring stars do not overlap
                    axes.text(at, top + 0.015, sign, rotation=90, ha="center", va="bottom", fontsize=6, color=INK)
        names = [
            "\n".join(filter(None, (shorten_label(g, 40, LABEL_CHARACTERS // most), sizes.get(g, "")))) for g in row
        ]
        axes.set_xticks(range(len(row)), names)
        axes.tick_params(axis="x", length=0)
        # bars have the same width in rows with fewer groups
        axes.set(xlim=(-0.5, most - 0.5), ylim=(0, 1.09), yticks=np.linspace(0, 1, 6), ylabel=label)
        axes.grid(axis="y")
    add_legend(figure, legend_patches(styles.values()), title, note)


def draw_ablation(values: Mapping[str, Sequence[float]], path: Path, *, label: str = "Dice") -> list[Path]:
    """Draw an ablation: mean ± s.d. over seeds, with each seed as a point.

    Parameters
    ----------
    values : mapping of str to sequence of float
        Scores in [0, 1] of the seeds of each training configuration, in the order of the bars.
    path : Path
        Path of the files; the extensions ``.svg`` and ``.png`` are set.
    label : str
        Label of the axis.

    Returns
    -------
    list of Path
        The SVG and the PNG file.

    Raises
    ------
    InputError
        There are no scores, a score is not in [0, 1], or matplotlib is not installed.
    OutputError
        A file cannot be written.
    """
    if not values or not all(len(v) for v in values.values()):
        raise InputError("a training configuration has no scores: give at least one score for each")
    if not all(0 <= score <= 1 for scores in values.values() for score in scores):
        raise InputError("a score is not in [0, 1]: give scores as fractions")
    path = path.with_name(path.name.removesuffix(".svg").removesuffix(".png"))
    with saved_figure(path, 2.6, width=max(2.4, 0.9 * len(values) + 0.7)) as figure:
        plot_ablation(figure, values, label)
    return [with_format(path, extension) for extension in FORMATS]


def plot_ablation(figure: Figure, values: Mapping[str, Sequence[float]], label: str) -> None:
    """Plot the bars of `draw_ablation`."""
    axes = figure.subplots()
    highest = 0.0
    for i, scores in enumerate(values.values()):
        color = COLORS[i % len(COLORS)]
        mean, sd = mean_sd(scores)
        sd = 0.0 if np.isnan(sd) else sd
        axes.bar(i, mean, 0.66, color=color, alpha=0.45, linewidth=0)
        if sd:
            axes.errorbar(i - 0.18, mean, sd, color=INK, linewidth=0.8, capsize=3, capthick=0.8)
        # side by side, so that equal scores do not overlap
        x = i + np.linspace(-0.02, 0.24, len(scores)) if len(scores) > 1 else [i]
        axes.plot(x, scores, "o", color=color, markeredgecolor="white", markeredgewidth=0.4, markersize=3.6)
        text = f"{mean:.3f}" + (f"\n± {sd:.3f}" if sd else "")
        top = max(mean + sd, *scores)
        highest = max(highest, top)
        axes.text(i, top + 0.02, text, ha="center", va="bottom", fontsize=6)
    axes.set_xticks(range(len(values)), [shorten_label(name, 48, 15) for name in values])
    axes.tick_params(axis="x", length=0)
    # space for the numbers above bars near 1
    axes.set(ylim=(0, max(1.0, highest + 0.17)), yticks=np.linspace(0, 1, 6), ylabel=label)
    axes.grid(axis="y")
    seeds = sorted({len(v) for v in values.values()})
    number = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    figure.supxlabel(f"Mean ± s.d., n = {number} seeds", x=0.01, ha="left", fontsize=6, color=GREY)
