"""The DICOM files that findings were made of: what a SEG or SR has to copy from them and to refer to.

The headers, with all that they say of the patient, are held only here and in the objects that are written from them.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pydicom.valuerep import DA, TM

from unibiomed.errors import InputError
from unibiomed.images.dicom_header import check_inflated_size, check_kind, frame_count, header_number
from unibiomed.images.limits import check_slice, quiet, shown
from unibiomed.images.nifti import HEADER_BYTES
from unibiomed.images.planes import Plane, frame_plane, image_plane
from unibiomed.images.read import check_file, sniff
from unibiomed.images.series import MAX_FILES

__all__ = ["DicomSource", "is_dicom", "open_source"]

_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_SAME = ("StudyInstanceUID", "SeriesInstanceUID", "PatientID", "PatientName", "Rows", "Columns", "FrameOfReferenceUID")
_NEEDED = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
"""Type 2 elements: they may be empty, but highdicom expects them to be there."""


@dataclass(frozen=True, eq=False)
class DicomSource:
    """The images of one series, without their pixels; build it with `open_source`."""

    datasets: tuple[Dataset, ...] = field(repr=False)
    """Headers: one for each single-frame image, or that of one multi-frame image."""

    name: str
    """Of the file or folder, without the folder that it is in."""

    frame: int | None = None
    """The one frame of a multi-frame image that the masks are of, from 0; None where they are of all images."""

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of a frame."""
        return int(self.datasets[0].Rows), int(self.datasets[0].Columns)

    @cached_property
    def frames(self) -> int:
        """Number of images of a series, or of frames of a multi-frame image."""
        return len(self.datasets) if len(self.datasets) > 1 else frame_count(self.datasets[0])

    @cached_property
    def planes(self) -> tuple[Plane, ...] | None:
        """Where the frames lie; None where that is not known, as of a radiograph or a secondary capture."""
        if "FrameOfReferenceUID" not in self.datasets[0]:
            return None
        if len(self.datasets) == 1 and self.frames > 1:
            found = [frame_plane(self.datasets[0], number) for number in range(self.frames)]
        else:
            found = [image_plane(dataset) or frame_plane(dataset, 0) for dataset in self.datasets]
        planes = tuple(plane for plane in found if plane is not None)
        return planes if len(planes) == len(found) else None

    def reference(self, frame: int) -> tuple[str, str, int | None]:
        """SOP class and instance UID of the image that holds a frame, and its number there, from 1.

        The number is None where the image has one frame.
        """
        if len(self.datasets) > 1 or self.frames == 1:
            dataset = self.datasets[frame]
            return dataset.SOPClassUID, dataset.SOPInstanceUID, None
        return self.datasets[0].SOPClassUID, self.datasets[0].SOPInstanceUID, frame + 1


def is_dicom(path: str | os.PathLike[str]) -> bool:
    """Whether a file is DICOM, by its content."""
    try:
        with Path(path).open("rb") as file:
            return sniff(file.read(HEADER_BYTES)) == "DICOM"
    except OSError:
        return False


def open_source(
    path: str | os.PathLike[str], *, files: Iterable[str] | None = None, frame: int | None = None
) -> DicomSource:
    """Read the headers of a DICOM file or of the series in a folder.

    Parameters
    ----------
    path : path
        A file, or a folder that holds the images of one series.
    files : iterable of str, optional
        Names of the images in the folder, such as ``Volume.details["files"]``; all DICOM images in it when left out.
    frame : int, optional
        The frame that masks are of, from 0, of a multi-frame file.

    Returns
    -------
    DicomSource

    Raises
    ------
    InputError
        A file is missing, not DICOM, damaged or no image; identifiers that a SEG or SR has to refer to are empty; the
        images are not of one series and patient.
    """
    if Path(path).is_dir():
        folder = Path(path)
        name = shown(folder.resolve().name)
        chosen = _images_in(folder, name) if files is None else [folder / file for file in files]
        source = DicomSource(_read_all(chosen, name), name)
        if len(source.datasets) == 1 and source.frames > 1 and frame is not None:
            return DicomSource(source.datasets, name, check_slice(frame, source.frames, name, "frame"))
        return source
    file, name = check_file(path)
    if not is_dicom(file):
        raise InputError(f"{name}: not a DICOM image, which a DICOM SEG or SR has to refer to: give a DICOM file")
    source = DicomSource(_read_all([file], name), name)
    if source.frames == 1:
        return source
    return DicomSource(
        source.datasets, name, None if frame is None else check_slice(frame, source.frames, name, "frame")
    )


def _images_in(folder: Path, name: str) -> list[Path]:
    found = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".") and path.is_file()]
    if len(found) > MAX_FILES:
        raise InputError(f"{name}: the folder holds more than {MAX_FILES} files: give that of one series")
    images = [path for path in found if is_dicom(path)]
    if not images:
        raise InputError(f"{name}: the folder holds no DICOM images: give the one with the files of a series")
    return images


def _read_all(paths: Sequence[Path], name: str) -> tuple[Dataset, ...]:
    datasets: list[Dataset] = []
    with quiet():
        for path in paths:
            where = name if len(paths) == 1 else f"{name}/{shown(path.name)}"
            try:
                dataset = _read(path, where)
            except InputError:
                raise
            except Exception:
                # pydicom quotes header values in its errors, so that neither its message nor the error itself is kept.
                raise InputError(f"{where}: this DICOM file is damaged: export it again") from None
            if dataset is not None:
                datasets.append(dataset)
        if not datasets:
            raise InputError(f"{name}: this DICOM file holds no image: give the image that was interpreted")
        _check_one_series(datasets, name)
        _complete_thickness(datasets)
    return tuple(datasets)


def _read(path: Path, where: str) -> Dataset | None:
    """One header, with the elements that highdicom expects; None of what is no image."""
    with path.open("rb") as file:
        check_inflated_size(file, where)
        file.seek(0)
        dataset = dcmread(file, force=True, stop_before_pixels=True)
    check_kind(dataset, where)
    if "Rows" not in dataset or "Columns" not in dataset:
        return None
    _check_uids(dataset, where)
    for keyword in _NEEDED:
        if keyword not in dataset or not _is_valid(keyword, dataset.get(keyword)):
            setattr(dataset, keyword, None)
    if frame_count(dataset) == 1:
        # It has no frames in the header, of which highdicom asks nevertheless where the SOP class allows them.
        dataset.NumberOfFrames = 1
    if not dataset.get("FrameOfReferenceUID") or not _has_place(dataset):
        # Without a position, the identifier gives no location of the pixels; an empty one is not valid.
        dataset.pop("FrameOfReferenceUID", None)
    return dataset


def _is_valid(keyword: str, value: object) -> bool:
    """Whether highdicom accepts a value; what it does not accept is left empty, as these elements may be."""
    text = str(value or "")
    try:
        if keyword == "PatientSex":
            return text in ("", "M", "F", "O")
        if keyword in ("PatientBirthDate", "StudyDate"):
            DA(text)
        elif keyword == "StudyTime":
            TM(text)
    except ValueError:
        return False
    return True


def _check_uids(dataset: Dataset, where: str) -> None:
    empty = [keyword for keyword in _UIDS if not str(dataset.get(keyword) or "").strip()]
    if empty:
        raise InputError(
            f"{where}: {', '.join(empty)} {'is' if len(empty) == 1 else 'are'} empty, so that no DICOM SEG or SR can "
            "refer to this image: export it again with its identifiers, or give it new ones"
        )
    wrong = [keyword for keyword in _UIDS if not UID(str(dataset.get(keyword)).strip()).is_valid]
    if wrong:
        raise InputError(f"{where}: {', '.join(wrong)} is not a valid DICOM identifier: export the image again")


def _check_one_series(datasets: Sequence[Dataset], name: str) -> None:
    first = datasets[0]
    for keyword in _SAME:
        if any(dataset.get(keyword) != first.get(keyword) for dataset in datasets):
            what = "patient" if keyword.startswith("Patient") else keyword
            raise InputError(f"{name}: the images differ in their {what}: give those of one series")
    if len({str(dataset.SOPInstanceUID) for dataset in datasets}) < len(datasets):
        raise InputError(f"{name}: several images have the same SOPInstanceUID: remove the copies")
    if len(datasets) > 1 and any(frame_count(dataset) > 1 for dataset in datasets):
        raise InputError(f"{name}: several multi-frame images: give one of them")


def _has_place(dataset: Dataset) -> bool:
    if frame_count(dataset) > 1:
        return frame_plane(dataset, 0) is not None
    return image_plane(dataset) is not None or frame_plane(dataset, 0) is not None


def one_frame(dataset: Dataset) -> Dataset:
    """A header as that of an image of one frame without a place, for an image whose frames have none."""
    single, shared, measures = copy.copy(dataset), Dataset(), Dataset()
    if "PixelSpacing" in dataset:
        measures.PixelSpacing = dataset.PixelSpacing
    shared.PixelMeasuresSequence = [measures]
    single.pop("PerFrameFunctionalGroupsSequence", None)
    single.SharedFunctionalGroupsSequence = [shared]
    single.NumberOfFrames = 1
    return single


def _complete_thickness(datasets: Sequence[Dataset]) -> None:
    """Give single-frame images that lie somewhere the thickness that highdicom asks for: their distance, else none."""
    planes = [image_plane(dataset) for dataset in datasets]
    if "FrameOfReferenceUID" not in datasets[0] or any(plane is None for plane in planes):
        return
    depths = sorted(
        float(np.dot(np.cross(plane.along_row, plane.along_column), plane.position)) for plane in planes if plane
    )
    gaps = np.diff(depths)
    for dataset in datasets:
        if not header_number(dataset, "SliceThickness"):
            dataset.SliceThickness = round(float(np.median(gaps)), 6) if gaps.size and gaps.min() > 0 else None
