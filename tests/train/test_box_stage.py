"""The stage that trains the box decoder from LiteMedSAM, here a random one."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from unibiomed.errors import DataError, ModelError
from unibiomed.model.lite_medsam import LiteMedSam
from unibiomed.model.tiny_vit import TinyVit
from unibiomed.train.box_stage import BoxStage, feature_distance
from unibiomed.train.heldout import held_out_dice
from unibiomed.train.recipe import Recipe, read_recipe
from unibiomed.train.stages import STAGES
from unibiomed.train.trainer import train

from .conftest import TINY, Kit, logged, recipe_text, stage_recipe, tiny_recipe

VIEWS = 3
BOXES: dict[str, object] = {
    "distill_weight": 1.0,
    "outline_weight": 1.0,
    "teacher_images": VIEWS,
    "dense_weight": 0.0,
    "presence_weight": 0.0,
    "label_weight": 0.0,
    "learning_rates": {"box_neck": 1e-3, "box_decoder": 1e-4},
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in a file that is read as the released one."""
    torch.manual_seed(4)
    path = tmp_path_factory.mktemp("teacher") / "lite_medsam.pth"
    torch.save(LiteMedSam().state_dict(), path)
    return path


@pytest.fixture(autouse=True)
def own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file has this package's names; the released ones are tested elsewhere."""
    monkeypatch.setattr("unibiomed.model.lite_medsam.published_name", lambda name: name)


@pytest.fixture
def quick_teacher(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """An encoder that takes no time; what it was shown."""
    seen: list[torch.Tensor] = []

    def look(self: TinyVit, pixels: torch.Tensor) -> torch.Tensor:
        seen.append(pixels)
        small = torch.nn.functional.avg_pool2d(pixels.float(), 4)
        return small.mean(1, keepdim=True).expand(-1, 256, -1, -1) * torch.linspace(-1, 1, 256).view(1, -1, 1, 1)

    monkeypatch.setattr(TinyVit, "forward", look)
    return seen


def boxes_recipe(weights: Path, stages: list[str] | None = None, **more: object) -> Recipe:
    chosen = [stage_recipe(kind, **(BOXES if kind == "boxes" else {})) for kind in stages or ["boxes"]]
    return tiny_recipe(stages=chosen, model=replace(TINY, box_teacher=str(weights)), evaluate=0, **more)


@pytest.fixture
def stage(kit: Kit, weights: Path, quick_teacher: list[torch.Tensor], tmp_path: Path) -> BoxStage:
    model = copy.deepcopy(kit.model)
    torch.manual_seed(4)
    model.add_box_decoder(LiteMedSam(), seed=1)
    own = Kit(kit.records, kit.processor, model, kit.heads, kit.store)
    made = own.stage("boxes", **BOXES)
    assert isinstance(made, BoxStage) and STAGES["boxes"] is BoxStage
    made.prepare(boxes_recipe(weights), tmp_path, "data", False)
    return made


def test_the_teacher_sees_each_view_once(stage: BoxStage, quick_teacher: list[torch.Tensor], tmp_path: Path) -> None:
    assert len(quick_teacher) == VIEWS
    files = sorted(tmp_path.glob("teacher_*/*"))
    assert [path.name for path in files] == [f"{i}.npy" for i in range(VIEWS)]
    files[1].unlink()
    stage.prepare(boxes_recipe(stage.features.weights), tmp_path, "data", False)
    assert len(quick_teacher) == VIEWS + 1 and torch.equal(quick_teacher[-1], quick_teacher[1])
    # other views, of other data or numbers
    stage.prepare(boxes_recipe(stage.features.weights, seed=7), tmp_path, "data", False)
    stage.prepare(boxes_recipe(stage.features.weights), tmp_path, "other data", False)
    assert len(quick_teacher) == 3 * VIEWS + 1 and len(list(tmp_path.iterdir())) == 3


def test_features_belong_to_the_image_of_the_sample(stage: BoxStage) -> None:
    numbers = set()
    for seed in range(8):
        sample = stage.sample(random.Random(seed))
        number = random.Random(seed).randrange(VIEWS)
        numbers.add(number)
        image = stage.processor.image(stage._view(number).image).grounding_pixels
        assert torch.equal(sample["inputs"].grounding_pixels, image)
        assert torch.equal(sample["teacher"], stage.features.load(number))
        assert len(sample["outline_box"]) == len(sample["outline_truth"]) <= stage.recipe.turns
    assert numbers == set(range(VIEWS))


def test_losses_train_neck_and_mask_decoder_alone(stage: BoxStage) -> None:
    batch = next(b for b in (stage.batch(random.Random(i)) for i in range(20)) if len(b["outline_truth"]))
    losses = stage.losses(batch)
    assert losses.keys() == {"distill", "outline", "outline_quality"}
    assert all(bool(torch.isfinite(loss)) and float(loss.detach()) > 0 for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    moved = {name for name, p in stage.model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert moved and all(name.startswith(("box_decoder.neck.", "box_decoder.mask_decoder.")) for name in moved)
    for part in ("neck.lateral", "neck.fine", "neck.last", "mask_decoder.transformer", "mask_decoder.iou_prediction"):
        assert any(name.startswith(f"box_decoder.{part}") for name in moved), part


def test_a_step_in_parts_is_the_step(stage: BoxStage) -> None:
    samples = [stage.sample(random.Random(seed)) for seed in range(4)]
    whole = stage.collate(samples)
    counts = stage.counts(whole)
    parts = [stage.losses(stage.collate(samples[i : i + 2]), counts) for i in (0, 2)]
    for name, loss in stage.losses(whole).items():
        added = sum(float(part[name].detach()) for part in parts if name in part)
        assert added == pytest.approx(float(loss.detach()), rel=2e-2), name


def test_distance_of_features() -> None:
    torch.manual_seed(0)
    a = torch.randn(2, 256, 4, 4)
    assert feature_distance(a, a).tolist() == pytest.approx([0, 0], abs=1e-5)
    assert feature_distance(2 * a, a).tolist() == pytest.approx(a.square().mean((1, 2, 3)).div(0.02).tolist(), rel=1e-4)
    assert feature_distance(-a, a)[0] > 2


def test_masks_of_true_boxes_are_measured(stage: BoxStage, records: list) -> None:
    held_out = [r for r in records if r.split == "val" and r.image is not None]
    scores = held_out_dice(stage.model, stage.heads, stage.processor, held_out, 2, "boxes")
    assert scores.keys() == {"liver", "polyp"} and all(0 <= score <= 1 for score in scores.values())


def test_a_recipe_goes_on_from_before_it_had_a_box_decoder(
    data_root: Path, weights: Path, quick_teacher: list[torch.Tensor], tmp_path: Path, no_plot: None
) -> None:
    out = tmp_path / "run"
    before = tiny_recipe(stages=[stage_recipe("encoder")], evaluate=0)
    train(before, data_root, out, progress=False)
    old = load_file(out / "checkpoint" / "model.safetensors")
    assert not any(name.startswith("box_decoder.") for name in old)
    train(boxes_recipe(weights, ["encoder", "boxes"]), data_root, out, progress=False)
    assert logged(out) == [(kind, str(step)) for kind in ("encoder", "boxes") for step in range(2)]
    new = load_file(out / "checkpoint" / "model.safetensors")
    assert old.keys() == {name for name in new if not name.startswith("box_decoder.")}
    assert all(torch.equal(value, new[name]) for name, value in old.items())
    published = {"box_decoder.neck.last_norm.weight", "box_decoder.mask_decoder.iou_token.weight"}
    exported = load_file(out / "model" / "model.safetensors")
    assert published <= new.keys() and published <= exported.keys()
    # half of a box decoder is a broken checkpoint
    part = {name: value for name, value in new.items() if name not in published}
    save_file(part, out / "checkpoint" / "model.safetensors")
    with pytest.raises(DataError, match="made by another recipe"):
        train(boxes_recipe(weights, ["encoder", "boxes"]), data_root, out, progress=False)


def test_what_is_wrong_with_a_recipe(tmp_path: Path, weights: Path, data_root: Path) -> None:
    path = tmp_path / "recipe.yaml"
    for recipe, says in (
        (replace(boxes_recipe(weights), model=TINY), "stage 'boxes' learns from LiteMedSAM: give box_teacher"),
        (boxes_recipe(weights, ["encoder", "boxes"]), None),
        (tiny_recipe(stages=[stage_recipe("boxes", **(BOXES | {"teacher_images": 0}))]), "needs teacher_images"),
    ):
        path.write_text(recipe_text(recipe))
        if says is None:
            assert read_recipe(path).stages[1].kind == "boxes"
        else:
            with pytest.raises(DataError, match=says):
                read_recipe(path)
    gone = boxes_recipe(tmp_path / "gone.pth")
    with pytest.raises(ModelError, match="there is no file"):
        train(gone, data_root, tmp_path / "run", progress=False)


def test_views_are_the_same_for_pixels_from_files(stage: BoxStage) -> None:
    """The store holds what the files hold: features computed without it would be the same."""
    view = stage._view(0)
    stage.viewer.store = None
    assert np.array_equal(stage._view(0).image, view.image)
