"""Weights divided among processes (FSDP): the numbers of one process, and its checkpoints."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import multiprocessing

from unibiomed.data import load_records
from unibiomed.data.build import build_shards
from unibiomed.errors import DataError
from unibiomed.train import divided
from unibiomed.train.digests import records_digest
from unibiomed.train.recipe import LoraRecipe, ModelRecipe, Recipe
from unibiomed.train.stages import Counts, JointStage
from unibiomed.train.trainer import train

from .conftest import (
    STEPS,
    different,
    interrupt_at,
    joint_recipe,
    logged,
    losses,
    recipe_text,
    stage_recipe,
    state_of,
    tiny_recipe,
    weights,
)  # fmt: skip
from .several import coarse_recipe, in_processes, run, run_divided, same_dice, same_numbers, stopped

pytestmark = pytest.mark.usefixtures("no_plot")

SLOW = pytest.mark.slow


def totals(out: Path) -> list[float]:
    return [float(loss) for loss, _ in losses(out)]


def weights_of_heads(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "checkpoint" / "heads.safetensors")


def same_heads(one: Path, other: Path) -> None:
    mine, theirs = weights_of_heads(one), weights_of_heads(other)
    assert mine.keys() == theirs.keys()
    for name in mine:
        torch.testing.assert_close(theirs[name], mine[name], rtol=1e-4, atol=1e-6)


def test_divided_among_two_is_one(plain_descent: None, data_root: Path, tmp_path: Path) -> None:
    """All kinds of stages and losses; one sample of each step for each process."""
    run(coarse_recipe(), data_root, tmp_path / "one")
    in_processes(run_divided, coarse_recipe(), data_root, tmp_path / "two")
    assert logged(tmp_path / "two") == STEPS
    same_numbers(tmp_path / "one", tmp_path / "two")
    same_heads(tmp_path / "one", tmp_path / "two")
    learned = ["encoder", "text", "joint"]
    data = records_digest(load_records(data_root))
    state = {"stage": 3, "step": 0, "stages": learned, "data": data, "sources": [{}, {}]}
    assert state_of(tmp_path / "two") == state
    same_dice(tmp_path / "one", tmp_path / "two")


def fewer_losses(recipe: Recipe, data: Path, out: Path) -> None:
    """The second process has no masks, and nobody a label."""
    real = JointStage.losses

    def some(self: JointStage, batch: dict[str, Any], counts: Counts | None = None) -> dict[str, torch.Tensor]:
        found = real(self, batch, counts)
        return {k: v for k, v in found.items() if k == "text" or (os.environ["RANK"] == "0" and k != "label")}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JointStage, "losses", some)
        run(recipe, data, out)


def test_processes_that_learn_different_things(plain_descent: None, data_root: Path, tmp_path: Path) -> None:
    """Nobody waits for a gradient that never comes; what nobody uses does not even decay."""
    recipe = joint_recipe({"steps": 2, "batch": 4, "accumulate": 2, "prompted": 1})
    in_processes(fewer_losses, recipe, data_root, tmp_path / "whole")
    in_processes(run_divided, recipe, data_root, tmp_path / "divided", fewer_losses)
    same_numbers(tmp_path / "whole", tmp_path / "divided")
    same_heads(tmp_path / "whole", tmp_path / "divided")


@SLOW
def test_adapters_average_parts_and_less_memory(plain_descent: None, data_root: Path, tmp_path: Path) -> None:
    """The moving average is what is kept, of adapters too; the norm of all gradients is clipped."""
    text = stage_recipe("text", steps=1, batch=4, gradient_checkpointing=True)
    joint = stage_recipe(
        "joint",
        batch=4,
        accumulate=2,
        clip=0.5,
        points=32,
        gradient_checkpointing=True,
        lora=LoraRecipe(rank=4, alpha=8, dropout=0.0),
        learning_rates={"lora": 1e-3, "decoder": 1e-3, "head": 1e-3},
    )
    recipe = tiny_recipe(stages=[text, joint], ema=0.9, evaluate=1, workers=1)
    run(recipe, data_root, tmp_path / "one")
    in_processes(run_divided, recipe, data_root, tmp_path / "two")
    same_numbers(tmp_path / "one", tmp_path / "two")
    assert not any("lora" in name for name in weights(tmp_path / "two"))


@SLOW
def test_bfloat16(data_root: Path, tmp_path: Path) -> None:
    recipe = joint_recipe(precision="bfloat16")
    run(recipe, data_root, tmp_path / "one")
    in_processes(run_divided, recipe, data_root, tmp_path / "two")
    assert totals(tmp_path / "two") == pytest.approx(totals(tmp_path / "one"), rel=0.02)


# ---------------------------------------------------------------- checkpoints


def test_a_checkpoint_is_whole(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process goes on with what two have divided, and the reverse; moments and moving average included."""
    recipe = joint_recipe(ema=0.9)
    in_processes(run_divided, recipe, data_root, tmp_path / "whole")
    with pytest.raises(multiprocessing.ProcessExitedException):
        in_processes(run_divided, recipe, data_root, tmp_path / "stopped", stopped, "joint", 2)
    assert state_of(tmp_path / "stopped")["step"] == 2
    shutil.copytree(tmp_path / "stopped", tmp_path / "alone")
    in_processes(run_divided, recipe, data_root, tmp_path / "stopped")
    assert different(tmp_path / "whole", tmp_path / "stopped") == []
    train(recipe, data_root, tmp_path / "alone", progress=False)
    assert totals(tmp_path / "alone") == pytest.approx(totals(tmp_path / "whole"), rel=1e-5, abs=1.1e-5)
    with monkeypatch.context() as patch:
        interrupt_at(patch, "joint", 2)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, data_root, tmp_path / "begun", progress=False)
    in_processes(run_divided, recipe, data_root, tmp_path / "begun")
    assert totals(tmp_path / "begun") == pytest.approx(totals(tmp_path / "whole"), rel=1e-5, abs=1.1e-5)


@SLOW
def test_shards_and_heads_that_are_empty(whole_run: Path, data_root: Path, tmp_path: Path) -> None:
    build_shards(data_root, tmp_path / "shards", workers=1, rows_per_shard=2)
    start = ModelRecipe(start=str(whole_run / "model"))
    recipe = joint_recipe({"dense_weight": 0.0, "label_weight": 0.0}, model=start)
    in_processes(run, recipe, tmp_path / "shards", tmp_path / "whole")
    with pytest.raises(multiprocessing.ProcessExitedException):
        in_processes(run_divided, recipe, tmp_path / "shards", tmp_path / "divided", stopped, "joint", 1)
    assert weights_of_heads(tmp_path / "divided")["prompts.weight"].numel() == 0
    in_processes(run_divided, recipe, tmp_path / "shards", tmp_path / "divided")
    assert totals(tmp_path / "divided") == pytest.approx(totals(tmp_path / "whole"), rel=1e-5, abs=1.1e-5)


# ---------------------------------------------------------------- how it is asked for


@SLOW
def test_as_accelerate_starts_it(whole_run: Path, data_root: Path, tmp_path: Path) -> None:
    """The weights to start from are read by every process, whatever accelerate says to transformers."""
    recipe = joint_recipe({"steps": 2}, model=ModelRecipe(start=str(whole_run / "model")))
    (tmp_path / "recipe.yaml").write_text(recipe_text(recipe))

    def launch(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "accelerate.commands.launch", "--use_fsdp", "--fsdp_version", "2", *more]
        command += ["--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no", "--no_python"]
        command += [str(Path(sys.executable).with_name("unibiomed")), "train", str(tmp_path / "recipe.yaml")]
        command += ["--data", str(data_root), "--out", str(tmp_path / "two")]
        return subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)

    # that it is heard at all
    heard = launch("--fsdp_offload_params", "true")
    assert heard.returncode != 0 and "fsdp_offload_params is not supported" in heard.stderr
    done = launch()
    assert done.returncode == 0, done.stderr[-2000:]
    run(recipe, data_root, tmp_path / "one")
    assert totals(tmp_path / "two") == pytest.approx(totals(tmp_path / "one"), rel=1e-4)


@pytest.mark.parametrize(
    ("precision", "setting", "words"),
    [
        ("float16", "", "float16 is not supported with FSDP: choose bfloat16"),
        ("float32", "FSDP_OFFLOAD_PARAMS", "fsdp_offload_params is not supported"),
        ("float32", "FSDP_ACTIVATION_CHECKPOINTING", "set gradient_checkpointing in the recipe"),
    ],
)
def test_what_it_cannot_do(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, setting: str, words: str
) -> None:
    monkeypatch.setenv(divided.SWITCH, "true")
    if setting:
        monkeypatch.setenv(setting, "true")
    with pytest.raises(DataError, match=words) as caught:
        train(joint_recipe(precision=precision), data_root, tmp_path, progress=False)
    assert "\n" not in str(caught.value)
    assert os.environ[divided.SWITCH] == "true"


@pytest.mark.parametrize("job", [run, run_divided])
def test_masks_as_fine_as_the_input_in_two_processes(job: Any, data_root: Path, tmp_path: Path) -> None:
    """Of the mask decoder a part has no gradient; of the first losses the numbers are those of one process."""
    recipe = tiny_recipe(stages=[stage_recipe("encoder", learning_rates={"grounding": 1e-3})], evaluate=0)
    assert recipe.model.fine_masks
    run(recipe, data_root, tmp_path / "one")
    in_processes(job, recipe, data_root, tmp_path / "two")
    one, two = totals(tmp_path / "one"), totals(tmp_path / "two")
    assert len(two) == 2 and two == pytest.approx(one, rel=1e-3)
    mine, theirs = weights(tmp_path / "one"), weights(tmp_path / "two")
    unused = [name for name in mine if name.startswith("m.") and ".output_hypernetworks_mlps.0." in name]
    assert unused and all(torch.equal(mine[name], theirs[name]) for name in unused)
    assert any(name.startswith("m.fine.") for name in theirs)
