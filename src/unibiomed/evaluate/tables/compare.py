"""Tables that compare models: means over seeds, and paired tests by subject."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .common import DICE
from .table import MISSING, Table, format_number

__all__ = ["comparison_tables", "seeds_table"]


def seeds_table(tables: Mapping[str, Mapping[str, Any]]) -> Table:
    """Make a table with one row per training configuration and one column per measure."""
    configurations = list(dict.fromkeys(name for table in tables.values() for name in table))
    rows = []
    for name in configurations:
        cells = [table.get(name) for table in tables.values()]
        seeds = max(len(cell["values"]) for cell in cells if cell)
        rows.append([name, str(seeds), *(_mean_sd(cell) for cell in cells)])
    return Table("runs", "Mean ± s.d. over seeds", ("training", "seeds", *tables), rows)


def _mean_sd(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return MISSING
    return f"{cell['mean']:.3f}" + (f" ± {cell['sd']:.3f}" if cell["sd"] is not None else "")


def comparison_tables(comparisons: Iterable[Mapping[str, Any]]) -> list[Table]:
    """Make a table with one row per pair of models and measure."""
    rows = [
        [
            f"{c['a']} – {c['b']}",
            c["measure"],
            str(c["count"]),
            f"{c['difference']:+.3f}",
            format_number(c["effect"], 2),
            _p_value(c["p_t"]),
            _p_value(c["p_adjusted"]),
            format_number(c.get("rank_biserial"), 2),
            _p_value(c["p_wilcoxon"]),
            _p_value(c.get("p_wilcoxon_adjusted")),
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
        "Difference of the means over subjects, where each subject counts with the mean of its samples. Other tables "
        f"show means over targets or images. {DICE} If no target is absent, both are equal and shown once. Effect "
        "sizes: Cohen's dz of the t-test, rank-biserial correlation of Wilcoxon's test. Holm: p-value corrected for "
        "the number of comparisons, separately for each test."
    )
    return [Table("comparisons", "Differences, paired by subject, two-sided", columns, rows, note)]


def _p_value(value: float | None) -> str:
    return MISSING if value is None else "<0.0001" if value < 1e-4 else f"{value:.4f}"
