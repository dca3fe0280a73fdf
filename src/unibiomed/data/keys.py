"""TOML files as dataclasses: the fields of a class are the keys that a table may hold, and their types are checked."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from unibiomed.errors import DataError

__all__ = ["build", "listed", "read_toml"]

MAX_ENTRY_BYTES = 1_000_000
T = TypeVar("T")


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file of at most `MAX_ENTRY_BYTES`.

    Raises
    ------
    DataError
        The file is missing, too large or not TOML.
    """
    try:
        if path.stat().st_size > MAX_ENTRY_BYTES:
            raise DataError(f"{path.name}: catalogue entry is too large; it describes a data set, it does not hold one")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path.name}: cannot be read as TOML ({str(error).splitlines()[0]}); mend the file") from error


def listed(values: Mapping[str, Any], name: str) -> list[Any]:
    """The ``[[name]]`` tables of a TOML file, none when left out; a `DataError` where `name` is something else."""
    items = values.get(name, [])
    if not isinstance(items, list):
        raise DataError(f"{name} is not a list; write [[{name}]]")
    return items


# Types as `from __future__ import annotations` leaves them: strings, looked up by name.
_CHECKS: dict[str, Any] = {
    "str": lambda v: isinstance(v, str),
    "str | None": lambda v: isinstance(v, str),
    "bool": lambda v: isinstance(v, bool),
    "int": lambda v: type(v) is int,
    "int | None": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "list[str] | None": lambda v: isinstance(v, list) and bool(v) and all(isinstance(i, str) for i in v),
    "list[str]": lambda v: isinstance(v, list) and all(isinstance(i, str) for i in v),
    "list[list[str]]": lambda v: isinstance(v, list) and all(_CHECKS["list[str]"](i) for i in v),
    "list[int] | None": lambda v: isinstance(v, list) and bool(v) and all(type(i) is int and i > 0 for i in v),
    "dict[str, str]": lambda v: isinstance(v, dict) and all(isinstance(i, str) for i in v.values()),
    "dict[str, Any]": lambda v: isinstance(v, dict),
    "dict[str, list[str]]": lambda v: isinstance(v, dict) and all(_CHECKS["list[str]"](i) for i in v.values()),
}


def build(kind: type[T], values: object, where: str) -> T:
    """Make a dataclass of a table of a TOML file.

    Parameters
    ----------
    kind : type
        The dataclass; its fields are the keys that are known, and their types are checked.
    values : object
        The table.
    where : str
        What the error calls the table.

    Returns
    -------
    kind
        The object.

    Raises
    ------
    DataError
        `values` is no table, or a key is unknown, missing or of the wrong type.
    """
    if not isinstance(values, dict):
        raise DataError(f"{where} is not a table of keys and values")
    known = {f.name: str(f.type) for f in fields(kind)}  # type: ignore[arg-type]
    for name, value in values.items():
        if name not in known:
            raise DataError(f"key '{name}' of {where} is unknown; use {', '.join(sorted(known))}")
        check = _CHECKS.get(known[name])
        if check is not None and not check(value):
            raise DataError(f"key '{name}' of {where} has the wrong type; it should be {known[name]}")
    try:
        return kind(**values)
    except TypeError as error:
        raise DataError(f"{where} lacks a key ({str(error).split(': ')[-1]})") from error
