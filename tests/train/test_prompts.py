"""The learned prompts of a model that comes without them are what its own words prompt."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from unibiomed.data import load_records
from unibiomed.interpret import Interpreter
from unibiomed.tasks import make_question
from unibiomed.train import prompts, trainer
from unibiomed.train.heads import AuxiliaryHeads
from unibiomed.train.prompts import prompts_from_words, uses_prompts
from unibiomed.train.recipe import ModelRecipe
from unibiomed.train.start import load_start
from unibiomed.train.store import ImageStore
from unibiomed.train.trainer import train

from .conftest import Kit, stage_recipe, tiny_recipe, weights


@pytest.fixture
def heads(kit: Kit) -> AuxiliaryHeads:
    """With a target that no image shows."""
    torch.manual_seed(1)
    return AuxiliaryHeads([*kit.heads.targets, "unicorn"], ["No findings"], 32, 64)


def set_from_words(kit: Kit, heads: AuxiliaryHeads, seed: int = 0) -> torch.Tensor:
    chosen = [record for record in kit.records if record.image is not None]
    prompts_from_words(kit.model, kit.processor, heads, kit.store, chosen, seed)
    return heads.prompts.weight.detach().clone()


def test_a_prompt_is_the_mean_of_what_the_words_prompt(
    kit: Kit, heads: AuxiliaryHeads, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = heads.prompts.weight.detach().clone()
    kit.model.train()
    after = set_from_words(kit, heads)
    assert kit.model.training
    moved = (after != before).any(1)
    assert {target for target, i in heads.targets.items() if moved[i]} == {"liver", "spleen", "polyp"}
    # what the model answers to a user, were "It is [SEG]." what it writes
    record = next(r for r in kit.records if any(region.target == "liver" for region in r.regions))
    interpreter = Interpreter(copy.deepcopy(kit.model).eval(), kit.processor, "kit")
    encoded = interpreter.encode(kit.store.load(record.key)[0])
    question = make_question("segment", target="liver", modality=record.modality)
    ids = kit.processor.prompt_ids(question, encoded.tokens)
    answer = kit.processor.tokenizer("It is [SEG].", add_special_tokens=False).input_ids
    out = interpreter.model(torch.tensor([ids + answer]), features=encoded.features, seg_prompts=False)
    monkeypatch.setattr(prompts, "ASKED", 1)
    prompts_from_words(kit.model, kit.processor, heads, kit.store, [record], 0)
    own = heads.prompts.weight[heads.targets["liver"]]
    torch.testing.assert_close(own, out.seg_states[0], atol=1e-5, rtol=1e-4)


def test_the_seed_says_which_images_are_asked(kit: Kit, heads: AuxiliaryHeads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "ASKED", 2)
    first = set_from_words(kit, heads)
    assert torch.equal(first, set_from_words(kit, heads))
    assert not torch.equal(first, set_from_words(kit, heads, seed=1))


@pytest.mark.parametrize(
    ("stage", "used"),
    [
        (stage_recipe("encoder"), True),
        (stage_recipe("joint"), False),
        (stage_recipe("joint", distill_weight=1.0), True),
        (stage_recipe("joint", prompted=1), True),
        (stage_recipe("text"), True),
        (stage_recipe("text", distill_weight=0.0), False),
    ],
)
def test_stages_that_use_prompts(stage: Any, used: bool) -> None:
    assert uses_prompts([replace(stage)]) == used


@pytest.mark.usefixtures("no_plot")
def test_a_training_that_goes_on_from_a_model_has_its_prompts(
    whole_run: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = stage_recipe("encoder", steps=1, learning_rates={"fine": 1e-3})
    recipe = replace(tiny_recipe(), model=ModelRecipe(start=str(whole_run / "model")), stages=[stage])
    out = tmp_path / "again"
    train(recipe, data_root, out, progress=False)
    model, processor = load_start(str(whole_run / "model"))
    seen = [record for record in load_records(data_root) if record.split == "train" and record.image is not None]
    wanted = AuxiliaryHeads.for_records(seen, 32, 64)
    prompts_from_words(model, processor, wanted, ImageStore(seen, 64, out / "cache"), seen, recipe.seed)
    torch.testing.assert_close(weights(out)["h.prompts.weight"], wanted.prompts.weight.detach())
    # going on from a checkpoint, prompts are those of the checkpoint
    monkeypatch.setattr(trainer, "prompts_from_words", lambda *_: pytest.fail("asked again"))
    train(recipe, data_root, out, progress=False)
