"""Where the tasks of a build run: in processes of this machine, or with Ray Data on a cluster; the task is the same."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from unibiomed.data.plan import ShardTask, build_shard
from unibiomed.data.processes import in_processes
from unibiomed.errors import DataError, OutputError, UniBiomedError

__all__ = ["run_here", "run_ray"]


def run_here(plans: Iterable[list[ShardTask]], workers: int) -> Generator[dict[str, Any], None, None]:
    """Run tasks in processes of this machine.

    Parameters
    ----------
    plans : iterable of list of ShardTask
        From `plan_shards`, emptied as they are handed out; the next one is taken when the one before is.
    workers : int
        Processes; with 1, everything runs in this one.

    Yields
    ------
    dict
        From `build_shard`, as they are done.

    Raises
    ------
    DataError
        A worker was killed.
    OutputError
        A shard cannot be written.
    """
    try:
        yield from in_processes(build_shard, _handed_out(plans), workers)
    except BrokenProcessPool as error:
        raise DataError(
            "a worker was killed, perhaps for want of memory; build again with fewer workers, what is done is kept"
        ) from error


def _handed_out(plans: Iterable[list[ShardTask]]) -> Iterator[ShardTask]:
    """The tasks in their order; their records are let go of, so that the next plan is not made beside them."""
    for plan in plans:
        plan.reverse()
        while plan:
            yield plan.pop()


def run_ray(plans: Iterable[list[ShardTask]], workers: int) -> Generator[dict[str, Any], None, None]:
    """Run tasks with Ray Data, on the cluster that ``RAY_ADDRESS`` names or else on this machine.

    On a cluster, the data sets and the folder of the shards have to lie under the same paths on every machine.

    Parameters
    ----------
    plans : iterable of list of ShardTask
        From `plan_shards`; one list after the other.
    workers : int
        Cores that Ray may use where it is started here.

    Yields
    ------
    dict
        From `build_shard`, as they are done.

    Raises
    ------
    DataError
        Ray is not installed.
    OutputError
        A shard cannot be written.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise DataError("Ray Data is not installed; pip install 'unibiomed[ray]'") from error
    started = not ray.is_initialized()
    if started:
        cores = None if os.environ.get("RAY_ADDRESS") else workers
        ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        for plan in plans:
            items = [{"task": task} for task in plan]
            for row in ray.data.from_items(items, override_num_blocks=len(items)).map(_ray_task).iter_rows():
                note = json.loads(row["note"])
                if "failed" in note:
                    raise (OutputError if note["output"] else DataError)(note["failed"])
                yield note
    finally:
        if started:
            ray.shutdown()


def _ray_task(row: dict[str, Any]) -> dict[str, str]:
    try:
        return {"note": json.dumps(build_shard(row["task"]))}
    except UniBiomedError as error:
        # Ray would wrap the error in its own, many lines long.
        return {"note": json.dumps({"failed": str(error), "output": isinstance(error, OutputError)})}
