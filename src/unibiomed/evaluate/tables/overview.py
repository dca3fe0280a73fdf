"""The first table and the last one: every model with its main scores, and what failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..sheet import NONE, Sheet, number
from .common import DICE, get_in, in_order

__all__ = ["failure_sheet", "overview_sheet", "unknown_sheet"]

FEW = 5
"""Names that are told."""


def overview_sheet(models: Mapping[str, Any]) -> Sheet:
    """The main scores of every task, one row a model."""
    rows = []
    boxes = any(get_in(table, "outline") for table in models.values())
    for name, table in in_order(models):
        failed = sum((table.get("failures") or {}).values())
        rows.append(
            [
                name,
                number(get_in(table, "segment", "strict", "dice")),
                number(get_in(table, "segment", "strict", "dice_with_absent")),
                *([number(get_in(table, "outline", "strict", "dice"))] if boxes else []),
                number(get_in(table, "recognize", "strict", "accuracy"), percent=True),
                number(get_in(table, "classify", "strict", "accuracy"), percent=True),
                number(get_in(table, "ask", "closed", "accuracy"), percent=True),
                str(table.get("samples", 0)),
                str(failed),
                table.get("note") or "",
            ]
        )
    columns = (
        "model",
        "Dice",
        "Dice, absent counted",
        *(["Dice, true box"] if boxes else []),
        "recognition",
        "region class",
        "closed questions",
        "answers",
        "failures",
        "note",
    )
    note = (
        f"Strict protocol. {DICE} Mean over targets (Dice) or images; 95 % interval by subject in brackets. "
        "Answers: samples of every task, changed images and other words included."
    )
    return Sheet("overview", "Overview", columns, rows, note)


def unknown_sheet(models: Mapping[str, Any]) -> Sheet:
    """Predictions that answer nothing that was asked; they cost nothing."""
    rows = []
    for name, table in in_order(models):
        if paths := table.get("unknown_predictions"):
            rows.append([name, str(table.get("unknown_count", len(paths))), ", ".join(paths[:FEW])])
    note = "They answer nothing that this suite asks and are not scored: of an earlier, wider run, or misnamed."
    return Sheet("unknown", "Files without a sample", ("model", "files", "such as"), rows, note)


def failure_sheet(results: Mapping[str, Any]) -> Sheet:
    """What was scored 0, what is missing and what has to be known."""
    models = in_order(results["models"])
    rows = [[name, reason, str(count)] for name, table in models for reason, count in table["failures"].items()]
    rows = rows or [["(all)", "no failures", "0"]]
    rows += [["(data)", f"data set {name}: {reason}", NONE] for name, reason in results.get("missing_datasets") or []]
    rows += [["(data)", f"image {key}: {reason}", NONE] for key, reason in results.get("unreadable") or []]
    rows += [["(note)", note, NONE] for note in results.get("notes") or []]
    note = "Rows of (data) name data sets that are missing and images that cannot be read."
    note = note if any(row[0] == "(data)" for row in rows) else ""
    return Sheet("failures", "Failures, all scored 0", ("model", "reason", "samples"), rows, note)
