"""Measurements of a 3-D mask: connected components, their volume, longest axial diameter and centroid.

Everything is computed from the mask and its grid. Diameters are measured in the plane of the slices, as in RECIST 1.1
(Eisenhauer et al. 2009): the longest diameter of a component on any slice, and the longest diameter perpendicular to it
on the same slice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

__all__ = ["Component", "connected_components", "slice_diameters"]

MAX_MEASURED = 100
"""Components, the largest first, that are measured; the others are counted."""
_SLICES_MEASURED = 16
"""Slices of a component, those with the widest extent first, on which diameters are measured."""


@dataclass(frozen=True, slots=True)
class Component:
    """One connected component of a mask.

    Parameters
    ----------
    voxels : int
        Number of voxels, 1 or more.
    slice_range : tuple of int
        First and last slice, both inclusive.
    center : tuple of float
        Mean index of the voxels: slice, row, column.
    longest : float
        Longest diameter in the plane of the slices, in the unit of the spacing.
    perpendicular : float
        Longest diameter perpendicular to it, on the same slice.
    diameter_slice : int
        The slice of both diameters.
    """

    voxels: int
    slice_range: tuple[int, int]
    center: tuple[float, float, float]
    longest: float
    perpendicular: float
    diameter_slice: int


def connected_components(
    mask: np.ndarray, spacing: tuple[float, float, float], limit: int = MAX_MEASURED
) -> tuple[list[Component], int]:
    """Measure the connected components of a mask.

    Parameters
    ----------
    mask : numpy.ndarray
        (slices, rows, columns) bool. Voxels that share a face, an edge or a corner are connected.
    spacing : tuple of float
        Distance of voxel centres: between slices, rows, columns.
    limit : int
        Number of components that are measured.

    Returns
    -------
    list of Component
        At most `limit`, the largest first.
    int
        Number of all components.
    """
    box = _bounding_box(mask)
    if box is None:
        return [], 0
    labels, count = ndimage.label(mask[box], structure=np.ones((3, 3, 3), bool))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    order = np.argsort(-sizes, kind="stable")[:limit]
    places = ndimage.find_objects(labels)
    start = np.array([side.start for side in box])
    measured = []
    for number in order:
        place = places[number]
        inside = labels[place] == number + 1
        offset = start + [side.start for side in place]
        measured.append(_measure(inside, offset, int(sizes[number]), spacing))
    return measured, int(count)


def slice_diameters(mask: np.ndarray, spacing: tuple[float, float]) -> tuple[float, float]:
    """Longest diameter of a region of a slice, and the longest one perpendicular to it.

    Both are those of the convex hull of the region's outline, which runs half-way between pixel centres inside and
    outside, as marching squares draws it: a single pixel is as long as the larger side of its spacing.

    Parameters
    ----------
    mask : numpy.ndarray
        (rows, columns) bool, not empty.
    spacing : tuple of float
        Distance of pixel centres: between rows, columns.

    Returns
    -------
    tuple of float
        Longest diameter and its perpendicular, in the unit of the spacing.
    """
    points = _hull(mask) * np.asarray(spacing)
    apart = points[:, None] - points[None]
    first, second = np.unravel_index(int((apart**2).sum(-1).argmax()), (len(points),) * 2)
    along = points[second] - points[first]
    longest = float(np.hypot(*along))
    along = along / longest
    # the hull in coordinates along and across the longest diameter
    t, s = points @ along, points @ np.array([-along[1], along[0]])
    return longest, _longest_chord(t, s)


def _longest_chord(t: np.ndarray, s: np.ndarray) -> float:
    """Longest chord of a convex polygon at a constant `t`; one end is a vertex, as its length is concave in `t`."""
    order = np.argsort(t, kind="stable")
    first, last = order[0], order[-1]
    middle = s[first] + (s[last] - s[first]) * (t - t[first]) / (t[last] - t[first])
    upper = order[(s >= middle - 1e-9)[order]]
    lower = order[(s <= middle + 1e-9)[order]]
    chords = np.interp(t, t[upper], s[upper]) - np.interp(t, t[lower], s[lower])
    return float(max(chords.max(), 0.0))


def _hull(mask: np.ndarray) -> np.ndarray:
    """(N, 2) vertices, row and column, of the convex hull of the outline of a mask."""
    rows = np.flatnonzero(mask.any(axis=1))
    first = mask[rows].argmax(axis=1)
    last = mask.shape[1] - 1 - mask[rows, ::-1].argmax(axis=1)
    ends = np.concatenate([np.stack([rows, first], 1), np.stack([rows, last], 1)]).astype(np.float64)
    steps = np.array([[0.5, 0.0], [-0.5, 0.0], [0.0, 0.5], [0.0, -0.5]])
    points = (ends[:, None] + steps).reshape(-1, 2)
    try:
        return points[ConvexHull(points).vertices]
    except QhullError:
        return points


def _measure(inside: np.ndarray, offset: np.ndarray, voxels: int, spacing: tuple[float, float, float]) -> Component:
    center = tuple(float(v) for v in np.array(ndimage.center_of_mass(inside)) + offset)
    longest, perpendicular, where = 0.0, 0.0, 0
    for k in _widest(inside, spacing):
        length, across = slice_diameters(inside[k], spacing[1:])
        if length > longest:
            longest, perpendicular, where = length, across, k
    begin = int(offset[0])
    return Component(
        voxels,
        (begin, begin + inside.shape[0] - 1),
        (center[0], center[1], center[2]),
        longest,
        perpendicular,
        begin + where,
    )


def _widest(inside: np.ndarray, spacing: tuple[float, float, float]) -> Iterator[int]:
    """Slices of a component in which the longest diameter may lie, the widest bounding box first."""
    extents = []
    for k in range(len(inside)):
        rows, columns = np.flatnonzero(inside[k].any(1)), np.flatnonzero(inside[k].any(0))
        high, wide = (rows[-1] - rows[0] + 1) * spacing[1], (columns[-1] - columns[0] + 1) * spacing[2]
        extents.append(float(np.hypot(high, wide)))
    yield from np.argsort(-np.array(extents), kind="stable")[:_SLICES_MEASURED].tolist()


def _bounding_box(mask: np.ndarray) -> tuple[slice, slice, slice] | None:
    slices = np.flatnonzero(mask.any(axis=(1, 2)))
    if not slices.size:
        return None
    used = mask[slices[0] : slices[-1] + 1]
    flat = np.asarray(used.any(axis=0))
    rows, columns = np.flatnonzero(flat.any(1)), np.flatnonzero(flat.any(0))
    return (
        slice(int(slices[0]), int(slices[-1]) + 1),
        slice(int(rows[0]), int(rows[-1]) + 1),
        slice(int(columns[0]), int(columns[-1]) + 1),
    )
