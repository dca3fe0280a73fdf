"""DICOM Segmentations (SEG) as masks: BINARY, FRACTIONAL and LABELMAP."""

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
from .grid import Grid, StoredVolume, make_grid
from .limits import MAX_BYTES, check_size, quiet
from .planes import Plane, frame_plane, match_frames

__all__ = ["DicomSegment", "DicomSegmentation", "is_segmentation", "open_segmentation", "read_segmentation"]

_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""Segmentation Storage and Label Map Segmentation Storage."""
_LABELMAP = _CLASSES[1]
_SAME_PLACE = 1e-2
"""Millimetres by which frames of one slice may differ in their position."""


@dataclass(frozen=True, slots=True)
class DicomSegment:
    """A segment of a SEG.

    Attributes
    ----------
    number : int
    label : str
    code : tuple of str or None
        Coding scheme designator and value of its property type, such as ``("SCT", "10200004")``.
    """

    number: int
    label: str
    code: tuple[str, str] | None = None


@dataclass(frozen=True, eq=False)
class DicomSegmentation:
    """A SEG; build it with `read_segmentation`.

    Attributes
    ----------
    segments : tuple of DicomSegment
        In the order of the file, without the background.
    name : str
        Of the file.
    """

    segments: tuple[DicomSegment, ...]
    name: str
    _values: np.ndarray = field(repr=False)
    """(frames, rows, columns): segment numbers of a label map, else whether a pixel is inside."""
    _numbers: np.ndarray | None = field(repr=False)
    """(frames,): segment of each frame; None for a label map."""
    _planes: tuple[Plane, ...] | None = field(repr=False)

    @property
    def planes(self) -> tuple[Plane, ...] | None:
        """Where the slices with a frame lie, in order along their normal; None where the file does not say it."""
        if self._planes is None:
            return None
        return tuple(self._planes[frames[0]] for frames in _slices(self._planes))

    def masks(self) -> dict[int, np.ndarray]:
        """Masks by segment number.

        Returns
        -------
        dict of int to numpy.ndarray
            (slices, rows, columns) bool, on the slices of `planes`: those without any segment may be missing. Without
            planes, (1, rows, columns).

        Raises
        ------
        InputError
            A file without planes has several frames of one segment.
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

    def on_grid(self, grid: Grid) -> dict[int, np.ndarray]:
        """Masks in the order of the volume that the SEG was made of.

        Parameters
        ----------
        grid : Grid
            Of the volume; slices that the SEG leaves out are empty.

        Returns
        -------
        dict of int to numpy.ndarray
            (slices, rows, columns) bool, by segment number.

        Raises
        ------
        InputError
            The frames do not lie on the slices of the volume.
        """
        if self._planes is None:
            raise InputError(f"{self.name}: the file does not say where its frames lie: export it again")
        rows, columns = (int(size) for size in self._values.shape[1:])
        order = match_frames(grid.shape, grid.affine, self._planes, (rows, columns), self.name, partial=True)
        shape = (grid.shape[order.axes[0]], rows, columns)
        return {
            segment.number: order.to_volume(self._collect(segment.number, order.ranks, shape))
            for segment in self.segments
        }

    def _collect(self, number: int, ranks: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Pixels of a segment on all of its frames, each put at its rank."""
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
            return False  # what is damaged is told by who reads it
        return str(header.get("SOPClassUID", "")) in _CLASSES


def read_segmentation(path: str | os.PathLike[str]) -> DicomSegmentation:
    """Read a DICOM SEG.

    Parameters
    ----------
    path : path
        A file. Of a FRACTIONAL SEG, pixels of at least one half are inside.

    Returns
    -------
    DicomSegmentation

    Raises
    ------
    InputError
        The file is missing, damaged, too large or no SEG.
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
            # pydicom quotes header values in its errors, so that neither its message nor the error itself is kept.
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
    """Segment of a frame; where there is only one segment, it may be told for all frames together."""
    identified = group.get("SegmentIdentificationSequence") or shared.get("SegmentIdentificationSequence")
    return int(identified[0].ReferencedSegmentNumber)


def _slices(planes: Sequence[Plane]) -> list[list[int]]:
    """Frames of each slice, slices in order along their normal."""
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
    """A SEG as a label volume, for `unibiomed.images.read_volume`.

    Parameters
    ----------
    file : Path
    name : str
        What to call it in messages.

    Returns
    -------
    StoredVolume
        Labels are the numbers of the segments; the axes "of the file" are columns, rows and slices, these along the
        normal of the frames. Slices that were left out between others are empty; beyond the first and the last frame,
        nothing is known of the volume that the SEG was made of, see `DicomSegmentation.on_grid`.

    Raises
    ------
    InputError
        As for `read_segmentation`; segments overlap, or frames do not lie at even distances.
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
        # DICOM's axes point to the patient's left and back.
        make_grid((columns, rows, count), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, name),
        lambda: labels.transpose(2, 1, 0),
        None,
        {"format": "DICOM SEG", "bits": 16, "orientation_known": True},
    )
