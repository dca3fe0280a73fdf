"""What a predictor is made of, as a short text: two models of one name are told apart by it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from unibiomed.data.index import file_sha256
from unibiomed.data.records import Record
from unibiomed.errors import DataError

__all__ = ["files_edition", "folder_fingerprint", "records_edition"]

PARTS = ("*.safetensors", "*config*.json", "*token*.json", "*vocab*", "merges.txt", "*.jinja", "*__*.json")
"""What a model folder's answers depend on: weights, settings, tokens, and what a U-Net is for."""


def folder_fingerprint(folder: Path) -> str:
    """Of the names, sizes and contents of a model's files.

    Raises
    ------
    DataError
        A file cannot be read.
    """
    paths = sorted({path for pattern in PARTS for path in folder.glob(pattern) if path.is_file()})
    lines = []
    for path in paths:
        try:
            stat = path.stat()
            lines.append(f"{path.name} {stat.st_size} {_contents(path, stat.st_size, stat.st_mtime_ns)}")
        except OSError as error:
            raise DataError(f"'{path}' cannot be read ({error.strerror})") from error
    return _short(lines)


@lru_cache(maxsize=4096)
def _contents(path: Path, size: int, changed: int) -> str:
    # weights are gigabytes: read once, unless they are written anew
    return file_sha256(path)


def files_edition(folder: Path) -> str:
    """Of the names, sizes and times of all files below a folder; none is opened."""
    lines = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            stat = path.stat()
            lines.append(f"{path.relative_to(folder).as_posix()} {stat.st_size} {stat.st_mtime_ns}")
    return _short([str(folder.resolve()), *lines])


def records_edition(records: Iterable[Record]) -> str:
    """Of the keys of records."""
    return _short(sorted(record.key for record in records))


def _short(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()[:32]
