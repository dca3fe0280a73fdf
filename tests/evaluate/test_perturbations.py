from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from unibiomed.evaluate.perturbations import PERTURBATIONS, STRENGTHS, perturb_image, perturb_mask

NAMES = sorted(PERTURBATIONS)
MOVING = ["crop", "flip", "rotation"]
sides = st.integers(1, 40)
few = settings(max_examples=30)


@st.composite
def images(draw):
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return rng.integers(0, 256, (draw(sides), draw(sides), 3), dtype=np.uint8)


@st.composite
def blobs(draw):
    """(48, 64) bool: a few discs and boxes, no thinner than the width in which two ways of resampling may differ."""
    mask = np.zeros((48, 64), dtype=bool)
    y, x = np.mgrid[:48, :64]
    for _ in range(draw(st.integers(0, 3))):
        row, column, radius = draw(st.integers(0, 47)), draw(st.integers(0, 63)), draw(st.integers(4, 20))
        if draw(st.booleans()):
            mask |= (y - row) ** 2 + (x - column) ** 2 < radius**2
        else:
            mask |= (abs(y - row) < radius) & (abs(x - column) < radius)
    return mask


@pytest.mark.parametrize("name", NAMES)
@few
@given(pixels=images(), strength=st.sampled_from(STRENGTHS))
def test_perturbations_keep_shape_and_original(name, pixels, strength):
    before = pixels.copy()
    changed = perturb_image(pixels, name, strength, seed=1)
    assert changed.shape == pixels.shape and changed.dtype == np.uint8
    mask = perturb_mask(pixels[..., 0] > 100, name, strength)
    assert mask.shape == pixels.shape[:2] and mask.dtype == bool
    assert np.array_equal(pixels, before)


@few
@given(pixels=images())
def test_flip_is_its_own_inverse(pixels):
    once = perturb_image(pixels, "flip", 1, seed=0)
    assert np.array_equal(perturb_image(once, "flip", 1, seed=0), pixels)
    assert np.array_equal(once[:, 0], pixels[:, -1])
    mask = pixels[..., 0] > 100
    assert np.array_equal(perturb_mask(perturb_mask(mask, "flip", 1), "flip", 1), mask)


@pytest.mark.parametrize("name", MOVING)
@few
@given(mask=blobs(), strength=st.sampled_from(STRENGTHS))
def test_geometric_perturbations_transform_the_mask(name, mask, strength):
    drawn = np.stack([mask.astype(np.uint8) * 255] * 3, 2)
    seen = perturb_image(drawn, name, strength, seed=0)[..., 0] > 127
    moved = perturb_mask(mask, name, strength)
    square = np.ones((3, 3), dtype=bool)
    # the two are resampled in different ways: they may differ along the outline, not away from it
    outline = ndimage.binary_dilation(moved, square, 2) & ~ndimage.binary_erosion(moved, square, 2, border_value=1)
    assert not ((seen != moved) & ~outline).any()


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(MOVING)))
@few
@given(mask=blobs(), strength=st.sampled_from(STRENGTHS))
def test_other_perturbations_keep_the_mask(name, mask, strength):
    assert np.array_equal(perturb_mask(mask, name, strength), mask)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"flip"}))
def test_effect_grows_with_strength(name):
    y, x = np.mgrid[:64, :80]
    picture = (100 + 60 * np.sin(x / 4) * np.cos(y / 7) + 40 * ((x - 30) ** 2 + (y - 20) ** 2 < 90)).astype(np.uint8)
    pixels = np.stack([picture, picture, 255 - picture], 2)
    away = [np.abs(perturb_image(pixels, name, s, seed=0).astype(int) - pixels).mean() for s in STRENGTHS]
    assert away[0] > 0
    # how far a turned pattern is from itself has no order
    assert name in MOVING or away == sorted(away)


def test_mask_rotation_is_counterclockwise():
    mask = np.zeros((101, 101), dtype=bool)
    mask[48:53, 60:90] = True
    rows, columns = np.nonzero(perturb_mask(mask, "rotation", 5))
    angle = np.degrees(np.arctan2(50 - rows.mean(), columns.mean() - 50))
    assert angle == pytest.approx(PERTURBATIONS["rotation"].levels[4], abs=1)


def test_noise_depends_on_the_seed():
    pixels = np.full((8, 9, 3), 100, dtype=np.uint8)
    first = perturb_image(pixels, "noise", 3, seed=5)
    assert np.array_equal(first, perturb_image(pixels, "noise", 3, seed=5))
    assert not np.array_equal(first, perturb_image(pixels, "noise", 3, seed=6))
    # grey stays grey
    assert (first[..., 0] == first[..., 1]).all() and (first[..., 0] == first[..., 2]).all()
