"""A folder of DICOM files, one a slice, as one volume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut

from ..errors import InputError
from .dicom import check_inflated_size, decode_frame, first_number, header_window, load_dataset
from .grid import StoredVolume, make_grid
from .limits import MAX_BYTES, check_size, quiet, shown
from .modality import modality_from_dicom
from .nifti import HEADER_BYTES
from .read import sniff

MAX_FILES = 20_000
"""Files that are looked at in one folder."""

# Nothing that says who the patient is; the series' identifier is compared and never shown.
_TAGS: list[Any] = [
    "SeriesInstanceUID",
    "Modality",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsStored",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "PixelPaddingValue",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
]
_SAME_PLACE = 1e-3
_UNEVEN = 0.1
"""Share of the distance of slices by which a gap may differ; tables move in steps, so that headers are a little off."""


def open_series(folder: Path, name: str) -> StoredVolume:
    """Read the headers of a DICOM series and put its slices in order.

    Parameters
    ----------
    folder
        Holds the files of one series; files that are not DICOM images are passed over, folders in it are not searched.
    name
        What to call it in messages.

    Returns
    -------
    StoredVolume
        The axes "of the file" are columns, rows and slices, these along the normal of the image plane. The voxels pass
        the rescale or Modality LUT: integers stay int16 or int32, else float32. The details hold ``files`` (names in
        the order of the slices), ``header_window`` (centre, width, function) and ``padding`` (rescaled) where all
        files agree on one.

    Raises
    ------
    InputError
        No series or several, a slice is missing, twice there or of another size, the place of an image is unknown,
        images in colour or with frames, damaged files, or more data than `MAX_BYTES`.
    """
    with quiet():
        try:
            return _open(folder, name)
        except InputError:
            raise
        except Exception:
            # pydicom quotes header values in its errors, so that neither its message nor the error itself is kept.
            raise InputError(f"{name}: a DICOM file of this series is damaged: export the series again") from None


def _open(folder: Path, name: str) -> StoredVolume:
    headers = _headers(folder, name)
    first = headers[0][1]
    for path, header in headers:
        _check_header(header, first, f"{name}/{shown(path.name)}")
    along_row, along_column = np.array(first.ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
    normal = np.cross(along_row, along_column)
    depth = {path: float(np.dot(normal, header.ImagePositionPatient)) for path, header in headers}
    headers.sort(key=lambda item: (depth[item[0]], item[0].name))
    places = np.array([header.ImagePositionPatient for _, header in headers], dtype=np.float64)
    _check_gaps([depth[path] for path, _ in headers], name)

    count, rows, columns = len(headers), int(first.Rows), int(first.Columns)
    check_size(rows, columns, name)
    between_rows, between_columns = (float(size) for size in first.PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0] = along_row * between_columns
    affine[:3, 1] = along_column * between_rows
    thickness = first_number(first.get("SliceThickness")) or 1.0
    affine[:3, 2] = (places[-1] - places[0]) / (count - 1) if count > 1 else normal * thickness
    affine[:3, 3] = places[0]
    whole = all(_is_whole(header) for _, header in headers)
    if count * rows * columns * 4 > MAX_BYTES:
        raise InputError(f"{name}: the series holds more than {MAX_BYTES >> 30} GiB: crop it first")
    files = [path for path, _ in headers]
    return StoredVolume(
        # DICOM's axes point to the patient's left and back.
        make_grid((columns, rows, count), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine, name),
        lambda: _load(files, (count, rows, columns), whole, name),
        modality_from_dicom(first.get("Modality")),
        {
            "format": "DICOM series",
            "bits": int(first.get("BitsStored") or 16),
            "orientation_known": True,
            "files": tuple(path.name for path in files),
            "header_window": _agreed([header_window(header) for _, header in headers]),
            "padding": _agreed([_padding(header) for _, header in headers]),
        },
    )


def _headers(folder: Path, name: str) -> list[tuple[Path, Dataset]]:
    """Headers of the images of the one series in the folder."""
    found: list[tuple[Path, Dataset]] = []
    total = 0
    for number, path in enumerate(sorted(folder.iterdir())):
        if number >= MAX_FILES:
            raise InputError(f"{name}: the folder holds more than {MAX_FILES} files: give that of one series")
        if path.name.startswith(".") or not path.is_file():
            continue
        with path.open("rb") as file:
            if sniff(file.read(HEADER_BYTES)) != "DICOM":
                continue
            total += path.stat().st_size
            if total > MAX_BYTES:
                raise InputError(f"{name}: the series exceeds {MAX_BYTES >> 30} GiB: crop it first")
            check_inflated_size(file, f"{name}/{shown(path.name)}")
            file.seek(0)
            header = dcmread(file, force=True, specific_tags=_TAGS, stop_before_pixels=True)
        if "Rows" in header and "Columns" in header:
            found.append((path, header))
    if not found:
        raise InputError(f"{name}: the folder holds no DICOM images: give the one with the files of a series")
    series = Counter(str(header.get("SeriesInstanceUID", "")) for _, header in found)
    if len(series) > 1:
        sizes = ", ".join(str(number) for number in sorted(series.values(), reverse=True)[:8])
        raise InputError(
            f"{name}: the folder holds {len(series)} series of {sizes} images: move one of them to a folder of its own"
        )
    return found


def _check_header(header: Dataset, first: Dataset, name: str) -> None:
    """Refuse an image that cannot be a slice, or not one beside the first."""
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise InputError(f"{name}: this DICOM file has several frames: save each slice as one file, or as NIfTI")
    if int(header.get("SamplesPerPixel") or 1) != 1 or header.get("PhotometricInterpretation") != "MONOCHROME2":
        raise InputError(f"{name}: only grey images (MONOCHROME2) make a volume: give this one as a single image")
    for keyword, length in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2)):
        values = header.get(keyword)
        if values is None or len(values) != length or not np.isfinite([float(value) for value in values]).all():
            raise InputError(f"{name}: the file does not say where its image lies ({keyword}): export it again")
    if min(float(size) for size in header.PixelSpacing) <= 0:
        raise InputError(f"{name}: the distance of its pixels is not positive: export it again")
    if (header.Rows, header.Columns) != (first.Rows, first.Columns):
        raise InputError(
            f"{name}: the image is {header.Columns} x {header.Rows} pixels, others of its series are "
            f"{first.Columns} x {first.Rows}: take it out of the folder"
        )
    for keyword, what in (("ImageOrientationPatient", "is turned"), ("PixelSpacing", "has another distance of pixels")):
        if not np.allclose(header.get(keyword), first.get(keyword), rtol=1e-3, atol=1e-3):
            raise InputError(f"{name}: the image {what} than others of its series: take it out of the folder")
    if modality_from_dicom(header.get("Modality")) != modality_from_dicom(first.get("Modality")):
        raise InputError(f"{name}: the image is of another modality than others of its series: take it out")


def _check_gaps(depths: Sequence[float], name: str) -> None:
    gaps = np.diff(depths)
    if not gaps.size:
        return
    if gaps.min() < _SAME_PLACE:
        at = int(gaps.argmin())
        raise InputError(
            f"{name}: slices {at} and {at + 1} lie at the same place, as in series of several phases: keep one phase"
        )
    usual = float(np.median(gaps))
    odd = np.flatnonzero(np.abs(gaps - usual) > max(_UNEVEN * usual, 0.02))
    if odd.size:
        at, missing = int(odd[0]), round(float(gaps[odd[0]]) / usual) - 1
        if missing > 0:
            what = f"{missing} missing between slices {at} and {at + 1}"
            raise InputError(f"{name}: of the {len(depths) + missing} slices, {what}: restore the whole series")
        raise InputError(f"{name}: slices {at} and {at + 1} are closer than others: resample the series")


def _is_whole(header: Dataset) -> bool:
    """Whether the rescaled values are whole numbers."""
    slope, intercept = (first_number(header.get(key)) for key in ("RescaleSlope", "RescaleIntercept"))
    steps = (1.0 if slope is None else slope, intercept or 0.0)
    return "ModalityLUTSequence" not in header and all(step.is_integer() for step in steps)


def _padding(header: Dataset) -> float | None:
    value = first_number(header.get("PixelPaddingValue"))
    slope, intercept = (first_number(header.get(key)) for key in ("RescaleSlope", "RescaleIntercept"))
    return None if value is None else value * (1.0 if slope is None else slope) + (intercept or 0.0)


def _agreed(values: Sequence[Any]) -> Any:
    return values[0] if all(value == values[0] for value in values) else None


def _load(files: Sequence[Path], shape: tuple[int, int, int], whole: bool, name: str) -> np.ndarray:
    values = np.empty(shape, dtype=np.int16 if whole else np.float32)
    with quiet():
        for number, path in enumerate(files):
            where = f"{name}/{shown(path.name)}"
            try:
                dataset = load_dataset(path, where)
                cut = np.asarray(apply_modality_lut(decode_frame(dataset, 0, where), dataset))
            except InputError:
                raise
            except Exception:
                raise InputError(f"{where}: this DICOM file is truncated or damaged: export it again") from None
            if cut.shape != shape[1:]:
                raise InputError(f"{where}: this DICOM file is damaged (its size changes): export it again")
            # of a modality whose header says nothing of it, as that of FloatPixelData
            if cut.dtype.kind == "f" and values.dtype != np.float32 and np.any(cut != np.rint(cut)):
                values = values.astype(np.float32)
            if cut.size and values.dtype != np.float32 and not -(2**31) <= cut.min() <= cut.max() < 2**31:
                raise InputError(f"{where}: its values need more than 32 bits: rescale the series")
            if values.dtype == np.int16 and cut.size and (cut.min() < -(2**15) or cut.max() >= 2**15):
                values = values.astype(np.int32)
            values[number] = cut
    return values.transpose(2, 1, 0)
