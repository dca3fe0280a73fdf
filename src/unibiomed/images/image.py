"""`MedicalImage`, the image type of the package, and its creation from arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError
from .limits import check_size
from .modality import check_modality
from .notes import blank_note
from .pixels import Window, check_values, color_to_rgb, freeze, grey_to_rgb
from .raster import prepare_picture
from .windowing import parse_window


@dataclass(frozen=True, eq=False)
class MedicalImage:
    """A two-dimensional image in the form that the model receives.

    Raises
    ------
    InputError
        If the pixels are not uint8 of shape ``(height, width, 3)``, or the spacing or modality is not valid.
    """

    pixels: np.ndarray = field(repr=False)
    """RGB pixels, uint8 of shape (height, width, 3), C-contiguous and read-only; a writable array is copied."""

    spacing: tuple[float, float] | None = None
    """(row, column) distance of pixel centres in mm; None if unknown."""

    modality: str | None = None
    """One of `MODALITIES`, from the header of the file; None if unknown."""

    source: str = "array"
    """Name of the file, without its folder."""

    details: dict[str, Any] = field(default_factory=dict)
    """Processing steps, for example ``{"format": "DICOM", "window": (40.0, 400.0), "slice": 12}``; no patient data."""

    notes: tuple[str, ...] = ()
    """Remarks for the reader of results: assumptions about the file, an estimated grey range, a blank image."""

    def __post_init__(self) -> None:
        pixels = self.pixels
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise InputError("the pixels are not uint8 of shape (height, width, 3): use from_array")
        check_size(pixels.shape[0], pixels.shape[1], self.source)
        if pixels.flags.writeable or not pixels.flags.c_contiguous:
            object.__setattr__(self, "pixels", freeze(np.array(pixels, order="C")))
        if self.spacing is not None:
            object.__setattr__(self, "spacing", check_spacing(self.spacing))
        if self.modality is not None:
            object.__setattr__(self, "modality", check_modality(self.modality))
        blank = blank_note(self.pixels)
        object.__setattr__(self, "notes", tuple(dict.fromkeys([*self.notes, *([blank] if blank else [])])))

    @property
    def height(self) -> int:
        """Number of rows."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Number of columns."""
        return int(self.pixels.shape[1])


def check_spacing(spacing: Sequence[float]) -> tuple[float, float]:
    """Return (row, column) spacing in mm as floats; InputError unless both are positive and finite."""
    try:
        row, column = (float(v) for v in spacing)
    except (TypeError, ValueError):
        raise InputError("the spacing is not two numbers: give (row, column) in mm, for example (0.7, 0.7)") from None
    if not (math.isfinite(row) and math.isfinite(column) and row > 0 and column > 0):
        raise InputError("the spacing is not positive: give (row, column) in mm, for example (0.7, 0.7)")
    return row, column


def from_array(
    array: np.ndarray | Image.Image,
    *,
    spacing: Sequence[float] | None = None,
    modality: str | None = None,
    window: Window = None,
) -> MedicalImage:
    """Create an image from an array or a PIL image.

    Parameters
    ----------
    array
        Grey ``(height, width)``, RGB or RGBA ``(height, width, 3 or 4)``, or a PIL image. uint8 values are not scaled.
        Other grey values are scaled with the window or, without one, from their 0.5th to 99.5th percentile; NaN is
        background and becomes black. Colours are uint8, uint16 (of which only the lowest 8, 10 or 12 bits may be in
        use), or floats in 0..1 or 0..255; alpha is composited on black.
    spacing
        (row, column) spacing in mm per pixel.
    modality
        One of `MODALITIES`.
    window
        A name of `WINDOWS`, ``"centre,width"``, or a pair of numbers in the unit of the values; for grey images only.

    Returns
    -------
    MedicalImage
        A copy; it does not change with ``array``.

    Raises
    ------
    InputError
        If the shape or type is not supported, the image is empty or too large, values are infinite, colours are NaN, or
        the spacing, modality or window is not valid.
    """
    name = "array"
    if window is not None:
        parse_window(window)
    if isinstance(array, Image.Image):
        pixels, done = prepare_picture(array, window, "image")
        return prepared_image(pixels, {"format": "PIL", **done}, _spacing(spacing), modality, "image")
    try:
        values = np.asarray(array)
    except (TypeError, ValueError):
        raise InputError("the array is ragged: give numbers of shape (height, width) or (height, width, 3)") from None
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (3, 4)):
        raise InputError(
            f"an array of shape {values.shape} is not one image: give (height, width), (height, width, 3) or "
            "(height, width, 4)"
        )
    check_size(values.shape[0], values.shape[1], name)
    values = check_values(values, name)
    if values.ndim == 2:
        pixels, done = grey_to_rgb(values, window, name)
    else:
        pixels, done = color_to_rgb(values, window, name)
    details = {"format": "array", "bits": 8 * values.dtype.itemsize, **done}
    return prepared_image(pixels, details, _spacing(spacing), modality, name)


def prepared_image(
    pixels: np.ndarray,
    details: dict[str, Any],
    spacing: tuple[float, float] | None,
    modality: str | None,
    source: str,
    notes: Sequence[str] = (),
) -> MedicalImage:
    """Create an image from prepared pixels; ``notes`` in the details are moved to the notes of the image."""
    about = {key: value for key, value in details.items() if key != "notes"}
    return MedicalImage(pixels, spacing, modality, source, about, (*notes, *details.get("notes", ())))


def _spacing(spacing: Sequence[float] | None) -> tuple[float, float] | None:
    return None if spacing is None else check_spacing(spacing)
