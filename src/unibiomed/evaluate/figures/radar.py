"""Radar charts: a score over many targets, data sets or labels, with one line per model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .style import GREY, ModelStyle, add_legend, shorten_label, split_into_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["MIN_COUNT", "MIN_SPOKES", "plot_radar", "radar_height", "select_spokes", "split_radar"]

MIN_SPOKES = 3
MIN_COUNT = 5
"""Number of values below which a mean is not shown, because it is unreliable."""
MAX_SPOKES = 40
"""Number of spokes of one chart whose labels do not overlap."""


def select_spokes(cells: Mapping[tuple[str, str], Mapping[str, Any]], first: str) -> tuple[dict[str, int], list[str]]:
    """Select the spokes that have enough values.

    Parameters
    ----------
    cells : mapping of (str, str) to mapping
        ``value`` and ``count`` of each model and spoke.
    first : str
        Model by whose values the spokes are sorted.

    Returns
    -------
    dict of str to int
        Number of values of each spoke, sorted from the best to the worst value of the first model.
    list of str
        Spokes with too few values.
    """
    counts: dict[str, int] = {}
    for (_, spoke), cell in sorted(cells.items()):
        if cell.get("value") is not None:
            counts[spoke] = max(counts.get(spoke, 0), cell.get("count") or 0)

    def value(spoke: str) -> float:
        number = cells.get((first, spoke), {}).get("value")
        return -1.0 if number is None else number

    shown = sorted((name for name, n in counts.items() if n >= MIN_COUNT), key=lambda n: (-value(n), n))
    return {name: counts[name] for name in shown}, [name for name, n in counts.items() if n < MIN_COUNT]


def split_radar(names: Sequence[str]) -> list[list[str]]:
    """Split spokes into several charts."""
    return split_into_rows(names, MAX_SPOKES)


def radar_height(names: Sequence[str]) -> float:
    """Return the height of the figure in inches."""
    return 0.8 + 5.6 * len(split_radar(names))


def plot_radar(
    figure: Figure,
    styles: Mapping[str, ModelStyle],
    names: Mapping[str, int],
    values: Mapping[tuple[str, str], float | None],
    *,
    title: str,
    note: str = "",
) -> None:
    """Plot one radar chart, or several if there are many spokes; the outer circle is 1.

    Parameters
    ----------
    figure : Figure
    styles : mapping of str to ModelStyle
    names : mapping of str to int
        At least 3 spokes, clockwise from the top, with the number in brackets after each name.
    values : mapping of (str, str) to float or None
        Score in [0, 1] of each model and spoke. Lines have a gap at missing values.
    title, note : str
    """
    parts = split_radar(list(names))
    charts = figure.subplots(len(parts), 1, squeeze=False, subplot_kw={"projection": "polar"})[:, 0]
    for axes, part in zip(charts, parts, strict=True):
        _plot_chart(axes, styles, {name: names[name] for name in part}, values)
    add_legend(figure, _legend_lines(styles.values()), title, note)


def _legend_lines(styles: Iterable[ModelStyle]) -> list[Any]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=s.line_color, linestyle=s.line, marker=s.marker, ms=3, lw=1.3, label=s.label)
        for s in styles
    ]


def _plot_chart(
    axes: Axes,
    styles: Mapping[str, ModelStyle],
    names: Mapping[str, int],
    values: Mapping[tuple[str, str], float | None],
) -> None:
    angles = np.linspace(0, 2 * np.pi, len(names), endpoint=False)
    axes.set(theta_offset=np.pi / 2, theta_direction=-1)
    # the first model is on top, baselines are at the bottom
    for depth, (name, style) in enumerate(styles.items()):
        numbers = np.array([np.nan if (v := values.get((name, n))) is None else v for n in names], dtype=float)
        if np.isnan(numbers).all():
            continue
        axes.plot(
            np.append(angles, angles[:1]),
            np.append(numbers, numbers[:1]),
            color=style.line_color,
            linestyle=style.line,
            linewidth=0.8 if style.baseline else 1.3,
            marker=style.marker,
            markersize=1.8 if style.baseline else 2.6,
            zorder=5 - depth / len(styles),
            clip_on=False,
        )
    axes.set_ylim(0, 1)
    rings = (0.2, 0.4, 0.6, 0.8)
    axes.set_yticks(rings, [])
    background = {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.4}
    for ring in rings:
        # between two spokes, above the lines
        angle = np.pi / len(names)
        options: dict[str, Any] = {
            "ha": "center",
            "va": "center",
            "fontsize": 5,
            "color": GREY,
            "bbox": background,
            "zorder": 9,
        }
        axes.text(angle, ring, f"{ring}", **options)
    axes.set_xticks(angles, [])
    axes.spines["polar"].set_color("0.7")
    for angle, (name, count) in zip(angles, names.items(), strict=True):
        rotation = 90 - np.degrees(angle)
        left = np.sin(angle) < -1e-9
        axes.text(
            angle,
            1.05,
            f"{shorten_label(name, 34)} ({count:,})",
            rotation=rotation + 180 if left else rotation,
            rotation_mode="anchor",
            ha="right" if left else "left",
            va="center",
            fontsize=6.5,
        )
