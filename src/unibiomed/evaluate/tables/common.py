"""Functions that several tables share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .table import Table, format_estimate

__all__ = [
    "DICE",
    "DICE_PRESENT",
    "PUBLISHED",
    "both_protocols",
    "comparison_table",
    "get_in",
    "models_first",
    "note_on_missing_intervals",
]

DICE_PRESENT = "Dice: images that show the target."
DICE = (
    "Dice: images that show the target. Dice incl. absent targets: also images without it, where an empty mask scores "
    "1 and any pixel 0."
)
PUBLISHED = f"{DICE_PRESENT} Only the first 300 annotations of each data set."


def get_in(table: Any, *keys: str) -> Any:
    """Return a value of nested mappings, or None if a key is missing."""
    for key in keys:
        table = table.get(key) if isinstance(table, Mapping) else None
    return table


def models_first(models: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return models followed by baselines."""
    return sorted(models.items(), key=lambda item: bool(item[1].get("baseline")))


def note_on_missing_intervals(cells: Iterable[Any]) -> str:
    """Return a note if any value has no interval."""
    missing = (isinstance(c, Mapping) and c.get("value") is not None and c.get("low") is None for c in cells)
    return "There is no interval for a single subject." if any(missing) else ""


def both_protocols(strict: Table, published: Table) -> list[Table]:
    """Return the tables of both protocols, or the strict one alone if the published one has the same numbers."""
    number = len(published.columns)
    if published.columns != strict.columns[:number] or published.rows != [row[:number] for row in strict.rows]:
        return [strict, published]
    return [replace(strict, note=f"{strict.note} The published protocol gives the same numbers.".strip())]


def comparison_table(
    models: Mapping[str, Any], path: Sequence[str], key: str | None, file: str, title: str, note: str = ""
) -> Table:
    """Make a table with one row per target (or modality, …) and one column per model."""
    columns = [(name, get_in(table, *path)) for name, table in models_first(models) if get_in(table, *path)]
    names = sorted({row for _, table in columns for row in table})

    def cell(table: Any, row: str) -> Any:
        return get_in(table, row) if key is None else get_in(table, row, key)

    rows = [[row, *(format_estimate(cell(table, row)) for _, table in columns)] for row in names]
    missing = note_on_missing_intervals(cell(table, row) for _, table in columns for row in names)
    first = {"modalities": "modality", "datasets": "data set"}.get(path[-1], "target")
    return Table(file, title, (first, *(name for name, _ in columns)), rows, f"{note} {missing}".strip())
