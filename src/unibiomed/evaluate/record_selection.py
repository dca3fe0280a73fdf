"""Selection of the records that a suite evaluates."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from unibiomed.data import load_records
from unibiomed.data.catalog import load_catalog
from unibiomed.data.published import load_published
from unibiomed.data.records import Record
from unibiomed.errors import DataError

from .suite import ALL_SPLITS, Suite

__all__ = ["draw_records", "missing_datasets", "suite_records"]

NOT_FOUND = "not found"


def suite_records(suite: Suite, root: str | Path, split: str | None = None) -> list[Record]:
    """Load all records of a suite.

    Parameters
    ----------
    suite : Suite
    root : path
        Folder of the data sets.
    split : str, optional
        Use this split instead of that of the suite, for example ``train`` for fitting baselines.

    Raises
    ------
    DataError
        A data set that the suite names is missing or has no image in the split, or no data set has one.
    """
    names = suite.datasets or None
    if suite.optional or suite.catalogue:
        names = _available(suite, root)[0] or None
        if names is None and (suite.datasets or suite.catalogue):
            raise DataError(
                f"suite '{suite.name}': '{root}' holds none of its data sets: see 'unibiomed data list' for their names"
            )
    selected = split or suite.split
    records = [r for r in load_records(root, names) if selected in (r.split, ALL_SPLITS) and r.image is not None]
    if not records:
        raise DataError(f"suite '{suite.name}': no image in {_describe_split(selected)} in '{root}'")
    found = {record.dataset for record in records}
    empty = [name for name in suite.datasets if name not in found]
    if empty and not (suite.optional or suite.catalogue or split):
        raise DataError(f"suite '{suite.name}': no image in {_describe_split(suite.split)} of {', '.join(empty)}")
    return records


def missing_datasets(suite: Suite, root: str | Path, records: Iterable[Record]) -> list[tuple[str, str]]:
    """List the data sets of a suite that cannot be evaluated, each with the reason.

    Parameters
    ----------
    suite : Suite
    root : path
        Folder of the data sets.
    records : iterable of Record
        From `suite_records`.
    """
    if not (suite.optional or suite.catalogue):
        return []
    available, missing = _available(suite, root)
    found = {record.dataset for record in records}
    reason = f"no image in {_describe_split(suite.split)}"
    return sorted(missing + [(name, reason) for name in available if name not in found])


def draw_records(records: Sequence[Record], limit: int, seed: int) -> list[Record]:
    """Sample at most `limit` records of each data set (0 for all), sorted by key.

    The choice depends on keys and seed only.
    """
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda r: r.key):
        groups[record.dataset].append(record)
    drawn: list[Record] = []
    for name, group in sorted(groups.items()):
        if limit and len(group) > limit:
            group = sorted(random.Random(f"{seed}/{name}").sample(group, limit), key=lambda r: r.key)
        drawn += group
    return drawn


def _describe_split(split: str) -> str:
    return "any split" if split == ALL_SPLITS else f"the {split} split"


def _available(suite: Suite, root: str | Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the names of a suite's data sets that are available, and the others with the reason."""
    here = {entry.name for entry in load_catalog(root)}
    if not suite.catalogue:
        missing = [(name, NOT_FOUND) for name in suite.datasets if name not in here]
        return [name for name in suite.datasets if name in here], missing
    # a data set of the paper, or the part of it that is shipped under another name
    known = {item.name: [name for name in (item.name, item.shipped) if name] for item in load_published().datasets}
    every = list(dict.fromkeys(name for names in known.values() for name in names))
    if suite.datasets:
        missing = [
            (name, NOT_FOUND if name in every else "not a data set of the paper")
            for name in suite.datasets
            if name not in here & set(every)
        ]
        return [name for name in every if name in suite.datasets and name in here], missing
    collections = {item.name for item in load_published().datasets if item.collection}
    absent = [name for name, names in known.items() if name not in collections and not here & set(names)]
    return [name for name in every if name in here], [(name, NOT_FOUND) for name in absent]
