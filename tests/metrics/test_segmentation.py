"""Dice and IoU against counts of sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unibiomed.metrics import dice, iou

SHAPE = (5, 7)
MASKS = hnp.arrays(bool, SHAPE)


def cells(mask: np.ndarray) -> set[tuple[int, int]]:
    return {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}


@given(MASKS, MASKS)
def test_equal_the_definition_on_sets(prediction: np.ndarray, truth: np.ndarray) -> None:
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
def test_anything_but_zero_is_inside(mask: np.ndarray, kind: type, value: int) -> None:
    assert dice(mask.astype(kind) * kind(min(value, 255)), mask) == 1.0


def test_large_masks_do_not_overflow() -> None:
    full = np.full((300, 300), 255, np.uint8)
    assert dice(full, full) == iou(full, full) == 1.0


@pytest.mark.parametrize("metric", [dice, iou])
def test_other_shapes_are_refused(metric: object) -> None:
    with pytest.raises(ValueError, match=r"\(1, 4\).*\(4, 1\)"):  # these two would broadcast
        metric(np.ones((1, 4)), np.ones((4, 1)))  # type: ignore[operator]
