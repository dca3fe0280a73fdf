"""Paired tests and corrections against known values and SciPy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unibiomed.errors import InputError
from unibiomed.metrics import holm, mean_sd, paired_t_test, wilcoxon

P_VALUES = st.lists(st.floats(0, 1), max_size=12)

# ---------------------------------------------------------------- paired tests


def test_t_test_by_hand() -> None:
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
        # differences of tenths have rounding errors
        assert wilcoxon(a, b).p == pytest.approx(stats.wilcoxon((a - b).round(9), method=method).pvalue, rel=1e-6)


def test_rounding_errors_are_no_difference() -> None:
    a, b = [0.1 + 0.2] * 6 + [0.5], [0.3] * 6 + [0.5]
    for test in (paired_t_test, wilcoxon):
        assert (test(a, b).p, test(a, b).effect) == (1.0, 0.0)


def test_tests_with_equal_differences() -> None:
    a = [0.1, 0.4, 0.7, 0.9]
    for test in (paired_t_test, wilcoxon):
        same = test(a, a)
        assert (same.p, same.effect, same.difference, same.pairs) == (1.0, 0.0, 0.0, 4)
    shifted = paired_t_test(np.add(a, 0.2), a)
    assert shifted.p == 0.0 and shifted.effect == math.inf
    assert wilcoxon(np.add(a, 0.2), a).effect == 1.0 and wilcoxon(np.subtract(a, 0.2), a).effect == -1.0
    # exact: two of 32 sign patterns have all five ranks on one side
    assert wilcoxon([1.0, 2.0, 3.0, 4.0, 5.0], [0.0] * 5).p == pytest.approx(2 / 32)


def test_false_positive_rate() -> None:
    rng = np.random.default_rng(7)
    p = [paired_t_test(rng.normal(size=12), rng.normal(size=12)).p for _ in range(400)]
    assert 0.02 <= np.mean(np.array(p) < 0.05) <= 0.09


# ---------------------------------------------------------------- many tests


def test_corrections_by_hand() -> None:
    p = [0.01, 0.04, 0.03, 0.005]
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]).size == 0


@given(P_VALUES)
def test_holm_against_loops(p: list[float]) -> None:
    corrected, highest = {}, 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        highest = max(highest, min(1.0, (len(p) - rank) * p[place]))
        corrected[place] = highest
    assert holm(p) == pytest.approx([corrected[place] for place in range(len(p))])
    assert (holm(p) >= np.array(p) - 1e-12).all()


def test_mean_and_deviation_over_runs() -> None:
    assert mean_sd([1.0, 2.0, 3.0]) == pytest.approx((2.0, 1.0))
    assert mean_sd([2.0])[0] == 2.0 and math.isnan(mean_sd([2.0])[1]) and math.isnan(mean_sd([])[0])


# ---------------------------------------------------------------- invalid arguments


def test_invalid_arguments() -> None:
    nan = float("nan")
    for refused, message in (
        (lambda: paired_t_test([1.0, 2.0], [1.0]), "2 a, 1 b"),
        (lambda: paired_t_test([1.0], [1.0]), "two or more"),
        (lambda: wilcoxon([1.0, nan], [1.0, 2.0]), "scores of a are NaN"),
        (lambda: holm([0.5, nan]), "p-values are NaN"),
        (lambda: holm([1.5]), "p-values range from"),
        (lambda: mean_sd([nan]), "runs are NaN"),
    ):
        with pytest.raises(InputError, match=message):
            refused()
