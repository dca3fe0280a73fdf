"""A picture of a training: its losses step by step, and the held-out Dice at the end of each stage."""

from __future__ import annotations

import csv
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np

from .checkpoint import writing


def plot_log(log: Path, held_out: Path, out: Path) -> None:
    """Draw ``log.csv`` and ``heldout.csv`` into a PNG file; without matplotlib a warning says so.

    Parameters
    ----------
    log, held_out : Path
        What a training writes; the second may be missing.
    out : Path
        The PNG file.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        warnings.warn("no plot of the training: pip install matplotlib", stacklevel=2)
        return
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    losses: dict[str, list[tuple[int, float]]] = defaultdict(list)
    ends: dict[str, int] = {}
    for number, row in enumerate(rows):
        ends[row["stage"]] = number
        for part in row["parts"].split():
            name, value = part.split("=")
            losses[name].append((number, float(value)))
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, points in losses.items():
        steps, values = (np.array(column, dtype=float) for column in zip(*points, strict=True))
        width = max(1, len(values) // 100)
        left.plot(steps[width - 1 :], np.convolve(values, np.ones(width) / width, "valid"), label=name, lw=1.2)
    for stage, end in ends.items():
        left.axvline(end, color="0.8", lw=0.8)
        left.text(end, 1.01, stage, transform=left.get_xaxis_transform(), ha="right", fontsize=8, color="0.4")
    left.set(xlabel="step", ylabel="loss (running mean)")
    if max((value for points in losses.values() for _, value in points), default=0) > 0:
        left.set_yscale("log")
        # beside the curves: of ten losses a box would hide some
        left.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    dice: dict[str, dict[str, float]] = defaultdict(dict)
    if held_out.exists():
        with held_out.open(newline="") as file:
            for row in csv.DictReader(file):
                dice[row["stage"]][row["target"]] = float(row["dice"])
    if dice:
        last = dice[list(dice)[-1]]
        order = sorted(last, key=lambda target: last[target])
        for stage, scores in dice.items():
            mean = np.mean(list(scores.values()))
            right.plot([scores.get(target, np.nan) for target in order], order, "o", label=f"{stage}: mean {mean:.3f}")
        right.set(xlabel="Dice on validation images", xlim=(0, 1))
        right.tick_params(axis="y", labelsize=7)
        right.legend(fontsize=8)
    else:
        right.set_axis_off()
    with writing(out):
        figure.savefig(out, dpi=120)
