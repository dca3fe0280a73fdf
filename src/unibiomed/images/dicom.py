"""DICOM files through pydicom: one frame, as the viewing rules of the standard (PS3.3 C.7.6.3, C.11) show it."""

from __future__ import annotations

import importlib.util
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_preamble
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from ..errors import InputError
from .image import MedicalImage, check_spacing
from .limits import MAX_BYTES, check_size, check_slice, quiet
from .modality import modality_from_dicom
from .pixels import Prepared, Window, check_values, color_to_rgb, freeze, grey_to_rgb, stack_grey
from .windowing import VoiFunction, apply_range, apply_window, is_named_window

# Only what is needed for the picture is parsed: no name, identifier or date ever gets into memory as a value.
_TAGS: list[Any] = [
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
    "PixelSpacing",
    "ImagerPixelSpacing",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "VOILUTSequence",
    "RescaleIntercept",
    "RescaleSlope",
    "ModalityLUTSequence",
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
    "PixelData",
    "FloatPixelData",
    "DoubleFloatPixelData",
]

# Where multi-frame objects keep what single-frame objects have at the top.
_FRAME_GROUPS = {
    "PixelMeasuresSequence": ("PixelSpacing",),
    "PixelValueTransformationSequence": ("RescaleIntercept", "RescaleSlope"),
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "VOILUTFunction"),
}

# What the extra "dicom" of the package installs.
_PLUGINS = ("pylibjpeg", "libjpeg", "openjpeg")


def read_dicom(path: Path, name: str, *, slice_index: int | None, window: Window) -> MedicalImage:
    """Read one frame of a DICOM file.

    The values pass the Modality LUT or rescale, then the window asked for, else the file's VOI LUT, else its window,
    else, where the values are more than 8 display-ready bits, percentile scaling. MONOCHROME1 is inverted.

    Parameters
    ----------
    path
        The file, with or without a preamble.
    name
        What to call the file in messages.
    slice_index
        Frame of a multi-frame file, from 0; None for single-frame files.
    window
        A window that takes the place of the file's, or None.

    Returns
    -------
    MedicalImage
        The frame with the spacing and modality of the header.

    Raises
    ------
    InputError
        If the file is damaged, has no pixels, is too large, cannot be decoded with what is installed, or the slice
        or window does not fit it.
    """
    with quiet():
        try:
            dataset = load_dataset(path, name)
            return _show(dataset, name, slice_index, window)
        except InputError:
            raise
        except Exception:
            # pydicom quotes header values in its errors, so that neither its message nor the error itself is kept.
            raise InputError(f"{name}: this DICOM file is truncated or damaged: export it again") from None


def load_dataset(path: Path, name: str) -> Dataset:
    """Parse the needed elements, with a transfer syntax even where the file names none."""
    with path.open("rb") as file:
        check_inflated_size(file, name)
        file.seek(0)
        dataset = dcmread(file, force=True, specific_tags=_TAGS)
    if not any(key in dataset for key in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        code = str(dataset.get("Modality", ""))
        kind = f" ({code})" if code.isascii() and code.isalnum() and len(code) <= 16 else ""
        raise InputError(f"{name}: this DICOM file{kind} holds no pixels: give an image such as a CT, MR or X-ray file")
    if not dataset.file_meta.get("TransferSyntaxUID"):
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset


def check_inflated_size(file: BinaryIO, name: str) -> None:
    """Refuse a deflated file that would grow beyond `MAX_BYTES`: pydicom inflates the whole before its first tag."""
    read_preamble(file, force=True)
    meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    inflater, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while not inflater.eof and (chunk := inflater.unconsumed_tail or file.read(1 << 16)):
        total += len(inflater.decompress(chunk, 1 << 20))
        if total > MAX_BYTES:
            raise InputError(f"{name}: the file would inflate beyond {MAX_BYTES >> 30} GiB: give a smaller file")


def _show(dataset: Dataset, name: str, slice_index: int | None, window: Window) -> MedicalImage:
    """Decode one frame and make it an image."""
    height, width = int(dataset.Rows), int(dataset.Columns)
    check_size(height, width, name)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1 and slice_index is None:
        raise InputError(
            f"{name}: this DICOM file has {frames} frames: choose one with the slice option, 0 to {frames - 1}"
        )
    if frames <= 1 and slice_index is not None:
        raise InputError(f"{name}: this DICOM file is a single image, so no slice can be chosen: leave the slice out")
    frame = 0 if slice_index is None else check_slice(slice_index, frames, name)
    _lift_frame_groups(dataset, frame)
    modality = modality_from_dicom(dataset.get("Modality"))
    if is_named_window(window) and modality not in (None, "CT"):
        raise InputError(
            f"{name}: the window '{str(window).strip()}' is for CT and this is {modality}: leave the window out or "
            "give CENTRE,WIDTH"
        )
    photometric = str(dataset.get("PhotometricInterpretation", "MONOCHROME2"))
    values = decode_frame(dataset, frame, name)
    bits = int(dataset.get("BitsStored") or 8 * values.dtype.itemsize)
    if photometric == "PALETTE COLOR":
        values = apply_color_lut(values, dataset)
        pixels, done = color_to_rgb(values[..., :3], window, name)
    elif values.ndim == 3:
        pixels, done = color_to_rgb(values, window, name, bits=bits)
    else:
        pixels, done = _show_grey(dataset, values, bits, window, name)
        if photometric == "MONOCHROME1":
            pixels = freeze(255 - pixels)
    details = {"format": "DICOM", "bits": bits, "photometric": photometric, **done}
    if frames > 1:
        details |= {"slice": frame, "slices": frames}
    spacing = _spacing(dataset.get("PixelSpacing")) or _spacing(dataset.get("ImagerPixelSpacing"))
    return MedicalImage(pixels, spacing, modality, name, details)


def _lift_frame_groups(dataset: Dataset, frame: int) -> None:
    """Copy what an enhanced object says of one frame to the top of the data set, where other objects have it."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    groups = [*(dataset.get("SharedFunctionalGroupsSequence") or [])[:1], *per_frame[frame : frame + 1]]
    for group in groups:
        for sequence, keywords in _FRAME_GROUPS.items():
            for item in (group.get(sequence) or [])[:1]:
                for keyword in keywords:
                    if item.get(keyword) is not None:
                        setattr(dataset, keyword, item.get(keyword))


def decode_frame(dataset: Dataset, frame: int, name: str) -> np.ndarray:
    """Decode one frame to ``(height, width)`` or, for colour, RGB ``(height, width, 3)``."""
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    try:
        values = pixel_array(dataset, index=frame)
    except (NotImplementedError, RuntimeError):
        # The transfer syntax has no decoder here, or each of those installed has failed.
        codec = syntax.name if syntax.name != syntax and syntax.name.isprintable() else "an unknown codec"
        if "MPEG" in codec or "HEVC" in codec:
            raise InputError(f"{name}: this DICOM file is a video ({codec}): export the frame as PNG") from None
        if any(importlib.util.find_spec(plugin) is None for plugin in _PLUGINS):
            raise InputError(
                f'{name}: cannot decode {codec}: install the decoders with pip install "unibiomed[dicom]"; if they are '
                "there, the file is damaged"
            ) from None
        raise InputError(
            f"{name}: cannot decode {codec}: the file is damaged or of a rare kind, export it again"
        ) from None
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] != 3):
        raise InputError(f"{name}: a DICOM image of shape {values.shape} is not grey or colour: export it as PNG")
    return check_values(values, name)


def _show_grey(dataset: Dataset, raw: np.ndarray, bits: int, window: Window, name: str) -> Prepared:
    """Bring stored values to greys: modality transform, then the window asked for or the best the file offers."""
    values = check_values(apply_modality_lut(raw, dataset), name)
    if window is not None:
        return grey_to_rgb(values.astype(np.float64), window, name)
    if (table := _voi_table(dataset)) is not None:
        first, grey = table
        index = np.clip(np.rint(values) - first, 0, len(grey) - 1).astype(np.intp)
        return stack_grey(grey[index]), {"window": None, "scaling": "VOI LUT"}
    if (header := header_window(dataset)) is not None:
        center, width, function = header
        grey = apply_window(values, center, width, function=function)
        return stack_grey(grey), {"window": (center, width), "scaling": "window"}
    if bits == 1:
        return grey_to_rgb(raw != 0, None, name)
    # Without a window, up to 8 bits are ready for display by definition (secondary captures, ultrasound).
    if bits == 8 and raw.dtype == np.uint8 and np.array_equal(values, raw):
        return grey_to_rgb(raw, None, name)
    return grey_to_rgb(values, None, name, ignore=_padding(dataset, raw))


def _voi_table(dataset: Dataset) -> tuple[int, np.ndarray] | None:
    """Read the first VOI LUT: the value of its first entry, and its greys (0 to 255) as uint8."""
    sequence = dataset.get("VOILUTSequence")
    if not sequence or "LUTDescriptor" not in sequence[0] or "LUTData" not in sequence[0]:
        return None
    count, first, depth = (int(v) for v in sequence[0].LUTDescriptor)
    count = count or 1 << 16
    data = sequence[0].LUTData
    if isinstance(data, bytes):
        wide = "<u2" if dataset.original_encoding[1] else ">u2"
        data = np.frombuffer(data, dtype=wide if len(data) >= 2 * count else np.uint8)
    table = np.atleast_1d(np.asarray(data, dtype=np.float64))[:count]
    if table.size < count or not 8 <= depth <= 16:
        raise InputError("the VOI LUT of this DICOM file is incomplete: give a window such as 40,400")
    # The first mapped value is signed where pixels are, but some writers store it unsigned.
    if dataset.get("PixelRepresentation") == 1 and first >= 1 << 15:
        first -= 1 << 16
    return first, apply_range(table, 0.0, float(2**depth - 1))


def header_window(dataset: Dataset) -> tuple[float, float, VoiFunction] | None:
    """Read the first window of the header; None where there is none, or none that is legal."""
    center, width = first_number(dataset.get("WindowCenter")), first_number(dataset.get("WindowWidth"))
    if center is None or width is None or width <= 0:
        return None
    name = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    function: VoiFunction = "SIGMOID" if name == "SIGMOID" else "LINEAR_EXACT" if name == "LINEAR_EXACT" else "LINEAR"
    return center, width, function


def _padding(dataset: Dataset, raw: np.ndarray) -> np.ndarray | None:
    """Mark the pixels outside the scanner's field, which would stretch the percentiles."""
    value = first_number(dataset.get("PixelPaddingValue"))
    return None if value is None else raw == value


def first_number(value: Any) -> float | None:
    """Return the first of one or many numbers as a finite float, or None."""
    if isinstance(value, (str, bytes)) or value is None:
        return None
    try:
        number = float(value[0] if isinstance(value, Sequence) else value)
    except (TypeError, ValueError, IndexError):
        return None
    return number if math.isfinite(number) else None


def _spacing(value: Any) -> tuple[float, float] | None:
    """Return (row, column) spacing in mm where the header gives two usable numbers, else None."""
    try:
        return check_spacing(value)
    except InputError:
        return None
