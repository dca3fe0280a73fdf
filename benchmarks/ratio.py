"""Of the Dice that U-Nets trained for one target each reach: how much one model for all targets reaches.

    unibiomed evaluate shared --data DATA --limit 0 --model nano --model specialists:runs/specialists --out runs/beside
    python benchmarks/ratio.py docs/results_version_7.md runs/beside runs/specialists

Fills the table between ``<!-- specialists: ratio -->`` and ``<!-- end -->``. Targets for which there is no U-Net yet
are left out on both sides, and counted. Strict protocol, twice: of images that show the target, and of all images of
the data set for which it is known whether they do (where they do not, an empty mask is 1 and any pixel 0).
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from results import fill

from unibiomed.evaluate.predictors.specialists import Specialist, find_specialists
from unibiomed.evaluate.sample_scores import SampleScore, read_sample_scores
from unibiomed.evaluate.scoring import sample_scores_path
from unibiomed.evaluate.tables import Table, format_estimate
from unibiomed.metrics.intervals import bootstrap_estimate

Pair = tuple[str, str]
"""Data set and target."""


@dataclass
class Shared:
    """What both were asked for one target."""

    trained: list[Specialist] = field(default_factory=list)
    subjects: list[str] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    there: list[bool] = field(default_factory=list)

    def dice(self, *, absent: bool) -> tuple[np.ndarray, np.ndarray]:
        """Both models' Dice, of images that show the target, with `absent` of all."""
        kept = np.ones(len(self.target_present), bool) if absent else np.array(self.target_present, bool)
        return np.array(self.ours)[kept], np.array(self.theirs)[kept]

    def people(self, *, absent: bool) -> list[str]:
        """Whose images these are."""
        return [one for one, there in zip(self.subjects, self.target_present, strict=True) if there or absent]


def dice_rows(out: Path, model: str) -> dict[str, SampleScore]:
    """The samples of a model that ask for a mask of what images of the data set may show."""
    rows = (row for row in read_sample_scores(sample_scores_path(out, model)) if row.task == "segment")
    return {
        row.id: row for row in rows if row.kind != "out_of_context" and row.perturbation is None and not row.paraphrase
    }


def join(
    ours: dict[str, SampleScore], theirs: dict[str, SampleScore], trained: dict[Pair, Specialist]
) -> dict[str, Shared]:
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
        shared.target_present.append(bool(row.target_present))
    return {target: shared for target, shared in sorted(found.items()) if any(shared.target_present)}


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


def ratio_sheet(found: dict[str, Shared], missing: int) -> Table:
    """One row a target, and one for the means over targets."""
    rows = []
    for target, shared in found.items():
        row = [target, f"{sum(shared.there):,}", f"{len(shared.there):,}"]
        row.append(f"{sum(about.samples for about in shared.trained):,}")
        for absent in (False, True):
            ours, theirs = (float(side.mean()) for side in shared.dice(absent=absent))
            row += [f"{ours:.3f}", f"{theirs:.3f}", f"{ours / theirs:.2f}" if theirs else "–"]
        rows.append(row)
    every = found.values()
    total = [
        f"mean over {len(found)}",
        f"{sum(sum(s.there) for s in every):,}",
        f"{sum(len(s.there) for s in every):,}",
    ]
    total.append(f"{sum(about.samples for shared in every for about in shared.trained):,}")
    for absent in (False, True):
        groups = [shared.dice(absent=absent) for shared in every]
        subjects = [one for shared in every for one in shared.people(absent=absent)]
        estimate = bootstrap_estimate(lambda often, groups=groups: macro_ratio(often, groups), subjects)
        total += [f"{np.mean([g[side].mean() for g in groups]):.3f}" for side in (0, 1)] + [
            format_estimate(estimate.to_dict())
        ]
    rows.append(total)
    note = (
        "Dice of images that show the target; absent counted: of all images of the data set, where an empty mask is 1 "
        "and any pixel 0 without it. Ratio of the means with its 95 % interval by subject."
    )
    if missing:
        note += f" Targets of data sets for which no U-Net is trained yet, left out on both sides: {missing}."
    columns = ("target", "images with it", "images", "training images seen", "nano", "U-Net", "ratio")
    columns += tuple(f"{name}, absent counted" for name in columns[-3:])
    return Table("ratio", "Beside specialists", columns, rows, note)


def main() -> None:
    """Fill the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, help="docs/results_version_7.md")
    parser.add_argument("out", type=Path, help="what `unibiomed evaluate` wrote")
    parser.add_argument("nets", type=Path, help="what benchmarks/specialists.py wrote")
    parser.add_argument("--model", default="nano")
    options = parser.parse_args()
    trained = {key: about for key, (_, about) in find_specialists(options.nets).items()}
    ours = dice_rows(options.out, options.model)
    found = join(ours, dice_rows(options.out, options.nets.resolve().name), trained)
    if not found:
        parser.error(f"'{options.out}' holds no target that both models were asked for")
    missing = {(row.dataset, row.target) for row in ours.values() if row.target_present} - trained.keys()
    fill(options.page, {"specialists": {"ratio": ratio_sheet(found, len(missing))}})


if __name__ == "__main__":
    main()
