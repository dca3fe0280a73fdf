"""DICOM series: a folder of files with one slice each, read as one volume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from ..errors import InputError
from .dicom_header import (
    HEADER_TAGS,
    check_inflated_size,
    check_kind,
    complete_header,
    frame_count,
    header_number,
    header_padding,
    header_rescale,
    header_window,
    holds_an_image,
    load_dataset,
    no_pixels,
)
from .dicom_values import decode_frame, modality_values
from .grid import StoredVolume, make_grid
from .limits import MAX_BYTES, check_size, quiet, shown
from .modality import modality_from_dicom
from .nifti import HEADER_BYTES
from .read import sniff

MAX_FILES = 20_000
"""Maximum number of files in a folder."""

# The UID of the series and the patient ID are only compared and never shown.
_TAGS: list[Any] = [
    *HEADER_TAGS,
    "SeriesInstanceUID",
    "PatientID",
    "ImageType",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SliceThickness",
]
MAX_LISTED = 8
"""Series that a message lists."""
GREY = "MONOCHROME2"
_SAME_PLACE = 1e-3
_UNEVEN = 0.1
"""Tolerance of the slice distance, relative to its median, because positions in headers are rounded."""


def open_series(folder: Path, name: str, series: int | None = None) -> StoredVolume:
    """Read the headers of a DICOM series and sort its slices.

    Parameters
    ----------
    folder
        Folder with the files of a study; files that are not DICOM images are ignored. Subfolders are searched if the
        folder itself contains no DICOM file.
    name
        Name of the folder for messages.
    series
        Number of the series, from 1, if there are several: sorted by the number of images, localizers last. If left
        out, there must be exactly one series that is no localizer.

    Returns
    -------
    StoredVolume
        The axes "of the file" are columns, rows and slices, sorted along the normal of the image plane. The rescale or
        Modality LUT is applied to the voxels; integers become int16 or int32, other values float32. The details contain
        ``files`` (names in slice order), ``header_window`` (centre, width, function) and ``padding`` (lowest and
        highest value, rescaled) if they are the same in all files, and ``notes`` on assumptions.

    Raises
    ------
    InputError
        If there is no series or more than one, a slice is missing, duplicated or of another size, the position of an
        image is unknown, images have colours or several frames, a file is damaged, or there is more data than
        `MAX_BYTES`.
    """
    with quiet():
        try:
            return _open(folder, name, series)
        except InputError:
            raise
        except Exception:
            # Errors of pydicom may quote header values, which may be patient data: they are not chained.
            raise InputError(f"{name}: a DICOM file of this series is damaged: export the series again") from None


def _open(folder: Path, name: str, series: int | None) -> StoredVolume:
    headers, note = choose_series(_headers(folder, name), series, name)
    if len({str(header.get("PatientID") or "") for _, header in headers}) > 1:
        raise InputError(f"{name}: the images are of several patients: move those of one to a folder of their own")
    for path, header in headers:
        _check_slice(header, f"{name}/{shown(path.name)}")
    # The first file may be a localizer, so that the most common geometry is the reference.
    first = _most_common([header for _, header in headers])
    for path, header in headers:
        _check_alike(header, first, f"{name}/{shown(path.name)}")
    along_row, along_column = np.array(first.ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
    normal = np.cross(along_row, along_column)
    depth = {path: float(np.dot(normal, header.ImagePositionPatient)) for path, header in headers}
    headers.sort(key=lambda item: (depth[item[0]], item[0].name))
    places = np.array([header.ImagePositionPatient for _, header in headers], dtype=np.float64)
    check_gaps([depth[path] for path, _ in headers], name)

    count, rows, columns = len(headers), int(first.Rows), int(first.Columns)
    check_size(rows, columns, name)
    between_rows, between_columns = (float(size) for size in first.PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0] = along_row * between_columns
    affine[:3, 1] = along_column * between_rows
    thickness = header_number(first, "SliceThickness") or 1.0
    affine[:3, 2] = (places[-1] - places[0]) / (count - 1) if count > 1 else normal * thickness
    affine[:3, 3] = places[0]
    whole = all(_is_whole(header) for _, header in headers)
    if count * rows * columns * 4 > MAX_BYTES:
        raise InputError(f"{name}: the series has more than {MAX_BYTES >> 30} GiB: crop it first")
    files = [path for path, _ in headers]
    return StoredVolume(
        # DICOM coordinates are LPS, the grid is RAS.
        make_grid((columns, rows, count), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, name),
        lambda: _load(files, (count, rows, columns), whole, name),
        modality_from_dicom(first.get("Modality")),
        {
            "format": "DICOM series",
            "bits": int(first.get("BitsStored") or 16),
            "orientation_known": True,
            "files": tuple(path.relative_to(folder).as_posix() for path in files),
            "header_window": agreed([header_window(header) for _, header in headers]),
            "padding": agreed([_padding(header) for _, header in headers]),
            "notes": tuple(dict.fromkeys([*note, *(n for _, header in headers for n in header_rescale(header)[2])])),
        },
    )


def _headers(folder: Path, name: str) -> list[tuple[Path, Dataset]]:
    """Headers of the images in the folder; in the folders in it where it holds no DICOM file itself."""
    found = _read_headers(sorted(folder.iterdir()), name)
    if not found:
        found = _read_headers(_files_below(folder, name), name)
    if not found:
        raise InputError(f"{name}: the folder contains no DICOM images: give a folder with the files of one series")
    return found


def _files_below(folder: Path, name: str) -> list[Path]:
    paths: list[Path] = []
    for path in folder.rglob("*"):
        paths.append(path)
        if len(paths) > MAX_FILES:
            break
    return sorted(paths)


def _read_headers(paths: Sequence[Path], name: str) -> list[tuple[Path, Dataset]]:
    if len(paths) > MAX_FILES:
        raise InputError(f"{name}: the folder contains more than {MAX_FILES} files: give the folder of one series")
    found: list[tuple[Path, Dataset]] = []
    total = 0
    for path in paths:
        if path.name.startswith(".") or not path.is_file():
            continue
        with path.open("rb") as file:
            if sniff(file.read(HEADER_BYTES)) != "DICOM":
                continue
            total += path.stat().st_size
            if total > MAX_BYTES:
                raise InputError(f"{name}: the series exceeds {MAX_BYTES >> 30} GiB: crop it first")
            where = f"{name}/{shown(path.name)}"
            check_inflated_size(file, where)
            file.seek(0)
            header = dcmread(file, force=True, specific_tags=_TAGS, stop_before_pixels=True)
        check_kind(header, where)
        if "Rows" in header and "Columns" in header:
            found.append((path, header))
        elif holds_an_image(header):
            raise no_pixels(header, where)
    return found


def choose_series(
    headers: Sequence[tuple[Path, Dataset]], series: int | None, name: str
) -> tuple[list[tuple[Path, Dataset]], list[str]]:
    """Choose one of the series among images.

    Parameters
    ----------
    headers
        Paths and headers of all images, at least one.
    series
        Number of the series, from 1; see `open_series`.
    name
        What to call the folder in messages.

    Returns
    -------
    list
        The images of the series.
    list of str
        A note where a series was chosen although there are others.

    Raises
    ------
    InputError
        There is no such series, or there are several and none was chosen; these are listed.
    """
    groups: dict[str, list[tuple[Path, Dataset]]] = {}
    for path, header in headers:
        groups.setdefault(str(header.get("SeriesInstanceUID", "")), []).append((path, header))
    ordered = sorted(groups.values(), key=lambda images: (_is_localizer(images), -len(images), str(images[0][0])))
    if series is not None:
        if not 1 <= series <= len(ordered):
            raise InputError(f"{name}: series {series} does not exist: choose 1 to {len(ordered)}")
        return list(ordered[series - 1]), []
    if len(ordered) == 1:
        return list(ordered[0]), []
    listed = "; ".join(f"{number}: {_about(images)}" for number, images in enumerate(ordered[:MAX_LISTED], start=1))
    more = "; ..." if len(ordered) > MAX_LISTED else ""
    if not _is_localizer(ordered[0]) and all(_is_localizer(images) for images in ordered[1:]):
        return list(ordered[0]), [f"of {len(ordered)} series the one that is no localizer was read"]
    raise InputError(f"{name}: the folder contains {len(ordered)} series, choose one with --series N: {listed}{more}")


def _is_localizer(images: Sequence[tuple[Path, Dataset]]) -> bool:
    return all("LOCALIZER" in [str(v) for v in header.get("ImageType") or ()] for _, header in images)


def _about(images: Sequence[tuple[Path, Dataset]]) -> str:
    """What a series is, without identifiers or descriptions, which may name the patient."""
    header = _most_common([one for _, one in images])
    modality = modality_from_dicom(header.get("Modality")) or "other"
    localizer = ", localizer" if _is_localizer(images) else ""
    many = "1 image" if len(images) == 1 else f"{len(images)} images"
    return f"{modality}, {many} of {header.Columns} x {header.Rows}{localizer}"


def _check_slice(header: Dataset, name: str) -> None:
    """Check that an image can be a slice of a volume."""
    if frame_count(header) > 1:
        raise InputError(f"{name}: this DICOM file has several frames: save each slice as one file, or use NIfTI")
    if int(header.get("SamplesPerPixel") or 1) != 1 or (header.get("PhotometricInterpretation") or GREY) != GREY:
        raise InputError(f"{name}: only grey images ({GREY}) make a volume: give this one as a single image")
    for keyword, length in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2)):
        values = header.get(keyword)
        if values is None or len(values) != length or not np.isfinite([float(value) for value in values]).all():
            raise InputError(f"{name}: the position of the image is not known ({keyword}): export it again")
    if min(float(size) for size in header.PixelSpacing) <= 0:
        raise InputError(f"{name}: its pixel spacing is not positive: export it again")


def _most_common(headers: Sequence[Dataset]) -> Dataset:
    """First header with the most common geometry and modality, the reference for all others."""

    def key(header: Dataset) -> tuple[object, ...]:
        turned = tuple(round(float(value), 2) + 0.0 for value in header.get("ImageOrientationPatient") or ())
        spacing = tuple(round(float(value), 2) for value in header.get("PixelSpacing") or ())
        return header.Rows, header.Columns, turned, spacing, modality_from_dicom(header.get("Modality"))

    keys = [key(header) for header in headers]
    return headers[keys.index(Counter(keys).most_common(1)[0][0])]


def _check_alike(header: Dataset, usual: Dataset, name: str) -> None:
    """Refuse an image that differs from most images of its series, for example a localizer."""
    what = None
    if (header.Rows, header.Columns) != (usual.Rows, usual.Columns):
        what = (
            f"this image has {header.Columns} x {header.Rows} pixels, but most images of its series have "
            f"{usual.Columns} x {usual.Rows}"
        )
    elif not _close(header, usual, "ImageOrientationPatient"):
        what = "this image has another orientation than most images of its series"
    elif not _close(header, usual, "PixelSpacing"):
        what = "this image has another pixel spacing than most images of its series"
    elif modality_from_dicom(header.get("Modality")) != modality_from_dicom(usual.get("Modality")):
        what = "this image has another modality than most images of its series"
    if what is not None:
        localizer = " (it is a localizer)" if "LOCALIZER" in [str(v) for v in header.get("ImageType") or ()] else ""
        raise InputError(f"{name}: {what}{localizer}: move it to another folder")


def _close(header: Dataset, usual: Dataset, keyword: str) -> bool:
    return bool(np.allclose(header.get(keyword), usual.get(keyword), rtol=1e-3, atol=1e-3))


def check_gaps(depths: Sequence[float], name: str) -> None:
    """Refuse slices that are missing, twice there or at uneven distances; `depths` along the normal, ascending."""
    gaps = np.diff(depths)
    if not gaps.size:
        return
    if gaps.min() < _SAME_PLACE:
        at = int(gaps.argmin())
        raise InputError(
            f"{name}: slices {at} and {at + 1} have the same position, as in series of several phases: keep one phase"
        )
    usual = float(np.median(gaps))
    odd = np.flatnonzero(np.abs(gaps - usual) > max(_UNEVEN * usual, 0.02))
    if odd.size:
        at, missing = int(odd[0]), round(float(gaps[odd[0]]) / usual) - 1
        if missing > 0:
            what = f"{missing} missing between slices {at} and {at + 1}"
            raise InputError(f"{name}: of {len(depths) + missing} slices, {what}: restore the complete series")
        raise InputError(f"{name}: slices {at} and {at + 1} are closer than the others: resample the series")


def _is_whole(header: Dataset) -> bool:
    """Whether the rescaled values are integers."""
    slope, intercept, _ = header_rescale(header)
    return not header.get("ModalityLUTSequence") and slope.is_integer() and intercept.is_integer()


def _padding(header: Dataset) -> tuple[float, float] | None:
    padding = header_padding(header)
    slope, intercept, _ = header_rescale(header)
    if padding is None:
        return None
    ends = [value * slope + intercept for value in padding]
    return min(ends), max(ends)


def agreed(values: Sequence[Any]) -> Any:
    """What all values are, or None where they differ."""
    return values[0] if all(value == values[0] for value in values) else None


def _load(files: Sequence[Path], shape: tuple[int, int, int], whole: bool, name: str) -> np.ndarray:
    values = np.empty(shape, dtype=np.int16 if whole else np.float32)
    with quiet():
        for number, path in enumerate(files):
            where = f"{name}/{shown(path.name)}"
            try:
                dataset = load_dataset(path, where)
                complete_header(dataset, where)
                cut, _ = modality_values(decode_frame(dataset, 0, where), dataset, where)
            except InputError:
                raise
            except Exception:
                raise InputError(f"{where}: this DICOM file is truncated or damaged: export it again") from None
            if cut.shape != shape[1:]:
                raise InputError(f"{where}: this DICOM file is damaged (its size changes): export it again")
            # FloatPixelData may have fractions or NaN (which differs from itself) without a rescale.
            if cut.dtype.kind == "f" and values.dtype != np.float32 and np.any(cut != np.rint(cut)):
                values = values.astype(np.float32)
            if cut.size and values.dtype != np.float32 and not -(2**31) <= cut.min() <= cut.max() < 2**31:
                raise InputError(f"{where}: its values need more than 32 bits: rescale the series")
            if values.dtype == np.int16 and cut.size and (cut.min() < -(2**15) or cut.max() >= 2**15):
                values = values.astype(np.int32)
            values[number] = cut
    return values.transpose(2, 1, 0)
