"""Asking in many processes: of this machine, of a Ray cluster, or of those that ``accelerate launch`` started.

Each asks its share of the images and keeps the answers in the folder of the evaluation, which all must see under the
same path. Scores are made afterwards, from what is kept, in processes of this machine (`scoring`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from unibiomed.data.processes import in_processes, worker_number
from unibiomed.data.records import Record
from unibiomed.errors import DataError

from .predictors import Context, Predictor, make_predictor
from .predictors.make import needs_device
from .run import predict_cases
from .samples import Share, draw, make_cases, suite_records
from .suite import Suite

__all__ = [
    "PARTS_A_WORKER",
    "Part",
    "ask_in_processes",
    "ask_on_ray",
    "each_done",
    "kept_records",
    "launched_share",
    "parts_of",
    "worker_device",
]

A = TypeVar("A")
B = TypeVar("B")

PARTS_A_WORKER = 8
"""Parts that a worker takes one after the other: the bar moves, and a slow worker holds up less."""


@dataclass(frozen=True)
class Part:
    """One part of the asking; travels to the process that does it."""

    suite: Suite
    models: tuple[str, ...]
    data: Path
    out: Path
    device: str | None
    share: Share


def parts_of(
    suite: Suite, models: Iterable[str], data: Path, out: Path, device: str | None, workers: int
) -> list[Part]:
    """The asking in parts for some workers."""
    images = len(draw(suite_records(suite, data), suite.limit, suite.seed))
    count = max(1, min(images, workers * PARTS_A_WORKER))
    return [Part(suite, tuple(models), data, out, device, Share(i, count)) for i in range(count)]


def ask_part(part: Part) -> dict[str, str]:
    """Ask one part; gives the key of each image that could not be read, and the reason."""
    suite, data = part.suite, part.data
    device = part.device or (_own_device() if any(map(needs_device, part.models)) else None)
    predictors = _predictors(
        part.models, str(data), repr(suite), device, lambda: tuple(suite_records(suite, data, "train"))
    )
    unreadable: dict[str, str] = {}
    cases = make_cases(suite, kept_records(suite, data), share=part.share, unreadable=unreadable)
    predict_cases(cases, predictors, part.out, progress=False, unreadable=unreadable)
    return unreadable


def worker_device(worker: int, devices: int) -> str | None:
    """The accelerator of a worker, by turns; None where there is no choice."""
    return f"cuda:{worker % devices}" if devices > 1 else None


def _own_device() -> str | None:
    """The accelerator of this process, where it is one of several workers of this machine."""
    worker = worker_number()
    if worker is None:
        return None
    import torch

    return worker_device(worker, torch.cuda.device_count())


_READ: dict[tuple[str, str], list[Record]] = {}


def kept_records(suite: Suite, data: Path) -> list[Record]:
    """Records stay read from one part to the next."""
    key = repr(suite), str(data)
    if key not in _READ:
        _READ.clear()
        _READ[key] = suite_records(suite, data)
    return _READ[key]


_LOADED: dict[tuple[Any, ...], list[Predictor]] = {}


def _predictors(
    models: tuple[str, ...], data: str, suite: str, device: str | None, training: Callable[[], Any]
) -> list[Predictor]:
    """Models stay loaded from one part to the next."""
    key = (models, data, suite, device)
    if key not in _LOADED:
        _LOADED.clear()
        context = Context(lru_cache(training), device)
        _LOADED[key] = [make_predictor(spec, context) for spec in models]
    return _LOADED[key]


def each_done(work: Callable[[A], B], parts: Iterable[A], workers: int) -> Generator[B, None, None]:
    """As `in_processes`, where a worker that was killed is told of in one line."""
    try:
        yield from in_processes(work, parts, workers)
    except BrokenProcessPool as error:
        raise DataError(
            "a process was killed, perhaps for want of memory: give fewer --processes; what was asked is kept"
        ) from error


def _gathered(asked: Iterable[dict[str, str]], parts: int, progress: bool) -> dict[str, str]:
    unreadable: dict[str, str] = {}
    for found in tqdm(asked, total=parts, desc="asking", unit="part", disable=not progress):
        unreadable |= found
    return unreadable


def ask_in_processes(parts: list[Part], workers: int, *, progress: bool = True) -> dict[str, str]:
    """Ask in processes of this machine; gives the key of each image that could not be read, and the reason.

    Raises
    ------
    DataError
        A process was killed.
    """
    return _gathered(each_done(ask_part, parts, workers), len(parts), progress)


def ask_on_ray(parts: list[Part], workers: int, *, progress: bool = True) -> dict[str, str]:
    """As `ask_in_processes`, on the Ray cluster that ``RAY_ADDRESS`` names, or here with `workers` processes.

    Models that run on GPUs get one for each process, and there are no more processes than GPUs.

    Raises
    ------
    DataError
        Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise DataError("asking on a cluster needs Ray: pip install 'unibiomed[ray]'") from None
    started = not ray.is_initialized()
    if started:
        here: dict[str, Any] = (
            {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": max(workers, 1), "include_dashboard": False}
        )
        ray.init(log_to_driver=False, **here)
    try:
        # the cluster's GPUs, not this machine's: which it may have none of, or have kept from Ray
        gpus = int(ray.cluster_resources().get("GPU", 0)) if any(map(_runs_on_gpu, parts)) else 0
        asked = _ask_on_gpus(ray, parts, min(max(workers, 1), gpus)) if gpus else _ask_on_cores(ray, parts)
        return _gathered(asked, len(parts), progress)
    finally:
        if started:
            ray.shutdown()


def _runs_on_gpu(part: Part) -> bool:
    free = part.device is None or part.device.partition(":")[0] == "cuda"
    return free and any(map(needs_device, part.models))


def _ask_on_cores(ray: Any, parts: list[Part]) -> Iterator[Any]:
    """Ask on whatever cores there are; gives what each part gave, as it is done."""
    ask = ray.remote(num_cpus=1)(ask_part)
    waiting = [ask.remote(part) for part in parts]
    while waiting:
        done, waiting = ray.wait(waiting)
        yield from ray.get(done)


class _Asker:
    """A process with a GPU of its own, which keeps its models: Ray ends the process of a task on a GPU after it."""

    def __init__(self, ask: Callable[[Part], Any]) -> None:
        self._ask = ask

    def begin(self) -> None:
        """Done as soon as there is a GPU."""

    def ask(self, part: Part) -> Any:
        # Ray shows a process none but its own GPU, whatever its number
        return self._ask(replace(part, device=None))


def _ask_on_gpus(ray: Any, parts: list[Part], workers: int) -> Iterator[Any]:
    """Ask on so many GPUs; gives what each part gave, as it is done."""
    kind = ray.remote(num_cpus=1, num_gpus=1, max_restarts=3, max_task_retries=3)(_Asker)
    askers = [kind.remote(ask_part) for _ in range(workers)]
    # a GPU that others have taken must not hold a part: who has begun takes the next
    beginning = {asker.begin.remote(): asker for asker in askers}
    asking: dict[Any, Any] = {}
    left = list(reversed(parts))
    while left or asking:
        (done,), _ = ray.wait([*asking, *(beginning if left else ())])
        asker = asking.pop(done, None)
        if asker is None:
            asker = beginning.pop(done)
            ray.get(done)
        else:
            yield ray.get(done)
        if left:
            asking[asker.ask.remote(left.pop())] = asker


def launched_share() -> tuple[Share, str, Callable[[], None]] | None:
    """What this process does where ``accelerate launch`` or ``torchrun`` started several; None where it is alone.

    Returns
    -------
    tuple or None
        Its share, its device, and a function that waits for the others.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return None
    try:
        from accelerate import PartialState
    except ImportError:
        raise DataError("several processes need accelerate: pip install 'unibiomed[train]'") from None
    import torch

    state = PartialState(cpu=not torch.accelerator.is_available())
    return Share(state.process_index, state.num_processes), str(state.device), state.wait_for_everyone
