"""Masks of box prompts: what is drawn as a box, and what its losses train."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from unibiomed.data.records import Region
from unibiomed.errors import DataError
from unibiomed.findings import mask_box
from unibiomed.interpret.box_masks import prompt_box
from unibiomed.train.stage_base import BOX_JITTER
from unibiomed.train.stages import Stage
from unibiomed.train.trainer import train
from unibiomed.train.views import Viewer

from .conftest import TINY, Kit, stage_recipe, tiny_recipe

UNBOXED = {"classify": 0.0, "describe": 0.0}
LOSSES = {"outline", "outline_quality"}


@pytest.fixture(autouse=True)
def box_prompt(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """SAM2's prompt encoder is part of every model: the setting alone says whether it is trained."""
    monkeypatch.setattr(kit.model.config, "box_prompt", True)


def outlining(kit: Kit, kind: str, **more: object) -> Stage:
    values: dict[str, object] = {"batch": 4, "outline_weight": 0.5}
    if kind == "joint":
        values["tasks"] = UNBOXED
    return kit.stage(kind, **(values | more))


def tight(truth: torch.Tensor) -> tuple[float, float, float, float]:
    """Box prompt without jitter of a mask on the square."""
    box = mask_box((truth > 0.5).numpy())
    assert box is not None
    return prompt_box(box, (truth.shape[0], truth.shape[1]), truth.shape[0])


@pytest.mark.parametrize("kind", ["encoder", "joint"])
@pytest.mark.parametrize("augment", [0.0, 1.0])
def test_a_box_surrounds_the_mask_of_its_image(kit: Kit, kind: str, augment: float) -> None:
    stage = outlining(kit, kind, augment=augment)
    found, moved = 0, 0
    for seed in range(6):
        batch = stage.batch(random.Random(seed))
        number = len(batch["outline_truth"])
        assert batch["outline_box"].shape == (number, 4) if number else not len(batch["outline_box"])
        assert stage.counts(batch)["outline_truth"] == number
        rows = zip(batch["outline_box"], batch["outline_truth"], batch["outline_truth_image"], strict=True)
        for box, truth, image in rows:
            assert bool((box >= 0).all()) and bool((box <= kit.store.size - 1).all())
            exact = torch.tensor(tight(truth))
            sides = (exact[2:] - exact[:2]).repeat(2)
            assert bool(((box - exact).abs() <= 6 * BOX_JITTER * sides + 1e-4).all())
            of_image = batch["dense_truth"][batch["dense_truth_image"] == image]
            assert any(torch.equal(truth, mask) for mask in of_image)
            moved += int(not torch.equal(box, exact))
        found += number
        assert len(set(batch["outline_truth_image"].tolist())) == number, "one box an image"
    assert found >= 8 and moved >= 8


def test_boxes_without_jitter_are_those_of_inference(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unibiomed.train.stage_base.BOX_JITTER", 0.0)
    batch = outlining(kit, "encoder").batch(random.Random(0))
    assert len(batch["outline_box"])
    for box, truth in zip(batch["outline_box"], batch["outline_truth"], strict=True):
        assert box.tolist() == pytest.approx(tight(truth))


def test_boxes_of_models_that_read_whole_images(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """As published, a mask has a quarter of the square's side; the box is on the square all the same."""
    monkeypatch.setattr("unibiomed.train.stage_base.BOX_JITTER", 0.0)
    stage = outlining(kit, "encoder")
    stage.viewer = Viewer(kit.store.size, squared=False)
    record = next(r for r in kit.records if r.dataset == "abdomen")
    view = stage.viewer.view(record, random.Random(0), 0.0)
    sample = stage._outline_sample(view.record, view, random.Random(0))
    pixels = np.asarray(record.load_image())
    box = mask_box(next(r for r in record.regions if r.target == "liver").load(pixels.shape[:2]))
    assert box is not None and pixels.shape[0] != pixels.shape[1]
    assert sample["outline_truth"][0].shape == (kit.store.size // 4,) * 2
    assert sample["outline_box"][0] == pytest.approx(
        prompt_box(box, (pixels.shape[0], pixels.shape[1]), kit.store.size)
    )


def test_nothing_to_outline(kit: Kit) -> None:
    """Normal images, targets with boxes alone, images with a drawn box, and stages without the weight."""
    colon = [record for record in kit.records if record.dataset == "colon"]
    normal = [record for record in colon if not kit.store.present(record.key)]
    stage = outlining(kit, "encoder", records=normal, batch=2)
    batch = stage.batch(random.Random(0))
    assert not len(batch["outline_truth"]) and not LOSSES & stage.losses(batch).keys()
    record = next(r for r in kit.records if r.dataset == "abdomen")
    boxed = replace(record, regions=(Region("liver", None, box=(4, 4, 20, 20)),))
    view = stage.viewer.view(boxed, random.Random(0), 0.0)
    assert not stage._outline_sample(view.record, view, random.Random(0))
    drawn = {"classify": 1.0, "describe": 0.0, "segment": 0.0}
    batch = outlining(kit, "joint", tasks=drawn, records=[record]).batch(random.Random(0))
    assert not len(batch["outline_truth"])
    for kind in ("encoder", "joint"):
        stage = outlining(kit, kind, outline_weight=0.0)
        batch = stage.batch(random.Random(0))
        assert not len(batch["outline_truth"]) and not LOSSES & stage.losses(batch).keys()


@pytest.mark.parametrize("kind", ["encoder", "joint"])
def test_losses_train_the_prompt_encoder(kit: Kit, kind: str) -> None:
    stage = outlining(kit, kind)
    batch = stage.batch(random.Random(0))
    losses = stage.losses(batch)
    assert losses.keys() >= LOSSES
    assert all(bool(torch.isfinite(losses[name])) and float(losses[name].detach()) > 0 for name in LOSSES)
    (losses["outline"] + losses["outline_quality"]).backward()
    moved = {name for name, p in stage.model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    for part in ("prompt_encoder.", "mask_decoder.transformer.", "mask_decoder.iou_prediction_head."):
        assert any(name.startswith(f"grounding.{part}") for name in moved), part
    assert not [name for name in moved if name.startswith(("mllm.", "context."))]
    assert stage.heads.prompts.weight.grad is None or not bool(stage.heads.prompts.weight.grad.any())
    with torch.no_grad():
        double = outlining(kit, kind, outline_weight=1.0).losses(batch)
    for name, factor in (("outline", 2.0), ("outline_quality", 1.0)):
        torch.testing.assert_close(double[name], factor * losses[name].detach(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", ["encoder", "joint"])
def test_a_model_without_a_box_prompt_is_refused(kit: Kit, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kit.model.config, "box_prompt", False)
    with pytest.raises(DataError, match=f"stage '{kind}': outline_weight trains what 'box_prompt' adds"):
        outlining(kit, kind)


def test_a_recipe_is_refused_before_its_first_stage(data_root: Path, tmp_path: Path) -> None:
    assert not TINY.box_prompt
    stages = [*tiny_recipe().stages[:2], stage_recipe("joint", outline_weight=1.0)]
    with pytest.raises(DataError, match="stage 'joint': outline_weight") as caught:
        train(tiny_recipe(stages=stages), data_root, tmp_path / "run", progress=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "log.csv").exists() and not (tmp_path / "run" / "checkpoint").exists()
