"""Paired tests of the difference between models, with subjects as units and Holm's correction."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unibiomed.metrics.statistics import holm, paired_t_test, wilcoxon

from .sample_scores import SampleScore, read_sample_scores
from .samples import BACKGROUND_BOX
from .text_metrics import sample_rouge_l

__all__ = ["MIN_SUBJECTS", "compare"]

DICE_WITH_ABSENT = "Dice incl. absent targets"
MEASURES: dict[str, tuple[str, Callable[[SampleScore], bool], Callable[[SampleScore], float]]] = {
    "Dice": ("segment", lambda s: bool(s.target_present) and not s.out_of_context, lambda s: s.dice),
    DICE_WITH_ABSENT: ("segment", lambda s: not s.out_of_context and not s.true_box, lambda s: s.dice),
    "Dice, true box": ("outline", lambda s: True, lambda s: s.dice),
    "recognition accuracy": ("recognize", lambda s: True, lambda s: float(bool(s.exact_match))),
    "recognition Dice": ("recognize", lambda s: True, lambda s: s.dice),
    "region classification accuracy": (
        "classify",
        lambda s: s.kind != BACKGROUND_BOX,
        lambda s: float(bool(s.exact_match)),
    ),
    "region reports, ROUGE-L": ("describe", lambda s: True, sample_rouge_l),
    "grounded reports, ROUGE-L": ("report", lambda s: True, sample_rouge_l),
    "closed questions": ("ask", lambda s: s.kind == "closed", lambda s: float(bool(s.exact_match))),
}
"""Task, filter and value of each measure."""
MIN_SUBJECTS = 5
"""No test is made with fewer subjects."""


def compare(scores: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Compare the first model with each other model in every measure that both have.

    Dice including absent targets is left out if it equals Dice because no target is absent.

    Parameters
    ----------
    scores : mapping of str to Path
        File of the sample scores of each model.

    Returns
    -------
    list of dict
        ``a``, ``b``, ``measure``, ``count`` of subjects, ``difference`` a - b of the means over subjects, ``effect``
        (Cohen's dz) and ``p_t`` of the t-test, ``rank_biserial`` and ``p_wilcoxon`` of Wilcoxon's test (both
        two-sided), ``p_adjusted`` and ``p_wilcoxon_adjusted`` (Holm's correction over all comparisons of a test).
    """
    names = list(scores)
    if len(names) < 2:
        return []
    means = {name: _subject_means(path) for name, path in scores.items()}
    out: list[dict[str, Any]] = []
    for other in names[1:]:
        for measure in MEASURES:
            a, b = means[names[0]][measure], means[other][measure]
            subjects = sorted(a.keys() & b.keys())
            repeated = measure == DICE_WITH_ABSENT and (a, b) == (means[names[0]]["Dice"], means[other]["Dice"])
            if len(subjects) < MIN_SUBJECTS or repeated:
                continue
            pair = [a[s] for s in subjects], [b[s] for s in subjects]
            t_test, rank_test = paired_t_test(*pair), wilcoxon(*pair)
            out.append(
                {
                    "a": names[0],
                    "b": other,
                    "measure": measure,
                    "count": len(subjects),
                    "difference": t_test.difference,
                    # dz is infinite if all differences are equal
                    "effect": t_test.effect if math.isfinite(t_test.effect) else None,
                    "p_t": t_test.p,
                    "rank_biserial": rank_test.effect,
                    "p_wilcoxon": rank_test.p,
                }
            )
    for raw, adjusted in (("p_t", "p_adjusted"), ("p_wilcoxon", "p_wilcoxon_adjusted")):
        for row, p in zip(out, holm([row[raw] for row in out]), strict=True):
            row[adjusted] = float(p)
    return out


def _subject_means(path: Path) -> dict[str, dict[str, float]]:
    """Return the mean of every subject for each measure."""
    values: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in MEASURES}
    for score in read_sample_scores(path):
        if not score.original:
            continue
        for name, (task, included, value) in MEASURES.items():
            if score.task == task and included(score):
                values[name][score.subject].append(value(score))
    return {name: {s: sum(v) / len(v) for s, v in subjects.items()} for name, subjects in values.items()}
