"""Intervals, tests and corrections against known values, SciPy, and how often they hold."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unibiomed.errors import InputError
from unibiomed.metrics import (
    auroc,
    benjamini_hochberg,
    bootstrap,
    bootstrap_mean,
    holm,
    mean_sd,
    paired_t_test,
    wilcoxon,
    wilson_interval,
)

VALUES = st.lists(st.integers(-20, 20).map(lambda n: n / 10), min_size=2, max_size=20)
P_VALUES = st.lists(st.floats(0, 1), max_size=12)

# ---------------------------------------------------------------- bootstrap


def test_interval_of_a_normal_mean() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    found = bootstrap_mean(values)
    half = 1.96 * values.std() / math.sqrt(400)
    assert found.value == pytest.approx(values.mean()) and found.subjects == 400
    assert found.low == pytest.approx(values.mean() - half, abs=0.03)
    assert found.high == pytest.approx(values.mean() + half, abs=0.03)


def test_subjects_widen_it_as_if_each_had_one_image() -> None:
    by_subject = np.random.default_rng(2).normal(size=60)
    values, subjects = np.repeat(by_subject, 5), np.repeat(np.arange(60), 5)
    clustered, alone, naive = bootstrap_mean(values, subjects), bootstrap_mean(by_subject), bootstrap_mean(values)
    assert (clustered.low, clustered.high) == pytest.approx((alone.low, alone.high), abs=1e-12)
    assert clustered.subjects == 60
    ratio = (clustered.high - clustered.low) / (naive.high - naive.low)
    assert ratio == pytest.approx(math.sqrt(5), rel=0.05)


def test_order_and_names_of_subjects_do_not_matter_to_the_mean() -> None:
    values, names = [1.0, 2.0, 4.0, 8.0], ["b", "a", "b", "c"]
    assert bootstrap_mean(values, names) == bootstrap_mean(values, [1, (2,), 1, None])


def test_intervals_hold_as_often_as_they_say() -> None:
    rng = np.random.default_rng(3)
    held = 0
    for seed in range(200):
        subjects = np.repeat(np.arange(30), 3)
        values = rng.normal(size=30)[subjects] + rng.normal(size=90)
        found = bootstrap_mean(values, subjects, level=0.9, resamples=500, seed=seed)
        held += found.low <= 0 <= found.high
    assert 0.82 <= held / 200 <= 0.96


@given(VALUES, st.integers(0, 3))
def test_seeds_and_bounds(values: list[float], seed: int) -> None:
    found = bootstrap_mean(values, resamples=200, seed=seed)
    assert found == bootstrap_mean(values, resamples=200, seed=seed)
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9
    wide = bootstrap_mean(values, resamples=200, seed=seed, level=0.99)
    assert wide.low <= found.low and found.high <= wide.high


def test_many_subjects_are_drawn_in_parts() -> None:
    values = np.random.default_rng(4).normal(size=20_000)
    found = bootstrap_mean(values, resamples=201)
    assert found.high - found.low == pytest.approx(2 * 1.96 / math.sqrt(20_000), rel=0.2)


def test_any_statistic() -> None:
    values = np.random.default_rng(5).normal(size=80)
    subjects = np.repeat(np.arange(40), 2)
    slow = bootstrap(lambda rows: float(values[rows].mean()), 80, subjects, resamples=2000)
    fast = bootstrap_mean(values, subjects)
    assert (slow.value, slow.low, slow.high) == pytest.approx((fast.value, fast.low, fast.high), abs=0.02)
    truths = values + np.random.default_rng(6).normal(size=80) > 0
    found = bootstrap(lambda rows: auroc(values[rows], truths[rows]), 80, resamples=200)
    assert 0.5 < found.low < found.value < found.high <= 1


def test_a_statistic_that_often_fails_has_no_interval() -> None:
    truths = np.array([True, False])
    found = bootstrap(lambda rows: auroc(rows, truths[rows]), 2, resamples=100)
    assert found.value == 0.0 and math.isnan(found.low)


def test_too_little_for_an_interval() -> None:
    assert math.isnan(bootstrap_mean([]).value)
    one = bootstrap_mean([1.0, 3.0], ["a", "a"])
    assert one.value == 2.0 and math.isnan(one.low) and one.subjects == 1


# ---------------------------------------------------------------- shares


def test_wilson_by_hand() -> None:
    # Newcombe (1998): 81 of 263 and 15 of 148
    for successes, trials, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        found = wilson_interval(successes, trials)
        assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)
    assert wilson_interval(5, 5).high == 1.0 and math.isnan(wilson_interval(0, 0).value)
    with pytest.raises(InputError, match="6 successes in 5 trials"):
        wilson_interval(6, 5)


@given(st.integers(0, 50), st.integers(1, 50))
def test_wilson_holds_its_share(successes: int, trials: int) -> None:
    successes = min(successes, trials)
    found = wilson_interval(successes, trials)
    assert 0 <= found.low <= found.value <= found.high <= 1
    mirrored = wilson_interval(trials - successes, trials)
    assert mirrored.low == pytest.approx(1 - found.high) and mirrored.high == pytest.approx(1 - found.low)


# ---------------------------------------------------------------- paired tests


def test_student_by_hand() -> None:
    # Student (1908): hours of sleep gained by ten patients with two drugs
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = paired_t_test(first, second)
    assert found.statistic == pytest.approx(-4.0621, abs=1e-4) and found.p == pytest.approx(0.002833, abs=1e-6)
    assert found.difference == pytest.approx(-1.58) and found.effect == pytest.approx(-1.58 / 1.2300, abs=1e-3)


@given(st.lists(st.tuples(st.integers(-20, 20), st.sampled_from([-3, 2, 7, 0])), min_size=2, max_size=9))
def test_tests_against_their_definitions(pairs: list[tuple[int, int]]) -> None:
    a = np.array([one for one, _ in pairs], float)
    b = a + [apart for _, apart in pairs]
    found, ranked, d = paired_t_test(a, b), wilcoxon(a, b), a - b
    if d.std() > 0:
        t = d.mean() / (d.std(ddof=1) / math.sqrt(d.size))
        assert found.statistic == pytest.approx(t) and found.p == pytest.approx(2 * stats.t.cdf(-abs(t), d.size - 1))
        assert found.effect == pytest.approx(d.mean() / d.std(ddof=1))
    d = d[d != 0]
    ranks = stats.rankdata(abs(d))
    signs = np.array(list(itertools.product([0, 1], repeat=d.size)))
    as_far = abs(signs @ ranks - ranks.sum() / 2) >= abs((d > 0) @ ranks - ranks.sum() / 2)
    assert ranked.p == pytest.approx(as_far.mean())
    for test in (paired_t_test, wilcoxon):
        assert test(b, a).effect == pytest.approx(-test(a, b).effect) and test(b, a).p == pytest.approx(test(a, b).p)
    assert -1 <= ranked.effect <= 1


@pytest.mark.parametrize(("pairs", "method"), [(20, "exact"), (200, "asymptotic")])
def test_tests_against_scipy(pairs: int, method: str) -> None:
    rng = np.random.default_rng(8)
    a = rng.normal(size=pairs)
    b = a + rng.normal(0.2, 1, pairs)
    theirs = stats.ttest_rel(a, b)
    assert paired_t_test(a, b).statistic == pytest.approx(theirs.statistic)
    assert paired_t_test(a, b).p == pytest.approx(theirs.pvalue)
    assert wilcoxon(a, b).p == pytest.approx(stats.wilcoxon(a, b, method=method).pvalue)
    assert wilcoxon(a, b).statistic == stats.wilcoxon(a, b).statistic
    if method == "asymptotic":
        a, b = a.round(1), b.round(1)  # with ties
        # in tenths: what rounding leaves of them is no difference
        assert wilcoxon(a, b).p == pytest.approx(stats.wilcoxon((a - b).round(9), method=method).pvalue, rel=1e-6)


def test_what_rounding_leaves_is_no_difference() -> None:
    a, b = [0.1 + 0.2] * 6 + [0.5], [0.3] * 6 + [0.5]
    for test in (paired_t_test, wilcoxon):
        assert (test(a, b).p, test(a, b).effect) == (1.0, 0.0)


def test_tests_at_their_ends() -> None:
    a = [0.1, 0.4, 0.7, 0.9]
    for test in (paired_t_test, wilcoxon):
        same = test(a, a)
        assert (same.p, same.effect, same.difference, same.pairs) == (1.0, 0.0, 0.0, 4)
    shifted = paired_t_test(np.add(a, 0.2), a)
    assert shifted.p == 0.0 and shifted.effect == math.inf
    assert wilcoxon(np.add(a, 0.2), a).effect == 1.0 and wilcoxon(np.subtract(a, 0.2), a).effect == -1.0
    # exact: all of five ranks on one side happen 2 times in 32
    assert wilcoxon([1.0, 2.0, 3.0, 4.0, 5.0], [0.0] * 5).p == pytest.approx(2 / 32)


def test_no_difference_is_claimed_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    p = [paired_t_test(rng.normal(size=12), rng.normal(size=12)).p for _ in range(400)]
    assert 0.02 <= np.mean(np.array(p) < 0.05) <= 0.09


# ---------------------------------------------------------------- many tests


def test_corrections_by_hand() -> None:
    p = [0.01, 0.04, 0.03, 0.005]
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert benjamini_hochberg(p) == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert holm([]).size == benjamini_hochberg([]).size == 0


@given(P_VALUES)
def test_corrections_against_scipy_and_loops(p: list[float]) -> None:
    if p:
        assert benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p))
    corrected, highest = {}, 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        highest = max(highest, min(1.0, (len(p) - rank) * p[place]))
        corrected[place] = highest
    assert holm(p) == pytest.approx([corrected[place] for place in range(len(p))])
    assert (holm(p) >= benjamini_hochberg(p) - 1e-12).all() and (benjamini_hochberg(p) >= np.array(p) - 1e-12).all()


def test_mean_and_deviation_over_runs() -> None:
    assert mean_sd([1.0, 2.0, 3.0]) == pytest.approx((2.0, 1.0))
    assert mean_sd([2.0])[0] == 2.0 and math.isnan(mean_sd([2.0])[1]) and math.isnan(mean_sd([])[0])


# ---------------------------------------------------------------- what is refused


def test_what_is_refused() -> None:
    nan = float("nan")
    for refused, message in (
        (lambda: bootstrap_mean([1.0, nan]), "values are NaN"),
        (lambda: bootstrap_mean([1.0, 2.0], ["a"]), "2 samples for 1 subjects"),
        (lambda: bootstrap_mean([1.0, 2.0], ["a", nan]), "subject is NaN"),
        (lambda: bootstrap_mean([1.0], level=1.0), "confidence level"),
        (lambda: bootstrap_mean([1.0], resamples=0), "0 resamples"),
        (lambda: bootstrap(len, 3, ["a"]), "3 samples for 1 subjects"),
        (lambda: paired_t_test([1.0, 2.0], [1.0]), "2 a for 1 b"),
        (lambda: paired_t_test([1.0], [1.0]), "two or more"),
        (lambda: wilcoxon([1.0, nan], [1.0, 2.0]), "scores of a are NaN"),
        (lambda: holm([0.5, nan]), "p-values are NaN"),
        (lambda: benjamini_hochberg([1.5]), "p-values reach from"),
        (lambda: mean_sd([nan]), "runs are NaN"),
    ):
        with pytest.raises(InputError, match=message):
            refused()
