"""Radars: a score over many targets, data sets or labels, one line a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .style import SOFT, Look, legend, rows_of, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FEWEST_COUNT", "FEWEST_SPOKES", "plot_radar", "radar_height", "radars", "spokes_of"]

FEWEST_SPOKES = 3
FEWEST_COUNT = 5
"""Values below which a mean has no spoke: one more image would put it elsewhere."""
MOST_SPOKES = 40
"""Around one circle, for names that do not touch."""


def spokes_of(cells: Mapping[tuple[str, str], Mapping[str, Any]], first: str) -> tuple[dict[str, int], list[str]]:
    """What is drawn, and what is left out.

    Parameters
    ----------
    cells : mapping of (str, str) to mapping
        Model and spoke to ``value`` and ``count``.
    first : str
        The model whose values give the order: neighbours are alike then, where the alphabet draws a tangle.

    Returns
    -------
    dict of str to int
        Spokes to what they rest on, the best of the first model first.
    list of str
        Those that rest on too little.
    """
    counts: dict[str, int] = {}
    for (_, spoke), cell in sorted(cells.items()):
        if cell.get("value") is not None:
            counts[spoke] = max(counts.get(spoke, 0), cell.get("count") or 0)

    def value(spoke: str) -> float:
        found = cells.get((first, spoke), {}).get("value")
        return -1.0 if found is None else found

    shown = sorted((name for name, n in counts.items() if n >= FEWEST_COUNT), key=lambda n: (-value(n), n))
    return {name: counts[name] for name in shown}, [name for name, n in counts.items() if n < FEWEST_COUNT]


def radars(names: Sequence[str]) -> list[list[str]]:
    """The spokes of each circle."""
    return rows_of(names, MOST_SPOKES)


def radar_height(names: Sequence[str]) -> float:
    """Inches that the figure needs."""
    return 0.8 + 5.6 * len(radars(names))


def plot_radar(
    figure: Figure,
    looks: Mapping[str, Look],
    names: Mapping[str, int],
    values: Mapping[tuple[str, str], float | None],
    *,
    title: str,
    note: str = "",
) -> None:
    """One circle, or several where there are many spokes; the rim is 1.

    Parameters
    ----------
    figure : Figure
    looks : mapping of str to Look
    names : mapping of str to int
        Spokes, clockwise from the top, at least 3; and the number in brackets after each.
    values : mapping of (str, str) to float or None
        Model and spoke to the score in [0, 1]; the line is broken where there is none.
    title, note : str
    """
    parts = radars(list(names))
    circles = figure.subplots(len(parts), 1, squeeze=False, subplot_kw={"projection": "polar"})[:, 0]
    for axes, part in zip(circles, parts, strict=True):
        _circle(axes, looks, {name: names[name] for name in part}, values)
    legend(figure, _lines(looks.values()), title, note)


def _lines(looks: Iterable[Look]) -> list[Any]:
    from matplotlib.lines import Line2D

    return [Line2D([], [], color=k.ink, linestyle=k.line, marker=k.marker, ms=3, lw=1.3, label=k.label) for k in looks]


def _circle(
    axes: Axes, looks: Mapping[str, Look], names: Mapping[str, int], values: Mapping[tuple[str, str], float | None]
) -> None:
    angles = np.linspace(0, 2 * np.pi, len(names), endpoint=False)
    axes.set(theta_offset=np.pi / 2, theta_direction=-1)
    # models over floors, the first on top
    for depth, (name, look) in enumerate(looks.items()):
        found = np.array([np.nan if (v := values.get((name, n))) is None else v for n in names], dtype=float)
        if np.isnan(found).all():
            continue
        axes.plot(
            np.append(angles, angles[:1]),
            np.append(found, found[:1]),
            color=look.ink,
            linestyle=look.line,
            linewidth=0.8 if look.floor else 1.3,
            marker=look.marker,
            markersize=1.8 if look.floor else 2.6,
            zorder=5 - depth / len(looks),
            clip_on=False,
        )
    axes.set_ylim(0, 1)
    rings = (0.2, 0.4, 0.6, 0.8)
    axes.set_yticks(rings, [])
    paper = {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.4}
    for ring in rings:
        # halfway between two spokes, over the lines
        axes.text(
            np.pi / len(names), ring, f"{ring}", ha="center", va="center", fontsize=5, color=SOFT, bbox=paper, zorder=9
        )
    axes.set_xticks(angles, [])
    axes.spines["polar"].set_color("0.7")
    for angle, (name, count) in zip(angles, names.items(), strict=True):
        turn = 90 - np.degrees(angle)
        left = np.sin(angle) < -1e-9
        axes.text(
            angle,
            1.05,
            f"{words(name, 34)} ({count:,})",
            rotation=turn + 180 if left else turn,
            rotation_mode="anchor",
            ha="right" if left else "left",
            va="center",
            fontsize=6.5,
        )
