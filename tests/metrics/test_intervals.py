from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unibiomed.metrics import intervals
from unibiomed.metrics.intervals import (
    bootstrap_estimate,
    macro_mean,
    mean_estimate,
    proportion_estimate,
    upper_bound_of_zero,
)


def test_macro_mean_is_the_mean_of_classes():
    rows = [("liver", "a", 1.0), ("liver", "b", 0.0), ("liver", "c", 0.5), ("polyp", "d", 1.0)]
    assert macro_mean(rows).value == pytest.approx(0.75)
    assert macro_mean(rows).count == 4 and macro_mean(rows).subjects == 4


def test_mean_without_values():
    found = mean_estimate([], [])
    assert math.isnan(found.value) and found.to_dict()["value"] is None and found.count == 0


def test_one_subject_has_no_interval():
    found = mean_estimate([0.2, 0.4], ["a", "a"])
    assert found.value == pytest.approx(0.3)
    assert found.to_dict() == {"value": 0.3, "low": None, "high": None, "count": 2, "subjects": 1}


def test_slices_of_one_patient_are_not_independent():
    rng = np.random.default_rng(0)
    patients = rng.normal(0.5, 0.1, 20)
    values = np.repeat(patients, 30)
    alone = mean_estimate(list(values), [str(i) for i in range(600)])
    together = mean_estimate(list(values), [str(i // 30) for i in range(600)])
    assert alone.value == pytest.approx(together.value)
    wide, narrow = together.high - together.low, alone.high - alone.low
    assert wide / narrow == pytest.approx(30**0.5, rel=0.25)
    # the interval of the mean of 20 independent values
    assert wide == pytest.approx(2 * 1.96 * patients.std(ddof=1) / 20**0.5, rel=0.25)


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from("abcd"), st.floats(0, 1)), min_size=1, max_size=30))
def test_interval_contains_the_value(rows):
    found = macro_mean(rows, resamples=50)
    assert 0 <= found.value <= 1
    if len({(row[0], row[1]) for row in rows}) > len({row[0] for row in rows}):
        assert 0 <= found.low <= found.high <= 1
    else:
        # no class has two subjects
        assert math.isnan(found.low) and math.isnan(found.high)


def test_estimates_are_reproducible():
    rows = [("x", str(i % 5), i / 10) for i in range(10)]
    assert macro_mean(rows) == macro_mean(reversed(rows))


def test_blocks_do_not_change_the_numbers(monkeypatch):
    rng = np.random.default_rng(3)
    rows = [("xy"[i % 2], str(i % 70), float(rng.random())) for i in range(200)]
    whole = macro_mean(rows)
    monkeypatch.setattr(intervals, "BLOCK_SIZE", 300)
    parted = macro_mean(rows)
    assert (parted.low, parted.high) == (pytest.approx(whole.low), pytest.approx(whole.high))


def test_many_subjects_need_little_memory():
    count = 50_000
    values = np.random.default_rng(4).random(count)
    names = [str(i) for i in range(count)]
    tracemalloc.start()
    found = macro_mean(list(zip(["x"] * count, names, values.tolist(), strict=True)), resamples=200)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / count**0.5, rel=0.2)


def drawn_classes(rng: np.random.Generator, subjects: list[int], truths: np.ndarray) -> list[tuple[str, str, float]]:
    """Draw two images of each subject of classes with given numbers of subjects."""
    rows = []
    for number, (count, truth) in enumerate(zip(subjects, truths, strict=True)):
        for subject in range(count):
            level = truth + 0.1 * rng.normal()
            rows += [(str(number), f"{number}/{subject}", level + 0.02 * rng.normal()) for _ in range(2)]
    return rows


@pytest.mark.parametrize("subjects", [[1] * 6 + [2] * 4 + [3, 4, 8, 12], [2] * 12, [5, 10, 20, 40]])
def test_coverage_with_few_subjects_per_class(subjects):
    rng = np.random.default_rng(15)
    truths = np.linspace(0.3, 0.9, len(subjects))
    covered = 0
    for _ in range(400):
        found = macro_mean(drawn_classes(rng, subjects, truths), resamples=200)
        covered += found.low <= truths.mean() <= found.high
    # 95 % with the random error of 400 repetitions
    assert 0.925 <= covered / 400 <= 0.975


def test_class_with_one_subject_does_not_bias_the_interval():
    rng = np.random.default_rng(6)
    # the classes with one subject have low values
    subjects, truths = [1] * 4 + [12] * 6, np.array([0.1] * 4 + [0.9] * 6)
    found = macro_mean(drawn_classes(rng, subjects, truths))
    above, below = found.high - found.value, found.value - found.low
    assert above == pytest.approx(below, rel=0.3)
    assert found.high - found.low < 0.2


@pytest.mark.parametrize("each", [1, 3])
@pytest.mark.parametrize("subjects", [4, 23, 100])
def test_proportion_of_zero_or_one_has_an_exact_bound(subjects, each):
    names = [str(i) for i in range(subjects)] * each
    exact = stats.beta.ppf(0.975, 1, subjects)
    none, whole = proportion_estimate([False] * len(names), names), proportion_estimate([True] * len(names), names)
    assert (none.low, none.value, none.high) == (0, 0, pytest.approx(exact))
    assert (whole.low, whole.value, whole.high) == (pytest.approx(1 - exact), 1, 1)
    # a mean of equal Dice values is not a proportion
    assert mean_estimate([0.0] * len(names), names).high == 0


def test_other_proportions_use_the_bootstrap():
    values, names = [i % 4 > 0 for i in range(40)], [str(i // 2) for i in range(40)]
    assert proportion_estimate(values, names) == mean_estimate([float(value) for value in values], names)


@pytest.mark.parametrize(("subjects", "each", "share"), [(8, 1, 0.02), (8, 1, 0.95), (23, 1, 0.1), (8, 3, 0.95)])
def test_coverage_near_zero_and_one(subjects, each, share):
    rng = np.random.default_rng(8)
    names = [str(i) for i in range(subjects)] * each
    covered = 0
    for _ in range(200):
        # images of one subject are correlated
        levels = np.tile(rng.beta(share, 1 - share, subjects) if each > 1 else np.full(subjects, share), each)
        found = proportion_estimate((rng.random(len(names)) < levels).tolist(), names)
        covered += found.low <= share <= found.high
    assert covered / 200 >= 0.92


def test_classes_at_zero_or_one_widen_the_interval():
    def classes(*shares: float) -> list[tuple[str, str, float]]:
        return [(str(c), f"{c}/{i}", float(i < 6 * share)) for c, share in enumerate(shares) for i in range(6)]

    # classes of equal size are equivalent to one class with all subjects
    both = macro_mean(classes(1, 1), proportion=True)
    assert (both.low, both.high) == (pytest.approx(1 - upper_bound_of_zero(12)), 1)
    mixed = macro_mean(classes(1, 0), proportion=True)
    assert (mixed.low, mixed.high) == (
        pytest.approx(0.5 - upper_bound_of_zero(6) / 2),
        pytest.approx(0.5 + upper_bound_of_zero(6) / 2),
    )
    drawn, shares = macro_mean(classes(0.5, 1)), macro_mean(classes(0.5, 1), proportion=True)
    assert (shares.value, shares.high) == (drawn.value, drawn.high)
    assert shares.value - shares.low == pytest.approx(math.hypot(drawn.value - drawn.low, upper_bound_of_zero(6) / 2))
    # subjects that occur in every class count once
    same = [(c, str(i), 1.0) for c in "xyz" for i in range(6)]
    assert macro_mean(same, proportion=True).low == pytest.approx(1 - upper_bound_of_zero(6))


def test_bootstrap_estimate():
    values = np.random.default_rng(7).random(200)
    names = [str(i // 4) for i in range(200)]
    found = bootstrap_estimate(lambda weights: weights @ values / weights.sum(1), names)
    mean = mean_estimate(list(values), names)
    assert (found.value, found.count, found.subjects) == (pytest.approx(mean.value), 200, 50)
    assert (found.low, found.high) == (pytest.approx(mean.low, abs=2e-3), pytest.approx(mean.high, abs=2e-3))
    # one subject, or a statistic that is undefined in most resamples
    assert math.isnan(bootstrap_estimate(lambda weights: weights.sum(1), ["a"] * 3).low)
    rare = bootstrap_estimate(lambda weights: np.where(weights[:, 0] > 0, weights[:, 0], np.nan), names)
    assert rare.value == 1 and math.isnan(rare.low)
