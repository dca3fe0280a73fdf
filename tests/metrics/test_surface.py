"""Surface Dice and HD95 against brute force over all pairs of edge pixels, and values by hand."""

from __future__ import annotations

import itertools
import math
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from unibiomed.errors import InputError
from unibiomed.metrics import hd95, surface_dice

MASKS = hnp.arrays(bool, (6, 7))
STEPS = st.tuples(*[st.sampled_from([0.5, 1.0, 3.0])] * 2)
NEIGHBOURS = ((0, 1), (1, 0), (0, -1), (-1, 0))


def square(shape: tuple[int, ...], corner: tuple[int, ...], size: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(c, c + s) for c, s in zip(corner, size, strict=True))] = True
    return mask


def edge_pixels(mask: np.ndarray) -> list[tuple[int, int]]:
    inside = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    return [(y, x) for y, x in inside if any((y + dy, x + dx) not in inside for dy, dx in NEIGHBOURS)]


def distances(from_: list, to: list, steps: tuple[float, ...]) -> list[float]:
    return [
        min(
            math.dist([a * s for a, s in zip(p, steps, strict=True)], [b * s for b, s in zip(q, steps, strict=True)])
            for q in to
        )
        for p in from_
    ]


def contour(mask: np.ndarray, steps: tuple[float, float]) -> dict[tuple[int, int], float]:
    """Length of the contour in every square of four pixels that it crosses (marching squares)."""
    padded = np.pad(mask, 1)
    pieces = {}
    for y, x in itertools.product(range(padded.shape[0] - 1), range(padded.shape[1] - 1)):
        a, b, c, d = (bool(v) for v in padded[y : y + 2, x : x + 2].ravel())
        inside = a + b + c + d
        corner = math.hypot(*steps) / 2
        if inside in (1, 3):
            pieces[y, x] = corner
        elif inside == 2:
            across, along = a == b, a == c  # the two of a row are alike, or those of a column
            pieces[y, x] = steps[1] if across else steps[0] if along else 2 * corner
    return pieces


@settings(max_examples=40)
@given(MASKS, MASKS, STEPS)
def test_hd95_matches_its_definition(p: np.ndarray, g: np.ndarray, steps: tuple[float, float]) -> None:
    if not p.any() and not g.any():
        expected = 0.0
    elif not p.any() or not g.any():
        expected = math.hypot(6 * steps[0], 7 * steps[1])
    else:
        a, b = edge_pixels(p), edge_pixels(g)
        expected = max(np.percentile(distances(a, b, steps), 95), np.percentile(distances(b, a, steps), 95))
    assert hd95(p, g, spacing=steps) == pytest.approx(expected, rel=1e-5)
    assert hd95(g, p, spacing=steps) == pytest.approx(expected, rel=1e-5)


@settings(max_examples=40)
@given(MASKS, MASKS, STEPS, st.sampled_from([0.0, 0.9, 2.3]))
def test_surface_dice_matches_its_definition(
    p: np.ndarray, g: np.ndarray, steps: tuple[float, float], tolerance: float
) -> None:
    score = surface_dice(p, g, tolerance=tolerance, spacing=steps)
    if p.any() and g.any():
        a, b = contour(p, steps), contour(g, steps)
        near = [
            length * (away <= tolerance)
            for one, other in ((a, b), (b, a))
            for length, away in zip(one.values(), distances(list(one), list(other), steps), strict=True)
        ]
        assert score == pytest.approx(sum(near) / (sum(a.values()) + sum(b.values())), rel=1e-4)
    else:
        assert score == float(p.any() == g.any())
    assert score == pytest.approx(surface_dice(g, p, tolerance=tolerance, spacing=steps), rel=1e-5)


@settings(max_examples=15)
@given(MASKS, MASKS, st.sampled_from([0.25, 2.0, 8.0]), st.tuples(st.integers(0, 4), st.integers(0, 4)))
def test_scale_and_translation(p: np.ndarray, g: np.ndarray, scale: float, shift: tuple[int, int]) -> None:
    there = hd95(p, g)
    assert hd95(p, g, spacing=scale) == pytest.approx(scale * there, rel=1e-5)
    assert surface_dice(p, g, tolerance=scale, spacing=scale) == pytest.approx(surface_dice(p, g, tolerance=1.0))
    if p.any() and g.any():
        moved = [np.pad(mask, [(s, 4 - s) for s in shift]) for mask in (p, g)]
        assert hd95(*moved) == pytest.approx(there, rel=1e-5)
        assert surface_dice(*moved, tolerance=1.0) == pytest.approx(surface_dice(p, g, tolerance=1.0))


@settings(max_examples=15)
@given(MASKS, MASKS)
def test_bounds(p: np.ndarray, g: np.ndarray) -> None:
    by_tolerance = [surface_dice(p, g, tolerance=t) for t in (0.0, 1.0, 20.0)]
    assert 0 <= by_tolerance[0] <= by_tolerance[1] <= by_tolerance[2] <= 1
    assert by_tolerance[2] == float(p.any() == g.any())
    assert surface_dice(p, p, tolerance=0) == 1.0
    assert hd95(p, p) == 0.0
    assert 0 <= hd95(p, g) <= math.hypot(6, 7) + 1e-5


def test_volumes_by_hand() -> None:
    truth = square((12, 12, 12), (3, 3, 3), (4, 4, 4))
    lifted = square((12, 12, 12), (5, 3, 3), (4, 4, 4))
    steps = (5.0, 1.0, 1.0)
    # two slices of 5 mm: the far face is 10 mm away, and it is more than a twentieth of the edge
    assert hd95(lifted, truth, spacing=steps) == pytest.approx(10.0)
    assert surface_dice(lifted, truth, tolerance=10.0, spacing=steps) == pytest.approx(1.0)
    assert 0.3 < surface_dice(lifted, truth, tolerance=1.0, spacing=steps) < 0.8
    # to the side two pixels are 2 mm
    aside = square((12, 12, 12), (3, 5, 3), (4, 4, 4))
    assert hd95(aside, truth, spacing=steps) == pytest.approx(2.0)
    assert surface_dice(aside, truth, tolerance=2.0, spacing=steps) == pytest.approx(1.0)


def test_surfaces_are_weighted_by_area() -> None:
    # a thin plate, off by one slice of 0.1 mm: half of its edge pixels are shared, but only a sliver of its area is
    truth, up = square((9, 30, 30), (2, 5, 5), (2, 20, 20)), square((9, 30, 30), (3, 5, 5), (2, 20, 20))
    assert surface_dice(up, truth, tolerance=0.05, spacing=(0.1, 1.0, 1.0)) < 0.15


def test_library_warnings_are_silenced() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert surface_dice(np.ones((2, 2)), np.ones((2, 2)), tolerance=1) == 1.0


def test_empty_masks() -> None:
    empty, one = np.zeros((3, 4), bool), square((3, 4), (1, 1), (1, 1))
    assert surface_dice(empty, empty, tolerance=1) == 1.0 and hd95(empty, empty) == 0.0
    assert surface_dice(one, empty, tolerance=99) == surface_dice(empty, one, tolerance=99) == 0.0
    assert hd95(one, empty, spacing=2.0) == hd95(empty, one, spacing=2.0) == pytest.approx(10.0)
    assert hd95(np.zeros((2, 3, 6)), np.ones((2, 3, 6))) == pytest.approx(7.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spacing": 0.0}, "spacing"),
        ({"spacing": (1.0, float("nan"))}, "spacing"),
        ({"spacing": (1.0, 1.0, 1.0)}, "one number or 2"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"tolerance": float("nan")}, "tolerance"),
    ],
)
def test_invalid_arguments(options: dict, message: str) -> None:
    mask = np.ones((3, 3), bool)
    with pytest.raises(InputError, match=message):
        surface_dice(mask, mask, **{"tolerance": 1.0, **options})


def test_invalid_masks() -> None:
    with pytest.raises(InputError, match=r"\(1, 4\).*\(4, 1\)"):
        hd95(np.ones((1, 4)), np.ones((4, 1)))
    with pytest.raises(InputError, match="NaN"):
        hd95(np.full((2, 2), np.nan), np.ones((2, 2)))
    with pytest.raises(InputError, match="1 dimensions"):
        hd95(np.ones(4), np.ones(4))


def test_without_monai(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "monai.metrics", None)
    with pytest.raises(InputError, match=r"^surface distance needs monai: run pip install 'unibiomed\[evaluate\]'$"):
        hd95(np.ones((2, 2)), np.ones((2, 2)))
