"""Confusion matrices as tables of counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..confusion import FAILED, MAX_LABELS, OTHER, RARE, merge_rare_labels
from ..predictions import safe_name
from .common import get_in, models_first
from .table import Table

__all__ = ["confusion_tables"]

MEANINGS = {
    OTHER: "a label that no image of the suite has",
    FAILED: "no answer",
    RARE: f"all but the {MAX_LABELS} most frequent labels, which only results.json lists separately",
}


def confusion_tables(models: Mapping[str, Any], task: str, title: str) -> list[Table]:
    """Make a confusion matrix for each model that is not a baseline."""
    tables = []
    for name, results in models_first(models):
        counts = get_in(results, task, "strict", "confusion")
        if not counts or results.get("baseline"):
            continue
        matrix, labels, answers = merge_rare_labels(counts)
        # the table is wide, so empty columns are left out
        shown = [j for j in range(len(answers)) if matrix[:, j].any()]
        rows = [
            [label, *(str(row[j]) if row[j] else "" for j in shown)] for label, row in zip(labels, matrix, strict=True)
        ]
        columns = ("label", *(answers[j] for j in shown))
        file, note = f"{task}_confusion_{safe_name(name)}", _note(task, labels, columns)
        tables.append(Table(file, f"{title}, confusion matrix, {name}", columns, rows, note))
    return tables


def _note(task: str, labels: list[str], columns: tuple[str, ...]) -> str:
    text = f"Number of {'boxes' if task == 'classify' else 'images'} by true label (row) and predicted label (column). "
    text += "An empty cell is 0; labels that were never predicted have no column."
    return text + "".join(f" {name}: {meaning}." for name, meaning in MEANINGS.items() if name in (*labels, *columns))
