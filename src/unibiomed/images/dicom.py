"""DICOM images read with pydicom: one frame, displayed by the rules of the standard (PS3.3 C.7.6.3 and C.11)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from ..errors import InputError
from .dicom_header import (
    complete_header,
    frame_count,
    header_padding,
    header_spacing,
    header_window,
    load_dataset,
)
from .dicom_values import decode_frame, look_up, modality_values, palette_to_rgb, voi_table
from .image import MedicalImage
from .limits import check_size, check_slice, quiet
from .modality import modality_from_dicom
from .pixels import Prepared, Window, color_to_rgb, freeze, grey_to_rgb, stack_grey
from .windowing import apply_window, is_named_window

# Functional groups of multi-frame objects, with elements that single-frame objects have at the top level.
_FRAME_GROUPS = {
    "PixelMeasuresSequence": ("PixelSpacing",),
    "PixelValueTransformationSequence": ("RescaleIntercept", "RescaleSlope"),
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "VOILUTFunction"),
}


def read_dicom(path: Path, name: str, *, slice_index: int | None, window: Window) -> MedicalImage:
    """Read one frame of a DICOM file.

    The Modality LUT or rescale is applied first. Then the values are scaled with the given window, otherwise the VOI
    LUT of the file, otherwise its window; otherwise 8-bit values are kept and other values are scaled between
    percentiles. MONOCHROME1 is inverted.

    Parameters
    ----------
    path
        The file, with or without a preamble.
    name
        Name of the file for messages.
    slice_index
        Frame of a multi-frame file, counted from 0; None for single-frame files.
    window
        Window that replaces the window of the file, or None.

    Returns
    -------
    MedicalImage
        The frame with the spacing and modality of the header.

    Raises
    ------
    InputError
        If the file is damaged, has no pixels, is too large, or needs a decoder that is not installed, or if the slice
        or window does not apply to it.
    """
    with quiet():
        try:
            dataset = load_dataset(path, name)
            return _show(dataset, name, slice_index, window)
        except InputError:
            raise
        except Exception:
            # Errors of pydicom may quote header values, which may be patient data: they are not chained.
            raise InputError(f"{name}: this DICOM file is truncated or damaged: export it again") from None


def _show(dataset: Dataset, name: str, slice_index: int | None, window: Window) -> MedicalImage:
    """Decode one frame and create the image."""
    notes = complete_header(dataset, name)
    check_size(int(dataset.Rows), int(dataset.Columns), name)
    frames = frame_count(dataset)
    if frames > 1 and slice_index is None:
        raise InputError(
            f"{name}: this DICOM file has {frames} frames: choose one with the slice option, 0 to {frames - 1}"
        )
    if frames <= 1 and slice_index is not None:
        raise InputError(f"{name}: this DICOM file is a single image, so no slice can be chosen: leave the slice out")
    frame = 0 if slice_index is None else check_slice(slice_index, frames, name)
    lift_frame_groups(dataset, frame)
    modality = modality_from_dicom(dataset.get("Modality"))
    if is_named_window(window) and modality not in (None, "CT"):
        raise InputError(
            f"{name}: the window '{str(window).strip()}' is for CT and this is {modality}: leave the window out or "
            "give CENTRE,WIDTH"
        )
    photometric = str(dataset.PhotometricInterpretation)
    values = decode_frame(dataset, frame, name)
    bits = int(dataset.get("BitsStored") or 8 * values.dtype.itemsize)
    if photometric == "PALETTE COLOR":
        pixels, done = color_to_rgb(palette_to_rgb(values, dataset, name), window, name)
    elif values.ndim == 3:
        pixels, done = color_to_rgb(values, window, name, bits=bits)
    else:
        pixels, done = _show_grey(dataset, values, bits, window, name)
        if photometric == "MONOCHROME1":
            pixels = 255 - pixels
            if values.dtype.kind == "f":
                pixels[np.isnan(values)] = 0
            pixels = freeze(pixels)
    spacing, about_spacing = header_spacing(dataset)
    notes += [*done.pop("notes", ()), *about_spacing]
    details = {"format": "DICOM", "bits": bits, "photometric": photometric, **done}
    if frames > 1:
        details |= {"slice": frame, "slices": frames}
    return MedicalImage(pixels, spacing, modality, name, details, tuple(notes))


def lift_frame_groups(dataset: Dataset, frame: int) -> None:
    """Copy the functional groups of one frame to the top level of the data set, as in single-frame objects."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    groups = [*(dataset.get("SharedFunctionalGroupsSequence") or [])[:1], *per_frame[frame : frame + 1]]
    for group in groups:
        for sequence, keywords in _FRAME_GROUPS.items():
            for item in (group.get(sequence) or [])[:1]:
                for keyword in keywords:
                    if item.get(keyword) is not None:
                        setattr(dataset, keyword, item.get(keyword))


def _show_grey(dataset: Dataset, raw: np.ndarray, bits: int, window: Window, name: str) -> Prepared:
    """Convert stored values to grey levels: modality transform, then window, VOI LUT or percentile scaling."""
    values, notes = modality_values(raw, dataset, name)
    pixels, done = _to_greys(dataset, raw, values, bits, window, name)
    return pixels, {**done, "notes": [*notes, *done.get("notes", ())]}


def _to_greys(dataset: Dataset, raw: np.ndarray, values: np.ndarray, bits: int, window: Window, name: str) -> Prepared:
    if window is not None:
        return grey_to_rgb(values.astype(np.float64), window, name)
    if (table := voi_table(dataset, name)) is not None:
        return stack_grey(look_up(values, *table)), {"window": None, "scaling": "VOI LUT"}
    if (header := header_window(dataset)) is not None:
        center, width, function = header
        grey = apply_window(values, center, width, function=function)
        return stack_grey(grey), {"window": (center, width), "scaling": "window"}
    if bits == 1:
        return grey_to_rgb(raw != 0, None, name)
    # 8-bit values without a window are display values by definition (secondary captures, ultrasound).
    if bits == 8 and raw.dtype == np.uint8 and np.array_equal(values, raw):
        return grey_to_rgb(raw, None, name)
    padding = header_padding(dataset)
    ignore = None if padding is None else (raw >= padding[0]) & (raw <= padding[1])
    return grey_to_rgb(values, None, name, ignore=ignore)
