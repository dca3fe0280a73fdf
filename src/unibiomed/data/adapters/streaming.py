"""JSON files of any size, piece by piece.

Every piece is decoded by Python's own decoder, so what counts as JSON is what `json.load` takes; only the brackets and
commas of the outermost two levels are read here. What is held is one piece, and a quarter of a million signs around it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from unibiomed.errors import DataError

CHUNK = 2**18
"""Characters that are read at once."""
MAX_PIECE = 2**26
"""Characters of one piece: a broken file must not be taken for one huge piece and fill the memory."""
_CUT = 16
"""What ends, or breaks, nearer than this to the end of what was read may only be cut off there."""
_SPACE = re.compile(r"[ \t\n\r]*")


class Piece(NamedTuple):
    """A part of a JSON file.

    Parameters
    ----------
    key : str or None
        Of the outermost object; None for the outermost level itself.
    part : str, int or None
        Key or number of a member; None where the value is that of `key` itself.
    value : object
        What JSON says. Of a list or an object whose members follow as pieces, an empty one.
    """

    key: str | None
    part: str | int | None
    value: Any


def walk_json(path: Path, where: str, objects: Collection[str] = ()) -> Iterator[Piece]:
    """Read a JSON file piece by piece.

    Parameters
    ----------
    path : Path
        The file, in UTF-8.
    where : str
        Its name in messages.
    objects : collection of str
        Keys of the outermost object whose own objects are taken apart, as lists always are.

    Yields
    ------
    Piece
        In the order of the file: first the outermost level, ``(None, None, [])`` or ``(None, None, {})``. The members
        of a list follow as ``(None, number, value)``, those of an object as ``(key, None, value)``; what is taken apart
        among the latter is empty at first, and its members follow as ``(key, part, value)``.

    Raises
    ------
    DataError
        The file cannot be read, is not JSON (the message tells where), names a key twice that is taken apart, or has a
        piece larger than `MAX_PIECE`.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _Walker(file).pieces(objects)
    except (OSError, ValueError, RecursionError) as error:
        reason = {RecursionError: "nested too deeply", UnicodeDecodeError: "not UTF-8"}.get(type(error), str(error))
        if isinstance(error, OSError):
            reason = error.strerror or "not a usable path"
        raise DataError(f"{where}: cannot be read as JSON ({reason}); mend the file") from error


class _Walker:
    """A window that moves along the text; all errors are of `ValueError`."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._decode = JSONDecoder().raw_decode
        self._text = ""
        self._at = 0
        self._ended = False
        self._lines, self._column = 1, 1  # of the window's first character

    def pieces(self, objects: Collection[str]) -> Iterator[Piece]:
        outermost = self._opening()
        yield Piece(None, None, self._value() if outermost is None else outermost)
        if isinstance(outermost, list):
            for number in self._members():
                yield Piece(None, number, self._value())
        elif outermost is not None:
            apart: set[str] = set()
            for key in map(str, self._members()):
                opened = self._opening()
                if opened is None or (isinstance(opened, dict) and key not in objects):
                    yield Piece(key, None, self._value())
                    continue
                if key in apart:
                    raise ValueError(f"'{key}' stands there twice, {self._place(self._at)}")
                apart.add(key)
                yield Piece(key, None, opened)
                for part in self._members():
                    yield Piece(key, part, self._value())
        if self._peek():
            raise self._error("Extra data", self._at)

    def _opening(self) -> list[Any] | dict[str, Any] | None:
        """An empty one of the list or object that begins here; None for anything else."""
        sign = self._peek()
        return [] if sign == "[" else {} if sign == "{" else None

    def _members(self) -> Iterator[str | int]:
        """Keys or numbers of the list or object that begins here; each time, its value has to be read next."""
        closing = "]" if self._peek() == "[" else "}"
        self._at += 1
        number = 0
        if self._peek() == closing:
            self._at += 1
            return
        while True:
            if closing == "]":
                yield number
            else:
                if self._peek() != '"':
                    raise self._error("Expecting property name enclosed in double quotes", self._at)
                key = self._value()
                if self._peek() != ":":
                    raise self._error("Expecting ':' delimiter", self._at)
                self._at += 1
                yield key
            number += 1
            sign = self._peek()
            if sign not in (",", closing):
                raise self._error("Expecting ',' delimiter", self._at)
            self._at += 1
            if sign == closing:
                return

    def _peek(self) -> str:
        """The next sign after white space; empty at the end of the file."""
        while True:
            found = _SPACE.match(self._text, self._at)
            assert found is not None, "it matches nothing as well"
            self._at = found.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _value(self) -> Any:
        self._peek()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except JSONDecodeError as error:
                cut = error.pos >= len(self._text) - _CUT or error.msg.startswith("Unterminated string")
                if not (cut and self._more()):
                    raise self._error(error.msg, error.pos) from error
            else:
                # "1" may be the beginning of "12" or "1e-5".
                if end < len(self._text) - _CUT or not self._more():
                    self._at = end
                    return value

    def _more(self) -> bool:
        """Move the window on to the piece at hand and behind what it has; whether there was more to read."""
        if self._ended:
            return False
        passed, rest = self._text[: self._at], self._text[self._at :]
        if len(rest) > MAX_PIECE:
            raise ValueError(f"a piece is longer than {MAX_PIECE >> 20} million signs, {self._place(self._at)}")
        # Twice as much each time, so that decoding a long piece again and again takes little.
        read = self._file.read(max(CHUNK, len(rest)))
        if not read:
            self._ended = True
            return False
        self._lines, self._column = self._count(passed)
        self._text, self._at = rest + read, 0
        return True

    def _count(self, passed: str) -> tuple[int, int]:
        """Line and column behind what was passed."""
        last = passed.rfind("\n")
        column = self._column + len(passed) if last < 0 else len(passed) - last
        return self._lines + passed.count("\n"), column

    def _place(self, at: int) -> str:
        return "line {}, column {}".format(*self._count(self._text[:at]))

    def _error(self, message: str, at: int) -> ValueError:
        return ValueError(f"{message}, {self._place(at)}")
