"""Targets of which the presence score alone is trained."""

from __future__ import annotations

import copy
import random
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from unibiomed.errors import DataError
from unibiomed.train.heads import AuxiliaryHeads
from unibiomed.train.stages import EncoderStage

from .conftest import TINY, Kit

TARGETS = ["liver", "optic disc", "polyp", "retinal vessel", "skin lesion", "spleen"]
"""Those of the made-up images, and others that neither a CT slice nor a colonoscopy can show."""


@pytest.fixture
def wide(kit: Kit) -> Kit:
    """The kit with heads for `TARGETS`."""
    torch.manual_seed(2)
    return replace(kit, heads=AuxiliaryHeads(TARGETS, ["No findings", "Polyp"], TINY.width, TINY.hidden_size))


def encoder(kit: Kit, **more: object) -> EncoderStage:
    stage = kit.stage("encoder", **more)
    assert isinstance(stage, EncoderStage)
    return stage


@pytest.mark.parametrize("wanted", [1, 2, 3, 4, 9])
def test_own_targets_first_then_absent_ones(wide: Kit, wanted: int) -> None:
    stage = encoder(wide, presence_targets=wanted, augment=0.0)
    kinds, truths = set(), set()
    for seed in range(12):
        sample = stage.sample(random.Random(seed))
        own = {i for i, belongs in enumerate(sample["context"]) if belongs == 1.0}
        foreign = {i for i, belongs in enumerate(sample["context"]) if belongs == 0.0}
        judged = sample["judged"]
        assert len({target for target, _ in judged}) == len(judged), "each target once"
        first = min(len(own), wanted // 2)
        assert {target for target, _ in judged[:first]} <= own
        assert {target for target, _ in judged[first:]} <= foreign
        assert len(judged) == first + min(len(foreign), wanted - first)
        shown = {i for i, mask in zip(sample["dense_target"], sample["dense_truth"], strict=True) if mask.any()}
        assert all(there == (target in shown) for target, there in judged)
        kinds.add(frozenset(own))
        truths |= {there for _, there in judged[:first]}
    assert len(kinds) == 2, "both data sets were drawn"
    assert truths == ({True, False} if wanted > 1 else set())


def test_rows_of_a_batch(wide: Kit) -> None:
    stage = encoder(wide, presence_targets=4)
    samples = [stage.sample(random.Random(seed)) for seed in range(5)]
    batch = stage.collate(samples)
    assert batch["judged"].shape == (sum(len(s["judged"]) for s in samples), 3)
    rows = [(i, target, int(there)) for i, s in enumerate(samples) for target, there in s["judged"]]
    assert batch["judged"].tolist() == [list(row) for row in rows]
    assert stage.counts(batch)["judged"] == len(rows)


def test_none_are_asked_for_without_the_setting(wide: Kit) -> None:
    stage = encoder(wide, batch=3)
    batch = stage.batch(random.Random(0))
    assert batch["judged"].shape == (0, 3)
    assert "judged" not in stage.losses(batch)


def test_the_loss_is_the_cross_entropy_of_the_presence_score(wide: Kit) -> None:
    stage = encoder(wide, batch=3, presence_targets=4, presence_weight=0.7)
    batch = stage.batch(random.Random(1))
    loss = stage.losses(batch)["judged"]
    image, target, there = batch["judged"].unbind(1)
    with torch.no_grad():
        maps = stage.model.encode_image(batch["grounding_pixels"], text=False).maps
        masks = stage.model.decode_masks(maps, stage.heads.prompts(target), image)
    expected = 0.7 * F.binary_cross_entropy_with_logits(masks.presence_logits, there.float())
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-4, atol=1e-6)
    # a part of a step is divided by the count of the whole step
    half = stage.losses(batch, stage.counts(batch) | {"judged": 2.0 * len(batch["judged"])})["judged"]
    torch.testing.assert_close(half.detach(), expected / 2, rtol=1e-4, atol=1e-6)


def test_scores_decoder_and_prompts_are_trained(wide: Kit) -> None:
    stage = encoder(wide, batch=3, presence_targets=4)
    stage.losses(stage.batch(random.Random(1)))["judged"].backward()
    moved = {name for name, p in stage.model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    decoder = "grounding.mask_decoder."
    for part in (f"{decoder}pred_obj_score_head.", f"{decoder}transformer.", "context.", "grounding.vision_encoder."):
        assert any(name.startswith(part) for name in moved), part
    masks = ("upscale", "output_hypernetworks", "iou_prediction", "conv_s")
    assert not [name for name in moved if name.startswith(("fine.", *(decoder + part for part in masks)))]
    asked = stage.heads.prompts.weight.grad
    assert asked is not None and bool(asked.any())


def test_the_loss_falls(wide: Kit) -> None:
    stage = encoder(replace(wide, model=copy.deepcopy(wide.model)), batch=3, presence_targets=4)
    batch = stage.batch(random.Random(1))
    learned = [p for p in (*stage.model.parameters(), *stage.heads.parameters()) if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=1e-2)
    seen = []
    for _ in range(10):
        loss = stage.losses(batch)["judged"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(float(loss.detach()))
    assert seen[-1] < 0.8 * seen[0], seen


def test_a_model_that_cannot_judge_presence_alone_is_refused(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kit.model.config, "fine_masks", False)
    with pytest.raises(DataError, match="stage 'encoder': presence_targets trains what 'fine_masks' adds"):
        kit.stage("encoder", presence_targets=2)
