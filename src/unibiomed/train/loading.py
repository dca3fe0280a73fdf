"""The samples of each step, made ahead of time in processes beside the training."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from unibiomed.errors import UniBiomedError

from .mixture import Source
from .stages import Sample, Stage


@dataclass(frozen=True)
class Share:
    """What one process does of every step.

    Attributes
    ----------
    rank, world : int
        Which of how many processes.
    batch : int
        Samples of the whole step.
    accumulate : int
        Parts in which a process takes its samples.
    """

    rank: int
    world: int
    batch: int
    accumulate: int

    def numbers(self) -> list[list[int]]:
        """Numbers of this process's samples within the step, for each part."""
        own = range(self.rank, self.batch, self.world)
        size = len(own) // self.accumulate
        return [list(own[i * size : (i + 1) * size]) for i in range(self.accumulate)]


Step = tuple[list[dict[str, Any]], tuple[int, Any], dict[str, str]]
"""Batches of a step's parts, which worker made them with where its source stood afterwards, and what that skipped."""


class Steps(Dataset[Step | UniBiomedError]):
    """The batches of each step, made when asked for, with where the source stood after it."""

    def __init__(
        self,
        stage: Stage,
        share: Share,
        chance: Callable[[int, int], random.Random],
        make_source: Callable[[int, int], Source],
        states: list[Any],
        start: int,
    ) -> None:
        self.stage, self.share, self.chance = stage, share, chance
        self.make_source, self.states, self.start = make_source, states, start
        self._source: Source | None = None

    def __getitem__(self, index: int) -> Step | UniBiomedError:
        """The parts of step ``start + index``; an error is given back, a worker would raise it as a page of text."""
        try:
            return self._make(self.start + index)
        except UniBiomedError as error:
            return error

    def _make(self, step: int) -> Step:
        info = get_worker_info()
        # steps go round the workers from the first step of the stage on, also where a run goes on in its midst
        worker, workers = (0, 1) if info is None else ((self.start + info.id) % info.num_workers, info.num_workers)
        if self._source is None:
            # in the process that uses it: open files and positions are its own
            self._source = self.make_source(worker, workers)
            if worker < len(self.states):
                self._source.restore(self.states[worker])
            self.stage.source = self._source
        parts: list[list[Sample]] = [
            [self.stage.sample(self.chance(step, number)) for number in numbers] for numbers in self.share.numbers()
        ]
        place = worker, self._source.state()
        return [self.stage.collate(part) for part in parts], place, self._source.problems()


def load_steps(steps: Steps, count: int, workers: int) -> Iterator[Step]:
    """Batches of `count` steps in order, from `workers` processes; 0 makes each when it is needed.

    Raises
    ------
    UniBiomedError
        If a sample cannot be made.
    """
    for made in _made(steps, count, workers):
        if isinstance(made, UniBiomedError):
            raise made
        yield made


def _made(steps: Steps, count: int, workers: int) -> Iterator[Step | UniBiomedError]:
    if workers == 0:
        return (steps[index] for index in range(count))
    # spawned processes would read the store and the records once more
    method = "fork" if "fork" in torch.multiprocessing.get_all_start_methods() else None
    loader: DataLoader[Any] = DataLoader(
        steps,
        batch_size=None,
        sampler=range(count),
        num_workers=workers,
        prefetch_factor=2,
        multiprocessing_context=method,
    )
    return iter(loader)


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Tensors of a batch on a device."""
    return {k: v.to(device, non_blocking=True) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
