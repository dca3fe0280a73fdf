"""Measurements of 3-D masks, against shapes of known size."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unibiomed.errors import InputError
from unibiomed.findings import SearchedTarget
from unibiomed.findings.components import connected_components, slice_diameters
from unibiomed.findings.volume import VolumeFinding, VolumeGrid, VolumeResult, VolumeSentence


def make_grid(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> VolumeGrid:
    """Axial: slices to the head, rows to the back, columns to the patient's left."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = spacing[0], -spacing[1], -spacing[2], 1
    affine[:3, 3] = (12.0, -7.0, 30.0)
    return VolumeGrid(shape, spacing, "axial", affine)


def ellipsoid(shape: tuple[int, int, int], spacing, center_mm, axes_mm, angle: float = 0.0) -> np.ndarray:
    """Half axes in mm along slices, and along two directions in the plane that are turned by `angle`."""
    z, y, x = (np.arange(n) * s - c for n, s, c in zip(shape, spacing, center_mm, strict=True))
    z, y, x = z[:, None, None], y[None, :, None], x[None, None, :]
    u, v = np.cos(angle) * x + np.sin(angle) * y, -np.sin(angle) * x + np.cos(angle) * y
    return (z / axes_mm[0]) ** 2 + (u / axes_mm[1]) ** 2 + (v / axes_mm[2]) ** 2 <= 1


@settings(max_examples=25)
@given(
    spacing=st.tuples(*[st.floats(0.5, 3.0)] * 3),
    axes=st.tuples(st.floats(8, 20), st.floats(14, 20), st.floats(8, 12)),
    angle=st.floats(0, np.pi),
)
def test_an_ellipsoid_has_its_volume_diameters_and_centre(spacing, axes, angle):
    shape = tuple(int(50 / s) + 1 for s in spacing)
    center = (24.0, 25.0, 26.0)
    mask = ellipsoid(shape, spacing, center, axes, angle)
    grid = make_grid(shape, spacing)
    finding = VolumeFinding.from_mask("lesion", mask, grid, presence=0.9)
    assert finding.instance_count == 1 and finding.present
    assert finding.volume_mm3 == pytest.approx(4 / 3 * np.pi * np.prod(axes), rel=0.12)
    assert finding.volume_mm3 == pytest.approx(mask.sum() * np.prod(spacing))
    pixel = np.hypot(spacing[1], spacing[2])
    # the widest slice is at most half a spacing from the centre
    off = spacing[0] / 2 / axes[0]
    smallest = 2 * np.sqrt(1 - off**2)
    assert smallest * axes[1] - pixel <= finding.longest_diameter_mm <= 2 * axes[1] + pixel
    assert smallest * axes[2] - 2 * pixel <= finding.perpendicular_diameter_mm <= 2 * axes[2] + 2 * pixel
    expected = grid.to_lps([c / s for c, s in zip(center, spacing, strict=True)])
    assert np.allclose(finding.centroid_lps, expected, atol=max(spacing) / 2)
    # x to the left, y to the back, z to the head
    assert expected == pytest.approx((center[2] - 12.0, center[1] + 7.0, center[0] + 30.0))


def test_diameters_of_simple_regions():
    one = np.zeros((5, 5), bool)
    one[2, 2] = True
    assert slice_diameters(one, (0.5, 0.8)) == (pytest.approx(0.8), pytest.approx(0.5))
    bar = np.zeros((9, 30), bool)
    bar[4, 5:25] = True
    longest, across = slice_diameters(bar, (1.0, 1.0))
    assert longest == pytest.approx(20.0) and across == pytest.approx(1.0)
    square = np.ones((10, 10), bool)
    longest, across = slice_diameters(square, (1.0, 1.0))
    assert longest == pytest.approx(np.hypot(10, 9), abs=0.1) and across == pytest.approx(longest, abs=0.7)


@settings(max_examples=40)
@given(
    mask=st.integers(1, 2**36 - 1).map(lambda bits: np.array([bits >> k & 1 for k in range(36)], bool).reshape(6, 6)),
    rows=st.floats(0.3, 3.0),
    columns=st.floats(0.3, 3.0),
)
def test_diameters_are_those_of_all_pairs(mask, rows, columns):
    longest, across = slice_diameters(mask, (rows, columns))
    at = np.argwhere(mask)
    steps = np.array([[0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5]])
    points = (at[:, None] + steps).reshape(-1, 2) * (rows, columns)
    apart = np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1))
    assert longest == pytest.approx(apart.max())
    assert 0 <= across <= longest + 1e-9
    # turning the region by a right angle changes nothing
    turned = slice_diameters(np.rot90(mask), (columns, rows))
    assert turned[0] == pytest.approx(longest)


def test_components_touch_at_corners_and_come_largest_first():
    mask = np.zeros((6, 8, 8), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    mask[3:5, 4:7, 4:7] = True
    found, count = connected_components(mask, (1.0, 1.0, 1.0))
    assert count == 2 and [one.voxels for one in found] == [18, 2]
    assert found[0].slice_range == (3, 4) and found[0].center == (3.5, 5.0, 5.0)
    assert found[1].slice_range == (0, 1) and found[1].center == (0.5, 0.5, 0.5)
    assert connected_components(mask, (1.0, 1.0, 1.0), limit=1)[1] == 2
    assert connected_components(np.zeros((2, 3, 4), bool), (1.0, 1.0, 1.0)) == ([], 0)


def test_key_slices_ranges_and_absent_targets():
    grid = make_grid((5, 8, 8), (2.0, 1.0, 1.0))
    mask = np.zeros(grid.shape, bool)
    mask[1, 2:4, 2:4] = mask[2, 2:5, 2:5] = True
    found = VolumeFinding.from_mask("cyst", mask, grid, presence=0.8, slice_presence=[0.1, 0.9, 0.8, 0.2, None])
    assert (found.key_slice, found.slice_range, found.voxels) == (2, (1, 2), 13)
    assert found.diameter_slice == 2
    empty = VolumeFinding.from_mask("cyst", ~np.ones(grid.shape, bool), grid, slice_presence=[0.1, 0.1, 0.3, 0.2, None])
    assert not empty.present and empty.key_slice == 2 and empty.slice_range is None and empty.volume_mm3 == 0
    with pytest.raises(ValueError, match="read-only"):
        found.mask[0] = True


def test_without_voxel_sizes_nothing_is_told_in_mm():
    known = make_grid((3, 4, 4), (1.0, 1.0, 1.0))
    grid = VolumeGrid(known.shape, known.spacing, "axial", known.affine, sizes_known=False)
    found = VolumeFinding.from_mask("cyst", np.ones(grid.shape, bool), grid)
    assert found.voxels == 48 and found.volume_mm3 is None and found.longest_diameter_mm is None
    assert found.instances[0].centroid_lps is None and found.diameter_slice is not None


def test_a_result_is_json_with_spans_and_no_masks():
    grid = make_grid((3, 4, 4), (2.0, 1.0, 1.0))
    found = VolumeFinding.from_mask("cyst", np.ones(grid.shape, bool), grid, presence=0.75)
    sentences = (VolumeSentence("Cyst: one region.", (0,), True), VolumeSentence("No more."))
    result = VolumeResult(
        "segment", sentences, (found,), (SearchedTarget("cyst", 0.75),), ("a note",), grid, {"model": "nano"}
    )
    document = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    for sentence in document["sentences"]:
        start, end = sentence["span"]
        assert document["text"][start:end] == sentence["text"]
    assert document["findings"][0]["instances"][0]["volume_mm3"] == 96.0 and "mask" not in document["findings"][0]
    assert document["grid"]["spacing_mm"] == [2.0, 1.0, 1.0]
    with pytest.raises(InputError, match="not there"):
        VolumeResult("segment", (VolumeSentence("x", (1,)),), (found,), (), (), grid)
    with pytest.raises(InputError, match="does not fit"):
        VolumeFinding.from_mask("cyst", np.ones((2, 4, 4), bool), grid)
