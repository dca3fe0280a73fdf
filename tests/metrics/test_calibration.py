"""Calibration, reliability, risk-coverage curves and Platt scaling against their definitions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unibiomed.errors import InputError
from unibiomed.metrics import calibration_error, fit_platt, reliability, risk_coverage

# few values, so that ties are common
SCORED = st.lists(st.tuples(st.integers(0, 4).map(lambda n: n / 4), st.booleans()), min_size=1, max_size=30)


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


# ---------------------------------------------------------------- calibration error


def test_calibration_error_by_hand() -> None:
    # the bin 0.2-0.3 has mean score 0.25 and mean truth 0.5, the bin 0.9-1.0 has 0.95 and 1
    assert calibration_error([0.2, 0.29999, 0.9, 1.0], [0, 1, 1, 1]) == pytest.approx(0.5 * 0.25 + 0.5 * 0.05, abs=1e-4)


def test_calibration_error_extremes() -> None:
    assert calibration_error([0.0, 1.0, 1.0], [0, 1, 1]) == 0.0
    assert calibration_error([1.0, 0.0], [0, 1]) == 1.0


@given(SCORED, st.integers(1, 15))
def test_calibration_error_range(scored: list[tuple[float, bool]], bins: int) -> None:
    scores, truths = zip(*scored, strict=True)
    error = calibration_error(scores, truths, bins)
    assert 0 <= error <= 1
    # the error of one bin is a lower bound
    assert error >= abs(np.mean(scores) - np.mean(truths)) - 1e-9


def test_calibration_error_of_soft_truths() -> None:
    assert calibration_error([0.42, 0.48], [0.4, 0.5]) == pytest.approx(0.0)


# ---------------------------------------------------------------- Platt scaling


def test_platt_recovers_scale_and_offset() -> None:
    logits = np.linspace(-4, 4, 201)
    scale, offset = fit_platt(logits, sigmoid(0.5 * logits - 1.2))
    assert scale == pytest.approx(0.5, abs=0.02) and offset == pytest.approx(-1.2, abs=0.03)


def test_platt_with_a_covariate() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, 400))
    scale, offset, covariate = fit_platt(first, sigmoid(0.5 * first + 0.3 - 0.8 * second), second)
    assert (scale, offset, covariate) == pytest.approx((0.5, 0.3, -0.8), abs=0.02)
    assert fit_platt([1.0], [1.0], [2.0]) == (1.0, 0.0, 0.0)
    with pytest.raises(InputError):
        fit_platt([1.0, 2.0], [0.0, 1.0], [1.0])


def test_platt_corrects_overconfidence() -> None:
    rng = np.random.default_rng(0)
    honest = rng.normal(size=2000)
    truths = rng.random(2000) < sigmoid(honest)
    logits = 4 * honest + 2
    scale, offset = fit_platt(logits, truths)
    before = calibration_error(sigmoid(logits), truths)
    after = calibration_error(sigmoid(scale * logits + offset), truths)
    assert before > 0.15 and after < 0.04
    assert scale > 0


@pytest.mark.parametrize("truths", [[1, 1, 1], [0, 0, 0], [0, 0, 1]])
def test_platt_is_finite_for_separable_classes(truths: list[int]) -> None:
    scale, offset = fit_platt([-1.0, 0.5, 2.0], truths)
    assert abs(scale) < 50 and abs(offset) < 50
    assert np.mean(sigmoid(scale * np.array([-1.0, 0.5, 2.0]) + offset)) == pytest.approx(np.mean(truths), abs=0.1)


@pytest.mark.parametrize("logits", [[], [3.0]])
def test_platt_without_samples(logits: list[float]) -> None:
    assert fit_platt(logits, [1.0] * len(logits)) == (1.0, 0.0)


def test_platt_invalid_arguments() -> None:
    with pytest.raises(InputError, match="logits are NaN"):
        fit_platt([0.0, float("nan")], [0, 1])
    with pytest.raises(InputError, match=r"range from 0 to 2"):
        fit_platt([0.0, 1.0], [0, 2])


# ---------------------------------------------------------------- reliability


@given(SCORED, st.integers(1, 15))
def test_every_score_is_in_one_bin(scored: list[tuple[float, bool]], bins: int) -> None:
    scores, truths = zip(*scored, strict=True)
    points = reliability(scores, truths, bins)
    assert len(points) == bins and sum(point.count for point in points) == len(scored)
    assert (points[0].low, points[-1].high) == (0.0, 1.0)
    for point, following in itertools.pairwise(points):
        assert point.high == pytest.approx(following.low)
    gaps = [abs(point.score - point.truth) * point.count for point in points if point.count]
    assert calibration_error(scores, truths, bins) == pytest.approx(sum(gaps) / len(scored))
    for point in points:
        assert math.isnan(point.score) == math.isnan(point.truth) == (point.count == 0) or point.count
        if point.count:
            assert point.low - 1e-9 <= point.score <= point.high + 1e-9


@pytest.mark.parametrize("metric", [calibration_error, reliability])
def test_invalid_scores(metric: object) -> None:
    with pytest.raises(InputError, match="NaN"):
        metric([0.1, float("nan")], [0, 1])  # type: ignore[operator]
    with pytest.raises(InputError, match=r"give values in \[0, 1\]"):
        metric([0.1, 1.5], [0, 1])  # type: ignore[operator]
    with pytest.raises(InputError, match="2 scores, 3 truths"):
        metric([0.1, 0.5], [0, 1, 1])  # type: ignore[operator]
    with pytest.raises(InputError, match="2 dimensions"):
        metric([[0.1, 0.5]], [[0, 1]])  # type: ignore[operator]
    with pytest.raises(InputError, match="sequence of numbers"):
        metric(["a"], [1])  # type: ignore[operator]
    metric(np.float32([1.0000001]), [1])  # type: ignore[operator]


def test_calibration_without_samples_or_bins() -> None:
    assert math.isnan(calibration_error([], []))
    with pytest.raises(InputError, match="0 bins"):
        reliability([0.5], [1], bins=0)


# ---------------------------------------------------------------- risk and coverage


def test_risk_by_hand() -> None:
    curve = risk_coverage([0.9, 0.1, 0.8, 0.3], [0, 1, 0, 1])
    assert curve.coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert curve.risk == pytest.approx([0, 0, 1 / 3, 1 / 2]) and curve.area == pytest.approx((1 / 3 + 1 / 2) / 4)


def test_risk_of_ties_is_the_mean_over_orders() -> None:
    losses = [0.0, 1.0, 0.4]
    orders = [np.cumsum(order) / [1, 2, 3] for order in itertools.permutations(losses)]
    assert risk_coverage([0.5] * 3, losses).risk == pytest.approx(np.mean(orders, axis=0))


@given(SCORED, st.randoms(use_true_random=False))
def test_risk_does_not_depend_on_the_order(scored: list[tuple[float, bool]], random: object) -> None:
    scores, wrong = zip(*scored, strict=True)
    curve = risk_coverage(scores, wrong)
    assert curve.risk[-1] == pytest.approx(np.mean(wrong))
    assert 0 <= curve.area <= 1
    shuffled = list(scored)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert risk_coverage(*zip(*shuffled, strict=True)).risk == pytest.approx(curve.risk)
    # sorting by the losses gives the minimum
    assert risk_coverage([-float(w) for w in wrong], wrong).area <= curve.area + 1e-9


def test_risk_without_samples_and_with_invalid_numbers() -> None:
    assert math.isnan(risk_coverage([], []).area) and risk_coverage([], []).risk.size == 0
    with pytest.raises(InputError, match="losses"):
        risk_coverage([0.1], [-1.0])
    with pytest.raises(InputError, match="scores are NaN"):
        risk_coverage([float("inf")], [0.0])
    with pytest.raises(InputError, match="2 scores, 1 losses"):
        risk_coverage([0.1, 0.2], [0.0])
