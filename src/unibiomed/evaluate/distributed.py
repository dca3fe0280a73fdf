"""Prediction in several processes: on this machine, on a Ray cluster, or started by ``accelerate launch``.

Each process predicts a part of the images and stores the predictions in the folder of the evaluation, which all
processes must access under the same path. Scoring follows in processes of this machine; see `scoring`.
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

from .predict import predict_cases
from .predictors import Predictor, PredictorContext, make_predictor
from .predictors.factory import needs_device
from .record_selection import draw_records, suite_records
from .samples import Partition, make_cases
from .suite import Suite

__all__ = [
    "TASKS_PER_WORKER",
    "PredictionTask",
    "cached_records",
    "launched_partition",
    "predict_in_processes",
    "predict_on_ray",
    "run_in_processes",
    "split_prediction",
    "worker_device",
]

A = TypeVar("A")
B = TypeVar("B")

TASKS_PER_WORKER = 8
"""Tasks per worker. Several small tasks update the progress bar and balance workers of different speed."""


@dataclass(frozen=True)
class PredictionTask:
    """Part of the images that one process predicts."""

    suite: Suite
    models: tuple[str, ...]
    data: Path
    out: Path
    device: str | None
    partition: Partition


def split_prediction(
    suite: Suite, models: Iterable[str], data: Path, out: Path, device: str | None, workers: int
) -> list[PredictionTask]:
    """Split the prediction into tasks for a number of workers."""
    images = len(draw_records(suite_records(suite, data), suite.limit, suite.seed))
    count = max(1, min(images, workers * TASKS_PER_WORKER))
    return [PredictionTask(suite, tuple(models), data, out, device, Partition(i, count)) for i in range(count)]


def run_prediction_task(task: PredictionTask) -> dict[str, str]:
    """Run one task; return the key of each image that cannot be read, and the reason."""
    suite, data = task.suite, task.data
    device = task.device or (_device_of_this_worker() if any(map(needs_device, task.models)) else None)
    predictors = _cached_predictors(
        task.models, str(data), repr(suite), device, lambda: tuple(suite_records(suite, data, "train"))
    )
    unreadable: dict[str, str] = {}
    cases = make_cases(suite, cached_records(suite, data), partition=task.partition, unreadable=unreadable)
    predict_cases(cases, predictors, task.out, progress=False, unreadable=unreadable)
    return unreadable


def worker_device(worker: int, devices: int) -> str | None:
    """Assign CUDA devices to workers in turn; None if there are fewer than two devices."""
    return f"cuda:{worker % devices}" if devices > 1 else None


def _device_of_this_worker() -> str | None:
    """Return the CUDA device of this process if it is one of several workers of this machine."""
    worker = worker_number()
    if worker is None:
        return None
    import torch

    return worker_device(worker, torch.cuda.device_count())


_RECORDS: dict[tuple[str, str], list[Record]] = {}


def cached_records(suite: Suite, data: Path) -> list[Record]:
    """Load the records of a suite once per process."""
    key = repr(suite), str(data)
    if key not in _RECORDS:
        _RECORDS.clear()
        _RECORDS[key] = suite_records(suite, data)
    return _RECORDS[key]


_PREDICTORS: dict[tuple[Any, ...], list[Predictor]] = {}


def _cached_predictors(
    models: tuple[str, ...], data: str, suite: str, device: str | None, training: Callable[[], Any]
) -> list[Predictor]:
    """Load predictors once per process."""
    key = (models, data, suite, device)
    if key not in _PREDICTORS:
        _PREDICTORS.clear()
        context = PredictorContext(lru_cache(training), device)
        _PREDICTORS[key] = [make_predictor(spec, context) for spec in models]
    return _PREDICTORS[key]


def run_in_processes(work: Callable[[A], B], items: Iterable[A], workers: int) -> Generator[B, None, None]:
    """Do the same as `in_processes`, but raise a `DataError` if a worker was killed."""
    try:
        yield from in_processes(work, items, workers)
    except BrokenProcessPool as error:
        raise DataError(
            "a process was killed, probably because memory ran out: reduce --processes and run the command again; "
            "finished predictions are reused"
        ) from error


def _collect(results: Iterable[dict[str, str]], count: int, progress: bool) -> dict[str, str]:
    unreadable: dict[str, str] = {}
    for result in tqdm(results, total=count, desc="predicting", unit="task", disable=not progress):
        unreadable |= result
    return unreadable


def predict_in_processes(tasks: list[PredictionTask], workers: int, *, progress: bool = True) -> dict[str, str]:
    """Run tasks in processes of this machine; return the key of each image that cannot be read, and the reason.

    Raises
    ------
    DataError
        A process was killed.
    """
    return _collect(run_in_processes(run_prediction_task, tasks, workers), len(tasks), progress)


def predict_on_ray(tasks: list[PredictionTask], workers: int, *, progress: bool = True) -> dict[str, str]:
    """Do the same as `predict_in_processes` on the Ray cluster of ``RAY_ADDRESS``, or with local Ray processes.

    Each process that runs a model on a GPU reserves one GPU, so there are at most as many of them as GPUs.

    Raises
    ------
    DataError
        Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise DataError("Ray is not installed: run pip install 'unibiomed[ray]'") from None
    started = not ray.is_initialized()
    if started:
        local: dict[str, Any] = (
            {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": max(workers, 1), "include_dashboard": False}
        )
        ray.init(log_to_driver=False, **local)
    try:
        # GPUs of the cluster: this machine may have none, or may not have given its own to Ray
        gpus = int(ray.cluster_resources().get("GPU", 0)) if any(map(_uses_gpu, tasks)) else 0
        results = _run_on_gpus(ray, tasks, min(max(workers, 1), gpus)) if gpus else _run_on_cpus(ray, tasks)
        return _collect(results, len(tasks), progress)
    finally:
        if started:
            ray.shutdown()


def _uses_gpu(task: PredictionTask) -> bool:
    allowed = task.device is None or task.device.partition(":")[0] == "cuda"
    return allowed and any(map(needs_device, task.models))


def _run_on_cpus(ray: Any, tasks: list[PredictionTask]) -> Iterator[Any]:
    """Run tasks on the CPU cores of the cluster; yield results as they finish."""
    remote = ray.remote(num_cpus=1)(run_prediction_task)
    pending = [remote.remote(task) for task in tasks]
    while pending:
        done, pending = ray.wait(pending)
        yield from ray.get(done)


class _GpuWorker:
    """Ray actor with one GPU. An actor keeps its models loaded; Ray ends the process of a plain GPU task."""

    def __init__(self, run: Callable[[PredictionTask], Any]) -> None:
        self._run = run

    def ready(self) -> None:
        """Return as soon as the actor has its GPU."""

    def run(self, task: PredictionTask) -> Any:
        # Ray hides the other GPUs from the process, so a device index would be wrong
        return self._run(replace(task, device=None))


def _run_on_gpus(ray: Any, tasks: list[PredictionTask], workers: int) -> Iterator[Any]:
    """Run tasks on a number of GPUs; yield results as they finish."""
    actor = ray.remote(num_cpus=1, num_gpus=1, max_restarts=3, max_task_retries=3)(_GpuWorker)
    actors = [actor.remote(run_prediction_task) for _ in range(workers)]
    # a task is given to an actor only when it has a GPU: others may use the GPUs of the cluster as well
    starting = {worker.ready.remote(): worker for worker in actors}
    running: dict[Any, Any] = {}
    queue = list(reversed(tasks))
    while queue or running:
        (done,), _ = ray.wait([*running, *(starting if queue else ())])
        worker = running.pop(done, None)
        if worker is None:
            worker = starting.pop(done)
            ray.get(done)
        else:
            yield ray.get(done)
        if queue:
            running[worker.run.remote(queue.pop())] = worker


def launched_partition() -> tuple[Partition, str, Callable[[], None]] | None:
    """Return the part of this process if ``accelerate launch`` or ``torchrun`` started several, else None.

    Returns
    -------
    tuple or None
        The partition, the device, and a function that waits for all processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return None
    try:
        from accelerate import PartialState
    except ImportError:
        raise DataError("accelerate is not installed: run pip install 'unibiomed[train]'") from None
    import torch

    state = PartialState(cpu=not torch.accelerator.is_available())
    return Partition(state.process_index, state.num_processes), str(state.device), state.wait_for_everyone
