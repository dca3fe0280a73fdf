"""Accuracy, AUROC, calibration error and Platt scaling against plain readings of their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unibiomed.metrics import accuracy, auroc, calibration_error, fit_platt

# few values, so that ties are common
SCORED = st.lists(st.tuples(st.integers(0, 4).map(lambda n: n / 4), st.booleans()), min_size=1, max_size=30)


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


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


# ---------------------------------------------------------------- calibration error


def test_calibration_error_by_hand() -> None:
    # bin 0.2-0.3 holds two scores of mean 0.25 with truth 0.5; bin 0.9-1.0 holds two of mean 0.95 with truth 1
    assert calibration_error([0.2, 0.29999, 0.9, 1.0], [0, 1, 1, 1]) == pytest.approx(0.5 * 0.25 + 0.5 * 0.05, abs=1e-4)


def test_calibration_error_at_its_ends() -> None:
    assert calibration_error([0.0, 1.0, 1.0], [0, 1, 1]) == 0.0
    assert calibration_error([1.0, 0.0], [0, 1]) == 1.0


@given(SCORED, st.integers(1, 15))
def test_calibration_error_is_a_share(scored: list[tuple[float, bool]], bins: int) -> None:
    scores, truths = zip(*scored, strict=True)
    error = calibration_error(scores, truths, bins)
    assert 0 <= error <= 1
    # one bin sees only the means, which more bins can only take apart
    assert error >= abs(np.mean(scores) - np.mean(truths)) - 1e-9


def test_calibration_error_of_soft_truths() -> None:
    assert calibration_error([0.42, 0.48], [0.4, 0.5]) == pytest.approx(0.0)


# ---------------------------------------------------------------- Platt scaling


def test_platt_finds_the_scale_and_offset_that_made_the_truths() -> None:
    logits = np.linspace(-4, 4, 201)
    scale, offset = fit_platt(logits, sigmoid(0.5 * logits - 1.2))
    assert scale == pytest.approx(0.5, abs=0.02) and offset == pytest.approx(-1.2, abs=0.03)


def test_platt_mends_overconfidence() -> None:
    rng = np.random.default_rng(0)
    honest = rng.normal(size=2000)
    truths = rng.random(2000) < sigmoid(honest)
    logits = 4 * honest + 2
    scale, offset = fit_platt(logits, truths)
    before = calibration_error(sigmoid(logits), truths)
    after = calibration_error(sigmoid(scale * logits + offset), truths)
    assert before > 0.15 and after < 0.04
    assert auroc(scale * logits + offset, truths) == pytest.approx(auroc(logits, truths))


@pytest.mark.parametrize("truths", [[1, 1, 1], [0, 0, 0], [0, 0, 1]])
def test_platt_stays_finite_where_the_sides_do_not_overlap(truths: list[int]) -> None:
    scale, offset = fit_platt([-1.0, 0.5, 2.0], truths)
    assert abs(scale) < 50 and abs(offset) < 50
    assert np.mean(sigmoid(scale * np.array([-1.0, 0.5, 2.0]) + offset)) == pytest.approx(np.mean(truths), abs=0.1)


@pytest.mark.parametrize("logits", [[], [3.0]])
def test_platt_leaves_scores_alone_without_examples(logits: list[float]) -> None:
    assert fit_platt(logits, [1.0] * len(logits)) == (1.0, 0.0)
