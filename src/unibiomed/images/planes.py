"""Mapping between the voxels of a volume in display order and the frames of a DICOM series.

`unibiomed.images.Volume` reorders the voxels for display. A DICOM object that refers to the source images needs masks
in the order and orientation of their frames, and masks that are read from such an object must be reordered like the
volume. The mapping is computed from the geometry of both, independent of how the volume was read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from pydicom.dataset import Dataset

from ..errors import InputError

__all__ = ["FrameOrder", "Plane", "VoxelGrid", "frame_plane", "image_plane", "match_frames"]

_RAS = np.array([-1.0, -1.0, 1.0])
"""Conversion between DICOM's patient coordinates (LPS) and those of a grid (RAS)."""
_TOLERANCE = 0.5
"""Maximum distance in voxels between the corners of a frame and of the volume."""


class VoxelGrid(Protocol):
    """Interface of the grid of a volume, for example `unibiomed.images.Grid`."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of slices, rows and columns."""

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) matrix from (slice, row, column, 1) to mm in patient coordinates (RAS)."""


@dataclass(frozen=True, slots=True)
class Plane:
    """Position and orientation of a frame in the patient.

    Attributes
    ----------
    position : tuple of float
        Centre of the first pixel in mm, in LPS coordinates (Image Position (Patient)).
    along_row, along_column : tuple of float
        Unit vectors along a row (increasing column) and a column (increasing row) (Image Orientation (Patient)).
    spacing : tuple of float
        Distance of pixel centres in mm, between rows and between columns (Pixel Spacing).
    """

    position: tuple[float, float, float]
    along_row: tuple[float, float, float]
    along_column: tuple[float, float, float]
    spacing: tuple[float, float]


def image_plane(dataset: Dataset) -> Plane | None:
    """Plane of a single-frame image; None if the header does not define it."""
    return _plane(dataset, dataset, dataset)


def frame_plane(dataset: Dataset, frame: int) -> Plane | None:
    """Plane of a frame, counted from 0, of a multi-frame image or SEG; None if the header does not define it."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    groups = [*per_frame[frame : frame + 1], *(dataset.get("SharedFunctionalGroupsSequence") or [])[:1]]

    def item(sequence: str) -> Dataset:
        return next((group[sequence][0] for group in groups if group.get(sequence)), Dataset())

    return _plane(item("PlanePositionSequence"), item("PlaneOrientationSequence"), item("PixelMeasuresSequence"))


def _plane(position: Dataset, orientation: Dataset, measures: Dataset) -> Plane | None:
    place = _numbers(position.get("ImagePositionPatient"), 3)
    turned = _numbers(orientation.get("ImageOrientationPatient"), 6)
    spacing = _numbers(measures.get("PixelSpacing"), 2)
    if place is None or turned is None or spacing is None or min(spacing) <= 0:
        return None
    return Plane(place, turned[:3], turned[3:], spacing)


def _numbers(value: Any, count: int) -> Any:
    """Value of ``count`` finite numbers as a tuple, or None."""
    try:
        numbers = tuple(float(number) for number in value)
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else None


@dataclass(frozen=True, slots=True)
class FrameOrder:
    """Mapping from an array of a volume to an array of frames.

    Attributes
    ----------
    axes : tuple of int
        Axes of the volume that are the frames, rows and columns.
    flips : tuple of bool
        Whether rows and columns are reversed relative to the volume.
    ranks : numpy.ndarray
        Index of each frame along the first of `axes`.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool]
    ranks: np.ndarray

    @property
    def _reversed(self) -> tuple[int, ...]:
        return tuple(axis for axis, flip in enumerate(self.flips, start=1) if flip)

    def to_frames(self, values: np.ndarray) -> np.ndarray:
        """Reorder an array of the volume to frames.

        Parameters
        ----------
        values : numpy.ndarray
            Array of the volume, (slices, rows, columns), for example a mask.

        Returns
        -------
        numpy.ndarray
            Copy of shape (frames, rows, columns), in the order and orientation of the source frames.
        """
        turned = values.transpose(self.axes)
        turned = np.flip(turned, self._reversed)
        return np.ascontiguousarray(turned[self.ranks])

    def to_volume(self, values: np.ndarray) -> np.ndarray:
        """Reorder an array with the rows and columns of the frames, and sorted slices, to the volume.

        Parameters
        ----------
        values : numpy.ndarray
            (slices, rows, columns): rows and columns as in the frames, slices sorted as in `ranks`.

        Returns
        -------
        numpy.ndarray
            View of shape (slices, rows, columns), in the order of the volume.
        """
        turned = np.flip(values, self._reversed)
        return turned.transpose(np.argsort(self.axes))


def match_frames(
    grid: VoxelGrid,
    planes: Sequence[Plane],
    size: tuple[int, int],
    name: str,
    *,
    partial: bool = False,
) -> FrameOrder:
    """Match the frames of a series to the slices of a volume.

    The frames may have any order and direction. They need not be evenly spaced, nor perpendicular to the stacking
    direction (gantry tilt).

    Parameters
    ----------
    grid : VoxelGrid
        Grid of the volume.
    planes : sequence of Plane
        Plane of each frame; all are parallel and have the same spacing.
    size : tuple of int
        Rows and columns of a frame.
    name : str
        Name of the file or folder of the frames, for messages.
    partial : bool
        Whether some slices may have no frame or several, as in a SEG. Otherwise each slice has exactly one frame.

    Returns
    -------
    FrameOrder

    Raises
    ------
    InputError
        If the volume does not match the frames.
    """
    wrong = InputError(f"{name}: the masks do not match the pixels of this series: give the series they were made of")
    shape, inverse = grid.shape, np.linalg.inv(grid.affine)
    first = planes[0]
    # A step of one pixel along a column and along a row, in voxels of the volume.
    steps = np.stack(
        [
            inverse[:3, :3] @ (_RAS * first.along_column * first.spacing[0]),
            inverse[:3, :3] @ (_RAS * first.along_row * first.spacing[1]),
        ]
    )
    rows, columns = (int(axis) for axis in np.abs(steps).argmax(axis=1))
    if rows == columns or not np.allclose(np.abs(steps), np.eye(3)[[rows, columns]], atol=0.02):
        raise wrong
    across = 3 - rows - columns
    count = shape[across]
    if (shape[rows], shape[columns]) != size or not (partial or count == len(planes)):
        raise wrong
    flips = (bool(steps[0, rows] < 0), bool(steps[1, columns] < 0))

    places = np.array([plane.position for plane in planes]) * _RAS
    corners = places @ inverse[:3, :3].T + inverse[:3, 3]
    expected = np.zeros_like(corners)
    for axis, flip in ((rows, flips[0]), (columns, flips[1])):
        expected[:, axis] = shape[axis] - 1 if flip else 0
    if partial:
        ranks = np.rint(corners[:, across]).astype(np.intp)
        if ranks.min() < 0 or ranks.max() >= count:
            raise wrong
        checked = np.arange(len(planes))
    else:
        order = np.argsort(corners[:, across], kind="stable")
        ranks = np.empty(len(planes), dtype=np.intp)
        ranks[order] = np.arange(len(planes))
        # The affine averages slightly uneven slice distances, so that only the first and last slice have to match.
        checked = order[[0, -1]]
    expected[:, across] = ranks
    if np.abs(corners - expected)[checked].max() > _TOLERANCE:
        raise wrong
    return FrameOrder((across, rows, columns), flips, ranks)
