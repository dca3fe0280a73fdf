"""JSON files of an unknown folder: small ones whole, of large ones what tells their layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from unibiomed.data.adapters.streaming import walk_json
from unibiomed.data.layouts.survey import Survey
from unibiomed.errors import DataError

__all__ = ["read_json_files"]

WHOLE_BYTES = 50_000_000
"""Larger files are read piece by piece."""
MOST_MEMBERS = 20_000
"""Of each list of those."""
MOST_FILES = 12


def read_json_files(survey: Survey) -> tuple[dict[str, Any], list[str]]:
    """Contents of the JSON files of a folder by path, those at the top first; and what is wrong with the others.

    Of files above `WHOLE_BYTES`, lists have their first `MOST_MEMBERS` members, and after these the members with a
    ``category_id`` that none before them has.
    """
    found: dict[str, Any] = {}
    problems: list[str] = []
    for path in sorted(survey.paths((".json",)), key=lambda path: (path.count("/"), path))[:MOST_FILES]:
        try:
            found[path] = _read(survey.folder / path, path)
        except DataError as error:
            problems.append(str(error))
    return found, problems


def _read(file: Path, where: str) -> Any:
    try:
        if file.stat().st_size <= WHOLE_BYTES:
            return json.loads(file.read_bytes())
    except OSError as error:
        raise DataError(f"{where}: cannot be read ({error.strerror}); mend its permissions") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: cannot be read as JSON ({error}); mend the file") from error
    return _outline(file, where)


def _outline(file: Path, where: str) -> Any:
    content: Any = None
    categories: set[object] = set()
    for key, part, value in walk_json(file, where):
        if key is None and part is None:
            content = value
            continue
        if part is None:
            content[key] = value
            continue
        members = content if key is None else content[key]
        category = value.get("category_id") if isinstance(value, dict) else None
        new = isinstance(category, int | str) and category not in categories
        if new:
            categories.add(category)
        if new or len(members) < MOST_MEMBERS:
            members.append(value)
    return content
