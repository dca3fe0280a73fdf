"""Data sets as records: which images there are, what they show and where, what is asked, and who tests whom."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unibiomed.data.catalog import iter_records, load_catalog, load_records
    from unibiomed.data.entries import DatasetEntry
    from unibiomed.data.records import NO_FINDINGS, QuestionAnswer, Record, Region, summarise

__all__ = [
    "NO_FINDINGS",
    "DatasetEntry",
    "QuestionAnswer",
    "Record",
    "Region",
    "iter_records",
    "load_catalog",
    "load_records",
    "summarise",
]

_HOMES = {"iter_records": "catalog", "load_catalog": "catalog", "load_records": "catalog", "DatasetEntry": "entries"}


def __getattr__(name: str) -> Any:
    # listing the data sets stays quick: numpy and the readers of images are loaded with the first record
    if name in __all__:
        return getattr(import_module(f"unibiomed.data.{_HOMES.get(name, 'records')}"), name)
    raise AttributeError(f"module 'unibiomed.data' has no attribute '{name}'")
