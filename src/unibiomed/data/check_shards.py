"""Checking a folder of shards: whether each is there, to the last byte."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from unibiomed.data.check import CheckReport
from unibiomed.data.check_files import ERROR, Problem
from unibiomed.data.index import Shard, read_index
from unibiomed.errors import DataError

__all__ = ["check_shards"]


def check_shards(
    folder: str | Path, datasets: Sequence[str] | None = None, *, workers: int = 2, progress: bool = False
) -> CheckReport:
    """Compare shards with the sizes and checksums that their index holds.

    Parameters
    ----------
    folder : path
        What `unibiomed data build` wrote, or a copy of it.
    datasets : sequence of str, optional
        Names of those wanted; all when left out.
    workers : int
        Files that are read at once.
    progress : bool
        Show the number of shards and the time left on stderr.

    Returns
    -------
    CheckReport
        An error for each shard that is missing or damaged.

    Raises
    ------
    DataError
        There is no index or it is broken, a data set is not in it, or `workers` is not positive.
    """
    if workers < 1:
        raise DataError("workers of a check are a number from 1 on")
    index = read_index(folder)
    there = sorted({shard.dataset for shard in index.shards})
    for name in datasets or ():
        if name not in there:
            raise DataError(f"data set '{name}' is not among the shards; there are {', '.join(there)}")
    shards = [shard for shard in index.shards if datasets is None or shard.dataset in datasets]

    def look(shard: Shard) -> Problem | None:
        try:
            if shard.fits(index.folder / shard.file):
                return None
        except OSError:
            return Problem("missing shard", ERROR, (shard.file,), "cannot be read; copy it again or build it again")
        return Problem("damaged shard", ERROR, (shard.file,), "is not as it was built; copy it again or build it again")

    # Threads do: a checksum is taken without Python's lock.
    with ThreadPoolExecutor(workers) as pool:
        looks = pool.map(look, shards)
        seen = list(tqdm(looks, desc="checking shards", total=len(shards), unit="shard", disable=not progress))
    problems = sorted((problem for problem in seen if problem is not None), key=lambda p: (p.kind, p.files))
    name = index.folder.resolve().name
    rows = sum(shard.rows for shard in shards)
    return CheckReport(name, len(shards), len(shards), rows, tuple(problems), unit="shards")
