"""Work in processes of this machine, which end when their parent does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing.sharedctypes import Synchronized
from typing import TypeVar

__all__ = ["in_processes", "worker_number"]

A = TypeVar("A")
B = TypeVar("B")


def in_processes(work: Callable[[A], B], items: Iterable[A], workers: int) -> Generator[B, None, None]:
    """Do work in processes of this machine; they end when this one does, however it ends.

    Parameters
    ----------
    work : callable
        A function of a module, which a new process can import.
    items : iterable
        What to call it with; the next one is taken when there is room for it.
    workers : int
        Processes; with 1, everything runs in this one.

    Yields
    ------
    object
        What `work` returned, as it is done.

    Raises
    ------
    concurrent.futures.process.BrokenProcessPool
        A worker was killed.
    """
    if workers == 1:
        yield from map(work, items)
        return
    # Not forked: threads of the libraries that are already running would not survive it.
    context = multiprocessing.get_context("spawn")
    numbers = context.Value("i", 0)
    given = numbers, max(1, _cores() // workers)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker, initargs=given)
    try:
        running: set[Future[B]] = set()
        for item in items:
            running.add(pool.submit(work, item))
            if len(running) >= 2 * workers:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


_number: int | None = None


def worker_number() -> int | None:
    """Which of the workers of `in_processes` this process is, from 0; None for a process that is none of them."""
    return _number


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _begin_worker(numbers: Synchronized[int], threads: int) -> None:
    global _number
    # threads of several workers on the same cores wait for each other in a loop: two on two cores took 15 times as long
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    if "torch" in sys.modules:
        # it has read the environment already
        sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    # each takes the next number when it begins
    with numbers.get_lock():
        _number = numbers.value
        numbers.value += 1
    # Ctrl-C is for the parent, which lets the shards at hand be finished.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
