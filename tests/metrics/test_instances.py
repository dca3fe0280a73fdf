"""Detection, AJI and PQ against plain loops over objects, and values by hand."""

from __future__ import annotations

import itertools

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
    detection_rate,
    false_masks_per_image,
    iou,
    label_instances,
    panoptic,
)

MAPS = hnp.arrays(np.int32, (5, 6), elements=st.integers(0, 4))
# labels far from 1, 2, 3: names must not matter
NAMES = st.permutations([3, 70, 900, 12])


def objects(labels: np.ndarray) -> list[np.ndarray]:
    return [labels == name for name in sorted(set(labels.ravel().tolist()) - {0})]


def most_pairs(good: np.ndarray) -> int:
    """Size of the largest matching, by trying all of them."""
    if not good.size:
        return 0
    if good.shape[0] > good.shape[1]:
        good = good.T
    choices = itertools.permutations(range(good.shape[1]), good.shape[0])
    return max(sum(bool(good[i, j]) for i, j in enumerate(choice)) for choice in choices)


@given(MAPS, MAPS, NAMES, st.sampled_from([0.1, 0.25, 0.5, 0.8]))
def test_against_loops(prediction: np.ndarray, truth: np.ndarray, names: list[int], threshold: float) -> None:
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
    hits = most_pairs(table >= threshold)
    assert detect(prediction, truth, threshold=threshold) == Detection(hits, len(g), len(p) - hits, len(p))

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
    shared = united = 0
    chosen = set()
    for one in g:
        overlaps = [iou(other, one) for other in p]
        if overlaps and max(overlaps) > 0:
            j = overlaps.index(max(overlaps))
            chosen.add(j)
            shared += int((p[j] & one).sum())
            united += int((p[j] | one).sum())
        else:
            united += int(one.sum())
    united += sum(int(other.sum()) for j, other in enumerate(p) if j not in chosen)
    score = aggregated_jaccard(prediction, truth)
    assert score == pytest.approx(shared / united if united else 1.0)
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


def test_aji_may_choose_an_object_twice() -> None:
    # one prediction over two nuclei, as the published algorithm counts it: 2 + 2 shared, 5 + 5 united
    assert aggregated_jaccard(np.array([[1] * 5]), np.array([[1, 1, 0, 2, 2]])) == pytest.approx(4 / 10)


def test_masks_are_split_into_parts_that_touch_nowhere() -> None:
    mask = np.array([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0]], bool)
    assert label_instances(mask).max() == 2  # the two at a corner are one
    assert label_instances(np.ones((2, 2, 2), bool)).max() == 1
    whole = mask.astype(int)
    assert detect(mask, mask).truths == 2 and detect(whole, whole).truths == 1


def test_one_object_hits_several_only_without_a_threshold() -> None:
    truth = np.array([[1, 1, 2, 2]])
    assert detect(np.array([[1, 1, 1, 1]]), truth).hits == 2
    assert detect(np.array([[1, 1, 1, 1]]), truth, threshold=0.5).hits == 1


def test_as_many_as_can_be_are_matched() -> None:
    # taking the best pair first (the right one with both) would leave the left one alone
    truth, guess = np.array([[1, 1, 1, 2, 2, 2]]), np.array([[1, 2, 2, 2, 0, 0]])
    assert detect(guess, truth, threshold=0.2).hits == 2


@given(MAPS, MAPS, MAPS, MAPS)
def test_a_data_set_is_the_sum_of_its_images(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> None:
    together = panoptic(np.concatenate([a, np.where(c, c + 10, 0)]), np.concatenate([b, np.where(d, d + 10, 0)]))
    summed = panoptic(a, b) + panoptic(c, d)
    assert summed.matched == together.matched and summed.quality == pytest.approx(together.quality)


def test_rates() -> None:
    images = [Detection(2, 3, 1, 3), Detection(0, 0, 2, 2), Detection(1, 1, 0, 1)]
    assert detection_rate(images) == pytest.approx(3 / 4)
    assert false_masks_per_image(images) == pytest.approx(1.0)
    assert np.isnan(detection_rate([Detection(0, 0, 1, 1)])) and np.isnan(false_masks_per_image([]))


def test_empty_masks() -> None:
    empty, full = np.zeros((3, 3), bool), np.ones((3, 3), bool)
    assert aggregated_jaccard(empty, empty) == panoptic(empty, empty).quality == Panoptic().quality == 1.0
    assert panoptic(empty, empty).segmentation_quality == panoptic(empty, empty).recognition_quality == 1.0
    assert aggregated_jaccard(full, empty) == aggregated_jaccard(empty, full) == 0.0
    assert panoptic(full, empty).quality == panoptic(empty, full).segmentation_quality == 0.0
    assert detect(full, empty) == Detection(0, 0, 1, 1) and detect(empty, full) == Detection(0, 1, 0, 0)
    assert detect(full, empty, threshold=0.5) == Detection(0, 0, 1, 1)


def test_many_nuclei_are_quick() -> None:
    rows, columns = np.divmod(np.arange(900 * 900), 900)
    truth = np.where((rows % 9 > 1) & (columns % 9 > 1), rows // 9 * 100 + columns // 9 + 1, 0).reshape(900, 900)
    moved = np.roll(truth, 1, axis=1)
    assert panoptic(moved, truth).segmentation_quality == pytest.approx(42 / 56)
    assert aggregated_jaccard(moved, truth) == pytest.approx(0.75)
    assert detect(moved, truth, threshold=0.5).hits == 10_000


@pytest.mark.parametrize("metric", [aggregated_jaccard, panoptic, detect])
def test_what_is_refused(metric: object) -> None:
    with pytest.raises(InputError, match=r"\(1, 4\).*\(4, 1\)"):
        metric(np.ones((1, 4), int), np.ones((4, 1), int))  # type: ignore[operator]
    with pytest.raises(InputError, match="bool mask or as an integer"):
        metric(np.full((2, 2), np.nan), np.ones((2, 2), int))  # type: ignore[operator]
    with pytest.raises(InputError, match="negative"):
        metric(np.full((2, 2), -1), np.ones((2, 2), int))  # type: ignore[operator]


@pytest.mark.parametrize("threshold", [0.0, 1.5, float("nan")])
def test_thresholds_that_make_no_sense(threshold: float) -> None:
    with pytest.raises(InputError, match="threshold"):
        detect(np.ones((2, 2), int), np.ones((2, 2), int), threshold=threshold)
