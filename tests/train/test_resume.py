"""The same numbers whatever interrupts a training: with workers, adapters, a moving average, and streamed data."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from unibiomed.errors import DataError
from unibiomed.train import trainer
from unibiomed.train.mixture import Shards
from unibiomed.train.recipe import DataRecipe, LoraRecipe, Recipe
from unibiomed.train.trainer import train

from .conftest import (
    STEPS,
    STREAMED,
    different,
    interrupt_at,
    joint_recipe,
    logged,
    losses,
    recipe_text,
    stage_recipe,
    state_of,
    streamed_recipe,
    tiny_recipe,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("no_plot")

SLOW = pytest.mark.slow
LORA = LoraRecipe(rank=4, alpha=8, dropout=0.1)


def stopped(
    recipe: Recipe, data: Path, out: Path, monkeypatch: pytest.MonkeyPatch, *places: tuple[str, int]
) -> dict[str, Any]:
    """Run a recipe, interrupt it at some places, and let it end; the state of the checkpoint at the last stop."""
    for stage, step in places:
        with monkeypatch.context() as patch:
            interrupt_at(patch, stage, step)
            with pytest.raises(KeyboardInterrupt):
                train(recipe, data, out, progress=False)
        assert logged(out)[-1] == (stage, str(step))
        assert not (out / "model").exists()
    state = state_of(out)
    train(recipe, data, out, progress=False)
    return state


@pytest.mark.parametrize(
    ("place", "workers"),
    [
        (("joint", 1), 1),
        pytest.param(("encoder", 2), 0, marks=SLOW),
        pytest.param(("encoder", 2), 1, marks=SLOW),
        pytest.param(("joint", 1), 0, marks=SLOW),
    ],
)
def test_an_interrupted_run_ends_the_same(
    whole_run: Path,
    data_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: tuple[str, int],
    workers: int,
) -> None:
    stopped(tiny_recipe(workers=workers), data_root, tmp_path / "run", monkeypatch, place)
    assert different(whole_run, tmp_path / "run") == []
    assert logged(tmp_path / "run") == STEPS


def test_interrupted_again_and_again(
    whole_run: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four stops in a row, the last after all steps: while the scores are calibrated."""
    for stage, step in (("encoder", 0), ("text", 0), ("text", 1)):
        with monkeypatch.context() as patch:
            interrupt_at(patch, stage, step)
            with pytest.raises(KeyboardInterrupt):
                train(tiny_recipe(), data_root, tmp_path, progress=False)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "calibrate_scores", stop)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_recipe(), data_root, tmp_path, progress=False)
    assert logged(tmp_path) == STEPS
    train(tiny_recipe(), data_root, tmp_path, progress=False)
    assert different(whole_run, tmp_path) == []
    assert logged(tmp_path) == STEPS  # a run that only had to finish keeps its log


def lora_recipe(**more: object) -> Recipe:
    """A stage without adapters, then one with them, whose random start and dropout are resumed too."""
    first = stage_recipe("text", steps=1, batch=2)
    lora = stage_recipe("joint", steps=2, lora=LORA, learning_rates={"lora": 1e-2, "decoder": 1e-3})
    return tiny_recipe(stages=[first, lora], evaluate=0, **more)


@pytest.mark.parametrize(
    ("recipe", "places"),
    [
        pytest.param(lora_recipe(), [("joint", 0)], id="lora, before its first step"),
        pytest.param(lora_recipe(ema=0.9, workers=1), [("joint", 1)], id="lora, average, worker"),
        pytest.param(joint_recipe(ema=0.9), [("joint", 2)], id="average", marks=SLOW),
        pytest.param(
            joint_recipe({"batch": 4, "accumulate": 2}, checkpoint_minutes=60.0, checkpoint_steps=2),
            [("joint", 2)],
            id="parts",
            marks=SLOW,
        ),
    ],
)
def test_more_that_must_be_resumed(
    recipe: Recipe, places: list[tuple[str, int]], data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(recipe, data_root, tmp_path / "whole", progress=False)
    stopped(recipe, data_root, tmp_path / "stopped", monkeypatch, *places)
    assert different(tmp_path / "whole", tmp_path / "stopped") == []
    assert losses(tmp_path / "whole") == losses(tmp_path / "stopped")


def test_the_scale_of_float16(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It grows after two good steps, whether or not they are of one process. (A CPU trains float32 with it.)"""
    real = trainer.open_accelerator

    @contextmanager
    def scaling(recipe: Recipe, out: Path) -> Iterator[Accelerator]:
        with real(recipe, out) as accelerator:
            accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
            yield accelerator

    monkeypatch.setattr(trainer, "open_accelerator", scaling)
    for stop, scale in ((1, 8.0), (2, 16.0), (3, 16.0)):
        with monkeypatch.context() as patch:
            interrupt_at(patch, "joint", stop)
            with pytest.raises(KeyboardInterrupt):
                train(joint_recipe({"steps": 4}), data_root, tmp_path, progress=False)
        state = state_of(tmp_path)
        assert (state["step"], state["scaler"]["scale"], state["scaler"]["_growth_tracker"]) == (stop, scale, stop % 2)


@SLOW
def test_the_average_is_what_is_kept(data_root: Path, tmp_path: Path) -> None:
    """With a decay of almost 1 the weights at the end lie near those of the start."""
    train(joint_recipe(), data_root, tmp_path / "plain", progress=False)
    train(joint_recipe(ema=0.9), data_root, tmp_path / "mean", progress=False)
    assert losses(tmp_path / "plain") == losses(tmp_path / "mean")  # the training itself does not see it
    changed = different(tmp_path / "plain", tmp_path / "mean")
    assert any(name.startswith("m.grounding.") for name in changed) and any("language_model" in n for n in changed)


# ---------------------------------------------------------------- streamed data


def test_the_position_in_a_stream(shards: Path) -> None:
    recipe = DataRecipe(power=0.5)
    rng = random.Random(0)
    whole = Shards(shards, recipe, 7)
    keys = [whole.draw(rng).key for _ in range(60)]
    assert {key.split("/")[0] for key in keys} == {"abdomen", "colon", "reports"}
    for count in (0, 1, 13, 40):
        first = Shards(shards, recipe, 7)
        assert [first.draw(rng).key for _ in range(count)] == keys[:count]
        state = json.loads(json.dumps(first.state()))
        second = Shards(shards, recipe, 7)
        second.restore(state)
        assert [second.draw(rng).key for _ in range(60 - count)] == keys[count:]
    parts = [Shards(shards, recipe, 7, worker=w, workers=2) for w in range(2)]
    assert [parts[0].draw(rng).key for _ in range(20)] != [parts[1].draw(rng).key for _ in range(20)]
    with pytest.raises(DataError, match="worker"):
        parts[0].restore(whole.state())


@pytest.mark.parametrize("workers", [2, pytest.param(0, marks=SLOW), pytest.param(1, marks=SLOW)])
def test_a_stream_goes_on_where_it_was(
    whole_run: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """Workers read ahead; what they had read is read again. The second stop is at a step of the other worker."""
    recipe = streamed_recipe(whole_run, workers=workers)
    train(recipe, shards, tmp_path / "whole", progress=False)
    state = stopped(recipe, shards, tmp_path / "stopped", monkeypatch, ("joint", 1), ("joint", 3))
    assert different(tmp_path / "whole", tmp_path / "stopped") == []
    assert losses(tmp_path / "whole") == losses(tmp_path / "stopped")
    # after three steps of two samples, none of them a report
    draws = [position["draws"] for position in state["sources"][0].values()]
    assert state["step"] == 3 and len(draws) == max(workers, 1) and sum(draws) >= 6
    card = json.loads((tmp_path / "whole" / "model" / "card.json").read_text())
    assert card["trained_on"] == {"abdomen": "CC0", "colon": "CC0", "reports": "CC0"}


def test_what_a_stream_cannot_do(
    whole_run: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="or 'start' in the recipe"):
        train(joint_recipe(STREAMED), shards, tmp_path, progress=False)
    for setting in ("dense_weight", "label_weight", "distill_weight", "named", "prompted"):
        recipe = joint_recipe(STREAMED | {setting: 1})
        with pytest.raises(DataError, match=f"stage 'joint' has {setting}"):
            train(recipe, shards, tmp_path, progress=False)
    with pytest.raises(DataError, match="kind: encoder"):
        train(tiny_recipe(), shards, tmp_path, progress=False)
    # the saved position of one worker says nothing of two
    recipe = streamed_recipe(whole_run)
    with monkeypatch.context() as patch:
        interrupt_at(patch, "joint", 1)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, shards, tmp_path, progress=False)
    with pytest.raises(DataError, match="another workers") as caught:
        train(replace(recipe, workers=2), shards, tmp_path, progress=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_records_are_named(
    whole_run: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """Also those that were met before a stop, and in another process."""
    folder, out = tmp_path / "shards", tmp_path / "run"
    shutil.copytree(shards, folder)
    recipe = streamed_recipe(whole_run, workers=workers)
    recipe = replace(recipe, stages=[replace(recipe.stages[0], steps=3)])
    source, rng = Shards(folder, recipe.data, recipe.seed), random.Random(0)
    first = next(record for record in (source.draw(rng) for _ in range(99)) if record.image is not None)
    assert isinstance(first.image, bytes) and source.problems() == {}
    path = next(path for path in folder.rglob("*.parquet") if first.image in path.read_bytes())
    whole = bytearray(path.read_bytes())
    whole[whole.index(first.image) + len(first.image) // 2] ^= 1
    path.write_bytes(whole)
    with pytest.warns(UserWarning, match=r"broken records of '.*' were left out: 1, named in '.*problems\.jsonl'"):
        stopped(recipe, folder, out, monkeypatch, ("joint", 1))
    (row,) = map(json.loads, (out / "problems.jsonl").read_text().splitlines())
    assert row["record"].startswith(str(path.relative_to(folder))) and first.key in row["problem"]


# ---------------------------------------------------------------- killed

KILLED = """
import sys, time, torch
from pathlib import Path
torch.set_num_threads(1)
from unibiomed.train import trainer
add = trainer.Log.add
def slow(*args):
    add(*args)
    time.sleep(0.3)
trainer.Log.add = slow
from unibiomed.train.recipe import read_recipe
trainer.train(read_recipe(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), progress=False)
"""


def kill_after(recipe: Recipe, data: Path, folder: Path, rows: int) -> Path:
    """Run a recipe in a process of its own that is killed when so many steps are logged; its folder."""
    (folder / "recipe.yaml").write_text(recipe_text(recipe))
    out = folder / "run"
    command = [sys.executable, "-c", KILLED, str(folder / "recipe.yaml"), str(data), str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        deadline = time.monotonic() + 600
        while not (out / "log.csv").exists() or len(logged(out)) < rows:
            assert process.poll() is None, process.stderr.read().decode()[-800:] if process.stderr else ""
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (out / "model").exists()
    return out


@SLOW
@pytest.mark.parametrize(("rows", "workers"), [(2, 0), (2, 1), (4, 0), (6, 1)])
def test_a_killed_run_ends_the_same(whole_run: Path, data_root: Path, tmp_path: Path, rows: int, workers: int) -> None:
    recipe = tiny_recipe(workers=workers)
    out = kill_after(recipe, data_root, tmp_path, rows)
    train(recipe, data_root, out, progress=False)
    assert different(whole_run, out) == []
    assert logged(out) == STEPS


@SLOW
@pytest.mark.parametrize("kind", ["ema", "lora", "stream", "stream of two workers"])
def test_more_that_a_kill_must_not_lose(
    whole_run: Path, data_root: Path, shards: Path, tmp_path: Path, kind: str
) -> None:
    data, recipe = data_root, joint_recipe(ema=0.9, workers=1)
    if kind == "lora":
        recipe = lora_recipe(ema=0.9)
    elif kind != "ema":
        data, recipe = shards, streamed_recipe(whole_run, workers=1 if kind == "stream" else 2)
    train(recipe, data, tmp_path / "whole", progress=False)
    out = kill_after(recipe, data, tmp_path, 2)
    train(recipe, data, out, progress=False)
    assert different(tmp_path / "whole", out) == []
    assert losses(tmp_path / "whole") == losses(out)
