"""In which order samples are read: a pure function of seed, epoch and position.

Nothing is drawn from a generator that runs along: any position can be asked for at once, which is what makes a saved
position exact. Only `numpy.random.Philox.random_raw` is used, whose numbers NumPy promises never to change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Mixture", "Walk", "Window", "shuffled"]

CHUNK = 4096


def shuffled(count: int, *key: int | str) -> np.ndarray:
    """A permutation of ``range(count)``, decided by the key alone: ``(count,)`` int64."""
    return np.argsort(_words(count, *key), kind="stable")


def _words(count: int, *key: int | str) -> np.ndarray:
    digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
    return np.random.Philox(key=int.from_bytes(digest, "little")).random_raw(count)


@dataclass(frozen=True, slots=True)
class Window:
    """Some row groups that are read together and shuffled.

    Parameters
    ----------
    epoch : int
        The epoch it belongs to.
    first, last : int
        Positions in this consumer's share of the epoch, the last exclusive.
    blocks, rows : numpy.ndarray
        ``(last - first,)``: the row group and the row in it of each position.
    """

    epoch: int
    first: int
    last: int
    blocks: np.ndarray
    rows: np.ndarray


class Walk:
    """Endless epochs through row groups, divided over consumers.

    In each epoch the row groups are put in a new order and their rows, end to end, are cut into one share a consumer,
    equal but for one row. Which consumer gets which share turns with the epoch, so that no one is left out of a small
    data set. Within a share, rows are shuffled over `window` row groups.

    Parameters
    ----------
    sizes : sequence of int
        Rows of each row group, all positive.
    name : str
        Makes its order differ from other walks of the same seed.
    seed : int
        Decides the order.
    consumer, consumers : int
        Which of how many processes this is.
    window : int
        Row groups that are shuffled together.
    """

    def __init__(
        self, sizes: Sequence[int] | np.ndarray, name: str, *, seed: int, consumer: int, consumers: int, window: int
    ) -> None:
        self._sizes = np.asarray(sizes, dtype=np.int64)
        self._key = (seed, name)
        self._consumer, self._consumers, self._width = consumer, consumers, window
        self.total = int(self._sizes.sum())
        # In as many epochs as there are consumers, each has had every share once: that is a round.
        shares = np.array([self.share(epoch) for epoch in range(consumers)])
        self._round = np.cumsum(shares[:, 1] - shares[:, 0])
        self._epoch = -1
        self._order, self._ends = self._sizes, self._sizes

    def share(self, epoch: int) -> tuple[int, int]:
        """First and last (exclusive) row of the consumer's share of an epoch."""
        turn = (self._consumer + epoch) % self._consumers
        return self.total * turn // self._consumers, self.total * (turn + 1) // self._consumers

    def locate(self, position: int) -> tuple[int, int]:
        """Epoch, and position in its share, of the consumer's `position`-th row of all epochs."""
        rounds, rest = divmod(position, self.total)
        turn = int(np.searchsorted(self._round, rest, side="right"))
        return rounds * self._consumers + turn, rest - (int(self._round[turn - 1]) if turn else 0)

    def window(self, epoch: int, offset: int) -> Window:
        """The window that holds position `offset` of the consumer's share of an epoch."""
        if epoch != self._epoch:
            self._order = shuffled(self._sizes.size, *self._key, epoch)
            self._ends = np.cumsum(self._sizes[self._order])
            self._epoch = epoch
        begin, end = self.share(epoch)
        assert 0 <= offset < end - begin
        origin, here = np.searchsorted(self._ends, [begin, begin + offset], side="right")
        low = int(origin + (here - origin) // self._width * self._width)
        high = min(low + self._width, self._order.size)
        edges = np.concatenate([[0 if low == 0 else self._ends[low - 1]], self._ends[low:high]])
        rows = np.arange(max(begin, edges[0]), min(end, edges[-1]))
        block = np.searchsorted(edges, rows, side="right") - 1
        mixed = shuffled(rows.size, *self._key, epoch, int(rows[0]))
        rows, block = rows[mixed], block[mixed]
        return Window(
            epoch,
            int(rows.min()) - begin,
            int(rows.max()) + 1 - begin,
            self._order[low + block],
            rows - edges[block],
        )


class Mixture:
    """Endless draws from weighted cells.

    Parameters
    ----------
    weights : sequence of float
        Weight of each cell, not negative, not all 0.
    streams : sequence of int
        The stream that each cell draws from, ``0 <= stream < count``.
    count : int
        How many streams there are.
    key : tuple of int or str
        Decides the draws.
    """

    def __init__(
        self, weights: Sequence[float], streams: Sequence[int], count: int, key: tuple[int | str, ...]
    ) -> None:
        odds = np.asarray(weights, dtype=np.float64)
        self.odds = odds / odds.sum()
        self._edges = np.cumsum(self.odds)
        # Rounding must not open a gap below 1, nor give the last cells, if their weight is 0, a sliver of it.
        self._edges[np.flatnonzero(odds)[-1] :] = 1.0
        self._streams = np.asarray(streams, dtype=np.int64)
        self._count = count
        self._key = key
        self._number, self._cells = -1, self._streams

    def _chunk(self, number: int) -> np.ndarray:
        uniform = (_words(CHUNK, *self._key, number) >> np.uint64(11)) * 2.0**-53
        return np.searchsorted(self._edges, uniform, side="right")

    def cell(self, draw: int) -> int:
        """The cell of one draw."""
        number, place = divmod(draw, CHUNK)
        if number != self._number:
            self._number, self._cells = number, self._chunk(number)
        return int(self._cells[place])

    def counts(self, draws: int) -> np.ndarray:
        """How often each stream comes up in the first `draws` draws: ``(streams,)`` int64."""
        total = np.zeros(self._count, dtype=np.int64)
        for number in range(-(-draws // CHUNK)):
            cells = self._chunk(number)[: draws - number * CHUNK]
            total += np.bincount(self._streams[cells], minlength=self._count)
        return total
