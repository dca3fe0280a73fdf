"""Adapters: at first they change nothing, they alone learn, and merged they are gone without a trace."""

from __future__ import annotations

import copy
import json
import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unibiomed.errors import DataError
from unibiomed.model.modeling import UniBiomedModel
from unibiomed.model.weights import load_model
from unibiomed.train.lora import TARGETS, add_lora, has_lora, merge_lora, merged
from unibiomed.train.optimizer import make_optimizer, parts_of
from unibiomed.train.recipe import LoraRecipe
from unibiomed.train.start import export
from unibiomed.train.trainer import train

from .conftest import TINY, Kit, joint_recipe, stage_recipe, tiny_recipe

LORA = LoraRecipe(rank=4, alpha=8, dropout=0.0)
RATES = {"lora": 1e-2, "projector": 1e-3}


@pytest.fixture
def model(kit: Kit) -> UniBiomedModel:
    """A copy that may be changed."""
    return copy.deepcopy(kit.model)


def adapted(kit: Kit, model: UniBiomedModel, **more: object) -> tuple[Kit, torch.optim.AdamW]:
    """A kit of the model with adapters, and the optimizer of a stage with them."""
    add_lora(model, replace(LORA, **more))  # type: ignore[arg-type]
    own = replace(kit, model=model)
    return own, make_optimizer(stage_recipe("joint", lora=LORA, learning_rates=RATES), model, kit.heads)


@torch.no_grad()
def outputs(kit: Kit, model: UniBiomedModel) -> list[torch.Tensor]:
    """Logits, prompts and masks for a batch."""
    batch = kit.stage("joint", batch=2).batch(random.Random(3))
    model.eval()
    features = model.encode_image(batch["grounding_pixels"])
    names = ("input_ids", "attention_mask", "labels", "position_ids")
    out = model(*(batch[name] for name in names), features=features)
    assert out.masks is not None
    return [out.logits, out.seg_states, out.masks.logits]


def learn(kit: Kit, optimizer: torch.optim.AdamW, steps: int = 3) -> None:
    stage = kit.stage("joint", lora=LORA, learning_rates=RATES)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"]
    for step in range(steps):
        losses = stage.losses(stage.batch(random.Random(step)))
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_at_first_they_change_nothing(kit: Kit, model: UniBiomedModel) -> None:
    before = outputs(kit, model)
    assert not has_lora(model)
    adapted(kit, model)
    assert has_lora(model)
    names = [name for name, _ in model.named_modules() if name.endswith("lora_A.default")]
    assert len(names) == len(TARGETS) * TINY.layers
    assert all(".language_model.layers." in name for name in names)
    assert all(torch.equal(a, b) for a, b in zip(before, outputs(kit, model), strict=True))


def test_they_and_what_is_named_alone_learn(kit: Kit, model: UniBiomedModel) -> None:
    own, optimizer = adapted(kit, model)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {parts_of(name)[0] for name in trained} == {"lora", "projector"}
    assert len([name for name in trained if "lora_" in name]) == 2 * len(TARGETS)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    learn(own, optimizer)
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == trained


@pytest.mark.parametrize("alpha", [4, 32])
def test_merged_they_say_the_same(kit: Kit, model: UniBiomedModel, alpha: int) -> None:
    names = dict(model.named_parameters()).keys()
    own, optimizer = adapted(kit, model, alpha=alpha)
    learn(own, optimizer)
    expected = outputs(own, model)
    single = merged(model)
    assert has_lora(model) and not has_lora(single)
    assert dict(single.named_parameters()).keys() == names
    for mine, theirs in zip(outputs(own, single), expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    # the scale is alpha / rank
    layer = model.mllm.model.language_model.layers[0].mlp.up_proj
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    whole = single.mllm.model.language_model.layers[0].mlp.up_proj.weight
    torch.testing.assert_close(whole, layer.base_layer.weight + alpha / 4 * b @ a)
    assert float((b @ a).detach().abs().max()) > 1e-4
    # in place, for good; nothing is left to do the second time
    assert merge_lora(model) is model
    assert merge_lora(model) is model and not has_lora(model)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(model.parameters(), single.parameters(), strict=True))


def test_an_exported_folder_has_none(kit: Kit, model: UniBiomedModel, tmp_path: Path) -> None:
    own, optimizer = adapted(kit, model)
    learn(own, optimizer)
    export(model, kit.processor, tmp_path / "model")
    assert has_lora(model)
    read, _ = load_model(tmp_path / "model", dtype=torch.float32)  # names are strict
    stored = load_file(tmp_path / "model" / "model.safetensors")
    assert not any("lora" in name or "base_layer" in name for name in stored)
    assert "lora" not in (tmp_path / "model" / "config.json").read_text().lower()
    for mine, theirs in zip(outputs(own, read), outputs(own, merged(model)), strict=True):
        torch.testing.assert_close(mine, theirs, atol=0.02, rtol=0.02)  # half precision


def test_two_stages_with_adapters(data_root: Path, tmp_path: Path) -> None:
    """The first ones are merged when the second ones are added; both leave their mark on the matrices alone."""
    rates = {"lora": 1e-2}
    stages = [
        stage_recipe("text", steps=1, lora=LORA, learning_rates=rates, name="one", distill_weight=0.0),
        stage_recipe("text", steps=2, lora=replace(LORA, rank=2), learning_rates=rates, name="two", distill_weight=0.0),
    ]
    train(tiny_recipe(stages=stages[:1], evaluate=0), data_root, tmp_path / "one", progress=False)
    train(tiny_recipe(stages=stages, evaluate=0), data_root, tmp_path / "two", progress=False)
    one, two = (load_file(tmp_path / name / "checkpoint" / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    changed = {name for name in one if not torch.equal(one[name], two[name])}
    assert len(changed) == len(TARGETS) and all(".language_model.layers.0." in name for name in changed)
    state = json.loads((tmp_path / "two" / "checkpoint" / "state.json").read_text())
    assert state["stage"] == 2


def test_peft_is_missing(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(DataError, match=r"LoRA needs peft: pip install"):
        train(joint_recipe({"lora": LORA, "learning_rates": RATES}), data_root, tmp_path, progress=False)
