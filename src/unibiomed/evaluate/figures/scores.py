"""Figures of the scores reported by models, and of Dice on perturbed images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from unibiomed.metrics.calibration import ReliabilityBin, calibration_error, reliability, risk_coverage
from unibiomed.metrics.intervals import mean_estimate, proportion_estimate

from .data import FigureData, ScoreAndTruth
from .style import COLORS, GREY, MARKERS, ModelStyle, add_legend, shorten_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_perturbations", "plot_scores"]

MAX_POINTS = 400
"""Number of points of a risk-coverage curve that are drawn."""
ROW_HEIGHT = 0.06
"""Height of a row of counts below an axis, as a fraction of the axis."""


def plot_scores(figure: Figure, styles: Mapping[str, ModelStyle], data: Mapping[str, FigureData]) -> None:
    """Plot reliability diagrams of the presence score and the mask score, and risk-coverage curves.

    Parameters
    ----------
    figure : Figure
    styles : mapping of str to ModelStyle
    data : mapping of str to FigureData
    """
    panels = figure.subplots(1, 3)
    heads = (
        ("Presence score", "score", "fraction with the target"),
        ("Mask score", "score", "mean IoU"),
        ("Risk and coverage", "coverage", "mean of 1 − Dice"),
    )
    for axes, (head, x, y) in zip(panels, heads, strict=True):
        axes.set(title=head, xlabel=x, ylabel=y, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.set_box_aspect(1)
        axes.set_anchor("N")
        axes.grid()
    for axes in panels[:2]:
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.7, linestyle=(0, (3, 2)))
    rows = [0, 0]
    for name, one in data.items():
        style = styles[name]
        for panel, scores in enumerate((one.presence, one.overlap)):
            if scores:
                bins = _plot_reliability(panels[panel], style, scores)
                _print_counts(panels[panel], style, bins, rows[panel])
                rows[panel] += 1
        if one.risk:
            _plot_risk(panels[2], style, one.risk)
    measures = ("calibration error", "calibration error", "area under the curve")
    for axes, measure, above in zip(panels, measures, (*rows, 0), strict=True):
        handles, labels = axes.get_legend_handles_labels()
        if handles:
            anchor = (0.5, -0.2 - ROW_HEIGHT * above)
            axes.legend(handles, labels, loc="upper center", bbox_to_anchor=anchor, title=measure, fontsize=6)
            axes.get_legend().get_title().set_fontsize(6)
    note = (
        "Points: ten bins of equal width; whiskers: 95 % interval by subject; below: samples per bin. Mask score: "
        "images that show the target. Risk: also images without it, where an empty mask has a Dice of 1 and any pixel "
        "0."
    )
    add_legend(figure, [], "Reported scores", note)


def _plot_reliability(axes: Axes, style: ModelStyle, data: Sequence[ScoreAndTruth]) -> list[ReliabilityBin]:
    scores, truths = [item[0] for item in data], [item[1] for item in data]
    every = reliability(scores, truths)
    index = np.minimum((np.array(scores) * len(every)).astype(int), len(every) - 1)
    bins = [one for one in every if one.count]
    bounds = [_interval([data[int(k)] for k in np.flatnonzero(index == i)]) for i, one in enumerate(every) if one.count]
    y = np.array([one.truth for one in bins])
    axes.errorbar(
        [one.score for one in bins],
        y,
        np.abs(np.array(bounds).T - y),
        color=style.line_color,
        linestyle=style.line,
        linewidth=1,
        elinewidth=0.7,
        marker=style.marker,
        markersize=3,
        label=f"{style.label}: {calibration_error(scores, truths):.3f}",
    )
    return bins


def _interval(data: Sequence[ScoreAndTruth]) -> tuple[float, float]:
    """Return the 95 % interval by subject of the mean truth of a bin; NaN for a single subject."""
    truths, subjects = [item[1] for item in data], [item[2] for item in data]
    if all(truth in (0, 1) for truth in truths):
        estimate = proportion_estimate([bool(truth) for truth in truths], subjects)
    else:
        estimate = mean_estimate(truths, subjects)
    return estimate.low, estimate.high


def _print_counts(axes: Axes, style: ModelStyle, bins: Sequence[ReliabilityBin], row: int) -> None:
    """Print the number of samples of each bin below the axis."""
    for one in bins:
        axes.text(
            (one.low + one.high) / 2,
            -0.23 - ROW_HEIGHT * row,
            f"{one.count}",
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="top",
            fontsize=4.5,
            color=style.line_color,
        )


def _plot_risk(axes: Axes, style: ModelStyle, data: Sequence[ScoreAndTruth]) -> None:
    curve = risk_coverage([item[0] for item in data], [item[1] for item in data])
    shown = np.unique(np.linspace(0, len(data) - 1, min(len(data), MAX_POINTS)).round().astype(int))
    label = f"{style.label}: {curve.area:.3f}"
    x, y = curve.coverage[shown], curve.risk[shown]
    axes.plot(x, y, color=style.line_color, linestyle=style.line, lw=1.2, label=label)


def plot_perturbations(
    figure: Figure, styles: Mapping[str, ModelStyle], tables: Mapping[str, Mapping[str, Any]]
) -> None:
    """Plot Dice against the strength of each perturbation, with one panel per model.

    Parameters
    ----------
    figure : Figure
    styles : mapping of str to ModelStyle
    tables : mapping
        ``robustness`` in the results of each model.
    """
    from matplotlib.lines import Line2D

    names = sorted({name for table in tables.values() for name in table})
    columns = min(3, len(tables))
    rows = -(-len(tables) // columns)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    options: dict[str, dict[str, Any]] = {
        name: {"color": COLORS[i % len(COLORS)], "marker": MARKERS[i % len(MARKERS)], "lw": 1.1, "markersize": 3}
        for i, name in enumerate(names)
    }
    for axes in panels.flat[len(tables) :]:
        axes.set_axis_off()
    for axes, (model, table) in zip(panels.flat, tables.items(), strict=False):
        for name, strengths in table.items():
            values = {int(k): v["dice"]["value"] for k, v in strengths.items()}
            points = sorted((strength, value) for strength, value in values.items() if value is not None)
            if points:
                axes.plot([p[0] for p in points], [p[1] for p in points], label=name, clip_on=False, **options[name])
        axes.set(title=styles[model].label, xticks=range(6), ylim=(0, 1), yticks=np.linspace(0, 1, 6))
        axes.grid()
    for place, axes in enumerate(panels.flat[: len(tables)]):
        if place % columns == 0:
            axes.set_ylabel("Dice")
        # the lowest panel of each column has tick labels, even if the last row is not full
        axes.tick_params(labelbottom=place + columns >= len(tables))
    handles = [Line2D([], [], label=shorten_label(name, 24), **options[name]) for name in names]
    note = "Images that show the target at every strength. Strength 0: the original images."
    add_legend(figure, handles, "Dice on perturbed images by strength", note)
