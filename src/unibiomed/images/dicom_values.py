"""Pixel values of DICOM files: decoding, removal of unused bits, rescale, and lookup tables."""

from __future__ import annotations

import importlib.util
from contextlib import nullcontext
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    JPEG2000,
    UID,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSNearLossless,
    JPEGLSTransferSyntaxes,
)

from ..errors import InputError
from .dicom_header import header_rescale
from .limits import silent_stderr
from .pixels import check_values
from .windowing import apply_range

# Packages that the extra "dicom" installs.
_PACKAGES = ("pylibjpeg", "openjpeg", "gdcm")
# Decoders by their names in pydicom: the first installed decoder that does not fail is used. Baseline JPEG is decoded
# with Pillow, because other decoders differ by one grey level. GDCM is used only for formats that no other decoder
# supports, because its JPEG 2000 decoder writes to the terminal.
_DECODERS = ("pylibjpeg", "pillow", "pyjpegls", "pydicom", "gdcm")
_JPEG_DECODERS = ("pillow", "pylibjpeg")
_GDCM = (*JPEGLSTransferSyntaxes, JPEGLossless, JPEGLosslessSV1)
_LOSSY = (JPEG2000, JPEGLSNearLossless)
_COLOURS = ("Red", "Green", "Blue")


def decode_frame(dataset: Dataset, frame: int, name: str) -> np.ndarray:
    """Decode one frame to ``(height, width)`` or, for colour images, RGB ``(height, width, 3)``.

    The header must be complete, see `unibiomed.images.dicom_header.complete_header`. Unused bits of integers are
    removed, because they are not part of the value (PS3.5 8.1.1).

    Parameters
    ----------
    dataset
        The data set with its pixels.
    frame
        Frame, counted from 0.
    name
        Name of the file for messages.

    Returns
    -------
    numpy.ndarray

    Raises
    ------
    InputError
        If the frame cannot be decoded, or is neither grey nor RGB.
    """
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    try:
        values = _decode(dataset, frame, syntax)
    except (NotImplementedError, RuntimeError):
        # No decoder for this transfer syntax is installed, or all of them failed.
        codec = syntax.name if syntax.name != syntax and syntax.name.isprintable() else "an unknown codec"
        if "MPEG" in codec or "HEVC" in codec:
            raise InputError(f"{name}: this DICOM file is a video ({codec}): export the frame as PNG") from None
        if syntax == JPEGExtended12Bit and importlib.util.find_spec("libjpeg") is None:
            raise InputError(
                f"{name}: cannot decode {codec}: export it in another encoding, or install pylibjpeg-libjpeg, whose "
                "licence is GPL-3.0"
            ) from None
        if any(importlib.util.find_spec(package) is None for package in _PACKAGES):
            raise InputError(
                f'{name}: cannot decode {codec}: install the decoders with pip install "unibiomed[dicom]"; if they are '
                "installed, the file is damaged"
            ) from None
        raise InputError(
            f"{name}: cannot decode {codec}, because the file is damaged or not supported: export it again"
        ) from None
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] != 3):
        raise InputError(f"{name}: a DICOM image of shape {values.shape} is neither grey nor RGB: export it as PNG")
    if values.dtype.kind in "iu" and "PixelData" in dataset:
        bits, high = int(dataset.BitsStored), int(dataset.get("HighBit") or 0)
        values = keep_stored_bits(values, bits, 0 if syntax.is_compressed else high, lossy=syntax in _LOSSY)
    return check_values(values, name)


def _decode(dataset: Dataset, frame: int, syntax: UID) -> np.ndarray:
    """Decode with the first installed decoder that succeeds; RuntimeError or NotImplementedError if there is none."""
    if not syntax.is_compressed:
        # pydicom would always keep the lowest bits, even if the values are left-aligned.
        return pixel_array(dataset, index=frame, correct_unused_bits=False)
    installed = get_decoder(syntax).available_plugins
    order = _JPEG_DECODERS if syntax in (JPEGBaseline8Bit, JPEGExtended12Bit) else _DECODERS
    usable = [name for name in order if name in installed and (name != "gdcm" or syntax in _GDCM)]
    for name in usable[:-1]:
        try:
            return _decode_with(name, dataset, frame)
        except (NotImplementedError, RuntimeError):
            continue
    return _decode_with(usable[-1] if usable else "", dataset, frame)


def _decode_with(decoder: str, dataset: Dataset, frame: int) -> np.ndarray:
    # GDCM's JPEG library writes messages about damaged data to the terminal.
    with silent_stderr() if decoder == "gdcm" else nullcontext():
        return pixel_array(dataset, index=frame, decoding_plugin=decoder)


def keep_stored_bits(values: np.ndarray, bits: int, high: int, *, lossy: bool = False) -> np.ndarray:
    """Extract values from larger integers with unused bits.

    Parameters
    ----------
    values
        Signed or unsigned integers of any shape, as decoded.
    bits
        Number of bits of a value (BitsStored), from 1 to the size of the integers.
    high
        Position of the highest bit (HighBit), counted from 0; ``bits - 1`` unless the values are left-aligned.
    lossy
        Whether the compression is lossy: values slightly outside the range are then clipped.

    Returns
    -------
    numpy.ndarray
        The values, of the same type and sign.
    """
    size = 8 * values.dtype.itemsize
    if not 0 < bits < size:
        return values
    signed = values.dtype.kind == "i"
    low, top = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    least, most = (int(values.min()), int(values.max())) if values.size else (0, 0)
    if low <= least and most <= top:
        return values
    beyond = (top - low) // 16
    if lossy and low - beyond <= least and most <= top + beyond:
        return np.clip(values, low, top)
    left = size - 1 - high if bits - 1 < high < size else size - bits
    # Shifting signed integers back extends the sign.
    return np.right_shift(np.left_shift(values, left), size - bits)


def modality_values(raw: np.ndarray, dataset: Dataset, name: str) -> tuple[np.ndarray, list[str]]:
    """Apply the Modality LUT or the rescale to stored values; also return notes on assumptions."""
    if dataset.get("ModalityLUTSequence"):
        item = dataset.ModalityLUTSequence[0]
        first, _, table = read_table(dataset, item.LUTDescriptor, item.LUTData, f"{name}: the Modality LUT")
        return look_up(raw, first, table), []
    slope, intercept, notes = header_rescale(dataset)
    if slope == 1 and intercept == 0:
        return check_values(raw, name), notes
    return check_values(raw.astype(np.float64) * slope + intercept, name), notes


def voi_table(dataset: Dataset, name: str) -> tuple[float, np.ndarray] | None:
    """First VOI LUT: the input value of its first entry, and its grey levels as uint8; None if there is none."""
    sequence = dataset.get("VOILUTSequence")
    if not sequence or not sequence[0].get("LUTDescriptor") or not sequence[0].get("LUTData"):
        return None
    item = sequence[0]
    first, depth, table = read_table(dataset, item.LUTDescriptor, item.LUTData, f"{name}: the VOI LUT")
    return first, apply_range(table, 0.0, float(2**depth - 1))


def palette_to_rgb(values: np.ndarray, dataset: Dataset, name: str) -> np.ndarray:
    """Convert the indices of a PALETTE COLOR image to colours.

    Returns
    -------
    numpy.ndarray
        RGB of shape ``(height, width, 3)``, uint8, or uint16 if an entry has more than 8 bits.
    """
    if "RedPaletteColorLookupTableData" not in dataset:
        _order_segments(dataset)
        return np.asarray(apply_color_lut(values, dataset)[..., :3])
    channels = []
    for colour in _COLOURS:
        descriptor = dataset.get(f"{colour}PaletteColorLookupTableDescriptor")
        data = dataset.get(f"{colour}PaletteColorLookupTableData")
        first, _, table = read_table(dataset, descriptor, data, f"{name}: the palette")
        channels.append(look_up(values, first, table))
    colours = np.stack(channels, axis=-1)
    # The descriptor often gives the size of the words, 16 bits, although the entries have only 8 bits.
    return colours.astype(np.uint8 if max(table.max() for table in channels) < 256 else np.uint16)


def _order_segments(dataset: Dataset) -> None:
    """Swap the bytes of segmented 8-bit palettes in big-endian files, because pydicom swaps only 16-bit entries."""
    if _is_little(dataset):
        return
    for colour in _COLOURS:
        descriptor = dataset.get(f"{colour}PaletteColorLookupTableDescriptor")
        keyword = f"Segmented{colour}PaletteColorLookupTableData"
        if descriptor and descriptor[2] == 8 and (data := dataset.get(keyword)):
            setattr(dataset, keyword, np.frombuffer(data, dtype=np.uint16).byteswap().tobytes())


def read_table(dataset: Dataset, descriptor: Any, data: Any, what: str) -> tuple[float, int, np.ndarray]:
    """Read a lookup table.

    Parameters
    ----------
    dataset
        The data set, which gives the byte order and the sign of the pixels.
    descriptor
        Number of entries (0 means 65536), input value of the first entry, and bits per entry.
    data
        Entries as numbers, or as bytes of 16-bit words. 8-bit tables have one entry per byte or one per word (PS3.3
        C.7.6.3.1.5), which is inferred from their length.
    what
        Name of the table for messages.

    Returns
    -------
    tuple
        Input value of the first entry, bits per entry, and the entries as float64.

    Raises
    ------
    InputError
        If the table is incomplete.
    """
    try:
        count, start, depth = (int(v) for v in descriptor)
    except (TypeError, ValueError):
        raise InputError(f"{what} is damaged: export the file again, or give a window such as 40,400") from None
    count = count or 1 << 16
    if isinstance(data, bytes):
        data = _entries(data, count, little=_is_little(dataset))
    table = np.atleast_1d(np.asarray(data, dtype=np.float64))[:count]
    if table.size < count or not 8 <= depth <= 16:
        raise InputError(f"{what} is incomplete: export the file again, or give a window such as 40,400")
    # The first input value has the sign of the pixels, but some programs store it as unsigned.
    signed = dataset.get("PixelRepresentation") == 1
    if signed and start >= 1 << 15:
        start -= 1 << 16
    return float(start), depth, table


def _entries(data: bytes, count: int, *, little: bool) -> np.ndarray:
    """Entries of a table of 16-bit words, with one or two entries per word."""
    words = np.frombuffer(data[: len(data) // 2 * 2], dtype="<u2" if little else ">u2")
    if len(data) >= 2 * count:
        return words[:count]
    return words.astype("<u2").view(np.uint8)


def _is_little(dataset: Dataset) -> bool:
    return bool(UID(dataset.file_meta.TransferSyntaxUID).is_little_endian)


def look_up(values: np.ndarray, first: float, table: np.ndarray) -> np.ndarray:
    """Look up values in a table; values outside the table are clipped to its first and last entry."""
    index = np.clip(np.rint(np.asarray(values, dtype=np.float64) - first), 0, len(table) - 1)
    index[np.isnan(index)] = 0
    return np.asarray(table[index.astype(np.intp)])
