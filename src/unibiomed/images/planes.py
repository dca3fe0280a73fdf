"""Between the voxels of a volume, in the order in which they are looked at, and the frames of a DICOM series.

`unibiomed.images.Volume` turns and flips what it reads. A DICOM object that refers to the source images needs masks in
the order and orientation of their pixels, and what is read from one has to be turned as the volume was. Both are related
by geometry alone, so that it does not matter how the volume was read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from ..errors import InputError

__all__ = ["FrameOrder", "Plane", "frame_plane", "image_plane", "match_frames"]

_RAS = np.array([-1.0, -1.0, 1.0])
"""DICOM's axes point to the patient's left, back and head; those of a grid to the right, front and head."""
_OFF = 0.5
"""Voxels by which the corners of a frame and of the volume may lie apart."""


@dataclass(frozen=True, slots=True)
class Plane:
    """Where a frame lies in the patient.

    Attributes
    ----------
    position : tuple of float
        Centre of the first pixel in mm, axes to the left, back and head (Image Position (Patient)).
    along_row, along_column : tuple of float
        Unit vectors along a row (increasing column) and a column (increasing row) (Image Orientation (Patient)).
    spacing : tuple of float
        Distance of pixel centres in mm: between rows, between columns (Pixel Spacing).
    """

    position: tuple[float, float, float]
    along_row: tuple[float, float, float]
    along_column: tuple[float, float, float]
    spacing: tuple[float, float]


def image_plane(dataset: Dataset) -> Plane | None:
    """Plane of a single-frame image; None where the header does not give it."""
    return _plane(dataset, dataset, dataset)


def frame_plane(dataset: Dataset, frame: int) -> Plane | None:
    """Plane of a frame, from 0, of an enhanced multi-frame image or a SEG; None where the header does not give it."""
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
    """A value of many finite numbers as a tuple, or None."""
    try:
        numbers = tuple(float(number) for number in value)
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else None


@dataclass(frozen=True, slots=True)
class FrameOrder:
    """How an array of a volume becomes one of frames.

    Attributes
    ----------
    axes : tuple of int
        Axis of the volume that becomes frames, rows, columns.
    flips : tuple of bool
        Whether rows and columns run against the volume.
    ranks : numpy.ndarray
        Index of each frame along the first of `axes`.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool]
    ranks: np.ndarray

    def to_frames(self, values: np.ndarray) -> np.ndarray:
        """Turn an array of the volume.

        Parameters
        ----------
        values : numpy.ndarray
            (slices, rows, columns) of the volume, such as a mask.

        Returns
        -------
        numpy.ndarray
            (frames, rows, columns) in the order and orientation of the source frames; a copy.
        """
        turned = values.transpose(self.axes)
        turned = np.flip(turned, [axis for axis, flip in ((1, self.flips[0]), (2, self.flips[1])) if flip])
        return np.ascontiguousarray(turned[self.ranks])

    def to_volume(self, values: np.ndarray) -> np.ndarray:
        """Turn what lies along the axes of the frames, but in the order of the slices, back to the order of the volume.

        Parameters
        ----------
        values : numpy.ndarray
            (slices, rows, columns) with rows and columns as in the frames, slices as `ranks` counts them.

        Returns
        -------
        numpy.ndarray
            (slices, rows, columns) of the volume; a view.
        """
        turned = np.flip(values, [axis for axis, flip in ((1, self.flips[0]), (2, self.flips[1])) if flip])
        return turned.transpose(np.argsort(self.axes))


def match_frames(
    shape: tuple[int, int, int],
    affine: np.ndarray,
    planes: Sequence[Plane],
    size: tuple[int, int],
    name: str,
    *,
    partial: bool = False,
) -> FrameOrder:
    """Find out which slices of a volume frames are, and how they are turned there.

    The frames may come in any order and run in either direction; they need not be evenly spaced nor at right angles to
    the direction in which they are stacked (gantry tilt).

    Parameters
    ----------
    shape : tuple of int
        Slices, rows and columns of the volume.
    affine : numpy.ndarray
        (4, 4): (slice, row, column, 1) of the volume to mm, axes to the right, front and head.
    planes : sequence of Plane
        One for each frame, all parallel and with the same spacing.
    size : tuple of int
        Rows and columns of a frame.
    name : str
        Of the file or folder of the frames, for messages.
    partial : bool
        Whether the frames may be some of the slices, and several of them the same one, as in a SEG. Otherwise every
        slice is one frame.

    Returns
    -------
    FrameOrder

    Raises
    ------
    InputError
        The volume does not lie on the frames.
    """
    wrong = InputError(f"{name}: the masks do not lie on the pixels of this series: give the series they were made of")
    inverse = np.linalg.inv(affine)
    first = planes[0]
    # one pixel down a column and one along a row, in voxels of the volume
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
        # The slices of a series may be a little uneven, which its affine evens out: only the ends have to agree.
        checked = order[[0, -1]]
    expected[:, across] = ranks
    if np.abs(corners - expected)[checked].max() > _OFF:
        raise wrong
    return FrameOrder((across, rows, columns), flips, ranks)
