"""Facts of masks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unibiomed.findings.regions import RegionFacts, describe_region, split_parts


def disc(side: int, row: float, column: float, radius: float, stretch: float = 1.0) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    return ((y - row) / radius) ** 2 + ((x - column) / (radius * stretch)) ** 2 <= 1


def facts(mask: np.ndarray, modality: str = "MRI", site: str = "brain", **more: object) -> RegionFacts:
    return describe_region(mask, modality=modality, site=site, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "column", "place", "side"),
    [
        (20, 20, "upper left", "left"),
        (20, 100, "upper right", "right"),
        (64, 20, "left", "left"),
        (64, 64, "centre", "both sides"),
        (110, 64, "lower middle", "both sides"),
        (110, 100, "lower right", "right"),
    ],
)
def test_place_and_side_are_those_of_the_image(row: int, column: int, place: str, side: str) -> None:
    found = facts(disc(128, row, column, 10))
    assert (found.place, found.side) == (place, side)


@pytest.mark.parametrize(
    ("modality", "site", "expected"),
    [("X-ray", "chest", "right"), ("CT", "abdomen", "right"), ("MRI", "heart", ""), ("ultrasound", "breast", "")],
)
def test_the_patient_side_needs_a_known_display_convention(modality: str, site: str, expected: str) -> None:
    assert facts(disc(128, 64, 20, 10), modality, site).patient_side == expected


@pytest.mark.parametrize(("radius", "word"), [(4, "tiny"), (10, "small"), (20, "medium-sized"), (50, "large")])
def test_extent_follows_the_share_of_the_image(radius: int, word: str) -> None:
    mask = disc(128, 64, 64, radius)
    found = facts(mask, spacing=(2.0, 0.5))
    assert found.extent == word
    assert found.area_fraction == mask.mean()
    assert found.area_mm2 == pytest.approx(mask.sum())


@pytest.mark.parametrize("side", [128, 700])
def test_shape_words(side: int) -> None:
    centre = side / 2
    assert facts(disc(side, centre, centre, side / 5)).shape == "round"
    assert facts(disc(side, centre, centre, side / 6, 1.7)).shape == "oval"
    assert facts(disc(side, centre, centre, side / 12, 4)).shape == "elongated"
    cross = np.zeros((side, side), dtype=bool)
    cross[side // 2 - 5 : side // 2 + 5, 10:-10] = cross[10:-10, side // 2 - 5 : side // 2 + 5] = True
    assert facts(cross).shape == "irregular"


def test_shape_uses_the_pixel_spacing() -> None:
    mask = disc(128, 64, 64, 15, 2.0)
    assert facts(mask).shape == "oval"
    assert facts(mask, spacing=(2.0, 1.0)).shape == "round"


def test_very_small_parts_are_not_counted() -> None:
    mask = disc(256, 60, 60, 20) | disc(256, 190, 190, 12)
    mask[5, 5] = mask[250, 3:5] = True
    assert facts(mask).parts == 2
    assert len(split_parts(mask)) == 2


def test_boxes_of_parts_are_tight_and_the_largest_comes_first() -> None:
    mask = disc(900, 200, 200, 100) | disc(900, 700, 650, 60)
    assert facts(mask).box == (100, 100, 711, 761)
    assert split_parts(mask) == [(100, 100, 301, 301), (590, 640, 711, 761)]


def test_border() -> None:
    assert facts(disc(64, 2, 30, 8)).touches_border
    assert not facts(disc(64, 30, 30, 8)).touches_border


def test_empty_mask() -> None:
    found = facts(np.zeros((10, 20), dtype=bool), spacing=(1.0, 1.0))
    assert found.empty and found.parts == 0 and found.area_fraction == 0 and found.area_mm2 == 0
    assert split_parts(np.zeros((10, 20), dtype=bool)) == []


@given(arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_measurements_of_random_masks_are_consistent(mask: np.ndarray) -> None:
    found = facts(mask)
    assert found.empty == (not mask.any())
    assert 0 <= found.area_fraction <= 1
    for x0, y0, x1, y1 in [box for box in (found.box, *split_parts(mask)) if box]:
        assert 0 <= x0 < x1 <= mask.shape[1] and 0 <= y0 < y1 <= mask.shape[0]
        assert mask[y0:y1, x0:x1].any()


@given(st.integers(0, 699), st.integers(0, 699), st.integers(1, 700), st.integers(1, 3))
def test_thin_lines_in_large_images_are_measured(row: int, column: int, length: int, width: int) -> None:
    mask = np.zeros((700, 700), dtype=bool)
    mask[row : row + width, column : column + length] = True
    mask[0, 0] = mask[699, 699] = True
    found = facts(mask)
    assert found.parts >= 1 and found.shape and found.place
    assert split_parts(mask)
