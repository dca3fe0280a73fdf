"""Models against each other: runs of one kind of training, and tests paired by subject."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..sheet import NONE, Sheet, simple
from .common import DICE

__all__ = ["comparison_sheets", "runs_sheet"]


def runs_sheet(tables: Mapping[str, Mapping[str, Any]]) -> Sheet:
    """One row a kind of training, one column a measure."""
    kinds = list(dict.fromkeys(kind for table in tables.values() for kind in table))
    rows = []
    for kind in kinds:
        found = [table.get(kind) for table in tables.values()]
        number = max(len(cell["values"]) for cell in found if cell)
        rows.append([kind, str(number), *(_spread(cell) for cell in found)])
    return Sheet("runs", "Kinds of training, mean ± s.d. over their runs", ("training", "runs", *tables), rows)


def _spread(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return NONE
    return f"{cell['mean']:.3f}" + (f" ± {cell['sd']:.3f}" if cell["sd"] is not None else "")


def comparison_sheets(comparisons: Iterable[Mapping[str, Any]]) -> list[Sheet]:
    """One row a pair of models and a measure."""
    rows = [
        [
            f"{c['a']} – {c['b']}",
            c["measure"],
            str(c["count"]),
            f"{c['difference']:+.3f}",
            simple(c["effect"], 2),
            _p(c["p_t"]),
            _p(c["p_adjusted"]),
            simple(c.get("rank_biserial"), 2),
            _p(c["p_wilcoxon"]),
            _p(c.get("p_wilcoxon_adjusted")),
        ]
        for c in comparisons
    ]
    columns = (
        "models",
        "measure",
        "subjects",
        "difference",
        "dz",
        "p (t)",
        "p (t, Holm)",
        "rank-biserial",
        "p (Wilcoxon)",
        "p (Wilcoxon, Holm)",
    )
    note = (
        "Difference of the means over subjects, each subject being the mean of its samples; other tables give means "
        f"over targets or images. {DICE} Both are one, and told once, where no target is absent. "
        "Effects: Cohen's dz of the t-test, rank-biserial correlation of Wilcoxon's test. Holm: "
        "corrected for the number of comparisons, each test by itself."
    )
    return [Sheet("comparisons", "Differences, paired by subject, two-sided", columns, rows, note)]


def _p(value: float | None) -> str:
    return NONE if value is None else "<0.0001" if value < 1e-4 else f"{value:.4f}"
