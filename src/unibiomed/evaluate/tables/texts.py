"""Reports, descriptions and answers to questions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..sheet import NONE, Sheet, number
from ..texts import CHEST
from .common import both_protocols, get_in, in_order

__all__ = ["ask_sheets", "text_sheets"]


def text_sheets(models: Mapping[str, Any], task: str, title: str) -> list[Sheet]:
    """The scores of a task that is answered in sentences, strict and as published."""
    sheets = []
    for protocol, file, head in (("strict", task, title), ("published", f"{task}_published", f"{title}, published")):
        having = [
            (name, table[task][protocol]) for name, table in in_order(models) if get_in(table, task, protocol, "count")
        ]
        numbers = (key for _, table in having for key, value in table.items() if isinstance(value, float | int))
        keys = [key for key in dict.fromkeys(numbers) if key != "count"]
        dice = ("Dice",) if any("dice" in table for _, table in having) else ()
        rows = [
            [name, *(_hundredfold(table, key) for key in keys), *(number(table.get("dice")) for _ in dice)]
            for name, table in having
        ]
        ranged = {key for _, table in having for key in table.get("intervals") or {}}
        without = [key for key in keys if key not in ranged]
        note = "Times 100" + (", but for Dice." if dice else ".")
        if protocol == "published":
            note += " Of each data set the first 300 texts."
        if ranged:
            note += " In brackets: 95 % interval of the bootstrap by subject"
            note += f"; {', '.join(without)} have none: made of the whole corpus." if without else "."
        if CHEST in keys:
            note += " Chest findings: those of CheXpert, of X-ray images whose reference tells any of them."
        if dice:
            note += " Dice of the masks of all reports: without a finding, an empty mask is 1 and any pixel 0."
        for problem in dict.fromkeys(table["problem"] for _, table in having if table.get("problem")):
            note += f" {problem}."
        sheets.append(Sheet(file, head, ("model", *keys, *dice), rows, note))
    return both_protocols(*sheets)


def _hundredfold(table: Mapping[str, Any], key: str) -> str:
    if (value := table.get(key)) is None:
        return NONE
    ends = get_in(table, "intervals", key) or {}
    low, high = ends.get("low"), ends.get("high")
    return f"{100 * value:.1f}" + ("" if low is None or high is None else f" ({100 * low:.1f}–{100 * high:.1f})")


def ask_sheets(models: Mapping[str, Any]) -> list[Sheet]:
    """The accuracy of answers to closed and to open questions."""
    rows = [
        [
            name,
            *(
                number(get_in(table, "ask", kind, key), percent=True)
                for kind in ("closed", "open")
                for key in ("accuracy", "accuracy_published")
            ),
        ]
        for name, table in in_order(models)
        if get_in(table, "ask")
    ]
    columns = ("model", "closed (exact)", "closed (published)", "open (exact)", "open (published)")
    return [Sheet("ask", "Visual question answering", columns, rows)]
