from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unibiomed.evaluate import intervals
from unibiomed.evaluate.intervals import macro_mean, mean_of


def test_mean_of_classes_not_of_values():
    rows = [("liver", "a", 1.0), ("liver", "b", 0.0), ("liver", "c", 0.5), ("polyp", "d", 1.0)]
    assert macro_mean(rows).value == pytest.approx(0.75)
    assert macro_mean(rows).count == 4 and macro_mean(rows).subjects == 4


def test_nothing_has_no_mean():
    found = mean_of([], [])
    assert math.isnan(found.value) and found.to_dict()["value"] is None and found.count == 0


def test_one_subject_has_no_interval():
    found = mean_of([0.2, 0.4], ["a", "a"])
    assert found.value == pytest.approx(0.3)
    assert found.to_dict() == {"value": 0.3, "low": None, "high": None, "count": 2, "subjects": 1}


def test_slices_of_one_patient_are_no_independent_values():
    rng = np.random.default_rng(0)
    patients = rng.normal(0.5, 0.1, 20)
    values = np.repeat(patients, 30)
    alone = mean_of(list(values), [str(i) for i in range(600)])
    together = mean_of(list(values), [str(i // 30) for i in range(600)])
    assert alone.value == pytest.approx(together.value)
    wide, narrow = together.high - together.low, alone.high - alone.low
    assert wide / narrow == pytest.approx(30**0.5, rel=0.25)
    # what the theory says of the mean of 20 patients
    assert wide == pytest.approx(2 * 1.96 * patients.std(ddof=1) / 20**0.5, rel=0.25)


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from("abcd"), st.floats(0, 1)), min_size=1, max_size=30))
def test_interval_holds_values_in_range(rows):
    found = macro_mean(rows, draws=50)
    assert 0 <= found.value <= 1
    if found.subjects > 1:
        assert 0 <= found.low <= found.high <= 1


def test_the_same_each_time():
    rows = [("x", str(i % 5), i / 10) for i in range(10)]
    assert macro_mean(rows) == macro_mean(reversed(rows))


def test_blocks_do_not_change_the_numbers(monkeypatch):
    rng = np.random.default_rng(3)
    rows = [("xy"[i % 2], str(i % 70), float(rng.random())) for i in range(200)]
    whole = macro_mean(rows)
    monkeypatch.setattr(intervals, "BLOCK", 300)
    parted = macro_mean(rows)
    assert (parted.low, parted.high) == (pytest.approx(whole.low), pytest.approx(whole.high))


def test_many_subjects_need_little_memory_and_keep_their_interval():
    count = 50_000
    values = np.random.default_rng(4).random(count)
    names = [str(i) for i in range(count)]
    tracemalloc.start()
    found = macro_mean(list(zip(["x"] * count, names, values.tolist(), strict=True)), draws=200)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / count**0.5, rel=0.2)
