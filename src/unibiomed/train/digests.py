"""Digests of data, which tell whether a training goes on with what it began with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from unibiomed.data.index import INDEX
from unibiomed.data.records import Record

__all__ = ["records_digest", "shards_digest"]


def records_digest(records: Sequence[Record]) -> str:
    """Which records there are, and in which split each is; what lies in their files is not looked at."""
    lines = sorted(f"{record.key} {record.split}" for record in records)
    return _digest("\n".join(lines).encode("utf-8", "surrogatepass"))


def shards_digest(folder: Path) -> str:
    """Which shards there are, with the checksums that their index has of them."""
    return _digest((folder / INDEX).read_bytes())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
