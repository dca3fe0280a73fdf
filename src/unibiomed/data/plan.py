"""Which record goes into which shard, and the making of one shard: what runs on every core and every machine.

A task leaves a note beside its shard when it is done. In a build that was killed and started again, a shard whose note
still fits its records, their files and the options is kept; all others are made anew, to the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from unibiomed.data.index import TASKS, Shard, file_sha256, replacing, writing
from unibiomed.data.pixels import voxel_files
from unibiomed.data.records import SPLITS, QuestionAnswer, Record, Region
from unibiomed.data.shards import record_to_row, write_rows
from unibiomed.errors import DataError, InputError

__all__ = ["NOTES", "ROWS_PER_SHARD", "ShardTask", "build_shard", "plan_shards"]

VERSION = 1
NOTES = "_build"
"""Folder of the notes, beside the data sets."""
ROWS_PER_SHARD = 1024


@dataclass(frozen=True, slots=True)
class ShardTask:
    """One shard to be written.

    Parameters
    ----------
    out : Path
        Folder of all shards.
    file : str
        Its path in there.
    tasks : tuple of str
        What its records can teach, of `unibiomed.data.index.TASKS`.
    records : tuple of Record
        At least one; all of one data set, split and modality.
    size : int or None
        Longest side of the pictures in pixels.
    """

    out: Path
    file: str
    tasks: tuple[str, ...]
    records: tuple[Record, ...]
    size: int | None


def plan_shards(
    records: Sequence[Record], out: Path, *, rows_per_shard: int = ROWS_PER_SHARD, size: int | None = None
) -> list[ShardTask]:
    """Decide which record goes into which shard, from the records alone.

    A shard holds records of one split, modality and set of tasks. Records are put in an order by hash, so that each row
    group is a sample of the data set; those of one picture stay together (it is stored once), and so do the slices of
    a volume (it is read once), shuffled within the shard.

    Parameters
    ----------
    records : sequence of Record
        All of one data set, in any order.
    out : Path
        Folder of all shards.
    rows_per_shard : int
        Records of a shard; the last one of its kind has fewer.
    size : int, optional
        Longest side of the pictures in pixels.

    Returns
    -------
    list of ShardTask
        In the order of their files.

    Raises
    ------
    DataError
        Two records have one key, an external data set has records for training, or its name is no folder name.
    """
    if not records:
        return []
    dataset = records[0].dataset
    if not re.fullmatch(r"[\w-][\w.-]*", dataset) or dataset == NOTES:
        raise DataError(f"data set '{dataset}' cannot name a folder of shards; use letters, digits, '_', '-', '.'")
    keys: set[str] = set()
    for record in records:
        if record.key in keys:
            raise DataError(f"two records are named '{record.key}'; rename one of the two data sets '{dataset}'")
        keys.add(record.key)
    inside = [record for record in records if not record.external]
    if inside and len(inside) < len(records):
        raise DataError(f"data set '{dataset}' is external in part; an external data set is kept for testing alone")
    alike: dict[tuple[int, str, tuple[str, ...]], list[Record]] = defaultdict(list)
    for record in records:
        alike[SPLITS.index(record.split), record.modality, _tasks(record)].append(record)
    plan: list[ShardTask] = []
    numbers = dict.fromkeys(SPLITS, 0)
    for (side, _, tasks), members in sorted(alike.items()):
        members.sort(key=lambda record: (_hash(_picture(record)), _hash(record.key)))
        for first in range(0, len(members), rows_per_shard):
            chosen = members[first : first + rows_per_shard]
            if any(record.slice_index is not None for record in chosen):
                chosen.sort(key=lambda record: _hash(record.key))
            split = SPLITS[side]
            plan.append(ShardTask(out, f"{dataset}/{split}-{numbers[split]:05d}.parquet", tasks, tuple(chosen), size))
            numbers[split] += 1
    return plan


def build_shard(task: ShardTask) -> dict[str, Any]:
    """Write one shard, or keep it where it is finished already; what runs on every core and every machine.

    Parameters
    ----------
    task : ShardTask
        From `plan_shards`.

    Returns
    -------
    dict
        ``file``, ``shard`` (the fields of `Shard`, or None where no record was left), ``records``, ``problems`` (pairs
        of key and reason), ``kept``; ready for JSON.

    Raises
    ------
    OutputError
        The shard cannot be written.
    """
    path = task.out / task.file
    memo = (task.out / NOTES / task.file).with_suffix(".json")
    stamp = _stamp(task)
    found = _finished(path, memo, stamp)
    if found is not None:
        return {**found, "kept": True}
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # the old note stays until there is a new one: it does not fit the new shard, and says that the file is ours
        memo.parent.mkdir(parents=True, exist_ok=True)
    problems: list[tuple[str, str]] = []
    groups, triplets = write_rows(path, _rows(task, problems))
    first = task.records[0]
    shard = (
        Shard(
            file=task.file,
            dataset=first.dataset,
            split=first.split,
            modality=first.modality,
            tasks=task.tasks,
            external=first.external,
            groups=groups,
            triplets=triplets,
            bytes=path.stat().st_size,
            sha256=file_sha256(path),
        )
        if groups
        else None
    )
    note = {
        "stamp": stamp,
        "file": task.file,
        "records": len(task.records),
        "problems": problems,
        "shard": None if shard is None else asdict(shard),
    }
    with replacing(memo) as fresh:
        fresh.write_text(json.dumps(note), encoding="utf-8")
    return {**note, "kept": False}


def _rows(task: ShardTask, problems: list[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    def pack(record: Record) -> dict[str, Any] | None:
        try:
            return record_to_row(record, size=task.size)
        except (DataError, InputError) as error:
            problems.append((record.key, str(error)))
            return None

    made: Iterable[dict[str, Any] | None]
    if any(record.slice_index is not None for record in task.records):
        # Slice after slice, while their volume is at hand; then back into the shuffled order.
        walk = sorted(task.records, key=lambda record: (_picture(record), record.slice_index or 0))
        rows = {record.key: pack(record) for record in walk}
        made = (rows.pop(record.key) for record in task.records)
    else:
        made = map(pack, task.records)
    return (row for row in made if row is not None)


def _finished(path: Path, memo: Path, stamp: str) -> dict[str, Any] | None:
    """The note of a shard that is there, to the last byte, and still as it should be."""
    try:
        note = json.loads(memo.read_text(encoding="utf-8"))
        if note["stamp"] != stamp:
            return None
        if note["shard"] is not None and not Shard.from_json(note["shard"]).fits(path):
            return None
    except (OSError, ValueError, KeyError, TypeError, DataError):
        return None
    return note


def _stamp(task: ShardTask) -> str:
    """Checksum of all that decides a shard: its records, size and time of their files, and the options."""
    digest = hashlib.sha256(json.dumps([VERSION, task.file, task.tasks, task.size]).encode())
    known: dict[Path, list[Any]] = {}

    def told(value: Any) -> Any:
        # a volume is asked for by each of its slices
        if isinstance(value, Path):
            return known.get(value) or known.setdefault(value, _looks(value))
        return _told(value)

    for record in task.records:
        digest.update(json.dumps(record, default=told).encode())
    return digest.hexdigest()


def _looks(path: Path) -> list[Any]:
    """The end of a file's path, with size and time of all that holds what is read of it."""
    try:
        stats = [file.stat() for file in voxel_files(path)]
    except OSError:
        stats = []
    return (
        [*path.parts[-2:], *([status.st_size, status.st_mtime_ns] for status in stats)]
        if stats
        else [*path.parts[-2:], None]
    )


def _told(value: Any) -> Any:
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, np.generic):
        return value.item()
    assert isinstance(value, Record | Region | QuestionAnswer)
    return [getattr(value, item.name) for item in fields(value)]


def _tasks(record: Record) -> tuple[str, ...]:
    carried = (bool(record.regions), record.label is not None, bool(record.questions), record.text is not None)
    return tuple(task for task, there in zip(TASKS, carried, strict=True) if there)


def _picture(record: Record) -> str:
    """Name of a record's image file, or of the volume that it is a slice of, the same wherever the data root lies."""
    if record.slice_index is not None and record.key.endswith(f"@{record.slice_index}"):
        return record.key.removesuffix(f"@{record.slice_index}")
    if not isinstance(record.image, Path):
        return record.key
    parts = record.image.parts
    below = len(parts) - parts[::-1].index(record.dataset) if record.dataset in parts else len(parts) - 2
    return "/".join(parts[max(below, 0) :])


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
