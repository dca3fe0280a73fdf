"""Building shards: one task a shard, run on the cores here or on a cluster by the same code, and an index at the end.

A build that was killed is simply started again; see `unibiomed.data.plan`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from unibiomed.data.catalog import iter_records, load_catalog
from unibiomed.data.index import INDEX, Shard, locked, read_index, replacing, write_index, writing
from unibiomed.data.plan import NOTES, ROWS_PER_SHARD, plan_shards
from unibiomed.data.records import Record
from unibiomed.data.runners import run_here, run_ray
from unibiomed.data.shards import allowed_bad
from unibiomed.errors import DataError

__all__ = ["PROBLEMS", "BuildReport", "build_shards"]

PROBLEMS = "problems.jsonl"
HELD_RECORDS = 100_000
"""So many, some 100 MB, are kept between counting and planning; what goes beyond is read twice."""


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did.

    Parameters
    ----------
    shards, records, triplets, bytes : int
        What there is of the data sets that were built.
    kept : int
        Shards that an earlier build had finished.
    problems : tuple of (str, str)
        Key of each record that was skipped, and why.
    """

    shards: int
    records: int
    triplets: int
    bytes: int
    kept: int
    problems: tuple[tuple[str, str], ...]


def build_shards(
    source: str | Path | Iterable[Record],
    out: str | Path,
    *,
    datasets: Sequence[str] | None = None,
    workers: int | None = None,
    rows_per_shard: int = ROWS_PER_SHARD,
    image_size: int | None = None,
    max_bad: float = 0.01,
    ray: bool = False,
    progress: bool = False,
) -> BuildReport:
    """Write records as shards; what an earlier build finished, and still fits, is kept.

    Parameters
    ----------
    source : path or iterable of Record
        Folder that holds one folder a data set, or the records themselves.
    out : path
        Folder to write to. Data sets that are there from earlier builds stay.
    datasets : sequence of str, optional
        Names of those wanted of a folder; all when left out.
    workers : int, optional
        Processes; all cores when left out. With Ray, what a cluster of this machine alone gets; a running one is used
        as it is.
    rows_per_shard : int
        Records of a shard.
    image_size : int, optional
        Longest side of the pictures in pixels; larger ones are shrunk with their masks.
    max_bad : float
        More broken records than this share stop the build; see `unibiomed.data.shards.allowed_bad`.
    ray : bool
        Run on Ray Data: on the cluster that ``RAY_ADDRESS`` names, else on this machine.
    progress : bool
        Show records, rate and time left on stderr.

    Returns
    -------
    BuildReport
        Counts, and the records that were skipped; those are in ``problems.jsonl`` as well.

    Raises
    ------
    DataError
        A data set is not there or does not fit its entry, two records have one key, an external data set has records
        for training, too many records are broken, a worker was killed, or Ray is not installed.
    OutputError
        The folder cannot be written, or another build writes into it.
    """
    out = Path(out)
    if rows_per_shard < 1 or (image_size is not None and image_size < 1) or (workers is not None and workers < 1):
        raise DataError("rows of a shard, image size and workers have to be 1 or more")
    if not 0 <= max_bad <= 1:
        raise DataError(f"{max_bad:g} is no share of broken records; give one from 0 to 1")
    names, load = _source(source, datasets)
    if isinstance(source, str | Path) and out.resolve() == Path(source).resolve():
        raise DataError(f"'{out}' holds the data sets themselves; choose another --out")
    if not names:
        raise DataError("there is no record to write; give a data set")
    # Counted first, so that the time left is known.
    total, held = _count(names, load)
    with locked(out):
        others = _begin(out, names)
        plans = (
            plan_shards(
                held.pop(name) if name in held else list(load(name)),
                out,
                rows_per_shard=rows_per_shard,
                size=image_size,
            )
            for name in names
        )
        notes = (run_ray if ray else run_here)(plans, workers or _cores())
        bar = tqdm(total=total, desc="writing shards", unit="record", disable=not progress)
        with bar, closing(notes):
            made = _gather(notes, out, names, bar, max_bad)
        write_index(out, [*others, *made.shards])
        _sweep(out, names, made.planned)
    return BuildReport(
        shards=len(made.shards),
        records=sum(shard.rows for shard in made.shards),
        triplets=sum(shard.triplets for shard in made.shards),
        bytes=sum(shard.bytes for shard in made.shards),
        kept=made.kept,
        problems=tuple(sorted(made.problems)),
    )


@dataclass
class _Made:
    """What has come of a build so far."""

    shards: list[Shard] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    planned: set[str] = field(default_factory=set)
    kept: int = 0


def _gather(notes: Iterable[dict[str, Any]], out: Path, names: Sequence[str], bar: tqdm, max_bad: float) -> _Made:
    """Take in the notes of all shards, until too many records are broken."""
    made, done = _Made(), 0
    try:
        for note in notes:
            bar.update(note["records"])
            made.planned.add(note["file"])
            done += note["records"]
            made.kept += note["kept"]
            made.problems += [(key, why) for key, why in note["problems"]]
            if note["shard"] is not None:
                made.shards.append(Shard.from_json(note["shard"]))
            if len(made.problems) > allowed_bad(max_bad, done, int(bar.total)):
                first = "; ".join(why for _, why in sorted(made.problems)[:3])
                raise DataError(
                    f"{len(made.problems)} of {done} records are broken, more than the share of {max_bad:g} "
                    f"(all in {out / PROBLEMS}): {first}"
                )
    finally:
        _write_problems(out, names, made.problems)
    return made


def _source(
    source: str | Path | Iterable[Record], datasets: Sequence[str] | None
) -> tuple[list[str], Callable[[str], Iterable[Record]]]:
    """Names of the data sets, sorted, and what gives the records of one."""
    if isinstance(source, str | Path):
        names = [entry.name for entry in load_catalog(source)] if datasets is None else sorted(set(datasets))
        return names, lambda name: iter_records(source, [name])
    members: dict[str, list[Record]] = {}
    for record in source:
        members.setdefault(record.dataset, []).append(record)
    for name in datasets or ():
        if name not in members:
            raise DataError(f"data set '{name}' is not among the records; there are {', '.join(sorted(members))}")
    return sorted(members if datasets is None else set(datasets)), members.__getitem__


def _count(names: Sequence[str], load: Callable[[str], Iterable[Record]]) -> tuple[int, dict[str, list[Record]]]:
    """How many records there are, and those of the first data sets, as far as they may be held."""
    held: dict[str, list[Record]] = {}
    total = 0
    for name in names:
        found: list[Record] = []
        for record in load(name):
            total += 1
            if total <= HELD_RECORDS:
                found.append(record)
            else:
                found.clear()
        if total <= HELD_RECORDS:
            held[name] = found
    return total, held


def _begin(out: Path, names: Sequence[str]) -> list[Shard]:
    """Take the data sets out of the index until they are whole again; give the shards of the others."""
    others: list[Shard] = []
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        if (out / INDEX).exists():
            try:
                others = [shard for shard in read_index(out).shards if shard.dataset not in names]
            except DataError as error:
                raise DataError(f"{error}; to do so, delete it first and build all data sets") from error
            write_index(out, others)
        for name in names:
            for folder in (out / name, out / NOTES / name):
                for left in folder.glob(".*.tmp"):
                    left.unlink(missing_ok=True)
    return others


def _sweep(out: Path, names: Sequence[str], planned: set[str]) -> None:
    """Take away shards of earlier builds that the data sets no longer have; only what a note says is ours."""
    with writing(out):
        for name in names:
            for memo in (out / NOTES / name).glob("*.json"):
                file = f"{name}/{memo.stem}.parquet"
                if file not in planned:
                    (out / file).unlink(missing_ok=True)
                    memo.unlink()


def _write_problems(out: Path, names: Sequence[str], problems: Sequence[tuple[str, str]]) -> None:
    """Write the problems of these data sets beside those of the others; no file where there is none."""
    path = out / PROBLEMS
    lines: list[str] = []
    with writing(path):
        if path.exists():
            known = path.read_text(encoding="utf-8", errors="replace").splitlines()
            lines = [line for line in known if _dataset_of(line) not in (None, *names)]
        lines += [json.dumps({"key": key, "problem": why}) for key, why in problems]
        with replacing(path) as fresh:
            if lines:
                fresh.write_text("\n".join(sorted(lines)) + "\n", encoding="utf-8")


def _dataset_of(line: str) -> str | None:
    """Whose a line of problems is; None of one that was cut off."""
    try:
        return str(json.loads(line)["key"]).split("/")[0]
    except (ValueError, TypeError, KeyError):
        return None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
