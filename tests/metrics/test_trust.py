"""The paired test and the agreement of paraphrases, by hand and on answers that ignore the image."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unibiomed.errors import InputError
from unibiomed.metrics import dice, paired_trust, paraphrase_agreement

PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30)


def test_pairs_by_hand() -> None:
    found = paired_trust([True, True, False, False, None], [False, True, False, True, False])
    assert found.set_accuracy.value == pytest.approx(1 / 5)
    assert found.confusion.value == pytest.approx(2 / 5)
    assert (found.pairs, found.unreadable) == (5, 1)
    assert 0 < found.set_accuracy.low < 0.2 < found.set_accuracy.high < 1


@pytest.mark.parametrize("always", [True, False])
def test_one_answer_for_all_images_is_confused(always: bool) -> None:
    found = paired_trust([always] * 40, [always] * 40)
    assert found.set_accuracy.value == 0.0 and found.confusion.value == 1.0
    # forty pairs do not prove never
    assert 0.05 < found.set_accuracy.high < 0.12


def test_a_coin_is_right_in_a_quarter_of_the_pairs() -> None:
    answers = np.random.default_rng(0).random((2, 4000)) < 0.5
    found = paired_trust(list(answers[0]), list(answers[1]))
    assert found.set_accuracy.low < 0.25 < found.set_accuracy.high
    assert found.confusion.low < 0.5 < found.confusion.high


@given(PAIRS)
def test_shares_are_counts(pairs: list[tuple[bool, bool]]) -> None:
    with_target, without = zip(*pairs, strict=True)
    found = paired_trust(with_target, without)
    assert found.set_accuracy.value == pytest.approx(pairs.count((True, False)) / len(pairs))
    assert found.confusion.value == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))
    assert found.set_accuracy.value + found.confusion.value <= 1 + 1e-12
    swapped = paired_trust([not b for b in without], [not a for a in with_target])
    assert swapped.set_accuracy == found.set_accuracy and swapped.confusion == found.confusion


def test_pairs_of_one_subject_count_as_one() -> None:
    rng = np.random.default_rng(1)
    right = rng.random(30) < 0.6
    alone = paired_trust(list(right), [False] * 30, subjects=range(30))
    often = paired_trust(list(np.repeat(right, 4)), [False] * 120, subjects=np.repeat(np.arange(30), 4).tolist())
    assert (often.set_accuracy.low, often.set_accuracy.high) == pytest.approx(
        (alone.set_accuracy.low, alone.set_accuracy.high)
    )
    assert often.pairs == 120 and often.set_accuracy.subjects == 30


def test_no_pairs() -> None:
    found = paired_trust([], [])
    assert math.isnan(found.set_accuracy.value) and found.pairs == 0


def test_answers_that_are_refused() -> None:
    with pytest.raises(InputError, match="1 with_target for 2 without_target"):
        paired_trust([True], [True, False])
    for answer in (float("nan"), "yes", 1):
        with pytest.raises(InputError, match="true, false or None"):
            paired_trust([answer], [False])  # type: ignore[list-item]


def test_paraphrases_by_hand() -> None:
    a, b, empty = np.array([[1, 1, 0]]), np.array([[0, 1, 0]]), np.zeros((1, 3))
    assert paraphrase_agreement([a, a, a]) == paraphrase_agreement([empty, empty]) == 1.0
    assert paraphrase_agreement([a, b, empty]) == pytest.approx((2 / 3 + 0 + 0) / 3)


@given(st.lists(hnp.arrays(bool, (3, 4)), min_size=2, max_size=5))
def test_agreement_is_the_mean_of_all_pairs(masks: list[np.ndarray]) -> None:
    pairs = [dice(masks[i], masks[j]) for i in range(len(masks)) for j in range(i)]
    assert paraphrase_agreement(masks) == pytest.approx(np.mean(pairs))
    assert paraphrase_agreement(masks[::-1]) == pytest.approx(paraphrase_agreement(masks))


def test_masks_that_are_refused() -> None:
    mask = np.ones((2, 2))
    with pytest.raises(InputError, match="1 masks"):
        paraphrase_agreement([mask])
    with pytest.raises(InputError, match="different shapes"):
        paraphrase_agreement([mask, np.ones((2, 3))])
    with pytest.raises(InputError, match="NaN"):
        paraphrase_agreement([mask, np.full((2, 2), np.nan)])
