"""Values as TOML text: what the standard library reads and does not write."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from unibiomed.errors import DataError

__all__ = ["toml_text"]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_LITERAL = re.compile(r"[^'\x00-\x1f\x7f]*")


def toml_text(values: Mapping[str, Any]) -> str:
    """Write a table of TOML.

    Parameters
    ----------
    values : mapping of str to object
        Text, truth values, whole numbers, finite fractions, and lists and dicts of these. A list of dicts, where the
        table itself holds it, becomes ``[[tables]]``; all other dicts stand on one line.

    Returns
    -------
    str
        Lines that `tomllib` reads as the same values.

    Raises
    ------
    DataError
        A value is of another type, or text holds half of a surrogate pair (a file name that is not UTF-8).
    """
    plain = {key: value for key, value in values.items() if not _is_tables(value)}
    lines = [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
    for key, value in values.items():
        if key not in plain:
            for item in value:
                lines += ["", f"[[{_key(key)}]]", *(f"{_key(name)} = {_value(part)}" for name, part in item.items())]
    return "".join(f"{line}\n" for line in lines).lstrip("\n")


def _is_tables(value: object) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _key(key: str) -> str:
    if not isinstance(key, str):
        raise DataError(f"{key!r} is no key of TOML; use text")
    return key if _BARE.fullmatch(key) else _text(key)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return repr(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_value(item) for item in value)}]"
    raise DataError(f"{value!r} cannot be written as TOML; use text, numbers, lists and dicts")


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{text!a} is not text in UTF-8; rename the file") from error
    if "\\" in text and _LITERAL.fullmatch(text):
        return f"'{text}'"
    # JSON escapes all that TOML forbids but one.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")
