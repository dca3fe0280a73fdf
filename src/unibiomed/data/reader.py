"""Reading shards as a stream: a weighted mixture without end, or epochs, in both of which any position can be restored.

A reader starts from the index alone and holds a few row groups in memory, however large the shards are.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from unibiomed.data.index import Shard, ShardIndex, read_index
from unibiomed.data.order import Mixture, Walk, Window
from unibiomed.data.records import SPLITS, Record
from unibiomed.data.shards import SCHEMA, allowed_bad, pa, pq, row_to_record
from unibiomed.data.streams import join_streams, make_streams, select_shards, weigh
from unibiomed.errors import DataError

__all__ = ["Sample", "ShardReader"]

STATE_VERSION = 1
OPEN_FILES = 32
OPEN_BYTES = 2**28
"""Row groups are kept up to this many bytes in all; those not used for longest are read again when needed."""
MAX_GROUP_BYTES = 2**30
MAX_NAMED = 1000
_NAMES = SCHEMA.names


@dataclass(frozen=True, slots=True)
class Sample:
    """One record as it comes out of a reader.

    Parameters
    ----------
    record : Record
        Its image is file bytes, its masks are run lengths.
    pixels : numpy.ndarray or None
        ``(height, width, 3)`` uint8; None for a record that is text only, or where the reader does not decode.
    task : str or None
        What to use the record for, of `unibiomed.data.index.TASKS`: drawn by weight; None in epochs, and for records
        that carry none.
    number : int
        Which draw of the mixture, or which place in this consumer's share of the epoch, it is.
    """

    record: Record
    pixels: np.ndarray | None
    task: str | None
    number: int


class ShardReader:
    """Streams the samples of shards: shuffled, mixed by weight, divided over ranks and workers.

    Iterating gives the mixture, without end. Each data set, modality and set of tasks is a stream that walks through
    epochs of its own. The weight of a data set is ``rows ** power`` times its factor in `weights`; within it, streams
    share by their rows, times the factor of the modality, times the mean factor of their tasks; a record's task is
    drawn by the factors of the tasks it allows. `epoch` gives every record once instead.

    Parameters
    ----------
    folder : path, ShardIndex, or sequence of these
        What `unibiomed data build` wrote, one or several folders; or the index of one, as `read_index` gives it.
    split : {"train", "val", "test"}
        Side of the split.
    seed : int
        Decides the order and the mixture; the same on all ranks and workers.
    datasets : sequence of str, optional
        Names of those wanted; all when left out.
    weights : mapping of str to float, optional
        Factor of a data set, a modality or a task (`unibiomed.data.index.TASKS`); 1 for those not named. Counts in the
        mixture only.
    power : float or None
        1, or None, draws data sets by size, 0 evenly.
    rank, world : int
        Which of how many machines or GPUs this is.
    worker, workers : int
        Which of how many loading processes of the rank this is.
    shuffle_window : int
        Row groups of a stream that are shuffled together and held in memory.
    max_bad : float
        More broken records than this share stop the run; see `unibiomed.data.shards.allowed_bad`.
    decode : bool
        Decode pictures; without it, a broken one is noticed by its checksum alone.
    verify : bool
        Check the SHA-256 of each shard when it is first opened, which reads it whole.

    Attributes
    ----------
    problems : dict of str to str
        Broken records by name, and what is wrong; the first 1,000.
    seen, bad : int
        Records read so far, and how many of them were broken.
    total : int
        Records of the split, over all consumers.

    Raises
    ------
    DataError
        There is no index or it is broken, a data set is in two folders, nothing is left to read, or an option is wrong.
    """

    def __init__(
        self,
        folder: str | Path | ShardIndex | Sequence[str | Path | ShardIndex],
        *,
        split: str = "train",
        seed: int = 0,
        datasets: Sequence[str] | None = None,
        weights: Mapping[str, float] | None = None,
        power: float | None = 0.4,
        rank: int = 0,
        world: int = 1,
        worker: int = 0,
        workers: int = 1,
        shuffle_window: int = 4,
        max_bad: float = 0.01,
        decode: bool = True,
        verify: bool = False,
    ) -> None:
        if split not in SPLITS:
            raise DataError(f"split '{split}' is unknown; use one of {', '.join(SPLITS)}")
        if not (0 <= rank < world and 0 <= worker < workers and shuffle_window > 0 and 0 <= max_bad <= 1):
            raise DataError("rank, worker, shuffle_window or max_bad is out of range; count ranks and workers from 0")
        folders = [folder] if isinstance(folder, str | Path | ShardIndex) else list(folder)
        indexes = [each if isinstance(each, ShardIndex) else read_index(each) for each in folders]
        self._shards = select_shards(indexes, split, datasets)
        self._files = _Files(self._shards, verify)
        self._max_bad, self._decode = max_bad, decode
        streams = make_streams([shard for _, shard in self._shards])
        known = {shard.dataset for index in indexes for shard in index.shards}
        self._cells, odds = weigh(streams, weights or {}, 1.0 if power is None else power, known)
        consumer, consumers = rank * workers + worker, world * workers
        self._mixture = Mixture(odds, [s for s, _ in self._cells], len(streams), (seed, "mixture", consumer))
        # The last stream is all of them, for epochs.
        self._streams = [*streams, join_streams(streams)]
        self._walks = [
            Walk(s.sizes, s.name, seed=seed, consumer=consumer, consumers=consumers, window=shuffle_window)
            for s in self._streams
        ]
        self.total = self._walks[-1].total
        mixing = json.dumps([split, sorted(datasets or ()), sorted((weights or {}).items()), power])
        self._identity = {
            "version": STATE_VERSION,
            "shards": hashlib.sha256("".join(index.stamp for index in indexes).encode()).hexdigest()[:16],
            "mixture": hashlib.sha256(mixing.encode()).hexdigest()[:16],
            "seed": seed,
            "rank": rank,
            "world": world,
            "worker": worker,
            "workers": workers,
            "shuffle_window": shuffle_window,
        }
        self._windows: OrderedDict[int, _Open] = OrderedDict()
        self._draws = 0
        self._held = 0
        self._positions = self._mixture.counts(0)
        self._epoch, self._place, self._restored = 0, 0, False
        self.problems: dict[str, str] = {}
        self.seen = self.bad = 0

    @property
    def mixture(self) -> dict[tuple[str, str, str | None], float]:
        """Probability of each (data set, modality, task) in the mixture; they sum to 1."""
        odds: dict[tuple[str, str, str | None], float] = {}
        for (stream, task), share in zip(self._cells, self._mixture.odds, strict=True):
            name = self._streams[stream].dataset, self._streams[stream].modality, task
            odds[name] = odds.get(name, 0.0) + float(share)
        return odds

    def __iter__(self) -> Iterator[Sample]:
        """Samples of the mixture from the current position on, without end.

        Raises
        ------
        DataError
            A shard is missing or no Parquet file, or too many records are broken.
        """
        while True:
            number = self._draws
            stream, task = self._cells[self._mixture.cell(number)]
            walk = self._walks[stream]
            epoch, offset = walk.locate(int(self._positions[stream]))
            # A broken record is a draw as well: the position follows from the number of draws alone.
            self._positions[stream] += 1
            self._draws += 1
            sample = self._read(stream, epoch, offset, task, number)
            if sample is not None:
                yield sample

    def epoch(self, number: int) -> Iterator[Sample]:
        """Every record of the split once, over all ranks and workers together; this consumer's share of them.

        Starts at the beginning, or where a restored state was in the same epoch.

        Parameters
        ----------
        number : int
            Which epoch, from 0; decides the order.

        Raises
        ------
        DataError
            As for the mixture.
        """
        self._place = self._place if self._restored and self._epoch == number else 0
        self._epoch, self._restored = number, False
        stream = len(self._streams) - 1
        first, last = self._walks[stream].share(number)
        while self._place < last - first:
            place = self._place
            self._place += 1
            sample = self._read(stream, number, place, None, place)
            if sample is not None:
                yield sample

    def state_dict(self) -> dict[str, Any]:
        """The position after the last sample that was given out: a small dict, ready for JSON.

        A loader that reads ahead has given out fewer samples than its reader; let it set ``"draws"`` (or ``"place"`` in
        an epoch) to one more than the `Sample.number` that was last used.
        """
        return {
            **self._identity,
            "draws": self._draws,
            "epoch": self._epoch,
            "place": self._place,
            "seen": self.seen,
            "bad": self.bad,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a saved position; what follows is exactly what would have followed there.

        Parameters
        ----------
        state : mapping
            From `state_dict` of a reader of the same shards and options.

        Raises
        ------
        DataError
            It belongs to other shards or options (the message names which), or is no such state.
        """
        for name, value in self._identity.items():
            if state.get(name) != value:
                raise DataError(
                    f"the saved position is for another {name} ({state.get(name)}, here {value}); "
                    "use the same, or start reading from the beginning"
                )
        numbers = [state.get(name) for name in ("draws", "epoch", "place", "seen", "bad")]
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise DataError("the saved position is broken; start reading from the beginning")
        self._draws, self._epoch, self._place, self.seen, self.bad = (int(number or 0) for number in numbers)
        self._positions = self._mixture.counts(self._draws)
        self._restored = True

    def _read(self, stream: int, epoch: int, offset: int, task: str | None, number: int) -> Sample | None:
        """The sample of one position; None, and counted, where it is broken."""
        held = self._windows.get(stream)
        if held is None or held.window.epoch != epoch or not held.window.first <= offset < held.window.last:
            self._close(stream)
            held = self._windows[stream] = _Open(self._walks[stream].window(epoch, offset))
        self._windows.move_to_end(stream)
        block, row = held.pick(offset)
        shard, group = int(self._streams[stream].shards[block]), int(self._streams[stream].groups[block])
        if block not in held.columns:
            batch = self._files.read(shard, group)
            held.columns[block] = None if batch is None else batch.columns
            size = 0 if batch is None else batch.nbytes
            held.bytes += size
            self._held += size
            while self._held > OPEN_BYTES and len(self._windows) > 1:
                self._close(next(iter(self._windows)))
        columns = held.columns[block]
        self.seen += 1
        try:
            if columns is None:
                raise DataError("the row group cannot be read; build the shard again")
            record = row_to_record({name: column[row].as_py() for name, column in zip(_NAMES, columns, strict=True)})
            about = self._shards[shard][1]
            if (record.dataset, record.split, record.modality) != (about.dataset, about.split, about.modality):
                raise DataError(f"is of {record.dataset}, {record.split}, and its index says otherwise; build it again")
            pixels = record.load_image() if self._decode and record.image is not None else None
        except (DataError, pa.ArrowException, ValueError) as error:
            self._skip(f"{self._shards[shard][1].file}, row group {group}, row {row}", str(error))
            return None
        return Sample(record, pixels, task, number)

    def _close(self, stream: int) -> None:
        held = self._windows.pop(stream, None)
        self._held -= 0 if held is None else held.bytes

    def _skip(self, name: str, problem: str) -> None:
        self.bad += 1
        if len(self.problems) < MAX_NAMED:
            self.problems[name] = problem
        if self.bad > allowed_bad(self._max_bad, self.seen, self.total):
            first = "; ".join(f"{name}: {why}" for name, why in list(self.problems.items())[:3])
            raise DataError(
                f"{self.bad} of {self.seen} records are broken, more than the share of {self._max_bad:g}: {first}"
            )


class _LostError(DataError):
    """A whole shard is missing or no shard: not a matter of skipping."""


@dataclass(slots=True)
class _Open:
    """A window with those of its row groups that were read; None stands for one that cannot be."""

    window: Window
    columns: dict[int, Any] = field(default_factory=dict)
    bytes: int = 0

    def pick(self, offset: int) -> tuple[int, int]:
        place = offset - self.window.first
        return int(self.window.blocks[place]), int(self.window.rows[place])


class _Files:
    """Row groups of shards; the files used last stay open."""

    def __init__(self, shards: Sequence[tuple[Path, Shard]], verify: bool) -> None:
        self._shards = shards
        self._unverified = set(range(len(shards))) if verify else set()
        self._open: OrderedDict[int, Any] = OrderedDict()

    def read(self, number: int, group: int) -> Any:
        """A row group as one `pyarrow.RecordBatch`; None where it is damaged."""
        file = self._file(number)
        shard = self._shards[number][1]
        try:
            if file.metadata.row_group(group).total_byte_size > MAX_GROUP_BYTES:
                raise pa.ArrowInvalid("too large")
            batches = file.read_row_group(group, use_threads=False).combine_chunks().to_batches()
            if len(batches) != 1 or batches[0].num_rows != shard.groups[group] or batches[0].schema != SCHEMA:
                raise pa.ArrowInvalid("other rows than the index says")
        except (pa.ArrowException, OSError, ValueError):
            return None
        return batches[0]

    def _file(self, number: int) -> Any:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        folder, shard = self._shards[number]
        path = folder / shard.file
        try:
            if number in self._unverified:
                if not shard.fits(path):
                    raise _LostError(f"{path}: the shard does not fit its checksum; copy it again or build it again")
                self._unverified.discard(number)
            file = pq.ParquetFile(path, pre_buffer=False)
        except FileNotFoundError as error:
            raise _LostError(f"{path}: the shard is missing; restore it or run unibiomed data build again") from error
        except (pa.ArrowException, OSError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise _LostError(f"{path}: this is no whole Parquet file; copy it again or build it again") from error
        if file.metadata.num_row_groups != len(shard.groups):
            raise _LostError(f"{path}: the shard does not fit the index; run unibiomed data build again")
        self._open[number] = file
        while len(self._open) > OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        return file
