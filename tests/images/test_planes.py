"""A mask of a volume lands on the pixels of the frames it was made of, whatever their order and direction."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from unibiomed.errors import InputError
from unibiomed.images import Grid
from unibiomed.images.grid import make_grid
from unibiomed.images.planes import Plane, match_frames

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
SHAPE = (4, 5, 6)
"""Frames, rows, columns: all different, so that no two can be exchanged."""


def planes_and_grid(
    axes: np.ndarray, steps: np.ndarray, spacing: tuple[float, float], order: np.ndarray, origin: np.ndarray
) -> tuple[list[Plane], Grid]:
    """Frames in a shuffled order, and the grid of their volume as `unibiomed.images.series` makes it.

    ``axes`` holds the directions of rows and columns as its columns; ``steps`` where the sorted frames begin, relative
    to the first one.
    """
    frames, rows, columns = SHAPE
    affine = np.eye(4)
    affine[:3, 0] = axes[:, 0] * spacing[1]
    affine[:3, 1] = axes[:, 1] * spacing[0]
    affine[:3, 2] = (steps[-1] - steps[0]) / (frames - 1)
    affine[:3, 3] = origin
    planes = [
        Plane(tuple(origin + steps[k]), tuple(axes[:, 0]), tuple(axes[:, 1]), spacing)  # type: ignore[arg-type]
        for k in order
    ]
    return planes, make_grid((columns, rows, frames), LPS_TO_RAS @ affine, "test")


def check(planes: list[Plane], grid: Grid, order: np.ndarray) -> None:
    sorted_frames = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    volume = grid.turn(sorted_frames.transpose(2, 1, 0))
    found = match_frames(grid, planes, SHAPE[1:], "test")
    assert np.array_equal(found.to_frames(volume), sorted_frames[order])


SIGNED_PERMUTATIONS = [
    np.eye(3)[list(axes)] * np.array(signs)
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1.0, -1.0), repeat=3)
]


@pytest.mark.parametrize("thick", [1.0, 3.0], ids=["isotropic", "thick"])
@pytest.mark.parametrize("turn", SIGNED_PERMUTATIONS)
def test_all_48_directions(turn: np.ndarray, thick: float) -> None:
    order = np.array([2, 0, 3, 1])
    steps = np.arange(SHAPE[0])[:, None] * turn[:, 2] * thick
    check(*planes_and_grid(turn[:, :2], steps, (1.0, 1.0), order, np.array([10.0, -20.0, 30.0])), order)


@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    mirrored=st.booleans(),
    tilt=st.floats(-30, 30),
    spacing=st.tuples(st.floats(0.3, 3), st.floats(0.3, 3)),
    thickness=st.floats(0.5, 6),
    uneven=st.lists(st.floats(-0.09, 0.09), min_size=SHAPE[0], max_size=SHAPE[0]),
    order=st.permutations(range(SHAPE[0])),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
)
def test_any_direction_tilt_and_spacing(
    angles: tuple[float, ...],
    mirrored: bool,
    tilt: float,
    spacing: tuple[float, float],
    thickness: float,
    uneven: list[float],
    order: list[int],
    origin: tuple[float, ...],
) -> None:
    axes = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    if mirrored:
        axes[:, 0] *= -1
    # a tilted gantry stacks the slices along a direction that is not at right angles to them
    along = axes[:, 2] + np.tan(np.radians(tilt)) * axes[:, 1]
    places = thickness * (np.arange(SHAPE[0]) + np.array(uneven))
    places[[0, -1]] = 0, thickness * (SHAPE[0] - 1)
    chosen = np.array(order)
    check(*planes_and_grid(axes[:, :2], places[:, None] * along, spacing, chosen, np.array(origin)), chosen)


def test_one_frame() -> None:
    plane = Plane((0.0, 0.0, 5.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (1.0, 1.0))
    affine = LPS_TO_RAS @ np.diag([1.0, 1, 2, 1])
    affine[2, 3] = 5
    grid = make_grid((6, 5, 1), affine, "test")
    mask = np.arange(30).reshape(1, 5, 6)
    found = match_frames(grid, [plane], (5, 6), "test")
    assert np.array_equal(found.to_frames(grid.turn(mask.transpose(2, 1, 0))), mask)


@pytest.mark.parametrize("change", ["moved", "turned", "other spacing", "frame missing", "other size"])
def test_another_series_is_refused(change: str) -> None:
    order = np.arange(SHAPE[0])
    steps = np.arange(SHAPE[0])[:, None] * np.array([0, 0, 2.5])
    planes, grid = planes_and_grid(np.eye(3)[:, :2], steps, (1.0, 1.0), order, np.zeros(3))
    size = SHAPE[1:]
    if change == "moved":
        planes = [Plane((p.position[0] + 1, *p.position[1:]), p.along_row, p.along_column, p.spacing) for p in planes]
    elif change == "turned":
        planes = [Plane(p.position, (0.8, 0.6, 0.0), (-0.6, 0.8, 0.0), p.spacing) for p in planes]
    elif change == "other spacing":
        planes = [Plane(p.position, p.along_row, p.along_column, (1.1, 1.1)) for p in planes]
    elif change == "frame missing":
        planes = planes[1:]
    else:
        size = (5, 7)
    with pytest.raises(InputError, match="do not match the pixels of this series"):
        match_frames(grid, planes, size, "test")
