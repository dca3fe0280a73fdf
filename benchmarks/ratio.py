"""Of the Dice that U-Nets trained for one target each reach: how much one model for all targets reaches.

    unibiomed evaluate shared --data DATA --model nano --model specialists:runs/specialists --limit 24 --out runs/shared
    python benchmarks/ratio.py docs/results.md runs/shared runs/specialists

Fills the table between ``<!-- specialists: ratio -->`` and ``<!-- end -->``. Targets for which there is no U-Net yet
are left out on both sides, and counted. Images that show the target, strict protocol.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from results import fill

from unibiomed.evaluate.intervals import estimate_of
from unibiomed.evaluate.predictors.specialists import Specialist, known_specialists
from unibiomed.evaluate.rows import Row, read_rows
from unibiomed.evaluate.scoring import rows_path
from unibiomed.evaluate.tables import Sheet, number

Pair = tuple[str, str]
"""Data set and target."""


@dataclass
class Shared:
    """What both were asked for one target."""

    trained: list[Specialist] = field(default_factory=list)
    subjects: list[str] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)


def dice_rows(out: Path, model: str) -> dict[str, Row]:
    """The samples of a model whose image shows the target that is asked for."""
    rows = (row for row in read_rows(rows_path(out, model)) if row.task == "segment" and row.there)
    return {row.id: row for row in rows if row.kind != "foreign" and row.change is None and not row.paraphrase}


def join(ours: dict[str, Row], theirs: dict[str, Row], trained: dict[Pair, Specialist]) -> dict[str, Shared]:
    """Both models' Dice by target, of samples for which a U-Net was trained."""
    found: dict[str, Shared] = defaultdict(Shared)
    for name in sorted(ours.keys() & theirs.keys()):
        row = ours[name]
        about = trained.get((row.dataset, row.target))
        if about is None:
            continue
        shared = found[row.target]
        if about not in shared.trained:
            shared.trained.append(about)
        shared.subjects.append(row.subject)
        shared.ours.append(row.dice)
        shared.theirs.append(theirs[name].dice)
    return dict(sorted(found.items()))


def macro_ratio(often: np.ndarray, groups: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Ratio of the means over targets, (draws,), where (draws, samples) `often` says how often each sample counts."""
    means = []
    start = 0
    for pair in groups:
        counts = often[:, start : start + len(pair[0])]
        start += len(pair[0])
        total = counts.sum(1)
        # a target that a draw misses counts with its own mean
        means.append([np.where(total > 0, counts @ v / np.maximum(total, 1), v.mean()) for v in pair])
    ours, theirs = np.array(means).mean(0)
    ratio: np.ndarray = ours / theirs
    return ratio


def ratio_sheet(found: dict[str, Shared], missing: int) -> Sheet:
    """One row a target, and one for the means over targets."""
    rows = []
    for target, shared in found.items():
        ours, theirs = float(np.mean(shared.ours)), float(np.mean(shared.theirs))
        images = sum(about.samples for about in shared.trained)
        ratio = f"{ours / theirs:.2f}" if theirs else "–"
        rows.append([target, str(len(shared.ours)), f"{images:,}", f"{ours:.3f}", f"{theirs:.3f}", ratio])
    groups = [(np.array(shared.ours), np.array(shared.theirs)) for shared in found.values()]
    subjects = [subject for shared in found.values() for subject in shared.subjects]
    estimate = estimate_of(lambda often: macro_ratio(often, groups), subjects)
    means = [f"{np.mean([g[side].mean() for g in groups]):.3f}" for side in (0, 1)]
    total = sum(about.samples for shared in found.values() for about in shared.trained)
    rows.append([f"mean over {len(found)}", str(len(subjects)), f"{total:,}", *means, number(estimate.to_dict())])
    note = "Dice of images that show the target; ratio of the means with its 95 % interval by subject."
    if missing:
        note += f" Targets of data sets for which no U-Net is trained yet, left out on both sides: {missing}."
    columns = ("target", "test images", "training images seen", "nano", "U-Net", "ratio")
    return Sheet("ratio", "Beside specialists", columns, rows, note)


def main() -> None:
    """Fill the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, help="docs/results.md")
    parser.add_argument("out", type=Path, help="what `unibiomed evaluate` wrote")
    parser.add_argument("nets", type=Path, help="what benchmarks/specialists.py wrote")
    parser.add_argument("--model", default="nano")
    options = parser.parse_args()
    trained = {key: about for key, (_, about) in known_specialists(options.nets).items()}
    ours = dice_rows(options.out, options.model)
    found = join(ours, dice_rows(options.out, options.nets.resolve().name), trained)
    if not found:
        parser.error(f"'{options.out}' holds no target that both models were asked for")
    missing = {(row.dataset, row.target) for row in ours.values()} - trained.keys()
    fill(options.page, {"specialists": {"ratio": ratio_sheet(found, len(missing))}})


if __name__ == "__main__":
    main()
