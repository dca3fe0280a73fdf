"""Masks are only decoded for targets that are present, where presence can be told without them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from unibiomed.interpret import Interpreter, load
from unibiomed.interpret.drawing import draw_masks
from unibiomed.interpret.interpreter import NANO
from unibiomed.interpret.naming import outline_targets
from unibiomed.interpret.outlining import look_for
from unibiomed.model.modeling import UniBiomedModel


@pytest.fixture(scope="module")
def fine_model(tiny, tmp_path_factory) -> Interpreter:
    return load(tiny.build(tmp_path_factory.mktemp("models") / "fine", fine_masks=True), device="cpu")


@pytest.fixture
def fine(fine_model, script, monkeypatch):
    """A model whose decoder can stop before the masks; `script.presence` are its presence logits."""
    interpreter = Interpreter(fine_model.model, fine_model.processor, fine_model.name)
    monkeypatch.setattr(interpreter.model.config, "presence_calibration", [1.0, 0.0])
    monkeypatch.setattr(
        UniBiomedModel,
        "presence_logits",
        lambda self, maps, prompts: torch.tensor([script.presence[k] for k in range(len(prompts))]),
    )
    script.says = lambda question: "It is [SEG]."
    return interpreter


def test_only_what_is_present_is_decoded(fine, script, picture) -> None:
    script.presence = [-3.0, 4.0, -2.0]
    result = fine.interpret(picture, targets=["a", "b", "c"])
    assert script.decoded == [1] and [f.present for f in result.findings] == [False, True, False]
    assert [f.presence for f in result.findings] == [
        pytest.approx(1 / (1 + math.exp(-x)), rel=1e-5) for x in script.presence
    ]
    assert [f.mask_score is None for f in result.findings] == [True, False, True]
    script.presence = [-3.0]
    fine.interpret(picture, targets="a")
    assert script.decoded == [1]
    fine.presence_threshold = 0.0
    assert fine.interpret(picture, targets="a").findings[0].present and script.decoded == [1, 1]


def test_a_calibration_by_the_peak_of_the_mask_needs_every_mask(fine, script, picture, monkeypatch) -> None:
    script.presence = [-3.0, 4.0]
    for third, decoded in ((0.0, 1), (0.5, 2)):
        monkeypatch.setattr(fine.model.config, "presence_calibration", [1.0, 0.0, third])
        script.decoded.clear()
        fine.interpret(picture, targets=["a", "b"])
        assert script.decoded == [decoded]


def test_masks_that_are_needed_later_are_decoded_later(fine, script, picture) -> None:
    script.presence = [2.0, -2.0]
    seen = fine.encode(picture)
    outlines = look_for(fine, seen, ["a", "b"], "CT", least=math.inf)
    assert script.decoded == [] and all(outline.mask is None for outline in outlines.values())
    outlines = look_for(fine, seen, ["a", "b"], "CT", least=0.5)
    assert script.decoded == [1] and outlines["a"].mask is not None and outlines["b"].mask is None
    look_for(fine, seen, ["a", "b"], "CT", least=0.5)
    assert script.decoded == [1] and len(script.questions) == 2


def test_both_ways_to_presence_agree_in_the_shipped_model(monkeypatch) -> None:
    nano = load(NANO, device="cpu")
    assert nano.model.config.fine_masks
    monkeypatch.setattr(nano.model.config, "presence_calibration", [1.0, 0.0])
    seen = nano.encode(np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8))
    names = ["polyp", "optic disc"]
    answers = [nano.answer(seen, [f"Please segment the {name} in the image."])[0] for name in names]
    prompts = {name: answer.prompts for name, answer in zip(names, answers, strict=True)}
    quick = outline_targets(nano.model, seen.features, prompts, math.inf)
    drawn = draw_masks(nano, seen, answers, 0.0)
    monkeypatch.setattr(nano.model.config, "presence_calibration", [1.0, 0.0, 1e-12])
    whole = outline_targets(nano.model, seen.features, prompts)
    for name, one in zip(names, drawn, strict=True):
        assert quick[name].mask is None and whole[name].mask is not None
        assert quick[name].presence == pytest.approx(whole[name].presence, abs=1e-4)
        assert one.presence == pytest.approx(quick[name].presence, abs=1e-6)
