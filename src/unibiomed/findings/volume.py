"""Findings in a volume: 3-D masks with their measurements, and the result that they belong to.

Plain data without torch. All arrays are in the order of `unibiomed.images.Volume.values`: (slices, rows, columns).
Positions are in mm in the DICOM patient coordinate system: x to the patient's left, y to the back, z to the head (LPS).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from unibiomed.errors import InputError

from .checks import check_details, check_number, check_optional, check_text
from .components import MAX_MEASURED, Component, connected_components
from .interpretation import SearchedTarget

__all__ = ["VOLUME_SCHEMA", "Instance", "VolumeFinding", "VolumeGrid", "VolumeResult", "VolumeSentence"]

VOLUME_SCHEMA = 1
_TO_LPS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True, eq=False)
class VolumeGrid:
    """Where the voxels of a volume lie in the patient.

    Parameters
    ----------
    shape : tuple of int
        Numbers of slices, rows and columns.
    spacing : tuple of float
        Distance of voxel centres in mm: between slices, rows, columns.
    plane : str
        ``"axial"``, ``"coronal"`` or ``"sagittal"``: the plane of the slices, or the nearest one.
    affine : numpy.ndarray
        (4, 4) float64: (slice, row, column, 1) to mm in the patient, axes to the right, front and head (RAS).
    sizes_known : bool
        False where the file gives no voxel sizes: then nothing is known in mm.
    orientation_known : bool
        False where the file does not say how the patient lies: then sides are not known.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    plane: str
    affine: np.ndarray = field(repr=False)
    sizes_known: bool = True
    orientation_known: bool = True

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise InputError(f"a volume of shape {self.shape} has no voxels: give (slices, rows, columns)")
        if len(self.spacing) != 3 or not all(np.isfinite(self.spacing)) or min(self.spacing) <= 0:
            raise InputError("the spacing of a volume must be three positive numbers in mm: slices, rows, columns")
        affine = np.array(self.affine, np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise InputError("the affine of a volume must be a (4, 4) matrix of finite numbers")
        affine.flags.writeable = False
        object.__setattr__(self, "affine", affine)

    @property
    def voxel_mm3(self) -> float | None:
        """Volume of a voxel in mm³; None where sizes are not known. Oblique axes are taken into account."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) if self.sizes_known else None

    def to_lps(self, index: Sequence[float]) -> tuple[float, float, float]:
        """Position in mm (LPS) of a slice, row and column, which need not be whole."""
        x, y, z = _TO_LPS @ (self.affine @ np.array([*index, 1.0]))[:3]
        return float(x), float(y), float(z)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "shape": list(self.shape),
            "spacing_mm": list(self.spacing),
            "plane": self.plane,
            "affine_ras": self.affine.tolist(),
            "sizes_known": self.sizes_known,
            "orientation_known": self.orientation_known,
        }


@dataclass(frozen=True)
class Instance:
    """One connected component of a finding.

    Parameters
    ----------
    number : int
        From 1, the largest first.
    voxels : int
        Number of voxels.
    slice_range : tuple of int
        First and last slice, inclusive.
    diameter_slice : int
        Slice of the diameters.
    volume_mm3, longest_diameter_mm, perpendicular_diameter_mm : float or None
        Volume; longest diameter in the plane of the slices and the longest one perpendicular to it on the same slice.
        None where voxel sizes are not known.
    centroid_lps : tuple of float or None
        Mean position of the voxels in mm (LPS); None where voxel sizes are not known.
    """

    number: int
    voxels: int
    slice_range: tuple[int, int]
    diameter_slice: int
    volume_mm3: float | None = None
    longest_diameter_mm: float | None = None
    perpendicular_diameter_mm: float | None = None
    centroid_lps: tuple[float, float, float] | None = None

    @classmethod
    def from_component(cls, number: int, component: Component, grid: VolumeGrid) -> Instance:
        """Give a measured component its place and sizes in the patient."""
        known = grid.sizes_known
        size = grid.voxel_mm3
        return cls(
            number,
            component.voxels,
            component.slice_range,
            component.diameter_slice,
            volume_mm3=None if size is None else component.voxels * size,
            longest_diameter_mm=component.longest if known else None,
            perpendicular_diameter_mm=component.perpendicular if known else None,
            centroid_lps=grid.to_lps(component.center) if known else None,
        )


@dataclass(frozen=True, eq=False)
class VolumeFinding:
    """One target that was looked for in a volume; build it with `from_mask`.

    Parameters
    ----------
    label : str
        As the user asked for it, or its name in the vocabulary.
    target : str
        Name of the target in the model's vocabulary; empty where it is not in it.
    mask : numpy.ndarray or None
        (slices, rows, columns) bool, read-only; None for a target that was not searched, and in results read from JSON.
    presence : float or None
        Probability, 0 to 1, that the target is anywhere in the volume.
    slice_presence : tuple of float or None
        Probability that the target is on each slice; None for slices that were not read.
    key_slice : int or None
        The slice that shows most of a present target; of an absent one, the slice with the highest presence.
    slice_range : tuple of int or None
        First and last slice of the mask, inclusive.
    instances : tuple of Instance
        Connected components (26 neighbours), the largest first; at most ``components.MAX_MEASURED``.
    instance_count : int
        Number of all connected components.
    voxels : int
        Voxels of the mask.
    volume_mm3 : float or None
        Volume of the mask; None where voxel sizes are not known.
    longest_diameter_mm, perpendicular_diameter_mm : float or None
        Of the instance with the longest diameter in the plane of the slices.
    diameter_slice : int or None
        The slice of both diameters.
    centroid_lps : tuple of float or None
        Mean position of the mask in mm (LPS).
    present : bool
        Whether the mask has any voxel.
    searched : bool
        False for a target that such images cannot show or that the model does not know.
    """

    label: str
    target: str = ""
    mask: np.ndarray | None = field(default=None, repr=False)
    presence: float | None = None
    slice_presence: tuple[float | None, ...] = field(default=(), repr=False)
    key_slice: int | None = None
    slice_range: tuple[int, int] | None = None
    instances: tuple[Instance, ...] = field(default=(), repr=False)
    instance_count: int = 0
    voxels: int = 0
    volume_mm3: float | None = None
    longest_diameter_mm: float | None = None
    perpendicular_diameter_mm: float | None = None
    diameter_slice: int | None = None
    centroid_lps: tuple[float, float, float] | None = None
    present: bool = False
    searched: bool = True

    def __post_init__(self) -> None:
        check_text(self.label, "label")
        check_optional(self.presence, "presence", 1.0)
        for value in self.slice_presence:
            check_optional(value, "slice_presence", 1.0)
        if self.present and not self.searched:
            raise InputError("a finding that was not searched cannot be present")
        if self.mask is not None:
            if self.mask.dtype != bool or self.mask.ndim != 3:
                raise InputError("the mask of a volume must be a bool array of shape (slices, rows, columns)")
            if self.present != (self.voxels > 0):
                raise InputError("the presence of a finding contradicts its mask: build it with from_mask")
            mask = self.mask.view()
            mask.flags.writeable = False
            object.__setattr__(self, "mask", mask)

    @classmethod
    def from_mask(
        cls,
        label: str,
        mask: np.ndarray,
        grid: VolumeGrid,
        *,
        target: str = "",
        presence: float | None = None,
        slice_presence: Sequence[float | None] = (),
        searched: bool = True,
        limit: int = MAX_MEASURED,
    ) -> VolumeFinding:
        """Measure a mask.

        Parameters
        ----------
        label, target : str
            See the class.
        mask : numpy.ndarray
            (slices, rows, columns) bool; empty for an absent target.
        grid : VolumeGrid
            Of the same shape.
        presence : float, optional
            Of the volume, 0 to 1.
        slice_presence : sequence of float or None, optional
            One for each slice.
        searched : bool
            See the class.
        limit : int
            Number of components that are measured.

        Raises
        ------
        InputError
            The mask does not fit the grid, or a probability is outside 0 to 1.
        """
        if mask.shape != grid.shape:
            raise InputError(f"the mask of shape {mask.shape} does not fit the volume of shape {grid.shape}")
        if slice_presence and len(slice_presence) != grid.shape[0]:
            raise InputError(f"{len(slice_presence)} presences do not fit a volume of {grid.shape[0]} slices")
        components, count = connected_components(mask, grid.spacing, limit)
        instances = tuple(Instance.from_component(n, one, grid) for n, one in enumerate(components, start=1))
        areas = np.count_nonzero(mask, axis=(1, 2))
        covered = np.flatnonzero(areas)
        voxels = int(areas.sum())
        longest = max(instances, key=lambda one: one.longest_diameter_mm or 0.0, default=None)
        size = grid.voxel_mm3
        return cls(
            label=label,
            target=target,
            mask=mask,
            presence=presence,
            slice_presence=tuple(None if p is None else float(p) for p in slice_presence),
            key_slice=_key_slice(areas, slice_presence),
            slice_range=(int(covered[0]), int(covered[-1])) if covered.size else None,
            instances=instances,
            instance_count=count,
            voxels=voxels,
            volume_mm3=None if size is None else voxels * size,
            longest_diameter_mm=longest.longest_diameter_mm if longest else None,
            perpendicular_diameter_mm=longest.perpendicular_diameter_mm if longest else None,
            diameter_slice=longest.diameter_slice if longest else None,
            centroid_lps=grid.to_lps(_centroid(mask, areas)) if voxels and grid.sizes_known else None,
            present=voxels > 0,
            searched=searched,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the mask."""
        plain = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("mask", "instances")}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}
        return {**plain, "instances": [_instance_dict(one) for one in self.instances]}


@dataclass(frozen=True)
class VolumeSentence:
    """A sentence of the result.

    Parameters
    ----------
    text : str
        Ends with a full stop.
    findings : tuple of int
        Indices of the findings that it is about.
    grounded : bool
        Whether it is about findings that are present, and so about voxels.
    """

    text: str
    findings: tuple[int, ...] = ()
    grounded: bool = False


@dataclass(frozen=True, eq=False)
class VolumeResult:
    """The answer to one question about one volume.

    Parameters
    ----------
    task : str
        ``"segment"``, ``"recognize"`` or ``"report"``.
    sentences : tuple of VolumeSentence
        Written from the measurements of the findings.
    findings : tuple of VolumeFinding
        For ``segment`` in the order of the targets; else the findings that are present, the likeliest first.
    searched : tuple of SearchedTarget
        Targets that were searched, with their presence in the volume, the likeliest first.
    notes : tuple of str
        What a reader should know, for example an assumption about the file.
    grid : VolumeGrid
        Of the masks.
    provenance : dict
        Model, versions, digests, modality, window, slices that were read, thresholds. No patient data.
    seconds : float
        Time that the answer took.
    """

    task: str
    sentences: tuple[VolumeSentence, ...]
    findings: tuple[VolumeFinding, ...]
    searched: tuple[SearchedTarget, ...]
    notes: tuple[str, ...]
    grid: VolumeGrid
    provenance: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        check_text(self.task, "task")
        check_number(self.seconds, "seconds", float("inf"))
        object.__setattr__(self, "provenance", check_details(self.provenance))
        for finding in self.findings:
            if finding.mask is not None and finding.mask.shape != self.grid.shape:
                raise InputError("a finding's mask has another shape than the volume")
        for sentence in self.sentences:
            if not all(0 <= index < len(self.findings) for index in sentence.findings):
                raise InputError("a sentence is about a finding that is not there")

    @property
    def text(self) -> str:
        """All sentences."""
        return " ".join(sentence.text for sentence in self.sentences)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the masks; each sentence has its characters' ``span`` in ``text``."""
        sentences, start = [], 0
        for one in self.sentences:
            span = [start, start + len(one.text)]
            sentences.append({"text": one.text, "span": span, "findings": list(one.findings), "grounded": one.grounded})
            start = span[1] + 1
        return {
            "schema": VOLUME_SCHEMA,
            "kind": "volume",
            "task": self.task,
            "text": self.text,
            "sentences": sentences,
            "findings": [finding.to_dict() for finding in self.findings],
            "searched": [{"label": one.label, "presence": one.presence} for one in self.searched],
            "notes": list(self.notes),
            "grid": self.grid.to_dict(),
            "provenance": self.provenance,
            "seconds": self.seconds,
        }


def _instance_dict(instance: Instance) -> dict[str, Any]:
    plain = {one.name: getattr(instance, one.name) for one in fields(instance)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


def _key_slice(areas: np.ndarray, presence: Sequence[float | None]) -> int | None:
    """The slice with the largest area, or the highest presence where there is no mask."""
    if areas.any():
        return int(areas.argmax())
    known = [(value, -k) for k, value in enumerate(presence) if value is not None]
    return -max(known)[1] if known else None


def _centroid(mask: np.ndarray, areas: np.ndarray) -> tuple[float, float, float]:
    """Mean index of the voxels, one slice at a time: coordinates of all voxels at once would take much memory."""
    sums = np.zeros(3)
    rows, columns = np.arange(mask.shape[1]), np.arange(mask.shape[2])
    for k in np.flatnonzero(areas):
        sums += (
            k * areas[k],
            float(rows @ np.count_nonzero(mask[k], axis=1)),
            float(columns @ np.count_nonzero(mask[k], axis=0)),
        )
    slice_, row, column = sums / areas.sum()
    return float(slice_), float(row), float(column)
