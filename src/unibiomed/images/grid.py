"""Geometry of volumes: position of the voxels in the patient, and orientation of the slices for display.

The same rules apply to all formats, so that an image and its labels stay aligned even if their files store the axes in
different orders. Slices are axial, except in volumes whose voxels are at least twice as long along another axis, or
that have one voxel along another axis: these are displayed in the plane of acquisition. Slices are counted from the
feet (axial), the back (coronal) or the patient's left (sagittal). They are displayed in the radiological convention:
patient right on image left, anterior or superior up; sagittal slices with anterior on the left.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import nibabel as nib
import numpy as np

from ..errors import InputError

PLANES = ("sagittal", "coronal", "axial")
_ANISOTROPY = 2 - 1e-3
"""Ratio of voxel sizes for another plane than axial; slightly below 2, because sizes in headers are rounded."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Geometry of a volume in display order ``(slices, rows, columns)``."""

    shape: tuple[int, int, int]
    """Number of slices, rows and columns."""

    spacing: tuple[float, float, float]
    """Distance of voxel centres in mm, between slices, rows and columns."""

    plane: str
    """``"axial"``, ``"coronal"`` or ``"sagittal"``; the nearest of them for oblique volumes."""

    affine: np.ndarray = field(repr=False)
    """(4, 4) float64 matrix from (slice, row, column, 1) to mm in patient coordinates (RAS)."""

    orientation: str
    """Directions of the axes of the file, for example ``"LPS"``."""

    file_order: tuple[int, int, int]
    """Axes of the file that are the slices, rows and columns."""

    file_flip: tuple[bool, bool, bool]
    """Whether slices, rows and columns are reversed relative to the file."""

    sizes_known: bool = True
    """False if the file gives no voxel sizes; `spacing` is then 1 voxel and no lengths in mm are known."""

    @property
    def pixel_spacing(self) -> tuple[float, float] | None:
        """Distance of pixel centres of a slice in mm, between rows and columns; None if not known."""
        return self.spacing[1:] if self.sizes_known else None

    @property
    def file_shape(self) -> tuple[int, int, int]:
        """Number of voxels along the axes of the file."""
        at = self.file_order.index
        return self.shape[at(0)], self.shape[at(1)], self.shape[at(2)]

    @property
    def file_affine(self) -> np.ndarray:
        """(4, 4) float64 matrix from indices of the file to mm in patient coordinates (RAS), as in nibabel."""
        return self.affine @ _turn(self.shape, self.file_order, self.file_flip)

    def turn(self, values: np.ndarray) -> np.ndarray:
        """Reorder an array from the order of the file to (slices, rows, columns), as a view."""
        assert values.shape == self.file_shape
        flips = tuple(axis for axis in range(3) if self.file_flip[axis])
        return np.flip(values.transpose(self.file_order), flips)

    def to_file_order(self, values: np.ndarray) -> np.ndarray:
        """Reorder an array from display order to the order of the file.

        Parameters
        ----------
        values
            Array of shape (slices, rows, columns), for example a mask.

        Returns
        -------
        numpy.ndarray
            C-contiguous array of shape `file_shape`, the data of a NIfTI file with the affine `file_affine`.

        Raises
        ------
        InputError
            If the shape is not that of the grid.
        """
        if values.shape != self.shape:
            raise InputError(
                f"the mask of shape {values.shape} does not match the volume of shape {self.shape}: give one value "
                "per voxel"
            )
        flips = tuple(axis for axis in range(3) if self.file_flip[axis])
        return np.ascontiguousarray(np.flip(values, flips).transpose(np.argsort(self.file_order)))

    def slice_details(self, index: int) -> dict[str, Any]:
        """Details of a slice for `MedicalImage.details`, as needed by `mask_to_slice`.

        Parameters
        ----------
        index
            Index of the slice, ``0 <= index < shape[0]``.

        Returns
        -------
        dict
            ``slice``, ``slices``, ``plane``, ``orientation``, ``file_shape``, ``file_axis``, ``file_slice``,
            ``file_transpose`` and ``file_flip``.
        """
        return {
            "slice": index,
            "slices": self.shape[0],
            "plane": self.plane,
            "orientation": self.orientation,
            "file_shape": self.file_shape,
            "file_axis": self.file_order[0],
            "file_slice": self.shape[0] - 1 - index if self.file_flip[0] else index,
            "file_transpose": self.file_order[2] < self.file_order[1],
            "file_flip": self.file_flip[1:],
        }

    def matches(self, other: Grid) -> bool:
        """Whether two grids have the same shape and no voxel is displaced by more than half the smallest voxel size."""
        if self.shape != other.shape:
            return False
        ends = [(0, n - 1) for n in self.shape]
        corners = np.array([(*corner, 1) for corner in itertools.product(*ends)], dtype=np.float64).T
        apart = np.linalg.norm(((self.affine - other.affine) @ corners)[:3], axis=0)
        return bool(apart.max() <= 0.5 * min(*self.spacing, *other.spacing))


@dataclass(frozen=True, eq=False)
class StoredVolume:
    """A volume of which only the header has been read."""

    grid: Grid
    """Geometry of the volume."""

    load: Callable[[], np.ndarray] = field(repr=False)
    """Function that reads the voxels, in the order of the file."""

    modality: str | None = None
    """Modality in the header; None if the format has none."""

    details: dict[str, Any] = field(default_factory=dict)
    """Properties of the file, with ``notes`` on assumptions; no patient data."""


def make_grid(
    file_shape: Sequence[int],
    affine: np.ndarray,
    name: str,
    *,
    unit: float = 1.0,
    flat: bool = False,
    sizes_known: bool = True,
) -> Grid:
    """Determine the display geometry of a volume from its affine.

    Parameters
    ----------
    file_shape
        Number of voxels along the three axes of the file, all positive.
    affine
        (4, 4) matrix from indices of the file to patient coordinates (RAS).
    name
        Name of the file for messages.
    unit
        Length of one unit of the affine in mm.
    flat
        Whether the file is a single image: its third axis, of one voxel, is the slice axis.
    sizes_known
        Whether the sizes in the affine come from the file and are not defaults.

    Returns
    -------
    Grid

    Raises
    ------
    InputError
        If the affine is not invertible or not finite.
    """
    affine = np.array(affine, dtype=np.float64)
    found = nib.orientations.io_orientation(affine) if np.isfinite(affine).all() and affine[:3, :3].any() else None
    if found is None or not np.isfinite(found).all():
        raise InputError(f"{name}: the orientation (affine) in this file is not valid: export it again")
    letters = "".join(nib.orientations.aff2axcodes(affine))
    sizes = [float(size) * unit for size in nib.affines.voxel_sizes(affine)]
    # For each axis of the file: the anatomical axis (0 right, 1 anterior, 2 superior) and its direction.
    axes, signs = [int(axis) for axis in found[:, 0]], [int(sign) for sign in found[:, 1]]
    shape = (int(file_shape[0]), int(file_shape[1]), int(file_shape[2]))
    across = 2 if flat else _slice_axis(shape, axes, sizes)
    # Of the other two anatomical axes, rows follow the higher one (head to feet, otherwise front to back).
    columns, rows = sorted((axis for axis in range(3) if axis != across), key=lambda axis: axes[axis])
    # Rows and columns start at the positive (right, anterior, superior) end of their axes.
    order, flip = (across, rows, columns), (signs[across] < 0, signs[rows] > 0, signs[columns] > 0)
    turned = shape[across], shape[rows], shape[columns]
    affine[:3] *= unit
    return Grid(
        shape=turned,
        spacing=(sizes[across], sizes[rows], sizes[columns]),
        plane=PLANES[axes[across]],
        affine=affine @ np.linalg.inv(_turn(turned, order, flip)),
        orientation=letters,
        file_order=order,
        file_flip=flip,
        sizes_known=sizes_known,
    )


def _slice_axis(shape: tuple[int, int, int], axes: list[int], sizes: list[float]) -> int:
    """Choose the slice axis of the file: an axis of one voxel, otherwise the coarsest axis, otherwise axial."""
    single = [axis for axis in range(3) if shape[axis] == 1]
    if len(single) == 1:
        return single[0]
    longest = max(range(3), key=lambda axis: sizes[axis])
    if sizes[longest] >= _ANISOTROPY * max(size for axis, size in enumerate(sizes) if axis != longest):
        return longest
    return axes.index(2)


def _turn(shape: tuple[int, int, int], order: tuple[int, int, int], flip: tuple[bool, bool, bool]) -> np.ndarray:
    """(4, 4) matrix from indices of the file to (slice, row, column)."""
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1
    for axis in range(3):
        matrix[axis, order[axis]] = -1 if flip[axis] else 1
        matrix[axis, 3] = shape[axis] - 1 if flip[axis] else 0
    return matrix
