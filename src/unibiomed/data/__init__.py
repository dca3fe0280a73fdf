"""Data sets as records: which images there are, what they show and where, what is asked, and who tests whom."""

from __future__ import annotations

from unibiomed.data.catalog import load_catalog, load_records
from unibiomed.data.entries import DatasetEntry
from unibiomed.data.records import NO_FINDINGS, QuestionAnswer, Record, Region, summarise

__all__ = [
    "NO_FINDINGS",
    "DatasetEntry",
    "QuestionAnswer",
    "Record",
    "Region",
    "load_catalog",
    "load_records",
    "summarise",
]
