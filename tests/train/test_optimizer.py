"""Which parameter learns how fast, and the running mean of weights."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from unibiomed.errors import DataError
from unibiomed.train.loop import sample_random
from unibiomed.train.optimizer import MovingAverage, make_optimizer, part_of, parts_of, rate_factor
from unibiomed.train.recipe import PARTS, LoraRecipe

from .conftest import Kit, stage_recipe, tiny_recipe


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


def test_sample_random() -> None:
    recipe = tiny_recipe()
    places = [(stage, step, number) for stage in recipe.stages for step in range(3) for number in range(-2, 3)]
    draws = [sample_random(recipe, *place).random() for place in places]
    assert len(set(draws)) == len(places) == 45
    assert sample_random(recipe, *places[7]).random() == draws[7]
    assert sample_random(replace(recipe, seed=1), *places[7]).random() != draws[7]


# ---------------------------------------------------------------- parts


def test_every_parameter_has_its_parts(kit: Kit) -> None:
    names = [name for name, _ in kit.model.named_parameters()]
    found = {part for name in names for part in parts_of(name)}
    # the tower of the small model holds an anchor of the dtype, which is never trained
    assert found == set(PARTS) - {"lora", "box_neck", "box_decoder"}
    layer = "mllm.model.language_model.layers.0.self_attn.q_proj"
    expected = {
        "grounding.vision_encoder.backbone.stem.weight": ("backbone",),
        "grounding.vision_encoder.neck.convs.0.weight": ("neck", "grounding"),
        "grounding.mask_decoder.pred_obj_score_head.layers.0.weight": ("scores",),
        "grounding.mask_decoder.iou_prediction_head.proj_in.weight": ("scores",),
        "grounding.mask_decoder.conv_s0.weight": ("features", "decoder", "grounding"),
        "grounding.prompt_encoder.not_a_point_embed.weight": ("decoder", "grounding"),
        "grounding.no_memory_embedding": ("features", "grounding"),
        "fine.modulate.2.weight": ("fine", "grounding"),
        f"{layer}.weight": ("layers", "language"),
        f"{layer}.base_layer.weight": ("layers", "language"),
        f"{layer}.lora_A.default.weight": ("lora", "language"),
        "mllm.model.language_model.norm.weight": ("layers", "language"),
        "mllm.model.language_model.embed_tokens.weight": ("embeddings", "language"),
        "mllm.lm_head.weight": ("embeddings", "language"),
        "mllm.model.vision_tower.encoder.layer.0.attention.q_proj.weight": ("vision", "language"),
        "mllm.model.multi_modal_projector.linear_1.weight": ("projector", "language"),
        "grounding_head.0.weight": ("head",),
    }
    assert {name: parts_of(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("rates", "lora", "expected"),
    [
        # the narrowest that is named counts
        (("language", "embeddings"), False, ["language", "embeddings", "language", "language", None]),
        (("grounding", "neck"), False, [None, None, None, None, "neck"]),
        # beside adapters the language model's own matrices stay as they are, and its tower unless it is named
        (("language",), True, [None, "language", None, "language", None]),
        (("lora", "projector"), True, [None, None, None, "projector", None]),
        (("lora", "vision"), True, [None, None, "vision", None, None]),
        (("language", "layers"), True, ["layers", "language", None, "language", None]),
    ],
)
def test_the_part_whose_rate_counts(rates: tuple[str, ...], lora: bool, expected: list[str | None]) -> None:
    names = [
        "mllm.model.language_model.layers.0.mlp.up_proj.weight",
        "mllm.model.language_model.embed_tokens.weight",
        "mllm.model.vision_tower.layer.weight",
        "mllm.model.multi_modal_projector.linear_1.weight",
        "grounding.vision_encoder.neck.convs.0.weight",
    ]
    recipe = stage_recipe("joint", learning_rates=dict.fromkeys(rates, 1.0), lora=LoraRecipe() if lora else None)
    assert [part_of(name, recipe) for name in names] == expected


def test_make_optimizer(kit: Kit) -> None:
    recipe = stage_recipe("joint", learning_rates={"backbone": 1e-4, "language": 2e-4}, weight_decay=0.1)
    optimizer = make_optimizer(recipe, kit.model, kit.heads)
    named = {id(parameter): name for name, parameter in kit.model.named_parameters()}
    seen: list[str] = []
    for group in optimizer.param_groups:
        names = [named[id(parameter)] for parameter in group["params"]]
        part = {part_of(name, recipe) for name in names}
        matrices = {parameter.ndim > 1 for parameter in group["params"]}
        assert len(part) == len(matrices) == 1
        assert group["peak"] == recipe.learning_rates[part.pop()]
        assert group["weight_decay"] == (0.1 if matrices.pop() else 0.0)
        seen += names
    assert len(seen) == len(set(seen))  # what is tied is learned once
    trained = {name for name, parameter in kit.model.named_parameters() if parameter.requires_grad}
    assert set(seen) == trained and {part_of(name, recipe) for name in trained} == {"backbone", "language"}
    assert not any(parameter.requires_grad for parameter in kit.heads.parameters())
    assert not any(name.endswith("dtype_anchor") for name in seen)


def test_nothing_to_train(kit: Kit) -> None:
    recipe = stage_recipe("joint", learning_rates={"vision": 1e-4})
    with pytest.raises(DataError, match="'joint' trains nothing: the model has no vision"):
        make_optimizer(recipe, kit.model, kit.heads)


# ---------------------------------------------------------------- moving average


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 2)
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)


def test_moving_average() -> None:
    torch.manual_seed(0)
    model = Two()
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    mean = MovingAverage(model.named_parameters(), 0.9)
    assert len(list(mean.buffers())) == 2 and not list(mean.parameters())
    expected = {name: p.double() for name, p in start.items()}
    for step in range(200):
        with torch.no_grad():
            model.inner.weight += 0.01
            model.inner.bias *= 0.99
            model.frozen += 1
        mean.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        for name, p in model.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * p.detach().double()
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    lag = (weights["inner.weight"] - expected["inner.weight"]).mean().item()
    assert lag == pytest.approx(0.01 * 0.9 / 0.1, rel=0.01)  # the mean is decay / (1 - decay) steps behind
    mean.copy_to_weights()
    torch.testing.assert_close(model.inner.weight.detach(), expected["inner.weight"].float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.inner.bias.detach(), expected["inner.bias"].float(), atol=1e-5, rtol=1e-5)
    assert torch.equal(model.frozen, weights["frozen"])  # what does not learn is no mean of anything
    assert torch.equal(start["frozen"] + 200, weights["frozen"])


def test_the_first_weights_are_soon_forgotten() -> None:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 1000.0)
    mean = MovingAverage(layer.named_parameters(), 0.999)
    nn.init.constant_(layer.weight, 1.0)
    for step in range(100):
        mean.update(step)
        share = math.prod((1 + s) / (10 + s) for s in range(step + 1))
        assert next(mean.buffers()).item() == pytest.approx(1 + 999 * share, rel=1e-5)
    assert next(mean.buffers()).item() == pytest.approx(1, abs=1e-5)
