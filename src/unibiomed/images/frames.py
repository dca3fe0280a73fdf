"""A multi-frame DICOM file, such as an enhanced CT or MR, as one volume."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from ..errors import InputError
from .dicom import lift_frame_groups
from .dicom_header import (
    HEADER_TAGS,
    check_inflated_size,
    check_kind,
    complete_header,
    frame_count,
    header_rescale,
    header_window,
    load_dataset,
)
from .dicom_values import decode_frame, modality_values
from .grid import StoredVolume, make_grid
from .limits import MAX_BYTES, check_size, quiet
from .modality import modality_from_dicom
from .series import GREY, agreed, check_gaps

__all__ = ["open_frames"]

_GROUPS: dict[str, tuple[str, ...]] = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing",),
}
_TAGS: list[Any] = [
    *HEADER_TAGS,
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]
_ONE_FILE = "this is a single DICOM file: give the folder with all files of its series"


def open_frames(path: Path, name: str) -> StoredVolume:
    """Read where the frames of a DICOM file lie and put them in order.

    Parameters
    ----------
    path
        The file.
    name
        What to call it in messages.

    Returns
    -------
    StoredVolume
        As `unibiomed.images.series.open_series` gives it; its details hold ``frames``, the numbers of the frames from 0
        in the order of the slices, in place of ``files``.

    Raises
    ------
    InputError
        The file holds one frame or is damaged, the place of a frame is not known, frames are missing, twice there or
        in different planes, or in colour.
    """
    with quiet():
        try:
            return _open(path, name)
        except InputError:
            raise
        except Exception:
            # pydicom quotes header values in its errors
            raise InputError(f"{name}: this DICOM file is truncated or damaged: export it again") from None


def _open(path: Path, name: str) -> StoredVolume:
    with path.open("rb") as file:
        check_inflated_size(file, name)
        file.seek(0)
        header = dcmread(file, force=True, specific_tags=_TAGS, stop_before_pixels=True)
    check_kind(header, name)
    count = frame_count(header)
    if count < 2:
        raise InputError(f"{name}: {_ONE_FILE}")
    if int(header.get("SamplesPerPixel") or 1) != 1 or (header.get("PhotometricInterpretation") or GREY) != GREY:
        raise InputError(f"{name}: only grey images ({GREY}) make a volume: choose one frame with --slice")
    places = [_place(header, frame, name) for frame in range(count)]
    first = places[0]
    for frame, place in enumerate(places):
        for keyword in ("ImageOrientationPatient", "PixelSpacing"):
            if not np.allclose(place[keyword], first[keyword], rtol=1e-3, atol=1e-3):
                raise InputError(f"{name}: frames 0 and {frame} differ in {keyword}: choose one frame with --slice")
    along_row, along_column = np.reshape(first["ImageOrientationPatient"], (2, 3))
    normal = np.cross(along_row, along_column)
    depths = [float(normal @ place["ImagePositionPatient"]) for place in places]
    order = sorted(range(count), key=lambda frame: depths[frame])
    check_gaps([depths[frame] for frame in order], name)
    rows, columns = int(header.Rows), int(header.Columns)
    check_size(rows, columns, name)
    if count * rows * columns * 4 > MAX_BYTES:
        raise InputError(f"{name}: the frames hold more than {MAX_BYTES >> 30} GiB: crop them first")
    ends = places[order[0]]["ImagePositionPatient"], places[order[-1]]["ImagePositionPatient"]
    affine = np.eye(4)
    affine[:3, 0] = along_row * first["PixelSpacing"][1]
    affine[:3, 1] = along_column * first["PixelSpacing"][0]
    affine[:3, 2] = (ends[1] - ends[0]) / (count - 1)
    affine[:3, 3] = ends[0]
    frames = [_of_frame(header, frame) for frame in order]
    return StoredVolume(
        make_grid((columns, rows, count), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, name),
        lambda: _load(path, order, (count, rows, columns), name),
        modality_from_dicom(header.get("Modality")),
        {
            "format": "DICOM frames",
            "bits": int(header.get("BitsStored") or 16),
            "orientation_known": True,
            "frames": tuple(order),
            "header_window": agreed([header_window(one) for one in frames]),
            "notes": tuple(dict.fromkeys(note for one in frames for note in header_rescale(one)[2])),
        },
    )


def _place(header: Dataset, frame: int, name: str) -> dict[str, np.ndarray]:
    """Position, orientation and spacing of a frame."""
    groups = [
        *(header.get("PerFrameFunctionalGroupsSequence") or [])[frame : frame + 1],
        *(header.get("SharedFunctionalGroupsSequence") or [])[:1],
    ]
    found: dict[str, np.ndarray] = {}
    for sequence, keywords in _GROUPS.items():
        for keyword in keywords:
            value = next((v for group in groups for v in _values(group, sequence, keyword)), header.get(keyword))
            if value is not None:
                found[keyword] = np.atleast_1d(np.array(value, np.float64))
    for keyword, length in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2)):
        if keyword not in found or found[keyword].shape != (length,) or not np.isfinite(found[keyword]).all():
            raise InputError(
                f"{name}: the file does not say where frame {frame} lies ({keyword}): choose one frame with --slice"
            )
    if found["PixelSpacing"].min() <= 0:
        raise InputError(f"{name}: the distance of its pixels is not positive: export it again")
    return found


def _values(group: Dataset, sequence: str, keyword: str) -> list[Any]:
    return [item.get(keyword) for item in (group.get(sequence) or [])[:1] if item.get(keyword) is not None]


def _of_frame(header: Dataset, frame: int) -> Dataset:
    """Window and rescale of a frame, at the top of a data set of their own."""
    own = Dataset()
    for keyword in ("WindowCenter", "WindowWidth", "VOILUTFunction", "RescaleIntercept", "RescaleSlope"):
        if keyword in header:
            own[keyword] = header[keyword]
    for sequence in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        if sequence in header:
            own[sequence] = header[sequence]
    lift_frame_groups(own, frame)
    return own


def _load(path: Path, order: Sequence[int], shape: tuple[int, int, int], name: str) -> np.ndarray:
    with quiet():
        try:
            dataset = load_dataset(path, name)
            complete_header(dataset, name)
            cuts = []
            for frame in order:
                lift_frame_groups(dataset, frame)
                cut, _ = modality_values(decode_frame(dataset, frame, name), dataset, name)
                cuts.append(cut)
        except InputError:
            raise
        except Exception:
            raise InputError(f"{name}: this DICOM file is truncated or damaged: export it again") from None
    if any(cut.shape != shape[1:] for cut in cuts):
        raise InputError(f"{name}: this DICOM file is damaged (its size changes): export it again")
    # frames with fractions and frames without become floats together
    values = np.stack(cuts)
    return (values.astype(np.float32) if values.dtype.kind == "f" else values).transpose(2, 1, 0)
