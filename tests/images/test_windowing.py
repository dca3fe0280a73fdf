from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unibiomed.errors import InputError
from unibiomed.images import WINDOWS, apply_window, parse_window
from unibiomed.images.windowing import apply_range, percentile_range

finite = st.floats(allow_nan=False, allow_infinity=False)


def test_parse_window_by_name_and_by_numbers():
    assert parse_window("lung") == (-600.0, 1500.0)
    assert parse_window(" Brain ") == (40.0, 80.0)
    assert parse_window("40,400") == (40.0, 400.0)
    assert parse_window(" -600.5 , 1.5e3 ") == (-600.5, 1500.0)
    assert parse_window((40, 400)) == (40.0, 400.0)
    assert all(parse_window(name) == window for name, window in WINDOWS.items())


@pytest.mark.parametrize(
    ("window", "said"),
    [
        ("liverish", "unknown window: choose lung, abdomen"),
        ("", "unknown window"),
        ("40", "unknown window"),
        ("40,400,1", "unknown window"),
        ("nan,400", "unknown window"),
        ("40,inf", "unknown window"),
        ("40,0", "above 0"),
        ("40,-400", "above 0"),
        ("40,1e999", "finite"),
        ((40, 0), "above 0"),
        ((float("nan"), 400), "finite"),
        ((1, 2, 3), "two numbers"),
        (("a", "b"), "two numbers"),
        (40, "two numbers"),
    ],
)
def test_parse_window_refuses(window, said):
    with pytest.raises(InputError, match=said) as caught:
        parse_window(window)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=40))
def test_parse_window_raises_nothing_else(text):
    try:
        _, width = parse_window(text)
    except InputError:
        return
    assert width > 0


def test_apply_window_sends_the_ends_to_black_and_white():
    values = np.array([-5000, -160, 40, 240, 5000])
    assert apply_window(values, 40, 400).tolist() == [0, 0, 128, 255, 255]


def test_apply_window_follows_the_linear_function_of_the_standard():
    # PS3.3 C.11.2.1.2.1, example: centre 2048, width 4096 over 0..4095 is the whole range.
    values = np.arange(4096)
    expected = np.rint(((values - 2047.5) / 4095 + 0.5) * 255)
    assert (apply_window(values, 2048, 4096, function="LINEAR") == expected).all()
    assert apply_window(np.array([9, 10]), 10, 1, function="LINEAR").tolist() == [0, 255]


def test_apply_window_sigmoid_is_half_at_the_centre():
    grey = apply_window(np.array([-1e6, 40, 1e6]), 40, 400, function="SIGMOID")
    assert grey.tolist() == [0, 128, 255]


@given(
    hnp.arrays(np.float64, st.integers(2, 30), elements=finite), finite, finite.filter(lambda w: w > 0), st.booleans()
)
def test_apply_window_never_falls_where_values_rise(values, center, width, sigmoid):
    grey = apply_window(np.sort(values), center, width, function="SIGMOID" if sigmoid else "LINEAR_EXACT")
    assert grey.dtype == np.uint8
    assert (np.diff(grey.astype(int)) >= 0).all()


@given(hnp.arrays(np.int16, (6, 7)))
def test_apply_window_leaves_its_input_alone(values):
    before = values.copy()
    apply_window(values, 40, 400)
    assert (values == before).all()


@given(hnp.arrays(np.float64, (5, 6), elements=finite))
def test_percentile_range_lies_within_the_values(values):
    low, high = percentile_range(values)
    assert min(values.min(), 0) <= low <= high <= max(values.max(), 0)
    grey = apply_range(values, low, high)
    assert grey.shape == values.shape
    if low < high:
        assert grey.min() == 0 or (values > low).all()
        assert grey.max() == 255 or (values < high).all()


def test_percentile_range_ignores_zero_background_and_padding():
    values = np.zeros((100, 100))
    values[:10] = np.linspace(1000, 2000, 1000).reshape(10, 100)
    low, high = percentile_range(values)
    assert (low, high) == pytest.approx((1005, 1995))
    signed = values - 500.0
    signed[50:] = -3024.0
    assert percentile_range(signed)[0] == -3024.0
    assert percentile_range(signed, ignore=signed == -3024.0)[0] == -500.0


def test_percentile_range_of_few_values():
    assert percentile_range(np.zeros((4, 4))) == (0.0, 0.0)
    two = np.zeros((4, 4))
    two[0] = 900
    assert percentile_range(two) == (0.0, 900.0)
    assert apply_range(np.full((2, 2), 7.0), 7.0, 7.0).tolist() == [[0, 0], [0, 0]]
