"""Reading of DICOM Segmentations (SEG): BINARY, FRACTIONAL and LABELMAP."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from ..errors import InputError
from .dicom_header import check_inflated_size, frame_count
from .grid import StoredVolume, make_grid
from .limits import MAX_BYTES, check_size, quiet
from .planes import Plane, VoxelGrid, frame_plane, match_frames

__all__ = ["DicomSegment", "DicomSegmentation", "is_segmentation", "open_segmentation", "read_segmentation"]

_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""Segmentation Storage and Label Map Segmentation Storage."""
_LABELMAP = _CLASSES[1]
_SAME_PLACE = 1e-2
"""Maximum difference in mm between the positions of frames of the same slice."""


@dataclass(frozen=True, slots=True)
class DicomSegment:
    """A segment of a SEG.

    Attributes
    ----------
    number : int
        Segment number.
    label : str
        Segment label.
    code : tuple of str or None
        Coding scheme designator and value of its property type, for example ``("SCT", "10200004")``.
    """

    number: int
    label: str
    code: tuple[str, str] | None = None


@dataclass(frozen=True, eq=False)
class DicomSegmentation:
    """A DICOM SEG, from `read_segmentation`.

    Attributes
    ----------
    segments : tuple of DicomSegment
        Segments in the order of the file, without the background.
    name : str
        Name of the file.
    """

    segments: tuple[DicomSegment, ...]
    name: str
    _values: np.ndarray = field(repr=False)
    """(frames, rows, columns): segment numbers of a label map, otherwise non-zero inside the segment."""
    _numbers: np.ndarray | None = field(repr=False)
    """(frames,): segment of each frame; None for a label map."""
    _planes: tuple[Plane, ...] | None = field(repr=False)

    @property
    def planes(self) -> tuple[Plane, ...] | None:
        """Planes of the slices with a frame, sorted along their normal; None if the file does not define them."""
        if self._planes is None:
            return None
        return tuple(self._planes[frames[0]] for frames in _slices(self._planes))

    def masks(self) -> dict[int, np.ndarray]:
        """Masks by segment number.

        Returns
        -------
        dict of int to numpy.ndarray
            Bool masks of shape (slices, rows, columns), on the slices of `planes`; slices without any segment may be
            missing. Without planes, the shape is (1, rows, columns).

        Raises
        ------
        InputError
            If a file without planes has several frames of one segment.
        """
        frames = len(self._values)
        if self._planes is not None:
            ranks = np.empty(frames, dtype=np.intp)
            for rank, members in enumerate(_slices(self._planes)):
                ranks[members] = rank
        else:
            ranks = np.zeros(frames, dtype=np.intp)
            numbers = [0] * frames if self._numbers is None else self._numbers.tolist()
            if len(set(numbers)) < frames:
                raise InputError(f"{self.name}: the file does not say where its frames lie: export it again")
        shape = (int(ranks.max()) + 1, *self._values.shape[1:])
        return {segment.number: self._collect(segment.number, ranks, shape) for segment in self.segments}

    def on_grid(self, grid: VoxelGrid) -> dict[int, np.ndarray]:
        """Masks by segment number, in the order of the segmented volume.

        Parameters
        ----------
        grid : VoxelGrid
            Grid of the volume, for example `Volume.grid`. Slices without a frame are empty.

        Returns
        -------
        dict of int to numpy.ndarray
            Bool masks of shape (slices, rows, columns).

        Raises
        ------
        InputError
            If the frames do not match the slices of the volume.
        """
        if self._planes is None:
            raise InputError(f"{self.name}: the file does not say where its frames lie: export it again")
        rows, columns = (int(size) for size in self._values.shape[1:])
        order = match_frames(grid, self._planes, (rows, columns), self.name, partial=True)
        shape = (grid.shape[order.axes[0]], rows, columns)
        return {
            segment.number: order.to_volume(self._collect(segment.number, order.ranks, shape))
            for segment in self.segments
        }

    def _collect(self, number: int, ranks: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Mask of a segment, collected from its frames."""
        mask = np.zeros(shape, dtype=bool)
        for frame, rank in enumerate(ranks):
            if self._numbers is None:
                mask[rank] |= self._values[frame] == number
            elif self._numbers[frame] == number:
                mask[rank] |= self._values[frame] != 0
        return mask


def is_segmentation(path: Path) -> bool:
    """Whether a DICOM file is a SEG."""
    with quiet():
        try:
            with path.open("rb") as file:
                check_inflated_size(file, path.name)
                file.seek(0)
                header = dcmread(file, force=True, specific_tags=["SOPClassUID"], stop_before_pixels=True)
        except Exception:
            return False  # damaged files are reported when they are read
        return str(header.get("SOPClassUID", "")) in _CLASSES


def read_segmentation(path: str | os.PathLike[str]) -> DicomSegmentation:
    """Read a DICOM SEG.

    Parameters
    ----------
    path : path-like
        The file. In a FRACTIONAL SEG, pixels with a value of at least 0.5 are inside.

    Returns
    -------
    DicomSegmentation

    Raises
    ------
    InputError
        If the file is missing, damaged, too large, or not a SEG.
    """
    from .read import check_file

    file, name = check_file(path)
    with quiet():
        try:
            with file.open("rb") as stream:
                check_inflated_size(stream, name)
                stream.seek(0)
                dataset = dcmread(stream, force=True)
            if str(dataset.get("SOPClassUID", "")) not in _CLASSES:
                raise InputError(f"{name}: this is no DICOM segmentation (SEG): give one")
            return _read(dataset, name)
        except InputError:
            raise
        except Exception:
            # Errors of pydicom may quote header values, which may be patient data: they are not chained.
            raise InputError(f"{name}: this DICOM file is truncated or damaged: export it again") from None


def _read(dataset: Dataset, name: str) -> DicomSegmentation:
    frames, rows, columns = frame_count(dataset), int(dataset.Rows), int(dataset.Columns)
    check_size(rows, columns, name)
    if frames * rows * columns > MAX_BYTES:
        raise InputError(f"{name}: the segmentation holds more than {MAX_BYTES >> 30} GiB: split it first")
    labelmap = dataset.SOPClassUID == _LABELMAP
    values = dataset.pixel_array.reshape(frames, rows, columns)
    if not labelmap and dataset.get("SegmentationType") == "FRACTIONAL":
        values = 2 * values.astype(np.uint16) >= int(dataset.get("MaximumFractionalValue") or 255)
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    if len(groups) != frames:
        raise InputError(f"{name}: the segmentation does not describe each of its {frames} frames: export it again")
    numbers = None if labelmap else np.array([_number(group, shared) for group in groups])
    planes = [frame_plane(dataset, frame) for frame in range(frames)]
    found = tuple(plane for plane in planes if plane is not None)
    return DicomSegmentation(_segments(dataset), name, values, numbers, found if len(found) == frames else None)


def _segments(dataset: Dataset) -> tuple[DicomSegment, ...]:
    found = []
    for item in dataset.SegmentSequence:
        number = int(item.SegmentNumber)
        if number == 0:  # the background of a label map
            continue
        kinds = item.get("SegmentedPropertyTypeCodeSequence") or [Dataset()]
        scheme, value = kinds[0].get("CodingSchemeDesignator"), kinds[0].get("CodeValue")
        label = str(item.get("SegmentLabel") or kinds[0].get("CodeMeaning") or f"segment {number}")
        found.append(DicomSegment(number, label, (str(scheme), str(value)) if scheme and value else None))
    return tuple(found)


def _number(group: Dataset, shared: Dataset) -> int:
    """Segment number of a frame; with a single segment, it may be in the shared functional groups."""
    identified = group.get("SegmentIdentificationSequence") or shared.get("SegmentIdentificationSequence")
    return int(identified[0].ReferencedSegmentNumber)


def _slices(planes: Sequence[Plane]) -> list[list[int]]:
    """Frames of each slice; slices are sorted along their normal."""
    normal = np.cross(planes[0].along_row, planes[0].along_column)
    depths = np.array([plane.position for plane in planes]) @ normal
    groups: list[list[int]] = []
    for frame in np.argsort(depths, kind="stable"):
        if groups and depths[frame] - depths[groups[-1][-1]] < _SAME_PLACE:
            groups[-1].append(int(frame))
        else:
            groups.append([int(frame)])
    return groups


def open_segmentation(file: Path, name: str) -> StoredVolume:
    """Open a SEG as a label volume, for `unibiomed.images.read_volume`.

    Parameters
    ----------
    file : Path
        The file.
    name : str
        Name of the file for messages.

    Returns
    -------
    StoredVolume
        Labels are the segment numbers. The axes "of the file" are columns, rows and slices, sorted along the normal of
        the frames. Missing slices between frames are empty. Slices before the first and after the last frame are not
        known; use `DicomSegmentation.on_grid` for masks on the complete volume.

    Raises
    ------
    InputError
        As for `read_segmentation`; or if segments overlap, or the frames are not evenly spaced.
    """
    segmentation = read_segmentation(file)
    planes = segmentation.planes
    if planes is None:
        raise InputError(f"{name}: the file does not say where its frames lie: export it again")
    first = planes[0]
    normal = np.cross(first.along_row, first.along_column)
    places = np.array([plane.position for plane in planes])
    depths = (places - places[0]) @ normal
    gaps = np.diff(depths)
    step = float(gaps.min()) if gaps.size else 1.0
    ranks = np.rint(depths / step).astype(int)
    if np.abs(depths - ranks * step).max() > 0.1 * step:
        raise InputError(
            f"{name}: the frames do not lie at even distances: read the segmentation on the grid of its image"
        )
    count = int(ranks[-1]) + 1
    masks = segmentation.masks()
    rows, columns = next(iter(masks.values())).shape[1:] if masks else (0, 0)
    if count * rows * columns * 2 > MAX_BYTES:
        raise InputError(f"{name}: the segmentation holds more than {MAX_BYTES >> 30} GiB: split it first")
    labels = np.zeros((count, rows, columns), dtype=np.int16)
    for number, mask in masks.items():
        for at, cut in zip(ranks, mask, strict=True):
            if labels[at][cut].any():
                raise InputError(
                    f"{name}: its segments overlap, so that it is no label volume: split it into one file each"
                )
            labels[at][cut] = number
    affine = np.eye(4)
    affine[:3, 0] = np.array(first.along_row) * first.spacing[1]
    affine[:3, 1] = np.array(first.along_column) * first.spacing[0]
    affine[:3, 2] = (places[-1] - places[0]) / (count - 1) if count > 1 else normal * step
    affine[:3, 3] = places[0]
    return StoredVolume(
        # DICOM coordinates are LPS, the grid is RAS.
        make_grid((columns, rows, count), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, name),
        lambda: labels.transpose(2, 1, 0),
        None,
        {"format": "DICOM SEG", "bits": 16, "orientation_known": True},
    )
