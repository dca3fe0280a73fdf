"""What the tables share: the order of the models, reading of nested results, tables with a column a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..predictions import safe_name
from ..sheet import Sheet, number

__all__ = ["DICE", "PUBLISHED", "THERE", "alone", "both_protocols", "file_of", "get_in", "in_order", "matrix"]

DICE = (
    "Dice: images that show the target; absent counted: those without it too, where an empty mask is 1 and any pixel 0."
)
THERE = "Dice of images that show the target."
PUBLISHED = f"{THERE} Of each data set the first 300 annotations."


def get_in(table: Any, *keys: str) -> Any:
    """What lies under some keys, one inside the other; None where one of them is missing."""
    for key in keys:
        table = table.get(key) if isinstance(table, Mapping) else None
    return table


def in_order(models: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Models first, floors below."""
    return sorted(models.items(), key=lambda item: bool(item[1].get("floor")))


def file_of(name: str) -> str:
    """The name of a model as a part of a file's name, as that of its predictions."""
    return safe_name(name)


def alone(cells: Iterable[Any]) -> str:
    """What is to be said of numbers without an interval, where there are any."""
    bare = (isinstance(c, Mapping) and c.get("value") is not None and c.get("low") is None for c in cells)
    return "No interval where there is a single subject." if any(bare) else ""


def both_protocols(strict: Sheet, published: Sheet) -> list[Sheet]:
    """The table of each protocol; the strict one alone where the published one would repeat it."""
    number = len(published.columns)
    if published.columns != strict.columns[:number] or published.rows != [row[:number] for row in strict.rows]:
        return [strict, published]
    return [replace(strict, note=f"{strict.note} The published protocol gives the same numbers.".strip())]


def matrix(
    models: Mapping[str, Any], path: Sequence[str], key: str | None, file: str, title: str, note: str = ""
) -> Sheet:
    """One row a target (or modality, …), one column a model."""
    having = [(name, get_in(table, *path)) for name, table in in_order(models) if get_in(table, *path)]
    names = sorted({row for _, table in having for row in table})

    def cell(table: Any, row: str) -> Any:
        return get_in(table, row) if key is None else get_in(table, row, key)

    rows = [[row, *(number(cell(table, row)) for _, table in having)] for row in names]
    note = f"{note} {alone(cell(table, row) for _, table in having for row in names)}".strip()
    first = {"modalities": "modality", "datasets": "data set"}.get(path[-1], "target")
    return Sheet(file, title, (first, *(name for name, _ in having)), rows, note)
