"""DICOM headers: parsing, completion of missing elements, and access to window, rescale, padding and spacing.

Scanners and anonymization tools omit elements or leave them empty. Elements that follow from others are completed
silently; assumptions are listed in notes, because the image may then be wrong.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_preamble
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
)

from ..errors import InputError
from .image import check_spacing
from .limits import MAX_BYTES
from .windowing import VoiFunction

PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

# Only elements that are needed for the image are parsed, so that no patient data is held in memory.
HEADER_TAGS: list[Any] = [
    "SOPClassUID",
    "Modality",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "FloatPixelPaddingValue",
    "FloatPixelPaddingRangeLimit",
    "DoubleFloatPixelPaddingValue",
    "DoubleFloatPixelPaddingRangeLimit",
    "PixelSpacing",
    "PixelSpacingCalibrationType",
    "ImagerPixelSpacing",
    "EstimatedRadiographicMagnificationFactor",
    "DistanceSourceToDetector",
    "DistanceSourceToPatient",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "VOILUTSequence",
    "RescaleIntercept",
    "RescaleSlope",
    "ModalityLUTSequence",
]
_TAGS: list[Any] = [
    *HEADER_TAGS,
    "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor",
    "AlphaPaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData",
    "AlphaPaletteColorLookupTableData",
    "SegmentedRedPaletteColorLookupTableData",
    "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    *PIXELS,
]
_NO_PICTURES = {
    "SEG": "a segmentation",
    "RTDOSE": "a dose distribution",
}
_NO_PICTURE_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.66.4": "SEG",
    "1.2.840.10008.5.1.4.1.1.66.7": "SEG",
    "1.2.840.10008.5.1.4.1.1.481.2": "RTDOSE",
}
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT", "HSV")


def load_dataset(path: Path, name: str) -> Dataset:
    """Parse the needed elements of a file; a missing transfer syntax is inferred from the encoding.

    Raises
    ------
    InputError
        If the file has no pixels, is truncated, or is not an image, for example a segmentation.
    """
    with path.open("rb") as file:
        check_inflated_size(file, name)
        file.seek(0)
        dataset = dcmread(file, force=True, specific_tags=_TAGS)
    check_kind(dataset, name)
    if not any(key in dataset for key in PIXELS):
        raise no_pixels(dataset, name)
    if not dataset.file_meta.get("TransferSyntaxUID"):
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset


def check_inflated_size(file: BinaryIO, name: str) -> None:
    """Refuse a deflated file that inflates to more than `MAX_BYTES`, because pydicom inflates it completely."""
    read_preamble(file, force=True)
    meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    inflater, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while not inflater.eof and (chunk := inflater.unconsumed_tail or file.read(1 << 16)):
        total += len(inflater.decompress(chunk, 1 << 20))
        if total > MAX_BYTES:
            raise InputError(f"{name}: the file would inflate beyond {MAX_BYTES >> 30} GiB: give a smaller file")


def check_kind(dataset: Dataset, name: str) -> None:
    """Refuse objects whose pixels are not an image: segmentations and dose distributions."""
    code = str(dataset.get("Modality", "")).strip().upper()
    code = _NO_PICTURE_CLASSES.get(str(dataset.get("SOPClassUID", "")), code)
    if code in _NO_PICTURES:
        raise InputError(
            f"{name}: this DICOM file is {_NO_PICTURES[code]} ({code}), not an image: give the image that it belongs to"
        )


def holds_an_image(dataset: Dataset) -> bool:
    """Whether the SOP class of a data set is an image storage class, whose objects always have pixels."""
    uid = dataset.get("SOPClassUID") or getattr(dataset, "file_meta", Dataset()).get("MediaStorageSOPClassUID", "")
    return "Image Storage" in UID(str(uid)).name


def no_pixels(dataset: Dataset, name: str) -> InputError:
    """Error for a data set without pixels: a truncated image, or another kind of object."""
    code = str(dataset.get("Modality", ""))
    kind = f" ({code})" if code.isascii() and code.isalnum() and len(code) <= 16 else ""
    if holds_an_image(dataset):
        return InputError(f"{name}: this DICOM image{kind} is truncated before its pixels: copy or export it again")
    return InputError(f"{name}: this DICOM file{kind} holds no pixels: give an image such as a CT, MR or X-ray file")


def complete_header(dataset: Dataset, name: str) -> list[str]:
    """Complete elements of the Image Pixel module that are missing, empty, or inconsistent with the encoding.

    Parameters
    ----------
    dataset
        The data set, modified in place. ``Rows`` and ``Columns`` are required.
    name
        Name of the file for messages.

    Returns
    -------
    list of str
        Notes on assumptions.

    Raises
    ------
    InputError
        If a required element is missing.
    """
    for keyword in ("Rows", "Columns"):
        if dataset.get(keyword) is None:
            raise InputError(f"{name}: this DICOM file is damaged, it has no {keyword}: export it again")
    notes: list[str] = []
    compressed = UID(dataset.file_meta.TransferSyntaxUID).is_compressed
    count = int(dataset.Rows) * int(dataset.Columns) * frame_count(dataset)
    stored = 0 if compressed or "PixelData" not in dataset else len(dataset.PixelData)
    photometric = str(dataset.get("PhotometricInterpretation") or "").strip().upper()
    if not dataset.get("SamplesPerPixel"):
        bytes_each = -(-int(dataset.get("BitsAllocated") or 8) // 8)
        three = photometric in _COLOURS or (not photometric and count > 0 and stored // (count * bytes_each) == 3)
        dataset.SamplesPerPixel = 3 if three else 1
    samples = int(dataset.SamplesPerPixel)
    if not photometric:
        photometric = _likely_photometric(dataset, samples, notes)
        dataset.PhotometricInterpretation = photometric
    elif photometric != dataset.PhotometricInterpretation:
        dataset.PhotometricInterpretation = photometric
    # PS3.5 8.2: PlanarConfiguration does not apply to compressed pixels, which are decoded as interleaved.
    if samples > 1 and (compressed or dataset.get("PlanarConfiguration") not in (0, 1)):
        dataset.PlanarConfiguration = 0
    if "PixelData" in dataset:
        _complete_bits(dataset, samples, count, stored, notes)
    elif not dataset.get("BitsAllocated"):
        dataset.BitsAllocated = 32 if "FloatPixelData" in dataset else 64
    return notes


def frame_count(dataset: Dataset) -> int:
    """Number of frames; 1 if the element is missing or empty."""
    return int(dataset.get("NumberOfFrames") or 1)


def _likely_photometric(dataset: Dataset, samples: int, notes: list[str]) -> str:
    if samples == 3:
        lossy_jpeg = dataset.file_meta.TransferSyntaxUID in (JPEGBaseline8Bit, JPEGExtended12Bit)
        likely = "YBR_FULL_422" if lossy_jpeg else "RGB"
    else:
        likely = "PALETTE COLOR" if "RedPaletteColorLookupTableDescriptor" in dataset else "MONOCHROME2"
    notes.append(f"the DICOM header has no PhotometricInterpretation; {likely} was assumed, so colours may be wrong")
    return likely


def _complete_bits(dataset: Dataset, samples: int, count: int, stored: int, notes: list[str]) -> None:
    high = dataset.get("HighBit")
    if not dataset.get("BitsAllocated"):
        bits = int(dataset.get("BitsStored") or (high + 1 if high is not None else 8))
        found = 8 * stored // max(1, count * samples)
        dataset.BitsAllocated = found if found in (8, 16, 32, 64) else 8 if bits <= 8 else 16
    allocated = int(dataset.BitsAllocated)
    if not 0 < int(dataset.get("BitsStored") or 0) <= allocated:
        dataset.BitsStored = high + 1 if high is not None and 0 < high + 1 <= allocated else allocated
    if high is None:
        dataset.HighBit = int(dataset.BitsStored) - 1
    if dataset.get("PixelRepresentation") not in (0, 1):
        dataset.PixelRepresentation = 0
        if samples == 1 and int(dataset.BitsStored) > 8:
            notes.append(
                "the DICOM header does not say whether its pixel values are signed (PixelRepresentation); unsigned "
                "values were assumed"
            )


def header_window(dataset: Dataset) -> tuple[float, float, VoiFunction] | None:
    """First window of the header as (centre, width, function); None if there is none, or it is not valid."""
    center, width = header_number(dataset, "WindowCenter"), header_number(dataset, "WindowWidth")
    if center is None or width is None or width <= 0:
        return None
    name = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    function: VoiFunction = "SIGMOID" if name == "SIGMOID" else "LINEAR_EXACT" if name == "LINEAR_EXACT" else "LINEAR"
    return center, width, function


def header_rescale(dataset: Dataset) -> tuple[float, float, list[str]]:
    """Slope and intercept of the rescale, and notes on them.

    A missing or empty slope is 1 and a missing or empty intercept is 0, as in GDCM, dcm2niix and SimpleITK. A slope of
    0, which would give all pixels the same value, is replaced by 1, with a note.
    """
    slope, intercept = header_number(dataset, "RescaleSlope"), header_number(dataset, "RescaleIntercept")
    if slope == 0:
        return 1.0, intercept or 0.0, ["RescaleSlope is 0 in the DICOM header, which is not valid; 1 was used"]
    return 1.0 if slope is None else slope, intercept or 0.0, []


def header_padding(dataset: Dataset) -> tuple[float, float] | None:
    """Lowest and highest stored value of padding pixels, which are outside the field of view; None if there are none.

    The element may have the wrong sign: GE scanners write it as unsigned for signed pixels.
    """
    kind = next((k for k in ("Float", "DoubleFloat") if f"{k}PixelPaddingValue" in dataset), "")
    first = header_number(dataset, f"{kind}PixelPaddingValue")
    if first is None:
        return None
    limit = header_number(dataset, f"{kind}PixelPaddingRangeLimit")
    ends = [first, first if limit is None else limit]
    if not kind:
        ends = [_as_stored(dataset, value) for value in ends]
    return min(ends), max(ends)


def _as_stored(dataset: Dataset, value: float) -> float:
    """Convert a header value to the range of the pixels, given by their bits and sign."""
    allocated = int(dataset.get("BitsAllocated") or 16)
    bits = int(dataset.get("BitsStored") or allocated)
    signed = dataset.get("PixelRepresentation") == 1
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    if low <= value <= high:
        return value
    wrapped = int(value) % 2**bits
    return float(wrapped - 2**bits if signed and wrapped > high else wrapped)


def header_spacing(dataset: Dataset) -> tuple[tuple[float, float] | None, list[str]]:
    """(row, column) spacing in mm in the patient, or None, and notes on it.

    For projection images the header gives the spacing at the detector, where structures appear magnified. It is divided
    by the magnification factor if that is known (PS3.3 10.7.1.3).
    """
    pixel, imager = _pair(dataset.get("PixelSpacing")), _pair(dataset.get("ImagerPixelSpacing"))
    calibrated = bool(dataset.get("PixelSpacingCalibrationType"))
    if pixel is not None and (imager is None or calibrated or pixel != imager):
        return pixel, []
    if imager is None:
        return None, []
    factor = _magnification(dataset)
    if factor is None:
        return imager, ["sizes in mm are those at the detector, because the magnification is not known"]
    return (imager[0] / factor, imager[1] / factor), []


def _magnification(dataset: Dataset) -> float | None:
    """Magnification factor of a projection image; None if it is not known or not plausible."""
    factor = header_number(dataset, "EstimatedRadiographicMagnificationFactor")
    if factor is None or factor < 1:
        detector = header_number(dataset, "DistanceSourceToDetector")
        patient = header_number(dataset, "DistanceSourceToPatient")
        factor = detector / patient if detector and patient and patient > 0 else None
    return factor if factor is not None and 1 <= factor <= 20 else None


def header_number(dataset: Dataset, keyword: str) -> float | None:
    """First number of an element as a finite float; None if it is missing, empty or not a number."""
    try:
        value = dataset.get(keyword)
    except (TypeError, ValueError, OverflowError):
        return None  # the value is not a number
    return first_number(value)


def first_number(value: Any) -> float | None:
    """First of one or several numbers as a finite float, or None."""
    if isinstance(value, (str, bytes)) or value is None:
        return None
    try:
        number = float(value[0] if isinstance(value, Sequence) else value)
    except (TypeError, ValueError, IndexError):
        return None
    return number if math.isfinite(number) else None


def _pair(value: Any) -> tuple[float, float] | None:
    try:
        return check_spacing(value)
    except InputError:
        return None
