"""Random views: image and masks move together, and left stays left where a name says so."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unibiomed.data.records import REGION_TEXT, QuestionAnswer, Record, Region
from unibiomed.images.modality import MODALITIES
from unibiomed.train.appearance import _colour_matrix
from unibiomed.train.augment import augment

SIDE = 96
RECORD = Record(
    key="set/one", image=Path("one.png"), dataset="set", modality="CT", site="abdomen", group="one", split="train"
)
UPRIGHT = ("CT", "MRI", "X-ray", "PET")
MIRRORED = ("ultrasound", "fundus", "OCT")
TURNABLE = ("pathology", "dermoscopy", "endoscopy")


def squares(*corners: tuple[int, int]) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """White squares of 20 pixels on black, each with its mask."""
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    masks = {}
    for number, (row, column) in enumerate(corners):
        masks[number] = np.zeros((SIDE, SIDE), np.uint8)
        masks[number][row : row + 20, column : column + 20] = 255
        pixels[row : row + 20, column : column + 20] = 255
    return pixels, masks


def centre(mask: torch.Tensor) -> tuple[float, float]:
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    return float((mask * y).sum() / mask.sum()), float((mask * x).sum() / mask.sum())


def views(modality: str, count: int, questions: bool = False, **more: Any) -> list[tuple[float, float, float, float]]:
    """(left's column, right's column, top's row, bottom's row) of targets on four sides, in many whole views."""
    record = replace(RECORD, modality=modality, **more)
    if questions:
        record = replace(record, questions=(QuestionAnswer("Which side?", "left", "open", "1"),))
    pixels, masks = squares((38, 15), (38, 61), (15, 38), (61, 38))
    found = []
    for seed in range(3 * count):
        _, moved = augment(record, pixels, masks, random.Random(seed))
        if len(found) == count or min(float(mask.sum()) for mask in moved.values()) < 300:
            continue  # seen closer, some targets lie outside
        found.append((centre(moved[0])[1], centre(moved[1])[1], centre(moved[2])[0], centre(moved[3])[0]))
    return found


@pytest.mark.parametrize("modality", MODALITIES)
def test_strength_0_changes_nothing(modality: str) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    mask = rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    image, masks = augment(replace(RECORD, modality=modality), pixels, {3: mask}, random.Random(1), strength=0)
    assert image.shape == (3, SIDE, SIDE) and image.dtype == torch.float32
    assert torch.equal((image * 255).round().byte().permute(1, 2, 0), torch.from_numpy(pixels))
    assert list(masks) == [3]
    assert torch.equal((masks[3] * 255).round().byte(), torch.from_numpy(mask))


@pytest.mark.parametrize("modality", ["CT", "fundus", "pathology"])
def test_image_and_mask_move_together(modality: str) -> None:
    pixels, masks = squares((30, 45))
    record = replace(RECORD, modality=modality)
    places = set()
    for seed in range(60):
        image, moved = augment(record, pixels, masks, random.Random(seed))
        grey = image.mean(0)
        bright = grey > (grey.quantile(0.05) + grey.quantile(0.999)) / 2
        inside = moved[0] > 0.5
        if inside.sum() < 30:  # seen closer, the square may lie outside of the view
            continue
        iou = (bright & inside).sum() / (bright | inside).sum()
        assert iou > 0.8, f"seed {seed}"
        places.add(tuple(round(v) for v in centre(moved[0])))
    assert len(places) > 30


@pytest.mark.parametrize("modality", UPRIGHT)
def test_left_stays_left_and_up_stays_up(modality: str) -> None:
    found = views(modality, 60)
    assert all(left < right and top < bottom for left, right, top, bottom in found)
    assert len({round(left, 1) for left, *_ in found}) > 10


@pytest.mark.parametrize("modality", MIRRORED)
def test_mirrored_but_never_upside_down(modality: str) -> None:
    found = views(modality, 60)
    mirrored = sum(left > right for left, right, *_ in found)
    assert 15 < mirrored < 45
    assert all(top < bottom for *_, top, bottom in found)


@pytest.mark.parametrize("modality", TURNABLE)
def test_turned_every_way(modality: str) -> None:
    found = views(modality, 60)

    def way(difference: float) -> int:
        return 0 if abs(difference) < 20 else 1 if difference > 0 else -1

    ways = {(way(right - left), way(bottom - top)) for left, right, top, bottom in found}
    assert {(1, 1), (-1, -1), (-1, 1), (1, -1)} <= ways  # upright, half a turn, and each mirrored
    assert (0, 0) in ways  # quarter turns


@pytest.mark.parametrize("modality", MIRRORED)
def test_an_expert_may_have_named_a_side(modality: str) -> None:
    assert all(left < right for left, right, *_ in views(modality, 40, questions=True))


@pytest.mark.parametrize("modality", [*MIRRORED, *TURNABLE])
@pytest.mark.parametrize("where", ["image", "region"])
def test_a_text_tells_of_the_image_as_it_was(modality: str, where: str) -> None:
    region = Region("lesion", None, attributes={REGION_TEXT: "On the left, at the top."})
    more = {"text": "A lesion on the left, at the top."} if where == "image" else {"regions": (region,)}
    found = views(modality, 40, **more)
    assert len(found) == 40 and all(left < right and top < bottom for left, right, top, bottom in found)


@pytest.mark.parametrize("modality", ["MRI", "dermoscopy"])
def test_the_same_chance_gives_the_same_view(modality: str) -> None:
    record = replace(RECORD, modality=modality)
    pixels, masks = squares((10, 50))
    pixels.setflags(write=False)  # as from the store
    outcomes = []
    for seed in range(20):
        rngs = [random.Random(seed), random.Random(seed)]
        torch.manual_seed(seed)
        first, first_masks = augment(record, pixels, masks, rngs[0])
        torch.manual_seed(seed + 1)  # chance comes from `rng` alone
        second, second_masks = augment(record, pixels, masks, rngs[1])
        assert torch.equal(first, second) and torch.equal(first_masks[0], second_masks[0])
        assert rngs[0].random() == rngs[1].random()
        assert first.is_contiguous() and first.min() >= 0 and first.max() <= 1
        assert first_masks[0].min() >= 0 and first_masks[0].max() <= 1
        outcomes.append(first)
    assert not any(torch.equal(outcomes[0], other) for other in outcomes[1:])


def test_an_image_without_masks() -> None:
    pixels, _ = squares((10, 50))
    image, masks = augment(RECORD, pixels, {}, random.Random(0))
    assert image.shape == (3, SIDE, SIDE) and masks == {}


@pytest.mark.parametrize("modality", ["CT", "pathology", "fundus"])
@pytest.mark.parametrize("size", [48, 64, 96])
def test_a_view_of_another_size(modality: str, size: int) -> None:
    pixels, masks = squares((30, 45))
    record = replace(RECORD, modality=modality)
    for seed in range(20):
        image, moved = augment(record, pixels, masks, random.Random(seed), size=size)
        assert image.shape == (3, size, size) and moved[0].shape == (size, size)
        assert float(image.min()) >= 0 and float(image.max()) <= 1
    still, mask = augment(record, pixels, masks, random.Random(0), size=size, strength=0)
    # an area keeps its share, thin or thick
    assert float(mask[0].mean()) == pytest.approx(20 * 20 / SIDE**2, rel=0.1)
    assert still.shape == (3, size, size)


def test_only_pictures_without_a_frame_of_reference_are_seen_closer() -> None:
    pixels, masks = squares((30, 45))
    areas = {}
    for modality in ("pathology", "CT"):
        record = replace(RECORD, modality=modality)
        views = [augment(record, pixels, masks, random.Random(seed))[1][0] for seed in range(200)]
        areas[modality] = sorted(float(view.sum()) / 400 for view in views)
    assert areas["CT"][0] > 0.4 and areas["CT"][-1] < 2.5
    assert areas["pathology"][0] < 0.2 and areas["pathology"][-1] > 2.5


# ---------------------------------------------------------------- colours


def test_a_colour_matrix_turns_and_stretches_about_grey() -> None:
    grey = torch.full((3, 3), 1 / 3)
    saturations, gains = [], []
    for seed in range(400):
        matrix = _colour_matrix(random.Random(seed), 1.0)
        own = matrix.sum(1)  # what white becomes
        assert bool((own > 0).all())
        gains += own.log2().tolist()
        matrix = matrix / own[:, None]
        # without the channels' weights the mean of the channels stays, whatever the colour
        torch.testing.assert_close(matrix.sum(0), torch.ones(3))
        # and what is left beside grey is one length in all directions: a turn, stretched
        squared = (matrix - grey).T @ (matrix - grey)
        saturation = float(squared.trace() / 2)
        torch.testing.assert_close(squared, saturation * (torch.eye(3) - grey), atol=1e-5, rtol=1e-4)
        saturations.append(saturation**0.5)
    assert 20 < sum(s < 1e-3 for s in saturations) < 60  # some pictures have no colour at all
    assert min(s for s in saturations if s > 1e-3) < 0.6 and max(saturations) > 1.5
    assert np.mean(gains) == pytest.approx(0, abs=0.02) and np.std(gains) == pytest.approx(0.15, abs=0.02)


def test_a_colour_matrix_of_no_strength_changes_nothing() -> None:
    for seed in range(20):
        torch.testing.assert_close(_colour_matrix(random.Random(seed), 0.0), torch.eye(3))


@pytest.mark.parametrize("modality", ["CT", "ultrasound", "fundus", "endoscopy", "dermoscopy"])
def test_only_what_has_colours_is_recoloured(modality: str) -> None:
    pixels = np.full((SIDE, SIDE, 3), 128, np.uint8)
    tinted = 0
    for seed in range(200):
        image, _ = augment(replace(RECORD, modality=modality), pixels, {}, random.Random(seed))
        middle = image[:, SIDE // 2 - 20 : SIDE // 2 + 20, SIDE // 2 - 20 : SIDE // 2 + 20].flatten(1).mean(1)
        tinted += float(middle.max() - middle.min()) > 0.005  # more than noise
    assert 90 < tinted < 150 if modality in ("fundus", "endoscopy") else tinted == 0
