"""Several processes share a step: the numbers are those of one process, but for the order in which they are added."""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import multiprocessing

from unibiomed.data import load_records
from unibiomed.data.build import build_shards
from unibiomed.errors import DataError
from unibiomed.train.digests import records_digest
from unibiomed.train.recipe import LoraRecipe, ModelRecipe, Recipe
from unibiomed.train.trainer import train

from .conftest import STEPS, different, joint_recipe, logged, losses, state_of, weights
from .several import coarse_recipe, in_processes, new_weights, parts, run, same_dice, same_numbers, stopped

pytestmark = pytest.mark.usefixtures("no_plot")


def test_two_processes_are_one(plain_descent: None, data_root: Path, tmp_path: Path) -> None:
    """All kinds of stages and losses; one sample of each step for each process."""
    run(coarse_recipe(), data_root, tmp_path / "one")
    in_processes(run, coarse_recipe(), data_root, tmp_path / "two")
    assert logged(tmp_path / "two") == STEPS
    named = {"text", "mask", "presence", "quality", "prompted", "dense", "label", "distill"}
    assert {name for row in parts(tmp_path / "two") for name in row} == named
    same_numbers(tmp_path / "one", tmp_path / "two")
    learned = ["encoder", "text", "joint"]
    data = records_digest(load_records(data_root))
    state = {"stage": 3, "step": 0, "stages": learned, "data": data, "sources": [{}, {}]}
    assert state_of(tmp_path / "two") == state
    same_dice(tmp_path / "one", tmp_path / "two")
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


def test_ways_that_are_refused(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Accelerator, "distributed_type", DistributedType.DEEPSPEED)
    refused(joint_recipe(), data_root, tmp_path, "DEEPSPEED is not supported: use FSDP")


def test_a_batch_that_cannot_be_divided(data_root: Path, tmp_path: Path) -> None:
    words = "batch of 3 cannot be divided among 2 processes in 1 parts"
    in_processes(partial(refused, told=False), joint_recipe({"batch": 3}), data_root, tmp_path / "two", words)
    words = "batch of 6 cannot be divided among 2 processes in 2 parts"
    in_processes(refused, joint_recipe({"batch": 6, "accumulate": 2}), data_root, tmp_path / "parts", words)
    refused(joint_recipe({"batch": 3, "accumulate": 2}), data_root, tmp_path / "one", "batch of 3 .* 2 parts")
