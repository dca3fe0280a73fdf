"""Where the voxels of a volume lie in the patient, and how they are turned to be looked at.

There is one rule for all formats, so that an image and its labels stay aligned even if their files store the axes in
different orders. Slices are axial, except in volumes whose voxels are at least twice as long along another axis, or
that are one voxel thick there: those are cut as they were acquired. Slices are counted from the feet (axial), the back
(coronal) or the patient's left (sagittal), and shown as radiologists look at them: patient right on image left,
anterior or superior up; sagittal with anterior on the left.
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
_CLEARLY = 2 - 1e-3
"""Sizes in headers are rounded: a label file must not be cut another way than its image by the last digit."""


@dataclass(frozen=True, eq=False)
class Grid:
    """The voxels of a volume in the order in which they are looked at: ``(slices, rows, columns)``."""

    shape: tuple[int, int, int]
    """Numbers of slices, rows and columns."""

    spacing: tuple[float, float, float]
    """Distance of voxel centres in mm: between slices, rows, columns."""

    plane: str
    """``"axial"``, ``"coronal"`` or ``"sagittal"``; that of the nearest one if the volume is oblique."""

    affine: np.ndarray = field(repr=False)
    """(4, 4) float64: (slice, row, column, 1) to mm in the patient, axes to the right, front and head (RAS)."""

    orientation: str
    """Where the axes of the file point, such as ``"LPS"``."""

    file_order: tuple[int, int, int]
    """Axis of the file that became the slices, the rows, the columns."""

    file_flip: tuple[bool, bool, bool]
    """Whether slices, rows, columns run against the file."""

    sizes_known: bool = True
    """False where the file gives no sizes of voxels, so that `spacing` is in voxels and nothing can be told in mm."""

    @property
    def pixel_spacing(self) -> tuple[float, float] | None:
        """Distance of pixel centres of a slice in mm: between rows, columns; None where the file gives no sizes."""
        return self.spacing[1:] if self.sizes_known else None

    @property
    def file_shape(self) -> tuple[int, int, int]:
        """Numbers of voxels along the axes of the file."""
        at = self.file_order.index
        return self.shape[at(0)], self.shape[at(1)], self.shape[at(2)]

    @property
    def file_affine(self) -> np.ndarray:
        """(4, 4) float64: index along the three axes of the file to mm in the patient (RAS), as nibabel has it."""
        return self.affine @ _turn(self.shape, self.file_order, self.file_flip)

    def turn(self, values: np.ndarray) -> np.ndarray:
        """View of an array in the order of the file as (slices, rows, columns); nothing is copied."""
        assert values.shape == self.file_shape
        flips = tuple(axis for axis in range(3) if self.file_flip[axis])
        return np.flip(values.transpose(self.file_order), flips)

    def to_file_order(self, values: np.ndarray) -> np.ndarray:
        """Turn an array back to the order of the file.

        Parameters
        ----------
        values
            Array of the shape (slices, rows, columns), such as a mask.

        Returns
        -------
        numpy.ndarray
            C-contiguous, of the shape `file_shape`: what belongs into a NIfTI file with `file_affine`.

        Raises
        ------
        InputError
            If the shape is another.
        """
        if values.shape != self.shape:
            raise InputError(
                f"the mask of shape {values.shape} does not fit the volume of shape {self.shape}: give it on its voxels"
            )
        flips = tuple(axis for axis in range(3) if self.file_flip[axis])
        return np.ascontiguousarray(np.flip(values, flips).transpose(np.argsort(self.file_order)))

    def slice_details(self, index: int) -> dict[str, Any]:
        """What `MedicalImage.details` tells of a slice, and what `mask_to_slice` needs.

        Parameters
        ----------
        index
            The slice, ``0 <= index < shape[0]``.

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
        """Tell whether two volumes have the same voxels: as many, none further off than half the smallest side."""
        if self.shape != other.shape:
            return False
        ends = [(0, n - 1) for n in self.shape]
        corners = np.array([(*corner, 1) for corner in itertools.product(*ends)], dtype=np.float64).T
        apart = np.linalg.norm(((self.affine - other.affine) @ corners)[:3], axis=0)
        return bool(apart.max() <= 0.5 * min(*self.spacing, *other.spacing))


@dataclass(frozen=True, eq=False)
class StoredVolume:
    """A volume whose header was read and whose voxels were not."""

    grid: Grid
    """Where its voxels lie."""

    load: Callable[[], np.ndarray] = field(repr=False)
    """Reads the voxels, in the order of the file."""

    modality: str | None = None
    """From the header; None where the format has none."""

    details: dict[str, Any] = field(default_factory=dict)
    """What is known of the file, and ``notes`` on what is not; no patient data."""


def make_grid(
    file_shape: Sequence[int],
    affine: np.ndarray,
    name: str,
    *,
    unit: float = 1.0,
    flat: bool = False,
    sizes_known: bool = True,
) -> Grid:
    """Find out how a volume is looked at.

    Parameters
    ----------
    file_shape
        Numbers of voxels along the three axes of the file, all positive.
    affine
        (4, 4): index along these axes to the patient's right, front and head.
    name
        What to call the file in messages.
    unit
        Millimetres that one unit of the affine stands for.
    flat
        Whether the file is a single image: its third axis, of one voxel, is what it is cut across.
    sizes_known
        Whether the affine holds sizes of the file, and no stand-ins.

    Returns
    -------
    Grid
        The turned grid.

    Raises
    ------
    InputError
        If the affine is broken.
    """
    affine = np.array(affine, dtype=np.float64)
    found = nib.orientations.io_orientation(affine) if np.isfinite(affine).all() and affine[:3, :3].any() else None
    if found is None or not np.isfinite(found).all():
        raise InputError(f"{name}: the orientation in this file is broken: export it again, so left is not right")
    letters = "".join(nib.orientations.aff2axcodes(affine))
    sizes = [float(size) * unit for size in nib.affines.voxel_sizes(affine)]
    # For each axis of the file: the anatomical axis (0 right, 1 front, 2 head) and its direction.
    axes, signs = [int(axis) for axis in found[:, 0]], [int(sign) for sign in found[:, 1]]
    shape = (int(file_shape[0]), int(file_shape[1]), int(file_shape[2]))
    across = 2 if flat else _slice_axis(shape, axes, sizes)
    # Of the two anatomical axes that are left, rows run along the higher (head to feet, else front to back).
    columns, rows = sorted((axis for axis in range(3) if axis != across), key=lambda axis: axes[axis])
    # The axes point to the patient's right, front and head; rows and columns start there and run away from it.
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
    """Choose the axis of the file that the slice is cut across: one voxel thick, else the coarsest, else axial."""
    single = [axis for axis in range(3) if shape[axis] == 1]
    if len(single) == 1:
        return single[0]
    longest = max(range(3), key=lambda axis: sizes[axis])
    if sizes[longest] >= _CLEARLY * max(size for axis, size in enumerate(sizes) if axis != longest):
        return longest
    return axes.index(2)


def _turn(shape: tuple[int, int, int], order: tuple[int, int, int], flip: tuple[bool, bool, bool]) -> np.ndarray:
    """(4, 4) matrix from the index along the file's axes to (slice, row, column)."""
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1
    for axis in range(3):
        matrix[axis, order[axis]] = -1 if flip[axis] else 1
        matrix[axis, 3] = shape[axis] - 1 if flip[axis] else 0
    return matrix
