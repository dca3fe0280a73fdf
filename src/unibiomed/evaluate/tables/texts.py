"""Tables of reports, descriptions and answers to questions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..text_metrics import CHEST_F1
from .common import both_protocols, get_in, models_first
from .table import MISSING, Table, format_estimate

__all__ = ["question_tables", "text_tables"]


def text_tables(models: Mapping[str, Any], task: str, title: str) -> list[Table]:
    """Make the tables of a task that is answered with a text, in both protocols."""
    tables = []
    for protocol, file, head in (
        ("strict", task, title),
        ("published", f"{task}_published", f"{title}, published protocol"),
    ):
        results = [
            (name, table[task][protocol])
            for name, table in models_first(models)
            if get_in(table, task, protocol, "count")
        ]
        numbers = (key for _, table in results for key, value in table.items() if isinstance(value, float | int))
        metrics = [key for key in dict.fromkeys(numbers) if key != "count"]
        dice = ("Dice",) if any("dice" in table for _, table in results) else ()
        rows = [
            [name, *(_percent(table, key) for key in metrics), *(format_estimate(table.get("dice")) for _ in dice)]
            for name, table in results
        ]
        with_interval = {key for _, table in results for key in table.get("intervals") or {}}
        without = [key for key in metrics if key not in with_interval]
        note = "Values times 100" + (", except Dice." if dice else ".")
        if protocol == "published":
            note += " Only the first 300 texts of each data set."
        if with_interval:
            note += " In brackets: 95 % interval of the bootstrap by subject."
            note += f" No interval for corpus-level {', '.join(without)}." if without else ""
        if CHEST_F1 in metrics:
            note += " Chest findings: CheXpert's findings, of X-ray images whose reference mentions any of them."
        if dice:
            note += " Dice of the masks of all reports: without a finding, an empty mask scores 1 and any pixel 0."
        for problem in dict.fromkeys(table["problem"] for _, table in results if table.get("problem")):
            note += f" {problem}."
        tables.append(Table(file, head, ("model", *metrics, *dice), rows, note))
    return both_protocols(*tables)


def _percent(table: Mapping[str, Any], key: str) -> str:
    if (value := table.get(key)) is None:
        return MISSING
    bounds = get_in(table, "intervals", key) or {}
    low, high = bounds.get("low"), bounds.get("high")
    return f"{100 * value:.1f}" + ("" if low is None or high is None else f" ({100 * low:.1f}–{100 * high:.1f})")


def question_tables(models: Mapping[str, Any]) -> list[Table]:
    """Make the table of closed and open questions."""
    keys = [(kind, key) for kind in ("closed", "open") for key in ("accuracy", "accuracy_published")]
    rows = [
        [name, *(format_estimate(get_in(table, "ask", *key), percent=True) for key in keys)]
        for name, table in models_first(models)
        if get_in(table, "ask")
    ]
    columns = ("model", "closed (exact)", "closed (published)", "open (exact)", "open (published)")
    return [Table("ask", "Visual question answering", columns, rows)]
