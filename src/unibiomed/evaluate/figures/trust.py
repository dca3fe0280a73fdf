"""How far scores can be trusted, and what is left of Dice on changed images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from unibiomed.metrics.calibration import ReliabilityBin, calibration_error, reliability, risk_coverage
from unibiomed.metrics.statistics import bootstrap_mean, wilson_interval

from .style import COLORS, MARKERS, SOFT, Look, legend, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_changes", "plot_trust"]

MOST_POINTS = 400
"""Of a risk-coverage curve: more are not seen."""
ROW = 0.06
"""Height of a row of numbers under an axis, in heights of the axis."""
Pairs = Sequence[tuple[float, float]]


def plot_trust(figure: Figure, looks: Mapping[str, Look], judged: Mapping[str, tuple[Pairs, Pairs, Pairs]]) -> None:
    """Reliability of the presence score and of the mask score, and risk against coverage.

    Parameters
    ----------
    figure : Figure
    looks : mapping of str to Look
    judged : mapping of str to tuple
        For each model presence scores with truths, mask scores with IoUs, and sureness with losses; any may be empty.
    """
    panels = figure.subplots(1, 3)
    heads = (
        ("Presence score", "score", "share with the target"),
        ("Mask score", "score", "mean IoU"),
        ("Risk and coverage", "share of images answered", "mean of 1 − Dice"),
    )
    for axes, (head, x, y) in zip(panels, heads, strict=True):
        axes.set(title=head, xlabel=x, ylabel=y, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.set_box_aspect(1)
        axes.set_anchor("N")
        axes.grid()
    for axes in panels[:2]:
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=0.7, linestyle=(0, (3, 2)))
    rows = [0, 0]
    for name, pairs in judged.items():
        look = looks[name]
        for place, part in enumerate(pairs[:2]):
            if part:
                bins = _reliability(panels[place], look, part)
                _counts(panels[place], look, bins, rows[place])
                rows[place] += 1
        if pairs[2]:
            _risk(panels[2], look, pairs[2])
    measures = ("calibration error", "calibration error", "area under the curve")
    for axes, measure, above in zip(panels, measures, (*rows, 0), strict=True):
        handles, labels = axes.get_legend_handles_labels()
        if handles:
            axes.legend(
                handles, labels, loc="upper center", bbox_to_anchor=(0.5, -0.2 - ROW * above), title=measure, fontsize=6
            )
            axes.get_legend().get_title().set_fontsize(6)
    note = (
        "Points: ten bins of equal width, whiskers: 95 % interval (Wilson; of the mean IoU a bootstrap), each sample "
        "by itself; below: samples of each bin. Mask score: images that show the target. Risk: those without it too, "
        "where the Dice of an empty mask is 1 and of any pixel 0."
    )
    legend(figure, [], "What the scores are worth", note)


def _reliability(axes: Axes, look: Look, pairs: Pairs) -> list[ReliabilityBin]:
    scores, truths = [p[0] for p in pairs], [float(p[1]) for p in pairs]
    every = reliability(scores, truths)
    # the bins as `reliability` draws them
    place = np.minimum((np.array(scores) * len(every)).astype(int), len(every) - 1)
    bins = [one for one in every if one.count]
    ends = [_interval(np.array(truths)[place == i]) for i, one in enumerate(every) if one.count]
    y = np.array([one.truth for one in bins])
    label = f"{look.label}: {calibration_error(scores, truths):.3f}"
    axes.errorbar(
        [one.score for one in bins],
        y,
        np.abs(np.array(ends).T - y),
        color=look.ink,
        linestyle=look.line,
        linewidth=1,
        elinewidth=0.7,
        marker=look.marker,
        markersize=3,
        label=label,
    )
    return bins


def _interval(truths: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean truth of a bin: Wilson's where it is a share, else of the bootstrap."""
    if np.isin(truths, (0, 1)).all():
        found = wilson_interval(round(truths.sum()), len(truths))
    else:
        found = bootstrap_mean(truths.tolist(), resamples=1000)
    return found.low, found.high


def _counts(axes: Axes, look: Look, bins: Sequence[ReliabilityBin], row: int) -> None:
    """A row of numbers under the axis, as under curves of survival: how many samples each bin has."""
    for one in bins:
        axes.text(
            (one.low + one.high) / 2,
            -0.23 - ROW * row,
            f"{one.count}",
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="top",
            fontsize=4.5,
            color=look.ink,
        )


def _risk(axes: Axes, look: Look, pairs: Pairs) -> None:
    curve = risk_coverage([p[0] for p in pairs], [p[1] for p in pairs])
    shown = np.unique(np.linspace(0, len(pairs) - 1, min(len(pairs), MOST_POINTS)).round().astype(int))
    label = f"{look.label}: {curve.area:.3f}"
    axes.plot(curve.coverage[shown], curve.risk[shown], color=look.ink, linestyle=look.line, lw=1.2, label=label)


def plot_changes(figure: Figure, looks: Mapping[str, Look], tables: Mapping[str, Mapping[str, Any]]) -> None:
    """Dice against the strength of each change, one panel a model, one line a change.

    Parameters
    ----------
    figure : Figure
    looks : mapping of str to Look
    tables : mapping
        Model to ``robustness`` of its results: change to strength to ``dice``.
    """
    from matplotlib.lines import Line2D

    changes = sorted({change for table in tables.values() for change in table})
    columns = min(3, len(tables))
    rows = -(-len(tables) // columns)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    styles: dict[str, dict[str, Any]] = {
        change: {"color": COLORS[i % len(COLORS)], "marker": MARKERS[i % len(MARKERS)], "lw": 1.1, "markersize": 3}
        for i, change in enumerate(changes)
    }
    for axes in panels.flat[len(tables) :]:
        axes.set_axis_off()
    for axes, (name, table) in zip(panels.flat, tables.items(), strict=False):
        for change, levels in table.items():
            points = sorted((int(k), v["dice"]["value"]) for k, v in levels.items() if v["dice"]["value"] is not None)
            if points:
                axes.plot([p[0] for p in points], [p[1] for p in points], label=change, clip_on=False, **styles[change])
        axes.set(title=looks[name].label, xticks=range(6), ylim=(0, 1), yticks=np.linspace(0, 1, 6))
        axes.grid()
    for place, axes in enumerate(panels.flat[: len(tables)]):
        if place % columns == 0:
            axes.set_ylabel("Dice")
        # the lowest of its column shows the numbers, where the last row is not full
        axes.tick_params(labelbottom=place + columns >= len(tables))
    handles = [Line2D([], [], label=words(change, 24), **styles[change]) for change in changes]
    note = (
        "Dice of images that show the target at every strength. Strength of the change; 0: the same images unchanged."
    )
    legend(figure, handles, "Dice on changed images", note)
