"""Accuracy, errors for each label, AUROC and false findings against plain readings of their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unibiomed.errors import InputError
from unibiomed.metrics import (
    accuracy,
    auroc,
    balanced_accuracy,
    confusion_matrix,
    false_findings,
    label_scores,
    substring_accuracy,
)

# few values, so that ties are common
SCORED = st.lists(st.tuples(st.integers(0, 4).map(lambda n: n / 4), st.booleans()), min_size=1, max_size=30)


LABELS = st.sampled_from(["liver", "spleen", "kidney", "no findings"])
ANSWERED = st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=30)


# ---------------------------------------------------------------- accuracy


def test_accuracy_by_hand() -> None:
    assert accuracy(["Liver.", " spleen", "a", "b"], ["liver", "Spleen. ", "b", "b"]) == 0.75


def test_accuracy_is_exact_match() -> None:
    assert accuracy(["liver tumor", "tumor"], ["tumor", "liver tumor"]) == 0.0


def test_accuracy_of_nothing() -> None:
    assert math.isnan(accuracy([], []))


def test_accuracy_of_unequal_lengths() -> None:
    with pytest.raises(ValueError, match="2 predictions for 1 truths"):
        accuracy(["a", "b"], ["a"])


def test_substring_accuracy_by_hand() -> None:
    answers = ["It is a Liver tumor.", "no liver tumor", "liver", "spleen"]
    assert substring_accuracy(answers, ["liver tumor", "tumor.", "liver tumor", "Spleen"]) == 0.75
    assert math.isnan(substring_accuracy([], []))
    with pytest.raises(InputError, match="1 predictions for 2 truths"):
        substring_accuracy(["a"], ["a", "b"])


@given(ANSWERED)
def test_exact_is_never_above_substring(answered: list[tuple[str, str]]) -> None:
    predictions, truths = zip(*answered, strict=True)
    assert accuracy(predictions, truths) <= substring_accuracy(predictions, truths)
    assert substring_accuracy([f"It is {p}, or so" for p in predictions], truths) >= accuracy(predictions, truths)


# ---------------------------------------------------------------- labels


def test_confusion_matrix_by_hand() -> None:
    matrix, names = confusion_matrix(["a", "B.", "b", "other"], ["a", "a", "b", "b"], labels=["b", "a", "c"])
    assert names == ("b", "a", "c", "other")
    assert matrix.tolist() == [[1, 0, 0, 1], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_label_scores_by_hand() -> None:
    scores = label_scores(["a", "b", "b", "other"], ["a", "a", "b", "b"], labels=["a", "b", "c"])
    assert list(scores) == ["a", "b", "c", "other"]
    assert (scores["a"].precision, scores["a"].recall, scores["a"].support) == (1.0, 0.5, 2)
    assert scores["a"].f1 == pytest.approx(2 / 3) and scores["b"].f1 == pytest.approx(0.5)
    assert math.isnan(scores["c"].precision) and math.isnan(scores["c"].recall) and math.isnan(scores["c"].f1)
    assert scores["other"].precision == scores["other"].f1 == 0.0 and math.isnan(scores["other"].recall)


@given(ANSWERED)
def test_labels_against_counts(answered: list[tuple[str, str]]) -> None:
    predictions, truths = zip(*answered, strict=True)
    matrix, names = confusion_matrix(predictions, truths)
    assert matrix.sum() == len(answered) and np.trace(matrix) / matrix.sum() == accuracy(predictions, truths)
    scores = label_scores(predictions, truths)
    assert sum(score.support for score in scores.values()) == len(answered)
    for name in names:
        right = sum(p == t == name for p, t in answered)
        said, true = predictions.count(name), truths.count(name)
        assert scores[name].f1 == pytest.approx(2 * right / (said + true))
        if said:
            assert scores[name].precision == pytest.approx(right / said)
    recalls = [sum(p == t == name for p, t in answered) / truths.count(name) for name in set(truths)]
    assert balanced_accuracy(predictions, truths) == pytest.approx(np.mean(recalls))


def test_balanced_accuracy_is_not_fooled_by_a_common_label() -> None:
    truths = ["no findings"] * 98 + ["tumor"] * 2
    assert accuracy(["no findings"] * 100, truths) == 0.98 and balanced_accuracy(["no findings"] * 100, truths) == 0.5
    assert math.isnan(balanced_accuracy([], []))


def test_false_findings() -> None:
    found = false_findings([0, 2, 0, 1])
    assert (found.share, found.per_image, found.images) == (0.5, 0.75, 4)
    assert math.isnan(false_findings([]).share)
    with pytest.raises(InputError, match="numbers of findings"):
        false_findings([0, float("nan")])
    with pytest.raises(InputError, match=r"reach from -1 to 0"):
        false_findings([0, -1])


# ---------------------------------------------------------------- AUROC


@given(SCORED)
def test_auroc_counts_pairs(scored: list[tuple[float, bool]]) -> None:
    scores, truths = zip(*scored, strict=True)
    positive = [s for s, t in scored if t]
    negative = [s for s, t in scored if not t]
    wins = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    if wins:
        assert auroc(scores, truths) == pytest.approx(sum(wins) / len(wins))
    else:
        assert math.isnan(auroc(scores, truths))


def test_auroc_at_its_ends() -> None:
    assert auroc([0.1, 0.2, 0.9], [False, False, True]) == 1.0
    assert auroc([0.1, 0.2, 0.9], [True, True, False]) == 0.0
    assert auroc([0.5, 0.5], [True, False]) == 0.5


@given(SCORED)
def test_auroc_turns_round_with_its_scores(scored: list[tuple[float, bool]]) -> None:
    scores, truths = np.array([s for s, _ in scored]), [t for _, t in scored]
    if len(set(truths)) == 2:
        assert auroc(-scores, truths) == pytest.approx(1 - auroc(scores, truths))
        assert auroc(np.exp(scores), truths) == auroc(scores, truths)


def test_auroc_refuses() -> None:
    with pytest.raises(InputError, match="1 of the 2 scores are NaN"):
        auroc([0.1, float("nan")], [True, False])
    with pytest.raises(InputError, match="truths must be true or false"):
        auroc([0.1, 0.2], [0.5, 1])
    with pytest.raises(InputError, match="truths are NaN"):
        auroc([0.1, 0.2], [float("nan"), 1])
    with pytest.raises(InputError, match="2 scores for 1 truths"):
        auroc([0.1, 0.2], [True])
