"""From the voxels of a volume, in the order in which they are looked at, back to the frames of a DICOM series.

`unibiomed.images.Volume` turns and flips what it reads. A DICOM object that refers to the source images needs the masks in
the order and orientation of their pixels. Both are related by geometry alone, so that it does not matter how the volume was
read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unibiomed.errors import InputError

__all__ = ["FrameOrder", "Plane", "match_frames"]

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
        Direction of a row (increasing column) and of a column (increasing row), unit vectors (Image Orientation (Patient)).
    spacing : tuple of float
        Distance of pixel centres in mm: between rows, between columns (Pixel Spacing).
    """

    position: tuple[float, float, float]
    along_row: tuple[float, float, float]
    along_column: tuple[float, float, float]
    spacing: tuple[float, float]


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


def match_frames(
    shape: tuple[int, int, int], affine: np.ndarray, planes: Sequence[Plane], size: tuple[int, int], name: str
) -> FrameOrder:
    """Find out how a volume was made of frames.

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
        Of the source, for messages.

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
    if (shape[across], shape[rows], shape[columns]) != (len(planes), *size):
        raise wrong
    flips = (bool(steps[0, rows] < 0), bool(steps[1, columns] < 0))

    places = np.array([plane.position for plane in planes]) * _RAS
    corners = places @ inverse[:3, :3].T + inverse[:3, 3]
    order = np.argsort(corners[:, across], kind="stable")
    # The slices of a series may be a little uneven, which its affine evens out: only the ends have to agree.
    expected = np.zeros((2, 3))
    expected[1, across] = shape[across] - 1
    for axis, flip in ((rows, flips[0]), (columns, flips[1])):
        expected[:, axis] = shape[axis] - 1 if flip else 0
    if np.abs(corners[order[[0, -1]]] - expected).max() > _OFF:
        raise wrong
    ranks = np.empty(len(planes), dtype=np.intp)
    ranks[order] = np.arange(len(planes))
    return FrameOrder((across, rows, columns), flips, ranks)
