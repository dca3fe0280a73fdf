"""Boxes: how the Dice of single masks is spread, internal and external data sets side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .bars import bar_rows
from .gather import Size
from .style import INK, LETTERS, Look, legend, patches, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["BOX_NOTE", "box_of", "plot_boxes", "plot_pooled"]

BOX_NOTE = "Box: quartiles and median; whiskers: 5th and 95th percentile; diamond: mean."


def box_of(values: Sequence[float]) -> dict[str, Any]:
    """Numbers of one box: quartiles, 5th and 95th percentile and mean."""
    low, q1, middle, q3, high = np.percentile(values, [5, 25, 50, 75, 95])
    return {"whislo": low, "q1": q1, "med": middle, "q3": q3, "whishi": high, "mean": float(np.mean(values))}


def plot_pooled(
    figure: Figure,
    looks: Mapping[str, Look],
    sides: Mapping[str, Mapping[str, Sequence[float]]],
    signs: Mapping[tuple[str, str], str],
    sizes: Mapping[str, Size],
    *,
    title: str,
    note: str,
) -> None:
    """One panel a side, such as internal and external, one box a model over all masks of its data sets.

    Parameters
    ----------
    figure : Figure
    looks : mapping of str to Look
    sides : mapping of str to mapping
        Side to model to the Dice of each mask.
    signs : mapping of (str, str) to str
        Model and side to the stars over the box.
    sizes : mapping of str to Size
        Of each side.
    title, note : str
    """
    panels = figure.subplots(1, len(sides), squeeze=False, sharey=True)[0]
    room = LETTERS // (len(looks) * len(sides))
    upright = max(len(word) for look in looks.values() for word in look.label.split()) < room
    for axes, (side, values) in zip(panels, sides.items(), strict=True):
        for i, (name, look) in enumerate(looks.items()):
            if not values.get(name):
                continue
            box = box_of(values[name])
            _boxes(axes, [box], [i], 0.7, look)
            if sign := signs.get((name, side)):
                axes.text(i, box["whishi"] + 0.01, sign, ha="center", va="bottom", fontsize=7, color=INK)
        axes.set_title(f"{side} data sets: {sizes[side].lines(', ')}")
        names = [words(look.label, 28, room) if upright else look.label for look in looks.values()]
        axes.set_xticks(range(len(looks)), names, rotation=0 if upright else 90)
        axes.tick_params(axis="x", length=0)
        axes.set(xlim=(-0.6, len(looks) - 0.4))
        _scale(axes)
    panels[0].set_ylabel("Dice of a mask")
    legend(figure, [], title, note)


def plot_boxes(
    figure: Figure,
    looks: Mapping[str, Look],
    datasets: Sequence[str],
    values: Mapping[tuple[str, str], Sequence[float]],
    external: set[str] | frozenset[str],
    sizes: Mapping[str, Size],
    *,
    title: str,
    note: str,
) -> None:
    """One group of boxes a data set, the external ones last and on a tinted ground.

    Parameters
    ----------
    figure : Figure
    looks : mapping of str to Look
    datasets : sequence of str
    values : mapping of (str, str) to sequence of float
        Model and data set to the Dice of each mask.
    external : set of str
        Data sets that no training saw.
    sizes : mapping of str to Size
        Of each data set.
    title, note : str
    """
    rows = bar_rows(sorted(datasets, key=lambda d: d in external), len(looks))
    most = max(len(row) for row in rows)
    width = 0.84 / len(looks)
    for axes, row in zip(figure.subplots(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
        for i, (name, look) in enumerate(looks.items()):
            here = [j for j, d in enumerate(row) if values.get((name, d))]
            boxes = [box_of(values[name, row[j]]) for j in here]
            _boxes(axes, boxes, [j + (i - (len(looks) - 1) / 2) * width for j in here], 0.8 * width, look)
        names = []
        for j, dataset in enumerate(row):
            name = f"{words(dataset, 40, LETTERS // most)}\n{sizes[dataset].lines()}"
            names.append(name + ("\nexternal" if dataset in external else ""))
            if dataset in external:
                axes.axvspan(j - 0.5, j + 0.5, color="0.955", linewidth=0, zorder=0)
        axes.set_xticks(range(len(row)), names)
        axes.tick_params(axis="x", length=0)
        axes.set(xlim=(-0.5, most - 0.5), ylabel="Dice of a mask")
        _scale(axes)
    legend(figure, patches(looks.values()), title, note)


def _scale(axes: Axes) -> None:
    axes.set(ylim=(-0.02, 1.06), yticks=np.linspace(0, 1, 6))
    axes.grid(axis="y")


def _boxes(axes: Axes, boxes: list[dict[str, Any]], at: Sequence[float], width: float, look: Look) -> None:
    if not boxes:
        return
    thin = {"color": INK, "linewidth": 0.6}
    mean = {"marker": "D", "markersize": 2, "markerfacecolor": "white", "markeredgecolor": INK, "markeredgewidth": 0.5}
    found = axes.bxp(
        boxes,
        positions=list(at),
        widths=width,
        showfliers=False,
        showmeans=True,
        patch_artist=True,
        manage_ticks=False,
        boxprops={"facecolor": look.color, "edgecolor": INK, "linewidth": 0.4},
        medianprops={"color": INK if look.floor else "white", "linewidth": 1.0},
        whiskerprops=thin,
        capprops=thin,
        meanprops=mean,
    )
    for box in found["boxes"]:
        box.set_hatch(look.hatch)
