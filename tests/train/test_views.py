"""What a stage sees of an image: boxes follow the view, whole images keep their shape, and no box teaches a mask."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unibiomed.data import Record
from unibiomed.data.records import Region
from unibiomed.model.processing import IMAGENET_MEAN, IMAGENET_STD
from unibiomed.train import augment
from unibiomed.train.squares import read_square
from unibiomed.train.store import ImageStore
from unibiomed.train.views import Viewer

from .conftest import TINY, Kit, blob, save_image

SIZE = 64
BOX = (30, 20, 60, 50)


@pytest.fixture(scope="module")
def boxed(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """An endoscopy of 80 × 120 pixels: a lesion whose box is white, a polyp with a mask, and no tool."""
    folder = tmp_path_factory.mktemp("boxed")
    pixels = np.random.default_rng(0).integers(0, 60, (80, 120, 3)).astype(np.uint8)
    x0, y0, x1, y1 = BOX
    pixels[y0:y1, x0:x1] = 255
    save_image(folder / "image.png", pixels)
    save_image(folder / "mask.png", blob(80, 120, 60, 95, 14))
    return Record(
        key="colon/boxed",
        image=folder / "image.png",
        dataset="colon",
        modality="endoscopy",
        site="colon",
        group="boxed",
        split="train",
        regions=(
            Region("lesion", None, abnormal=True, box=BOX),
            Region("polyp", folder / "mask.png", abnormal=True),
            Region("tool", None),
        ),
        label="Polyp",
        label_needs_finding=True,
        abnormal_known=True,
    )


def bright_box(image: np.ndarray) -> tuple[int, int, int, int]:
    """Box of what is brighter than everything else."""
    bright = image.min(2) > 120
    rows, columns = bright.any(1).nonzero()[0], bright.any(0).nonzero()[0]
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@pytest.mark.parametrize("stored", [True, False])
def test_boxes_follow_the_view(boxed: Record, tmp_path: Path, stored: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # nothing else in the views is bright
    monkeypatch.setattr(augment, "_fill", lambda image, rng: torch.zeros(len(image), 1, 1))
    monkeypatch.setattr(augment, "draw_overlays", lambda modality, image, masks, rng, strength: image)
    viewer = Viewer(SIZE, ImageStore([boxed], SIZE, tmp_path) if stored else None)
    still = viewer.view(boxed, random.Random(0), 0.0)
    assert still.image.shape == (SIZE, SIZE, 3) and still.side == SIZE
    assert still.record.regions[0].box == (16, 16, 32, 40)  # 64 / 120 and 64 / 80 of the first
    assert set(still.masks) == {1}
    gone = 0
    boxes = set()
    for seed in range(60):
        view = viewer.view(boxed, random.Random(seed), 1.0)
        targets = [region.target for region in view.record.regions]
        assert targets in (["lesion", "polyp", "tool"], ["polyp", "tool"])
        polyp = targets.index("polyp")
        assert set(view.masks) <= {polyp}  # the filled box is no mask of anything
        if targets[0] != "lesion":
            gone += 1
            continue
        box = view.record.regions[0].box
        assert box is not None
        boxes.add(box)
        x0, y0, x1, y1 = box
        assert 0 <= x0 < x1 <= SIZE and 0 <= y0 < y1 <= SIZE
        if (view.image.min(2) > 120).sum() > 60:
            assert np.abs(np.subtract(box, bright_box(view.image))).max() <= 2
    assert len(boxes) > 20 and gone < 10


def test_a_box_outside_of_the_view_is_not_known_to_be_absent(boxed: Record) -> None:
    """A region that has neither mask nor box is one that is known to be absent: it must not look like that."""
    corner = replace(boxed, regions=(Region("lesion", None, box=(0, 0, 5, 4)), *boxed.regions[1:]))
    viewer = Viewer(SIZE)
    gone = 0
    for seed in range(80):
        view = viewer.view(corner, random.Random(seed), 2.0)
        assert not any(region.target == "lesion" and region.box is None for region in view.record.regions)
        names = [region.target for region in view.record.regions]
        if "lesion" not in names:
            gone += 1
            # the numbers of the others moved with them
            polyp = names.index("polyp")
            assert view.has(polyp) == bool(view.solid(polyp).any())
            assert not view.has(names.index("tool")) and not view.mask(names.index("tool")).any()
    assert 10 < gone < 80


def test_a_box_smaller_than_a_pixel_is_still_there(boxed: Record) -> None:
    tiny = replace(boxed, regions=(Region("lesion", None, box=(50, 40, 51, 41)), *boxed.regions[1:]))
    view = Viewer(32).view(tiny, random.Random(0), 0.0)
    assert view.record.regions[0].box == (13, 16, 14, 17)


@settings(max_examples=60)
@given(data=st.data())
def test_any_box_without_a_random_view(boxed: Record, data: st.DataObject) -> None:
    x0, y0 = data.draw(st.integers(0, 119)), data.draw(st.integers(0, 79))
    x1, y1 = data.draw(st.integers(x0 + 1, 120)), data.draw(st.integers(y0 + 1, 80))
    record = replace(boxed, regions=(Region("lesion", None, box=(x0, y0, x1, y1)),))
    view = Viewer(SIZE).view(record, random.Random(0), 0.0)
    exact = (x0 * SIZE / 120, y0 * SIZE / 80, x1 * SIZE / 120, y1 * SIZE / 80)
    assert view.record.regions[0].box is not None
    assert np.abs(np.subtract(view.record.regions[0].box, exact)).max() <= 1
    assert view.masks == {}


# ---------------------------------------------------------------- whole images


def test_whole_images(boxed: Record) -> None:
    """As published: the image as it is, masks at a quarter of SAM2's square, the same at any strength."""
    viewer = Viewer(128, squared=False)
    view = viewer.view(boxed, random.Random(0), 1.0)
    assert np.array_equal(view.image, boxed.load_image())
    assert view.record is boxed and view.side == 32
    assert set(view.masks) == {1} and view.mask(1).shape == view.mask(0).shape == (32, 32)
    assert set(view.mask(1).unique().tolist()) == {0.0, 1.0}
    truth = boxed.regions[1].load((80, 120))
    rows, columns = np.arange(32) * 80 // 32, np.arange(32) * 120 // 32
    assert np.array_equal(view.mask(1).numpy() > 0.5, truth[np.ix_(rows, columns)])
    assert np.array_equal(view.solid(1), truth)
    assert not view.solid(0).any() and not view.has(0) and view.has(1)


def test_a_target_too_small_for_the_masks_is_still_there(boxed: Record, tmp_path: Path) -> None:
    dot = np.zeros((80, 120), np.uint8)
    dot[41, 61] = 255
    save_image(tmp_path / "dot.png", dot)
    record = replace(boxed, regions=(Region("polyp", tmp_path / "dot.png", abnormal=True),))
    view = Viewer(32, squared=False).view(record, random.Random(0), 0.0)
    assert not view.mask(0).any() and view.has(0) and view.solid(0).sum() == 1


def test_squares_of_files_and_of_the_store_are_the_same(kit: Kit) -> None:
    for key in kit.store.row:
        record = kit.store.records[kit.store.row[key]]
        pixels, masks = read_square(record, kit.store.size)
        stored, stored_masks = kit.store.load(key)
        assert np.array_equal(pixels, stored) and masks.keys() == stored_masks.keys()
        assert all(np.array_equal(masks[j], stored_masks[j]) for j in masks)


# ---------------------------------------------------------------- what boxes teach


@pytest.fixture
def box_kit(kit: Kit, boxed: Record) -> Kit:
    """Another image outlines a lesion: it is a target that has heads of its own."""
    outlined = replace(boxed, regions=(replace(boxed.regions[1], target="lesion"),))
    heads = type(kit.heads).for_records([*kit.records, boxed, outlined], TINY.width, TINY.hidden_size)
    return replace(kit, heads=heads)


@pytest.mark.parametrize("kind", ["encoder", "joint"])
def test_a_box_never_teaches_a_mask(box_kit: Kit, boxed: Record, kind: str) -> None:
    stage = box_kit.stage(kind, records=[boxed], batch=4, turns=3, prompted=3, augment=1.5)
    lesion = box_kit.heads.targets["lesion"]
    labels = set()
    for seed in range(25):
        batch = stage.batch(random.Random(seed))
        for name in ("target", "dense_target", "prompt_target", "seg_target"):
            assert lesion not in batch[name].tolist(), name
        labels |= set(batch["label"].tolist())
    # where the polyp lies outside of the view, the lesion is a finding still
    assert box_kit.heads.labels["Polyp"] in labels
    counts = stage.counts(batch)
    losses = stage.losses(batch)
    assert counts["dense_truth"] == len(batch["dense_target"])
    assert all(math.isfinite(float(loss.detach())) for loss in losses.values())


def test_boxes_alone_are_findings_of_the_label(box_kit: Kit, boxed: Record) -> None:
    only = replace(boxed, regions=boxed.regions[:1])
    stage = box_kit.stage("joint", records=[only], batch=8, augment=0.0)
    batch = stage.batch(random.Random(0))
    assert set(batch["label"].tolist()) == {box_kit.heads.labels["Polyp"]}
    assert len(batch["dense_truth"]) == 0
    assert "dense" not in stage.losses(batch)


def test_a_box_is_drawn_where_the_view_shows_it(box_kit: Kit, boxed: Record) -> None:
    tasks = {"classify": 0.5, "describe": 0.5}
    only = replace(boxed, regions=boxed.regions[:1])
    stage = box_kit.stage("joint", records=[only], batch=2, augment=1.0, tasks=tasks)
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    drawn = 0
    for seed in range(12):
        batch = stage.batch(random.Random(seed))
        for image in ((batch["grounding_pixels"] * std + mean) * 255).round():
            green = (image == torch.tensor([0.0, 255, 0]).view(3, 1, 1)).all(0)
            if not green.any():
                continue
            rows, columns = green.any(1).nonzero()[:, 0], green.any(0).nonzero()[:, 0]
            inside = image[:, rows[0] + 2 : rows[-1] - 1, columns[0] + 2 : columns[-1] - 1]
            if inside.numel() > 300:
                drawn += 1
                assert inside.min(0).values.median() > 100  # the white of the lesion
    assert drawn > 8
