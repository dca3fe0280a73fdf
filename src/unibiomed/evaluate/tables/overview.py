"""The overview table, and the tables of failures and unmatched files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .common import DICE, get_in, models_first
from .table import MISSING, Table, format_estimate

__all__ = ["failure_table", "overview_table", "unmatched_files_table"]

MAX_LISTED = 5
"""Number of unmatched files listed in the table."""


def overview_table(models: Mapping[str, Any]) -> Table:
    """Make a table with the main scores of every task, one row per model."""
    rows = []
    boxes = any(get_in(table, "outline") for table in models.values())
    for name, table in models_first(models):
        failures = sum((table.get("failures") or {}).values())
        rows.append(
            [
                name,
                format_estimate(get_in(table, "segment", "strict", "dice")),
                format_estimate(get_in(table, "segment", "strict", "dice_with_absent")),
                *([format_estimate(get_in(table, "outline", "strict", "dice"))] if boxes else []),
                format_estimate(get_in(table, "recognize", "strict", "accuracy"), percent=True),
                format_estimate(get_in(table, "classify", "strict", "accuracy"), percent=True),
                format_estimate(get_in(table, "ask", "closed", "accuracy"), percent=True),
                str(table.get("samples", 0)),
                str(failures),
                table.get("note") or "",
            ]
        )
    columns = (
        "model",
        "Dice",
        "Dice incl. absent targets",
        *(["Dice, true box"] if boxes else []),
        "recognition accuracy",
        "region classification accuracy",
        "closed questions",
        "samples",
        "failures",
        "note",
    )
    note = (
        f"Strict protocol. {DICE} Mean over targets (Dice) or images, with the 95 % interval by subject in brackets. "
        "Samples: all tasks, including perturbed images and paraphrases."
    )
    return Table("overview", "Overview", columns, rows, note)


def unmatched_files_table(models: Mapping[str, Any]) -> Table:
    """Make a table of prediction files that belong to no sample."""
    rows = []
    for name, table in models_first(models):
        if paths := table.get("unmatched_files"):
            rows.append([name, str(table.get("unmatched_count", len(paths))), ", ".join(paths[:MAX_LISTED])])
    note = (
        "These files belong to no sample of the suite and are not scored. They come from an earlier run with more "
        "samples, or their names are wrong."
    )
    return Table("unmatched_files", "Unmatched files", ("model", "files", "examples"), rows, note)


def failure_table(results: Mapping[str, Any]) -> Table:
    """Make a table of failures, missing data sets, unreadable images and notes."""
    models = models_first(results["models"])
    rows = [[name, reason, str(count)] for name, table in models for reason, count in table["failures"].items()]
    rows = rows or [["(all)", "no failures", "0"]]
    rows += [
        ["(data)", f"data set {name}: {reason}", MISSING] for name, reason in results.get("missing_datasets") or []
    ]
    rows += [["(data)", f"image {key}: {reason}", MISSING] for key, reason in results.get("unreadable") or []]
    rows += [["(note)", note, MISSING] for note in results.get("notes") or []]
    note = "Rows with (data) list missing data sets and images that cannot be read."
    note = note if any(row[0] == "(data)" for row in rows) else ""
    return Table("failures", "Failures (scored 0)", ("model", "reason", "samples"), rows, note)
