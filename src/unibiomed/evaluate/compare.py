"""Is the difference between two models more than chance? Paired by subject, corrected for how many were asked."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unibiomed.metrics.statistics import holm, paired_t_test, wilcoxon

from .rows import Row, read_rows
from .samples import ELSEWHERE
from .texts import likeness

__all__ = ["compare"]

COUNTED = "Dice, absent counted"
MEASURES: dict[str, tuple[str, Callable[[Row], bool], Callable[[Row], float]]] = {
    "Dice": ("segment", lambda r: bool(r.there) and r.kind != "foreign", lambda r: r.dice),
    COUNTED: ("segment", lambda r: r.kind != "foreign" and not r.boxed, lambda r: r.dice),
    "Dice, true box": ("outline", lambda r: True, lambda r: r.dice),
    "recognition accuracy": ("recognize", lambda r: True, lambda r: float(bool(r.exact))),
    "recognition Dice": ("recognize", lambda r: True, lambda r: r.dice),
    "region classification accuracy": ("classify", lambda r: r.kind != ELSEWHERE, lambda r: float(bool(r.exact))),
    "region reports, ROUGE-L": ("describe", lambda r: True, likeness),
    "grounded reports, ROUGE-L": ("report", lambda r: True, likeness),
    "closed questions": ("ask", lambda r: r.kind == "closed", lambda r: float(bool(r.exact))),
}
FEWEST = 5
"""Subjects below which no test is made."""


def compare(scores: Mapping[str, Path]) -> list[dict[str, Any]]:
    """The first model against each other one, in every measure that both have.

    Dice with absent targets counted is left out where it is Dice itself, since no target is absent.

    Parameters
    ----------
    scores : mapping of str to Path
        Model to its rows.

    Returns
    -------
    list of dict
        ``a``, ``b``, ``measure``, ``count`` of subjects, mean over subjects of the ``difference`` a - b; ``effect``
        (Cohen's dz) and ``p_t`` of the t-test, ``rank_biserial`` and ``p_wilcoxon`` of Wilcoxon's, both two-sided;
        ``p_adjusted`` and ``p_wilcoxon_adjusted`` (Holm, over all comparisons of each test).
    """
    names = list(scores)
    if len(names) < 2:
        return []
    means = {name: _by_subject(path) for name, path in scores.items()}
    out: list[dict[str, Any]] = []
    for other in names[1:]:
        for measure in MEASURES:
            a, b = means[names[0]][measure], means[other][measure]
            both = sorted(a.keys() & b.keys())
            repeated = measure == COUNTED and (a, b) == (means[names[0]]["Dice"], means[other]["Dice"])
            if len(both) < FEWEST or repeated:
                continue
            pair = [a[s] for s in both], [b[s] for s in both]
            test, ranks = paired_t_test(*pair), wilcoxon(*pair)
            out.append(
                {
                    "a": names[0],
                    "b": other,
                    "measure": measure,
                    "count": len(both),
                    "difference": test.difference,
                    # the same difference everywhere has no spread to measure it by
                    "effect": test.effect if math.isfinite(test.effect) else None,
                    "p_t": test.p,
                    "rank_biserial": ranks.effect,
                    "p_wilcoxon": ranks.p,
                }
            )
    for raw, adjusted in (("p_t", "p_adjusted"), ("p_wilcoxon", "p_wilcoxon_adjusted")):
        for row, p in zip(out, holm([row[raw] for row in out]), strict=True):
            row[adjusted] = float(p)
    return out


def _by_subject(path: Path) -> dict[str, dict[str, float]]:
    """Of each measure the mean of every subject."""
    values: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in MEASURES}
    for row in read_rows(path):
        if row.change is not None or row.paraphrase:
            continue
        for name, (task, counts, value) in MEASURES.items():
            if row.task == task and counts(row):
                values[name][row.subject].append(value(row))
    return {name: {s: sum(v) / len(v) for s, v in found.items()} for name, found in values.items()}
