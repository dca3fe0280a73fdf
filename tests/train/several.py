"""A training in several processes, and whether its numbers are those of another."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import multiprocessing
from torch.distributed.tensor import DTensor

from unibiomed.model.processing import UniBiomedProcessor
from unibiomed.train import divided
from unibiomed.train.net import DividedNet
from unibiomed.train.recipe import Recipe
from unibiomed.train.start import make_model
from unibiomed.train.trainer import train

from .conftest import TINY, interrupt_at, log_rows, logged, losses, tiny_recipe, weights


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def work(rank: int, world: int, port: int, job: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    job(*arguments)


def in_processes(job: Callable[..., Any], *arguments: Any, world: int = 2) -> None:
    """What ``torchrun`` does, but forked: importing everything anew would take longer than the training."""
    multiprocessing.start_processes(work, args=(world, free_port(), job, arguments), nprocs=world, start_method="fork")


def coarse_recipe() -> Recipe:
    """The tiny one, without finer masks.

    The more pixels a mask has, the more of them another order of adding moves over its edge, which changes the IoU.
    """
    recipe = tiny_recipe()
    return replace(recipe, model=replace(recipe.model, fine_masks=False))


def run(recipe: Recipe, data: Path, out: Path) -> None:
    train(recipe, data, out, progress=False)


def run_divided(recipe: Recipe, data: Path, out: Path, job: Any = run, *more: Any) -> None:
    """What each process does after ``accelerate launch --use_fsdp``; it also looks whether weights are divided."""
    os.environ |= {divided.SWITCH: "true", "FSDP_VERSION": "2", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}
    real, seen = DividedNet.forget_idle, []

    def look(self: DividedNet) -> None:
        parameters = list(self.parameters())
        assert all(isinstance(p, DTensor) for p in parameters if p.numel())
        own = sum(p.to_local().numel() for p in parameters if isinstance(p, DTensor))
        assert own < 0.6 * sum(p.numel() for p in parameters)
        real(self)
        seen.append(own)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DividedNet, "forget_idle", look)
        job(recipe, data, out, *more)
    assert seen


def parts(out: Path) -> list[dict[str, float]]:
    """Losses by name of each step."""
    return [{n: float(v) for n, v in (p.split("=") for p in row["parts"].split())} for row in log_rows(out)]


def stopped(recipe: Recipe, data: Path, out: Path, stage: str, step: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(patch, stage, step)
        # the other process goes on until it waits for this one, which has gone
        try:
            run(recipe, data, out)
        except KeyboardInterrupt:
            os._exit(7)


def same_numbers(one: Path, other: Path) -> None:
    """Losses within 1e-5 of their size, or the last digit of the log; all changes of weights within 1e-3 of theirs."""
    assert logged(one) == logged(other)
    totals = [[float(loss) for loss, _ in losses(out)] for out in (one, other)]
    assert totals[1] == pytest.approx(totals[0], rel=1e-5, abs=1.1e-5)
    for mine, theirs in zip(parts(one), parts(other), strict=True):
        assert mine.keys() == theirs.keys()
        assert theirs == pytest.approx(mine, rel=1e-5, abs=1.1e-4)
    start = new_weights(one)
    mine, theirs = weights(one), weights(other)
    names = [name for name in mine if name.startswith("m.")]
    error = sum(float((mine[name] - theirs[name]).double().square().sum()) for name in names)
    change = sum(float((mine[name] - start[name[2:]]).double().square().sum()) for name in names)
    # how a sum is rounded follows from the number of images in it, on some CPUs more than on others
    assert change > 1e-5 and (error / change) ** 0.5 < 1e-3


def new_weights(out: Path) -> dict[str, torch.Tensor]:
    """Of the new model that a run began with."""
    torch.manual_seed(tiny_recipe().seed)
    return make_model(TINY, UniBiomedProcessor.from_pretrained(out / "processor")).state_dict()


def same_dice(one: Path, other: Path) -> None:
    """The same stages, steps and targets, and their held-out Dice to within a pixel or two."""
    mine, theirs = (
        {line.rpartition(",")[0]: line.rpartition(",")[2] for line in (out / "heldout.csv").read_text().splitlines()}
        for out in (one, other)
    )
    assert mine.keys() == theirs.keys() and len(mine) > 1
    for name, value in mine.items():
        assert value == theirs[name] or float(theirs[name]) == pytest.approx(float(value), abs=2e-3), name
