"""Several processes share a step: the numbers are those of one process, but for the order in which they are added."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import multiprocessing

from unibiomed.data.build import build_shards
from unibiomed.errors import DataError
from unibiomed.model.processing import UniBiomedProcessor
from unibiomed.train import trainer
from unibiomed.train.recipe import LoraRecipe, ModelRecipe, Recipe
from unibiomed.train.start import make_model
from unibiomed.train.trainer import train

from .conftest import (
    STEPS,
    TINY,
    different,
    interrupt_at,
    joint_recipe,
    log_rows,
    logged,
    losses,
    state_of,
    tiny_recipe,
    weights,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("no_plot")


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


def run(recipe: Recipe, data: Path, out: Path) -> None:
    train(recipe, data, out, progress=False)


def parts(out: Path) -> list[dict[str, float]]:
    """Losses by name of each step."""
    return [{n: float(v) for n, v in (p.split("=") for p in row["parts"].split())} for row in log_rows(out)]


@pytest.fixture
def plain_descent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adam divides a gradient by its own size: rounding of one that is almost 0 becomes a whole step.

    A plain step shows the gradients as they are, their scale included.
    """
    real = trainer.make_optimizer

    def plain(*arguments: Any) -> torch.optim.Optimizer:
        groups = real(*arguments).param_groups
        return torch.optim.SGD([{"params": g["params"], "peak": 10 * g["peak"], "lr": 0.0} for g in groups])

    monkeypatch.setattr(trainer, "make_optimizer", plain)


def same_numbers(one: Path, other: Path) -> None:
    """Losses within 1e-5 of their size, or the last digit of the log; all changes of weights within 1e-4 of theirs."""
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
    assert change > 1e-5 and (error / change) ** 0.5 < 1e-4


def new_weights(out: Path) -> dict[str, torch.Tensor]:
    """Of the new model that a run began with."""
    torch.manual_seed(tiny_recipe().seed)
    return make_model(TINY, UniBiomedProcessor.from_pretrained(out / "processor")).state_dict()


def test_two_processes_are_one(plain_descent: None, data_root: Path, tmp_path: Path) -> None:
    """All kinds of stages and losses; one sample of each step for each process."""
    run(tiny_recipe(), data_root, tmp_path / "one")
    in_processes(run, tiny_recipe(), data_root, tmp_path / "two")
    assert logged(tmp_path / "two") == STEPS
    assert {"text", "mask", "presence", "quality", "prompted", "dense", "label"} == set(parts(tmp_path / "two")[-1])
    same_numbers(tmp_path / "one", tmp_path / "two")
    assert state_of(tmp_path / "two") == {"stage": 3, "step": 0, "sources": [{}, {}]}
    assert (tmp_path / "two" / "heldout.csv").read_text() == (tmp_path / "one" / "heldout.csv").read_text()
    assert json.loads((tmp_path / "two" / "model" / "config.json").read_text())["presence_calibration"] != [1.0, 0.0]


def test_parts_of_a_step_are_one(plain_descent: None, data_root: Path, tmp_path: Path) -> None:
    """Four samples at once, in two parts, and in two parts on each of two processes; the norm of all is clipped."""
    whole = {"steps": 2, "batch": 4, "prompted": 1, "named": 1, "clip": 0.5}
    run(joint_recipe(whole), data_root, tmp_path / "one")
    run(joint_recipe(whole | {"accumulate": 2}), data_root, tmp_path / "parts")
    in_processes(run, joint_recipe(whole | {"accumulate": 2}), data_root, tmp_path / "both")
    same_numbers(tmp_path / "one", tmp_path / "parts")
    same_numbers(tmp_path / "one", tmp_path / "both")


def test_adapters_and_average(data_root: Path, tmp_path: Path) -> None:
    """With AdamW, as shipped; what is random of adapters is the same in all processes."""
    lora = LoraRecipe(rank=4, alpha=8, dropout=0.0)
    rates = {"lora": 1e-3, "decoder": 1e-3}
    recipe = joint_recipe({"steps": 2, "lora": lora, "learning_rates": rates}, ema=0.9, workers=1)
    run(recipe, data_root, tmp_path / "one")
    in_processes(run, recipe, data_root, tmp_path / "two")
    one, two = (weights(tmp_path / name) for name in ("one", "two"))
    start = new_weights(tmp_path / "one")
    for part in (".language_model.layers.", ".mask_decoder."):
        names = [name for name in one if name.startswith("m.") and part in name]
        error = sum(float((one[name] - two[name]).square().sum()) for name in names)
        change = sum(float((one[name] - start[name[2:]]).square().sum()) for name in names)
        assert change > 0 and (error / change) ** 0.5 < 0.05


# ---------------------------------------------------------------- interruptions


def stopped(recipe: Recipe, data: Path, out: Path, stage: str, step: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(patch, stage, step)
        # the other process goes on until it waits for this one, which has gone
        try:
            run(recipe, data, out)
        except KeyboardInterrupt:
            os._exit(7)


def test_resumed_in_two_processes_and_in_one(data_root: Path, tmp_path: Path) -> None:
    recipe = joint_recipe()
    in_processes(run, recipe, data_root, tmp_path / "whole")
    with pytest.raises(multiprocessing.ProcessExitedException):
        in_processes(stopped, recipe, data_root, tmp_path / "stopped", "joint", 2)
    assert state_of(tmp_path / "stopped")["step"] == 2
    shutil.copytree(tmp_path / "stopped", tmp_path / "alone")
    in_processes(run, recipe, data_root, tmp_path / "stopped")
    assert different(tmp_path / "whole", tmp_path / "stopped") == []
    # what is drawn from records does not depend on how many go on
    train(recipe, data_root, tmp_path / "alone", progress=False)
    assert [float(loss) for loss, _ in losses(tmp_path / "alone")] == pytest.approx(
        [float(loss) for loss, _ in losses(tmp_path / "whole")], rel=1e-5, abs=1.1e-5
    )


def test_a_stream_needs_as_many_processes(whole_run: Path, data_root: Path, tmp_path: Path) -> None:
    build_shards(data_root, tmp_path / "shards", workers=1, rows_per_shard=2)
    recipe = joint_recipe({"dense_weight": 0.0, "label_weight": 0.0}, model=ModelRecipe(start=str(whole_run / "model")))
    with pytest.raises(multiprocessing.ProcessExitedException):
        in_processes(stopped, recipe, tmp_path / "shards", tmp_path / "run", "joint", 1)
    (first, second) = state_of(tmp_path / "run")["sources"]
    assert first["0"]["world"] == second["0"]["world"] == 2
    assert (first["0"]["rank"], second["0"]["rank"]) == (0, 1)
    with pytest.raises(DataError, match="is of 2 processes, this run has 1"):
        train(recipe, tmp_path / "shards", tmp_path / "run", progress=False)


# ---------------------------------------------------------------- what goes wrong


def refused(recipe: Recipe, data: Path, out: Path, words: str, *, told: bool = True) -> None:
    if not told and not torch.accelerator.is_available():
        # without a GPU it has to be found out that there are several processes
        os.environ.pop("ACCELERATE_USE_CPU")
    with pytest.raises(DataError, match=words) as caught:
        run(recipe, data, out)
    assert "\n" not in str(caught.value)


def test_weights_that_are_divided(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Accelerator, "distributed_type", DistributedType.FSDP)
    refused(joint_recipe(), data_root, tmp_path, "FSDP is not supported: each process needs all weights")


def test_a_batch_that_cannot_be_divided(data_root: Path, tmp_path: Path) -> None:
    words = "batch of 3 cannot be divided among 2 processes in 1 parts"
    in_processes(partial(refused, told=False), joint_recipe({"batch": 3}), data_root, tmp_path / "two", words)
    words = "batch of 6 cannot be divided among 2 processes in 2 parts"
    in_processes(refused, joint_recipe({"batch": 6, "accumulate": 2}), data_root, tmp_path / "parts", words)
    refused(joint_recipe({"batch": 3, "accumulate": 2}), data_root, tmp_path / "one", "batch of 3 .* 2 parts")
