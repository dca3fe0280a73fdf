"""Dice and IoU of masks against counts of sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unibiomed.errors import InputError
from unibiomed.metrics import Overlap, dice, iou, overlap

SHAPE = (5, 7)
MASKS = hnp.arrays(bool, SHAPE)


def cells(mask: np.ndarray) -> set[tuple[int, int]]:
    return {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}


@given(MASKS, MASKS)
def test_overlap_matches_sets(prediction: np.ndarray, truth: np.ndarray) -> None:
    p, g = cells(prediction), cells(truth)
    if p | g:
        assert dice(prediction, truth) == pytest.approx(2 * len(p & g) / (len(p) + len(g)))
        assert iou(prediction, truth) == pytest.approx(len(p & g) / len(p | g))
    else:
        assert dice(prediction, truth) == iou(prediction, truth) == 1.0


@given(MASKS, MASKS)
def test_dice_follows_from_iou(prediction: np.ndarray, truth: np.ndarray) -> None:
    overlap = iou(prediction, truth)
    assert dice(prediction, truth) == pytest.approx(2 * overlap / (1 + overlap))
    assert dice(prediction, truth) == dice(truth, prediction)


def test_by_hand() -> None:
    prediction = np.array([[1, 1, 0, 0]])
    truth = np.array([[0, 1, 1, 1]])
    assert dice(prediction, truth) == pytest.approx(2 / 5)
    assert iou(prediction, truth) == pytest.approx(1 / 4)


def test_empty_masks() -> None:
    empty, full = np.zeros(SHAPE, bool), np.ones(SHAPE, bool)
    assert dice(empty, empty) == iou(empty, empty) == 1.0
    assert dice(empty, full) == dice(full, empty) == iou(empty, full) == 0.0
    assert dice(np.zeros((0, 3)), np.zeros((0, 3))) == 1.0


@given(MASKS, st.sampled_from([np.uint8, np.int16, np.float32]), st.sampled_from([1, 255, 3]))
def test_non_zero_values_are_inside(mask: np.ndarray, kind: type, value: int) -> None:
    assert dice(mask.astype(kind) * kind(min(value, 255)), mask) == 1.0


def test_large_masks_do_not_overflow() -> None:
    full = np.full((300, 300), 255, np.uint8)
    assert dice(full, full) == iou(full, full) == 1.0


@pytest.mark.parametrize("metric", [dice, iou])
def test_different_shapes_are_refused(metric: object) -> None:
    with pytest.raises(ValueError, match=r"\(1, 4\).*\(4, 1\)"):  # these two would broadcast
        metric(np.ones((1, 4)), np.ones((4, 1)))  # type: ignore[operator]


@pytest.mark.parametrize("metric", [dice, iou])
def test_nan_is_refused(metric: object) -> None:
    with pytest.raises(InputError, match="the truth contains NaN"):
        metric(np.ones((2, 2)), np.array([[0, 1], [np.nan, 0]]))  # type: ignore[operator]
    with pytest.raises(InputError, match="not numbers"):
        metric(np.array([["a"]]), np.ones((1, 1)))  # type: ignore[operator]


def test_overlaps_add_up() -> None:
    assert overlap(np.array([1, 1, 0]), np.array([1, 0, 0])) == Overlap(1, 2, 1)
    assert (Overlap(1, 2, 1) + Overlap(0, 0, 3)).dice == pytest.approx(2 / 6)
    assert sum([Overlap(1, 2, 1)] * 2, Overlap()).iou == pytest.approx(0.5)


@given(hnp.arrays(bool, (4, 5, 7)), hnp.arrays(bool, (4, 5, 7)))
def test_slices_add_up_to_the_volume(prediction: np.ndarray, truth: np.ndarray) -> None:
    total = sum((overlap(p, g) for p, g in zip(prediction, truth, strict=True)), Overlap())
    assert total == overlap(prediction, truth) and total.dice == dice(prediction, truth)
