"""What each model calls each finding, as counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..confusion import FAILED, MOST_LABELS, OTHER, RARER, fold
from ..sheet import Sheet
from .common import file_of, get_in, in_order

__all__ = ["confusion_sheets"]

MEANINGS = {
    OTHER: "an answer that is no label of the suite's images",
    FAILED: "none at all",
    RARER: f"all but the {MOST_LABELS} most frequent labels, told apart in results.json alone",
}


def confusion_sheets(models: Mapping[str, Any], task: str, title: str) -> list[Sheet]:
    """One row a true label, one column an answer, for each model that is no floor."""
    sheets = []
    for name, table in in_order(models):
        counts = get_in(table, task, "strict", "confusion")
        if not counts or table.get("floor"):
            continue
        matrix, labels, answers = fold(counts)
        # a column of nothing but zeros tells nothing, and the table is wide enough
        given = [j for j in range(len(answers)) if matrix[:, j].any()]
        rows = [
            [label, *(str(line[j]) if line[j] else "" for j in given)]
            for label, line in zip(labels, matrix, strict=True)
        ]
        columns = ("label", *(answers[j] for j in given))
        sheets.append(
            Sheet(
                f"{task}_confusion_{file_of(name)}",
                f"{title}, answers, {name}",
                columns,
                rows,
                _note(task, labels, columns),
            )
        )
    return sheets


def _note(task: str, labels: list[str], columns: tuple[str, ...]) -> str:
    text = "Boxes" if task == "classify" else "Images"
    text += " by their label (row) and the answer (column). An empty cell is 0; what was never said has no column."
    return text + "".join(f" {name}: {meaning}." for name, meaning in MEANINGS.items() if name in (*labels, *columns))
