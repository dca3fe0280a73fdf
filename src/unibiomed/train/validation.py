"""The images that watch a training and calibrate its scores: of records in memory, or read anew from shards."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from unibiomed.data.index import read_index
from unibiomed.data.records import Record
from unibiomed.errors import DataError

CALIBRATED = 24
"""Images a data set on which the scores are calibrated: a few numbers are fitted, however many there are."""


class ShardedRecords:
    """Records of the validation split of shards: those with regions, read one by one whenever they are asked for.

    Nothing is held but the index, and no more is read than is asked for.

    Parameters
    ----------
    folder : Path
        With the shards of one or many data sets; those that were built without a validation split hold no such record.
    datasets : sequence of str or None
        Names of those wanted; None for all.

    Raises
    ------
    DataError
        The index is broken, or a shard that it names is missing.
    """

    def __init__(self, folder: Path, datasets: Sequence[str] | None) -> None:
        index = read_index(folder)
        shards = [s for s in index.shards if s.split == "val" and "region" in s.tasks]
        shards = [s for s in shards if datasets is None or s.dataset in datasets]
        for shard in shards:
            # told now, and not when a stage has been learned for days
            if not (folder / shard.file).exists():
                raise DataError(f"{folder / shard.file}: the shard is missing; restore it or run unibiomed data build")
        self.datasets = sorted({shard.dataset for shard in shards})
        self._index = replace(index, shards=tuple(shards))

    def __bool__(self) -> bool:
        return bool(self.datasets)

    def choose(self, limit: int) -> Iterator[Record]:
        """At most `limit` records of each data set, always the same ones."""
        from unibiomed.data.reader import ShardReader

        for name in self.datasets:
            reader = ShardReader(self._index, split="val", datasets=[name], decode=False)
            for sample in islice(reader.epoch(0), limit):
                yield sample.record


def choose(records: Sequence[Record] | ShardedRecords, limit: int) -> Iterable[Record]:
    """At most `limit` records of each data set, always the same ones."""
    if isinstance(records, ShardedRecords):
        return records.choose(limit)
    shuffled = sorted(records, key=lambda record: random.Random(record.key).random())
    taken: dict[str, int] = defaultdict(int)
    chosen = []
    for record in shuffled:
        if taken[record.dataset] < limit:
            taken[record.dataset] += 1
            chosen.append(record)
    return chosen
