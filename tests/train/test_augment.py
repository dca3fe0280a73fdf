"""Random views: image and masks move together, and left stays left where a name says so."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unibiomed.data.records import REGION_TEXT, QuestionAnswer, Record, Region
from unibiomed.images.modality import MODALITIES
from unibiomed.train.appearance import (
    GREY,
    _colour_matrix,
    _gaussian,
    _motion,
    _resample,
    degrade,
    jpeg,
    recolour,
    shade,
    tone,
)
from unibiomed.train.augment import SCOPES, _Affine, _clear_slivers, _geometry, augment
from unibiomed.train.overlays import draw_overlays

SIDE = 96
RECORD = Record(
    key="set/one", image=Path("one.png"), dataset="set", modality="CT", site="abdomen", group="one", split="train"
)
SLICES = ("CT", "MRI", "PET")
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
    found: list[tuple[float, float, float, float]] = []
    for seed in range(8 * count):
        _, moved = augment(record, pixels, masks, random.Random(seed))
        if len(found) == count:
            break
        if min(float(mask.sum()) for mask in moved.values()) < 300:
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


@given(seed=st.integers(0, 2**32), modality=st.sampled_from(MODALITIES), size=st.sampled_from([SIDE, 64, 130]))
@settings(max_examples=150, deadline=None)
def test_image_and_mask_move_together(seed: int, modality: str, size: int) -> None:
    rng = random.Random(seed)
    corner = rng.randrange(SIDE - 30), rng.randrange(SIDE - 45)
    truth = torch.zeros(1, SIDE, SIDE)
    truth[0, corner[0] : corner[0] + 30, corner[1] : corner[1] + 45] = 1
    truth[0, corner[0] : corner[0] + 15, corner[1] : corner[1] + 20] = 0  # no symmetry
    with mock.patch("unibiomed.train.augment._fill", lambda image, rng: torch.zeros(len(image), 1, 1)):
        image, moved = _geometry(replace(RECORD, modality=modality), truth.expand(3, -1, -1), truth, rng, size, 1.0)
    assert image.shape == (3, size, size) and moved.shape == (1, size, size)
    bright, inside = image[0] > 0.5, moved[0] > 0.5
    if not inside.any():  # outside of the view, or a sliver
        assert bright.sum() < 0.1 * truth.sum() * (size / SIDE) ** 2 * 7
        return
    # a vignette darkens the image without changing the mask
    assert (bright & inside).sum() / (bright | inside).sum() > (0.8 if modality in SCOPES else 0.99)


def test_views_show_many_places() -> None:
    pixels, masks = squares((30, 45))
    views = (augment(RECORD, pixels, masks, random.Random(seed))[1][0] for seed in range(60))
    assert len({tuple(round(v) for v in centre(view)) for view in views if view.any()}) > 30


def test_radiographs_stay_upright() -> None:
    found = views("X-ray", 60)
    assert all(left < right and top < bottom for left, right, top, bottom in found)
    assert len({round(left, 1) for left, *_ in found}) > 10


@pytest.mark.parametrize("modality", SLICES)
def test_slices_are_turned_and_mirrored_at_times(modality: str) -> None:
    found = views(modality, 120)
    upright = sum(left < right - 10 and top < bottom - 10 for left, right, top, bottom in found)
    assert 75 < upright < 108
    assert any(left > right + 10 and top < bottom - 10 for left, right, top, bottom in found)
    assert any(left < right - 10 and top > bottom + 10 for left, right, top, bottom in found)


def handedness(modality: str, target: str) -> set[tuple[bool, bool]]:
    """(whether upright, whether mirrored) of many views of an image with a region of this name."""
    record = replace(RECORD, modality=modality, regions=(Region(target, None),))
    pixels, masks = squares((38, 15), (38, 61), (15, 38))
    found = set()
    for seed in range(150):
        _, moved = augment(record, pixels, masks, random.Random(seed))
        if min(float(mask.sum()) for mask in moved.values()) < 150:
            continue
        (y0, x0), (y1, x1), (y2, x2) = (centre(moved[i]) for i in range(3))
        found.add((x0 + 10 < x1 and y2 < (y0 + y1) / 2, (x1 - x0) * (y2 - y0) - (y1 - y0) * (x2 - x0) > 0))
    return found


@pytest.mark.parametrize("target", ["left ventricle", "upper lobe of the Right lung"])
@pytest.mark.parametrize("modality", MODALITIES)
def test_a_target_with_a_side_is_never_mirrored(modality: str, target: str) -> None:
    found = handedness(modality, target)
    assert not any(mirrored for _, mirrored in found)
    assert (False, False) in found or modality not in {*SLICES, *TURNABLE}


def test_a_word_that_contains_a_side_by_chance_has_none() -> None:
    assert any(mirrored for _, mirrored in handedness("CT", "bright spot"))


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


@pytest.mark.parametrize("modality", ["pathology", "CT", "X-ray", "endoscopy"])
def test_targets_are_seen_closer_and_from_afar(modality: str) -> None:
    pixels, masks = squares((30, 45))
    record = replace(RECORD, modality=modality)
    views = [augment(record, pixels, masks, random.Random(seed))[1][0] for seed in range(300)]
    areas = sorted(float(view.sum()) / 400 for view in views)
    assert 0.0 <= areas[0] < 0.25 and 2.5 < areas[-1] < 9
    assert 0.7 < areas[150] < 1.6


def test_an_expert_may_have_named_what_a_crop_would_hide() -> None:
    pixels, masks = squares((30, 45))
    record = replace(RECORD, questions=(QuestionAnswer("Which side?", "left", "open", "1"),))
    views = [augment(record, pixels, masks, random.Random(seed))[1][0] for seed in range(200)]
    assert max(float(view.sum()) / 400 for view in views) < 3


@pytest.mark.parametrize("modality", ["CT", "fundus"])
def test_no_sliver_is_left_of_a_compact_target(modality: str) -> None:
    pixels, masks = squares((5, 5), (5, 70), (70, 70), (38, 38))
    record = replace(RECORD, modality=modality)
    absent = 0
    for seed in range(200):
        for mask in augment(record, pixels, masks, random.Random(seed))[1].values():
            area = float(mask.sum())
            absent += area == 0
            assert area == 0 or area >= 12
    assert 10 < absent < 300


def test_slivers_are_emptied_but_parts_of_scattered_targets_are_kept() -> None:
    before = torch.zeros(3, SIDE, SIDE)
    before[0, 40:60, 40:60] = 1  # compact
    before[1, ::4, ::4] = 1  # all over the image
    before[2, 40:43, 40:43] = 1  # small, and entirely in the view
    view = _Affine(0.0, (4.0, 4.0), (0.0, 0.0))
    after = torch.zeros(3, SIDE, SIDE)
    after[0, :20, :20] = 1
    after[1, ::4, ::4] = 1
    after[2, :12, :12] = 1
    _clear_slivers(before, after, view, 1 / 16)
    assert [bool(mask.any()) for mask in after] == [True, True, True]  # 1/16 of the area in 1/16 of the image
    after[0, 5:] = 0
    _clear_slivers(before, after, view, 1 / 16)
    assert [bool(mask.any()) for mask in after] == [False, True, True]


def test_thin_targets_are_not_lost_in_small_views() -> None:
    masks = {0: np.zeros((SIDE, SIDE), np.uint8)}
    masks[0][::12] = 255
    record = replace(RECORD, modality="MRI")
    for seed in range(150):
        _, moved = augment(record, np.zeros((SIDE, SIDE, 3), np.uint8), masks, random.Random(seed))
        assert (moved[0] > 0.5).sum() > 100, f"seed {seed}"


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


@pytest.mark.parametrize("modality", MODALITIES)
def test_only_what_has_colours_is_recoloured(modality: str) -> None:
    pixels = np.full((SIDE, SIDE, 3), 128, np.uint8)
    tinted = 0
    for seed in range(200):
        rng = random.Random(seed)
        image = shade(modality, recolour(modality, tone(modality, pixels, rng, 1.0), rng, 1.0), rng, 1.0)
        means = image.flatten(1).mean(1)
        tinted += float(means.max() - means.min()) > 0.005
    expected = {"pathology": (140, 195), "fundus": (110, 170), "endoscopy": (110, 170), "dermoscopy": (40, 100)}
    low, high = expected.get(modality, (0, 0))
    assert low <= tinted <= high


@pytest.mark.parametrize("modality", MODALITIES)
def test_no_view_is_black_or_white(modality: str) -> None:
    ramp = np.linspace(0, 200, SIDE * SIDE).reshape(SIDE, SIDE, 1).astype(np.uint8).repeat(3, 2)
    for seed in range(150):
        rng = random.Random(seed)
        image = recolour(modality, tone(modality, ramp, rng, 1.0), rng, 1.0)
        assert image.shape == (1 if modality in GREY else 3, SIDE, SIDE) and image.dtype == torch.float32
        assert float(image.min()) >= 0 and float(image.max()) <= 1
        assert float(image.std()) > 0.05, f"seed {seed}"


def test_radiographs_are_inverted_at_times() -> None:
    ramp = np.linspace(0, 255, SIDE * SIDE).reshape(SIDE, SIDE, 1).astype(np.uint8).repeat(3, 2)
    images = [tone("X-ray", ramp, random.Random(seed), 1.0) for seed in range(400)]
    assert 4 < sum(bool(image[0, 0, 0] > image[0, -1, -1]) for image in images) < 32


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("channels", [1, 3])
def test_quality_changes_neither_brightness_nor_range(seed: int, channels: int) -> None:
    y = torch.linspace(0.2, 0.8, SIDE)
    image = (y[:, None] * torch.ones(channels, 1, SIDE)).contiguous()
    worse = jpeg(degrade(image.clone(), random.Random(seed), 1.0), 30)
    assert worse.shape == image.shape and worse.min() >= 0 and worse.max() <= 1
    assert float((worse.mean((1, 2)) - image.mean((1, 2))).abs().max()) < 0.01


def test_blur_and_sharpening_change_edges_alone() -> None:
    image = torch.zeros(1, 40, 40)
    image[:, :, 20:] = 1
    for blurred in (_gaussian(image, 1.5), _motion(image, 7, (0, 1)), _resample(image, 0.4)):
        assert torch.allclose(blurred[..., :10], image[..., :10], atol=1e-4)
        assert torch.allclose(blurred[..., 30:], image[..., 30:], atol=1e-4)
        assert 0.02 < float(blurred[0, 20, 19]) < 0.6 and 0.4 < float(blurred[0, 20, 20]) < 0.98


# ---------------------------------------------------------------- overlays


@pytest.mark.parametrize("modality", MODALITIES)
def test_overlays_cover_a_small_part_and_keep_off_the_target(modality: str) -> None:
    image = torch.full((1 if modality in GREY else 3, 192, 192), 0.4)
    masks = torch.zeros(1, 192, 192)
    masks[0, 60:130, 60:130] = 1
    drawn = 0
    for seed in range(200):
        before = image.clone()
        out = draw_overlays(modality, image, masks, random.Random(seed), 1.0)
        assert torch.equal(image, before)  # a new image
        assert out.min() >= 0 and out.max() <= 1 and out.shape[1:] == image.shape[1:]
        changed = ((out - image).abs().amax(0) > 0.02).float()
        drawn += bool(changed.any())
        assert float(changed.mean()) < 0.3, f"seed {seed}"
        assert float((changed * masks[0]).sum() / masks.sum()) < 0.25, f"seed {seed}"
    assert 10 < drawn < 120


def test_no_overlay_at_strength_0() -> None:
    image = torch.rand(3, 64, 64)
    for seed in range(50):
        assert draw_overlays("dermoscopy", image, torch.zeros(0, 64, 64), random.Random(seed), 0.0) is image
