from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unibiomed.errors import InputError
from unibiomed.images import check_box, draw_box, mask_box, parse_box


@st.composite
def boxes(draw: st.DrawFn) -> tuple[tuple[int, int, int, int], int, int]:
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    x1, y1 = draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height))
    return (x0, y0, x1, y1), height, width


@given(boxes())
def test_the_box_of_a_filled_box_is_the_box(case):
    box, height, width = case
    mask = np.zeros((height, width), dtype=bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    assert mask_box(mask) == box
    assert check_box(box, height, width) == box
    assert parse_box(",".join(map(str, box))) == box


def test_mask_box_of_an_empty_mask_is_none():
    assert mask_box(np.zeros((5, 5), dtype=bool)) is None


def test_mask_box_counts_all_values_but_zero():
    mask = np.zeros((4, 6), dtype=np.uint8)
    mask[2, 5] = 255
    assert mask_box(mask) == (5, 2, 6, 3)


def test_mask_box_refuses_volumes():
    with pytest.raises(InputError, match="height, width"):
        mask_box(np.zeros((2, 2, 2)))


@given(boxes(), st.integers(1, 5))
def test_draw_box_changes_the_outline_inside_the_box_only(case, thickness):
    box, height, width = case
    pixels = np.full((height, width, 3), 7, dtype=np.uint8)
    drawn = draw_box(pixels, box, width=thickness)
    assert (pixels == 7).all()
    green = (drawn == (0, 255, 0)).all(axis=2)
    assert mask_box(green) == box
    x0, y0, x1, y1 = box
    expected = np.zeros((height, width), dtype=bool)
    expected[y0:y1, x0:x1] = True
    expected[y0 + thickness : max(y0 + thickness, y1 - thickness), x0 + thickness : max(x0, x1 - thickness)] = False
    assert (green == expected).all()
    assert (drawn[~green] == 7).all()


def test_draw_box_refuses_an_outline_without_width():
    with pytest.raises(InputError, match="1 pixel"):
        draw_box(np.zeros((9, 9, 3), dtype=np.uint8), (1, 1, 5, 5), width=0)


@pytest.mark.parametrize(
    "text", ["10,20,30,40", " 10 , 20 ,30,40 ", "(10, 20, 30, 40)", "[10,20,30,40]", "+10,20,30,40"]
)
def test_parse_box_reads(text):
    assert parse_box(text) == (10, 20, 30, 40)


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1.5,2,3,4", "1 2 3 4", "1,2,3,٤", "9" * 5000, None]
)
def test_parse_box_refuses_malformed(text):
    with pytest.raises(InputError, match="x0,y0,x1,y1"):
        parse_box(text)


@pytest.mark.parametrize("text", ["5,5,5,9", "5,5,9,5", "9,9,5,5", "0,0,0,0"])
def test_parse_box_refuses_boxes_without_area(text):
    with pytest.raises(InputError, match="no area"):
        parse_box(text)


@given(st.text(max_size=60))
def test_parse_box_raises_nothing_else(text):
    try:
        x0, y0, x1, y1 = parse_box(text)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert x0 < x1 and y0 < y1


@pytest.mark.parametrize("box", [(-1, 0, 5, 5), (0, -1, 5, 5), (0, 0, 21, 5), (0, 0, 5, 11)])
def test_check_box_refuses_boxes_outside(box):
    with pytest.raises(InputError, match="outside the image of 20x10"):
        check_box(box, 10, 20)


@pytest.mark.parametrize("box", [(1, 2, 3), (1, 2, 3, 4.5), "abcd", None, (1, 2, 3, float("nan"))])
def test_check_box_refuses_what_is_no_box(box):
    with pytest.raises(InputError, match="four integers"):
        check_box(box, 10, 10)


def test_check_box_returns_plain_ints():
    box = check_box(np.array([1, 2, 3, 4]), 10, 10)
    assert box == (1, 2, 3, 4)
    assert all(type(v) is int for v in box)
