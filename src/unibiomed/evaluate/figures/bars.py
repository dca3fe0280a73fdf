"""Bars: a score by group and model with its interval, and an ablation with every seed as a point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unibiomed.errors import InputError
from unibiomed.metrics.statistics import mean_sd

from .style import COLORS, INK, KINDS, LETTERS, SOFT, Look, beside, legend, patches, room_for, rows_of, sheet, words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["bar_rows", "draw_ablation", "plot_ablation", "plot_bars"]

MOST_BARS = 45
"""In one row of a figure of full width."""
Cell = Mapping[str, Any]


def bar_rows(groups: Sequence[str], models: int) -> list[list[str]]:
    """Groups by the row of axes that they are drawn in: there is room for their bars and for their names."""
    return rows_of(groups, min(max(2, MOST_BARS // max(models, 1)), room_for(groups)))


def plot_bars(
    figure: Figure,
    looks: Mapping[str, Look],
    groups: Sequence[str],
    values: Mapping[tuple[str, str], Cell],
    signs: Mapping[tuple[str, str], str],
    sizes: Mapping[str, str],
    *,
    title: str,
    label: str,
    note: str = "",
) -> None:
    """Grouped bars with whiskers and stars; a bar of 0 is a line, without stars.

    Parameters
    ----------
    figure : Figure
    looks : mapping of str to Look
        Models, in the order of the bars.
    groups : sequence of str
        In the order of the axis.
    values : mapping of (str, str) to mapping
        Model and group to ``value``, ``low`` and ``high`` (which may be None); what is missing has no bar.
    signs : mapping of (str, str) to str
        Model and group to the stars over the bar.
    sizes : mapping of str to str
        Group to what its bars rest on, written under its name.
    title, label, note : str
        Of the figure and of the axis.
    """
    rows = bar_rows(groups, len(looks))
    most = max(len(row) for row in rows)
    width = 0.84 / len(looks)
    for axes, row in zip(figure.subplots(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
        for i, (name, look) in enumerate(looks.items()):
            here = [
                (j, values[name, g]) for j, g in enumerate(row) if values.get((name, g), {}).get("value") is not None
            ]
            if not here:
                continue
            x = [j + (i - (len(looks) - 1) / 2) * width for j, _ in here]
            heights = [cell["value"] for _, cell in here]
            axes.bar(x, heights, 0.92 * width, color=look.color, hatch=look.hatch, edgecolor="white", linewidth=0)
            # else a model that scores nothing looks like one that was not asked
            for at in (at for at, height in zip(x, heights, strict=True) if not height):
                axes.plot([at - 0.46 * width, at + 0.46 * width], [0, 0], color=look.color, linewidth=2, zorder=3)
            tops = []
            for at, height, (_, cell) in zip(x, heights, here, strict=True):
                low, high = (height if cell.get(k) is None else cell[k] for k in ("low", "high"))
                axes.plot([at, at], [low, high], color=INK, linewidth=0.7, solid_capstyle="butt")
                tops.append(max(height, high))
            for at, top, (j, _) in zip(x, tops, here, strict=True):
                if top and (sign := signs.get((name, row[j]))):
                    # read from the side, so that neighbours have room
                    axes.text(at, top + 0.015, sign, rotation=90, ha="center", va="bottom", fontsize=6, color=INK)
        names = ["\n".join(filter(None, (words(g, 40, LETTERS // most), sizes.get(g, "")))) for g in row]
        axes.set_xticks(range(len(row)), names)
        axes.tick_params(axis="x", length=0)
        # rows with fewer groups keep the width of a bar
        axes.set(xlim=(-0.5, most - 0.5), ylim=(0, 1.09), yticks=np.linspace(0, 1, 6), ylabel=label)
        axes.grid(axis="y")
    legend(figure, patches(looks.values()), title, note)


def draw_ablation(values: Mapping[str, Sequence[float]], path: Path, *, label: str = "Dice") -> list[Path]:
    """Draw an ablation: mean ± s.d. over seeds, with each seed as a point.

    Parameters
    ----------
    values : mapping of str to sequence of float
        What was trained to the score of each seed, in [0, 1]; in the order of the bars.
    path : Path
        Of the files; ``.svg`` and ``.png`` are set.
    label : str
        Of the axis.

    Returns
    -------
    list of Path
        The SVG and the PNG file.

    Raises
    ------
    InputError
        There is nothing to draw, a score is not in [0, 1], or matplotlib is not installed.
    OutputError
        A file cannot be written.
    """
    if not values or not all(len(v) for v in values.values()):
        raise InputError("an ablation needs at least one score of each of its parts")
    if not all(0 <= score <= 1 for scores in values.values() for score in scores):
        raise InputError("the scores of an ablation have to be in [0, 1]")
    path = path.with_name(path.name.removesuffix(".svg").removesuffix(".png"))
    with sheet(path, 2.6, width=max(2.4, 0.9 * len(values) + 0.7)) as figure:
        plot_ablation(figure, values, label)
    return [beside(path, kind) for kind in KINDS]


def plot_ablation(figure: Figure, values: Mapping[str, Sequence[float]], label: str) -> None:
    """Draw the bars of `draw_ablation`."""
    axes = figure.subplots()
    highest = 0.0
    for i, scores in enumerate(values.values()):
        color = COLORS[i % len(COLORS)]
        mean, spread = mean_sd(scores)
        spread = 0.0 if np.isnan(spread) else spread
        axes.bar(i, mean, 0.66, color=color, alpha=0.45, linewidth=0)
        if spread:
            axes.errorbar(i - 0.18, mean, spread, color=INK, linewidth=0.8, capsize=3, capthick=0.8)
        # side by side, so that equal scores are not one point
        at = i + np.linspace(-0.02, 0.24, len(scores)) if len(scores) > 1 else [i]
        axes.plot(at, scores, "o", color=color, markeredgecolor="white", markeredgewidth=0.4, markersize=3.6)
        text = f"{mean:.3f}" + (f"\n± {spread:.3f}" if spread else "")
        top = max(mean + spread, *scores)
        highest = max(highest, top)
        axes.text(i, top + 0.02, text, ha="center", va="bottom", fontsize=6)
    axes.set_xticks(range(len(values)), [words(name, 48, 15) for name in values])
    axes.tick_params(axis="x", length=0)
    # room for the numbers over bars near 1
    axes.set(ylim=(0, max(1.0, highest + 0.17)), yticks=np.linspace(0, 1, 6), ylabel=label)
    axes.grid(axis="y")
    seeds = sorted({len(v) for v in values.values()})
    number = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    figure.supxlabel(f"Mean ± s.d., n = {number} seeds", x=0.01, ha="left", fontsize=6, color=SOFT)
