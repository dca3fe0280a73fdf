"""Detection, AJI and PQ against loops over objects and values by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unibiomed.errors import InputError
from unibiomed.metrics import (
    Detection,
    Panoptic,
    aggregated_jaccard,
    detect,
    iou,
    label_instances,
    panoptic,
)

MAPS = hnp.arrays(np.int32, (5, 6), elements=st.integers(0, 4))
# the values of labels must not matter
NAMES = st.permutations([3, 70, 900, 12])


def objects(labels: np.ndarray) -> list[np.ndarray]:
    return [labels == name for name in sorted(set(labels.ravel().tolist()) - {0})]


@given(MAPS, MAPS, NAMES)
def test_against_loops(prediction: np.ndarray, truth: np.ndarray, names: list[int]) -> None:
    prediction = np.array([0, *names])[prediction]
    p, g = objects(prediction), objects(truth)
    table = np.array([[iou(a, b) for a in p] for b in g]).reshape(len(g), len(p))

    any_pixel = detect(prediction, truth)
    assert any_pixel == Detection(
        hits=int((table > 0).any(axis=1).sum()),
        truths=len(g),
        false_masks=int((~(table > 0).any(axis=0)).sum()),
        masks=len(p),
    )

    found = panoptic(prediction, truth)
    matched = table[table > 0.5]
    assert found.matched == matched.size and found.iou_sum == pytest.approx(matched.sum())
    swapped = panoptic(truth, prediction)
    assert (found.false_positives, found.false_negatives) == (swapped.false_negatives, swapped.false_positives)
    assert found.quality == pytest.approx(swapped.quality)
    if p or g:
        assert found.quality == pytest.approx(matched.sum() / ((len(p) + len(g)) / 2))
    assert found.quality == pytest.approx(found.segmentation_quality * found.recognition_quality)


@given(MAPS, MAPS)
def test_aji_against_loops(prediction: np.ndarray, truth: np.ndarray) -> None:
    p, g = objects(prediction), objects(truth)
    intersection = union = 0
    chosen = set()
    for one in g:
        overlaps = [iou(other, one) for other in p]
        if overlaps and max(overlaps) > 0:
            j = overlaps.index(max(overlaps))
            chosen.add(j)
            intersection += int((p[j] & one).sum())
            union += int((p[j] | one).sum())
        else:
            union += int(one.sum())
    union += sum(int(other.sum()) for j, other in enumerate(p) if j not in chosen)
    score = aggregated_jaccard(prediction, truth)
    assert score == pytest.approx(intersection / union if union else 1.0)
    assert 0 <= score <= iou(prediction, truth)
    assert aggregated_jaccard(truth, truth) == panoptic(truth, truth).quality == 1.0


def test_nuclei_by_hand() -> None:
    truth = np.array([[1, 1, 0, 2, 2, 2], [0, 0, 0, 0, 0, 0], [3, 3, 3, 0, 0, 0]])
    guess = np.array([[5, 5, 0, 6, 6, 0], [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 7, 7]])
    found = panoptic(guess, truth)
    assert (found.matched, found.false_positives, found.false_negatives) == (2, 1, 1)
    assert found.segmentation_quality == pytest.approx((1 + 2 / 3) / 2)
    assert found.recognition_quality == pytest.approx(2 / 3)
    assert found.quality == pytest.approx(5 / 9)
    assert aggregated_jaccard(guess, truth) == pytest.approx((2 + 2) / (2 + 3 + 3 + 2))
    assert detect(guess, truth) == Detection(hits=2, truths=3, false_masks=1, masks=3)


def test_aji_may_pair_an_object_twice() -> None:
    # one prediction over two nuclei, as in the paper: intersections 2 + 2, unions 5 + 5
    assert aggregated_jaccard(np.array([[1] * 5]), np.array([[1, 1, 0, 2, 2]])) == pytest.approx(4 / 10)


def test_masks_are_split_into_connected_components() -> None:
    mask = np.array([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0]], bool)
    assert label_instances(mask).max() == 2  # diagonal neighbours are connected
    assert label_instances(np.ones((2, 2, 2), bool)).max() == 1
    whole = mask.astype(int)
    assert detect(mask, mask).truths == 2 and detect(whole, whole).truths == 1


def test_one_object_may_hit_several() -> None:
    assert detect(np.array([[1, 1, 1, 1]]), np.array([[1, 1, 2, 2]])) == Detection(2, 2, 0, 1)


@given(MAPS, MAPS, MAPS, MAPS)
def test_panoptic_counts_add_up(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> None:
    together = panoptic(np.concatenate([a, np.where(c, c + 10, 0)]), np.concatenate([b, np.where(d, d + 10, 0)]))
    summed = panoptic(a, b) + panoptic(c, d)
    assert summed.matched == together.matched and summed.quality == pytest.approx(together.quality)


def test_empty_masks() -> None:
    empty, full = np.zeros((3, 3), bool), np.ones((3, 3), bool)
    assert aggregated_jaccard(empty, empty) == panoptic(empty, empty).quality == Panoptic().quality == 1.0
    assert panoptic(empty, empty).segmentation_quality == panoptic(empty, empty).recognition_quality == 1.0
    assert aggregated_jaccard(full, empty) == aggregated_jaccard(empty, full) == 0.0
    assert panoptic(full, empty).quality == panoptic(empty, full).segmentation_quality == 0.0
    assert detect(full, empty) == Detection(0, 0, 1, 1) and detect(empty, full) == Detection(0, 1, 0, 0)


def test_many_nuclei() -> None:
    rows, columns = np.divmod(np.arange(900 * 900), 900)
    truth = np.where((rows % 9 > 1) & (columns % 9 > 1), rows // 9 * 100 + columns // 9 + 1, 0).reshape(900, 900)
    moved = np.roll(truth, 1, axis=1)
    assert panoptic(moved, truth).segmentation_quality == pytest.approx(42 / 56)
    assert aggregated_jaccard(moved, truth) == pytest.approx(0.75)
    assert detect(moved, truth).hits == 10_000


@pytest.mark.parametrize("metric", [aggregated_jaccard, panoptic, detect])
def test_invalid_arguments(metric: object) -> None:
    with pytest.raises(InputError, match=r"\(1, 4\).*\(4, 1\)"):
        metric(np.ones((1, 4), int), np.ones((4, 1), int))  # type: ignore[operator]
    with pytest.raises(InputError, match="bool mask or an integer"):
        metric(np.full((2, 2), np.nan), np.ones((2, 2), int))  # type: ignore[operator]
    with pytest.raises(InputError, match="negative"):
        metric(np.full((2, 2), -1), np.ones((2, 2), int))  # type: ignore[operator]
