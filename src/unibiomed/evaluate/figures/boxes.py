"""Box plots of the Dice of single masks, with internal and external data sets side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .bars import bar_rows
from .data import SampleSize
from .style import INK, LABEL_CHARACTERS, ModelStyle, add_legend, legend_patches, shorten_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["BOX_NOTE", "box_statistics", "plot_boxes", "plot_pooled"]

BOX_NOTE = "Box: quartiles and median; whiskers: 5th and 95th percentile; diamond: mean."


def box_statistics(values: Sequence[float]) -> dict[str, Any]:
    """Compute quartiles, 5th and 95th percentile and mean for ``Axes.bxp``."""
    low, q1, median, q3, high = np.percentile(values, [5, 25, 50, 75, 95])
    return {"whislo": low, "q1": q1, "med": median, "q3": q3, "whishi": high, "mean": float(np.mean(values))}


def plot_pooled(
    figure: Figure,
    styles: Mapping[str, ModelStyle],
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    signs: Mapping[tuple[str, str], str],
    sizes: Mapping[str, SampleSize],
    *,
    title: str,
    note: str,
) -> None:
    """Plot one panel for internal and one for external data sets, with one box per model over all masks.

    Parameters
    ----------
    figure : Figure
    styles : mapping of str to ModelStyle
    panels : mapping of str to mapping
        For each panel and model the Dice of each mask.
    signs : mapping of (str, str) to str
        Stars above the box of each model and panel.
    sizes : mapping of str to SampleSize
        Sample size of each panel.
    title, note : str
    """
    all_axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    characters = LABEL_CHARACTERS // (len(styles) * len(panels))
    horizontal = max(len(word) for style in styles.values() for word in style.label.split()) < characters
    for axes, (panel, values) in zip(all_axes, panels.items(), strict=True):
        for i, (name, style) in enumerate(styles.items()):
            if not values.get(name):
                continue
            box = box_statistics(values[name])
            _draw_boxes(axes, [box], [i], 0.7, style)
            if sign := signs.get((name, panel)):
                axes.text(i, box["whishi"] + 0.01, sign, ha="center", va="bottom", fontsize=7, color=INK)
        axes.set_title(f"{panel} data sets: {sizes[panel].describe(', ')}")
        names = [shorten_label(style.label, 28, characters) if horizontal else style.label for style in styles.values()]
        axes.set_xticks(range(len(styles)), names, rotation=0 if horizontal else 90)
        axes.tick_params(axis="x", length=0)
        axes.set(xlim=(-0.6, len(styles) - 0.4))
        _set_scale(axes)
    all_axes[0].set_ylabel("Dice of a mask")
    add_legend(figure, [], title, note)


def plot_boxes(
    figure: Figure,
    styles: Mapping[str, ModelStyle],
    datasets: Sequence[str],
    values: Mapping[tuple[str, str], Sequence[float]],
    external: set[str] | frozenset[str],
    sizes: Mapping[str, SampleSize],
    *,
    title: str,
    note: str,
) -> None:
    """Plot one group of boxes per data set; external data sets come last and have a grey background.

    Parameters
    ----------
    figure : Figure
    styles : mapping of str to ModelStyle
    datasets : sequence of str
    values : mapping of (str, str) to sequence of float
        Dice of each mask for each model and data set.
    external : set of str
        Data sets that were not used for training.
    sizes : mapping of str to SampleSize
        Sample size of each data set.
    title, note : str
    """
    rows = bar_rows(sorted(datasets, key=lambda d: d in external), len(styles))
    most = max(len(row) for row in rows)
    width = 0.84 / len(styles)
    for axes, row in zip(figure.subplots(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
        for i, (name, style) in enumerate(styles.items()):
            places = [j for j, d in enumerate(row) if values.get((name, d))]
            boxes = [box_statistics(values[name, row[j]]) for j in places]
            _draw_boxes(axes, boxes, [j + (i - (len(styles) - 1) / 2) * width for j in places], 0.8 * width, style)
        names = []
        for j, dataset in enumerate(row):
            name = f"{shorten_label(dataset, 40, LABEL_CHARACTERS // most)}\n{sizes[dataset].describe()}"
            names.append(name + ("\nexternal" if dataset in external else ""))
            if dataset in external:
                axes.axvspan(j - 0.5, j + 0.5, color="0.955", linewidth=0, zorder=0)
        axes.set_xticks(range(len(row)), names)
        axes.tick_params(axis="x", length=0)
        axes.set(xlim=(-0.5, most - 0.5), ylabel="Dice of a mask")
        _set_scale(axes)
    add_legend(figure, legend_patches(styles.values()), title, note)


def _set_scale(axes: Axes) -> None:
    axes.set(ylim=(-0.02, 1.06), yticks=np.linspace(0, 1, 6))
    axes.grid(axis="y")


def _draw_boxes(axes: Axes, boxes: list[dict[str, Any]], x: Sequence[float], width: float, style: ModelStyle) -> None:
    if not boxes:
        return
    thin = {"color": INK, "linewidth": 0.6}
    mean = {"marker": "D", "markersize": 2, "markerfacecolor": "white", "markeredgecolor": INK, "markeredgewidth": 0.5}
    drawn = axes.bxp(
        boxes,
        positions=list(x),
        widths=width,
        showfliers=False,
        showmeans=True,
        patch_artist=True,
        manage_ticks=False,
        boxprops={"facecolor": style.color, "edgecolor": INK, "linewidth": 0.4},
        medianprops={"color": INK if style.baseline else "white", "linewidth": 1.0},
        whiskerprops=thin,
        capprops=thin,
        meanprops=mean,
    )
    for box in drawn["boxes"]:
        box.set_hatch(style.hatch)
