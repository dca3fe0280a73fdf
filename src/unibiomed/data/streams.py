"""What a reader draws from: the shards that are wanted, as streams of row groups, and how often each comes up."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unibiomed.data.index import TASKS, Shard, ShardIndex
from unibiomed.errors import DataError
from unibiomed.images.modality import MODALITIES

__all__ = ["Cell", "Stream", "join_streams", "make_streams", "select_shards", "weigh"]

Cell = tuple[int, str | None]


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """Row groups of one data set, modality and set of tasks.

    Parameters
    ----------
    dataset, modality : str
        Of all its records.
    tasks : tuple of str
        What each of its records can teach, of `TASKS`.
    shards, groups, sizes : numpy.ndarray
        ``(row groups,)`` int32: shard, number in the shard, and rows of each row group.
    """

    dataset: str
    modality: str
    tasks: tuple[str, ...]
    shards: np.ndarray
    groups: np.ndarray
    sizes: np.ndarray

    @property
    def name(self) -> str:
        """A name for the stream, unique among those of a reader."""
        return f"{self.dataset}/{self.modality}/{'+'.join(self.tasks)}"

    @property
    def rows(self) -> int:
        """Records of the stream."""
        return int(self.sizes.sum())


def select_shards(
    indexes: Sequence[ShardIndex], split: str, datasets: Sequence[str] | None
) -> list[tuple[Path, Shard]]:
    """Folder and shard of what is wanted, sorted by file.

    Raises
    ------
    DataError
        A data set is in two folders or in none, or nothing is left.
    """
    home: dict[str, Path] = {}
    for index in indexes:
        for name in sorted({shard.dataset for shard in index.shards}):
            if name in home:
                raise DataError(f"data set '{name}' is in '{home[name]}' and in '{index.folder}'; rename one of them")
            home[name] = index.folder
    for name in datasets or ():
        if name not in home:
            raise DataError(f"data set '{name}' is not among the shards; there are {', '.join(sorted(home))}")
    wanted = home.keys() if datasets is None else set(datasets)
    found = [(i.folder, s) for i in indexes for s in i.shards if s.split == split and s.dataset in wanted]
    if not found:
        raise DataError(f"the shards hold no record of split '{split}'; choose another split or other data sets")
    return sorted(found, key=lambda item: item[1].file)


def make_streams(shards: Sequence[Shard]) -> list[Stream]:
    """Streams of shards, sorted by name; a row group's shard is its place in `shards`."""
    members: dict[tuple[str, str, tuple[str, ...]], list[int]] = {}
    for number, shard in enumerate(shards):
        members.setdefault((shard.dataset, shard.modality, shard.tasks), []).append(number)
    return [
        Stream(
            *name,
            np.repeat(np.array(numbers, np.int32), [len(shards[n].groups) for n in numbers]),
            np.concatenate([np.arange(len(shards[n].groups), dtype=np.int32) for n in numbers]),
            np.concatenate([np.array(shards[n].groups, np.int32) for n in numbers]),
        )
        for name, numbers in sorted(members.items())
    ]


def join_streams(streams: Sequence[Stream]) -> Stream:
    """One stream of all row groups, for reading each record once."""
    joined = (np.concatenate([getattr(s, name) for s in streams]) for name in ("shards", "groups", "sizes"))
    return Stream("*", "*", (), *joined)


def weigh(
    streams: Sequence[Stream], weights: Mapping[str, float], power: float, datasets: Collection[str]
) -> tuple[list[Cell], list[float]]:
    """Cells of the mixture, each a stream's number and a task, with their weights.

    Parameters
    ----------
    streams : sequence of Stream
        From `make_streams`.
    weights : mapping of str to float
        Factor of a data set, modality or task.
    power : float
        The weight of a data set is the number of its records to this power.
    datasets : collection of str
        All data sets there are; some may have no record in this split.

    Returns
    -------
    cells : list of (int, str or None)
        A stream without tasks has one cell, of task None.
    weights : list of float
        Not negative, not all 0.

    Raises
    ------
    DataError
        A weight is negative, not finite, or of something unknown, or all are 0.
    """
    known = [set(datasets), set(MODALITIES), set(TASKS)]
    for name, weight in weights.items():
        places = sum(name in names for names in known)
        if places != 1:
            what = "is a data set, modality or task at once; rename the data set" if places else "is none"
            raise DataError(f"weight of '{name}': it {what}; there are {', '.join(sorted(set().union(*known)))}")
        if not 0 <= weight < float("inf"):
            raise DataError(f"weight of '{name}' is {weight}; give 0 or more")
    rows: dict[str, int] = {}
    for stream in streams:
        rows[stream.dataset] = rows.get(stream.dataset, 0) + stream.rows
    cells: list[Cell] = []
    odds: list[float] = []
    for number, stream in enumerate(streams):
        own = rows[stream.dataset]
        base = own**power * stream.rows / own * weights.get(stream.dataset, 1.0) * weights.get(stream.modality, 1.0)
        for task in stream.tasks or (None,):
            cells.append((number, task))
            odds.append(base * (1.0 if task is None else weights.get(task, 1.0)) / max(1, len(stream.tasks)))
    if not any(odds):
        raise DataError("all weights are 0, so there is nothing to read; give one above 0")
    return cells, odds
