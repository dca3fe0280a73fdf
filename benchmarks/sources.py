r"""Dice on data sets that were held out of a training, beside that on the test split of those trained on.

    unibiomed evaluate shared --data DATA --datasets TRAINED --tasks segment --limit 0 --model nano --out runs/internal
    unibiomed evaluate shared --data DATA --datasets HELD_OUT --tasks segment --limit 0 --split all --model nano \
        --out runs/other
    python benchmarks/sources.py runs/internal runs/other --model nano

Prints a table with a row for each target that both have, and the means over these targets. Strict protocol, of images
that show the target, and with absent counted: of all images for which it is known (an empty mask is 1 where the target
is absent, any pixel 0). The ratio is that of the means, with its 95 % interval by subject. With ``--page PAGE`` the
table is also put between ``<!-- sources: sources -->`` and ``<!-- end -->`` of that page.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from ratio import dice_rows
from results import fill

from unibiomed.evaluate.sample_scores import SampleScore
from unibiomed.evaluate.tables import Table, format_estimate
from unibiomed.metrics.intervals import bootstrap_estimate

Group = tuple[list[SampleScore], list[SampleScore]]
"""Rows of one target: internal, and of other sources."""


def by_target(rows: Iterable[SampleScore]) -> dict[str, list[SampleScore]]:
    """Rows of each target that any image shows."""
    found: dict[str, list[SampleScore]] = defaultdict(list)
    for row in rows:
        found[row.target].append(row)
    return {target: group for target, group in found.items() if any(row.target_present for row in group)}


def pooled_ratio(often: np.ndarray, groups: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Ratio of the mean over targets of other sources to the internal one, (draws,).

    Parameters
    ----------
    often : numpy.ndarray
        (draws, samples) how often each sample counts; samples in the order of `groups`, internal ones first in each.
    groups : sequence of (numpy.ndarray, numpy.ndarray)
        Dice of each target, internal and of other sources.
    """
    means, start = np.zeros((2, len(often))), 0
    for group in groups:
        for side, values in enumerate(group):
            counts = often[:, start : start + len(values)]
            start += len(values)
            total = counts.sum(1)
            # a target that a draw misses counts with its own mean
            means[side] += np.where(total > 0, counts @ values / np.maximum(total, 1), values.mean())
    ratio: np.ndarray = np.divide(means[1], means[0], out=np.full(len(often), np.nan), where=means[0] > 0)
    return ratio


def cells(groups: Sequence[Group], *, absent: bool) -> list[str]:
    """Internal Dice, that of other sources, and their ratio, with the same weight for each target."""
    kept = [tuple([row for row in side if row.target_present or absent] for side in group) for group in groups]
    dice = [(np.array([r.dice for r in mine]), np.array([r.dice for r in other])) for mine, other in kept]
    subjects = [row.subject for group in kept for side in group for row in side]
    ratio = bootstrap_estimate(lambda often: pooled_ratio(often, dice), subjects)
    means = [float(np.mean([group[side].mean() for group in dice])) for side in (0, 1)]
    return [f"{means[0]:.3f}", f"{means[1]:.3f}", format_estimate(ratio.to_dict(), 2)]


def source_sheet(internal: dict[str, list[SampleScore]], other: dict[str, list[SampleScore]]) -> Table:
    """One row a target that both have, and one for the means over them."""
    shared = {target: (internal[target], other[target]) for target in sorted(internal.keys() & other.keys())}
    rows = []
    for name, groups in [*((t, [g]) for t, g in shared.items()), (f"mean over {len(shared)}", [*shared.values()])]:
        shown = (sum(bool(row.target_present) for group in groups for row in group[side]) for side in (0, 1))
        sets = sorted({row.dataset for group in groups for row in group[1]})
        row = [name, f"{len(sets)} data sets" if len(groups) > 1 else ", ".join(sets), *(f"{n:,}" for n in shown)]
        rows.append([*row, *cells(groups, absent=False), *cells(groups, absent=True)])
    scores = ("internal Dice", "other-source Dice", "ratio")
    columns = ("target", "other sources", "internal images with it", "other images with it", *scores)
    columns += tuple(f"{name}, absent counted" for name in scores)
    alone = sorted(other.keys() - internal.keys())
    note = "Dice of images that show the target; the ratio is that of the means, with its 95 % interval by subject."
    if alone:
        note += f" Without an internal source, and left out: {', '.join(alone)}."
    return Table("sources", "Other sources", columns, rows, note)


def main() -> None:
    """Print the table, and fill the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("internal", type=Path, help="evaluation on the data sets that were trained on")
    parser.add_argument("other", type=Path, help="evaluation on those that were held out")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    internal, other = (by_target(dice_rows(out, options.model).values()) for out in (options.internal, options.other))
    if not internal.keys() & other.keys():
        parser.error(f"'{options.internal}' and '{options.other}' have no target in common")
    both = {row.dataset for rows in internal.values() for row in rows}
    both &= {row.dataset for rows in other.values() for row in rows}
    if both:
        parser.error(f"{', '.join(sorted(both))}: in both evaluations, so not held out; choose others with --datasets")
    sheet = source_sheet(internal, other)
    print(sheet.markdown())
    if options.page is not None:
        fill(options.page, {"sources": {"sources": sheet}})


if __name__ == "__main__":
    main()
