"""Pixels of records: pictures, masks and slices of volumes from files, pictures from the bytes of a shard."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Collection
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import label

from unibiomed.data.mask_files import MAX_MASK_PIXELS, mask_numbers
from unibiomed.errors import DataError, InputError
from unibiomed.images import Volume, read_image, read_volume

__all__ = [
    "MAX_MASK_PIXELS",
    "default_window",
    "is_turned",
    "load_labels",
    "load_mask",
    "load_picture",
    "mask_numbers",
    "parts",
]

KEPT_BYTES = 2**30
"""Memory for the images, and again for the labels, of the volumes that were read last; one of each is always kept."""
CT_WINDOWS = {
    **dict.fromkeys(("lung", "lungs", "chest", "thorax"), "lung"),
    **dict.fromkeys(("brain", "head"), "brain"),
    **dict.fromkeys(("bone", "spine"), "bone"),
    "mediastinum": "mediastinum",
}
"""Windows of CT slices by the site of a record; all other sites are seen through the abdominal window."""
_TURNED = range(2, 9)
"""Orientations other than upright; larger numbers mean nothing."""
_ORIENTATION = 0x0112
_BROKEN = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def load_picture(
    source: Path | bytes,
    name: str,
    modality: str,
    slice_index: int | None,
    window: str | None,
    site: str = "",
    channel: int | None = None,
) -> np.ndarray:
    """Read a picture.

    Parameters
    ----------
    source : Path or bytes
        A file or folder that `unibiomed.images` reads, or a whole PNG or JPEG file.
    name : str
        What to call it in messages.
    modality, site : str
        Give the slices of a volume their window where `window` does not, see `default_window`.
    slice_index : int or None
        Slice of a volume, counted as `unibiomed.images.read_volume` counts; None for a flat image.
    window : str or None
        Window of grey values, a name or ``"centre,width"``.
    channel : int or None
        Which of several volumes in one file, see `unibiomed.images.read_volume`.

    Returns
    -------
    numpy.ndarray
        ``(height, width, 3)`` uint8.

    Raises
    ------
    DataError
        The file is missing, broken or too large, or has no such slice.
    """
    try:
        if isinstance(source, bytes):
            with Image.open(io.BytesIO(source), formats=("PNG", "JPEG")) as picture:
                if picture.width * picture.height > MAX_MASK_PIXELS:
                    raise DataError(f"{name}: image of {picture.width} x {picture.height} pixels is too large")
                return np.asarray(picture.convert("RGB"))
        if slice_index is None:
            return read_image(source, window=window).pixels
        volume = _pictures.read(source, channel)
        return volume.slice_image(slice_index, window or default_window(volume, modality, site)).pixels
    except InputError as error:
        raise DataError(str(error)) from error
    except _BROKEN as error:
        raise DataError(f"{name}: the image in the shard is broken; build the shard again") from error


def is_turned(path: Path) -> bool:
    """Whether a picture has an EXIF tag by which it is shown turned or mirrored; a broken one has none."""
    try:
        with Image.open(path, formats=("PNG", "JPEG", "TIFF", "WEBP")) as picture:
            return picture.getexif().get(_ORIENTATION) in _TURNED
    except _BROKEN:
        return False


def default_window(volume: Volume, modality: str, site: str) -> str | tuple[float, float] | None:
    """How the slices of a volume are shown where nothing is said: all of them alike, so that they stay comparable.

    Parameters
    ----------
    volume : Volume
        The volume.
    modality, site : str
        As in `unibiomed.data.Record`.

    Returns
    -------
    str or tuple of float or None
        For CT, the window of its site: lung, brain, bone, else abdomen. For all else, and for CT without the negative
        values of Hounsfield units, the 0.5th to 99.5th percentile of the whole volume. None for 8-bit values, which
        stay as they are.
    """
    if volume.values.dtype == np.uint8:
        return None
    # NaN, the background of float images, is less than nothing.
    if modality == "CT" and np.nanmin(volume.values, initial=0) < 0:
        return CT_WINDOWS.get(site.strip().lower(), "abdomen")
    return volume.range_window


def load_mask(
    path: Path, height_width: tuple[int, int] | None, values: tuple[int, ...] | None, slice_index: int | None
) -> np.ndarray:
    """Read a mask file.

    Parameters
    ----------
    path : Path
        A mask file, see `mask_numbers`, or a label volume.
    height_width : tuple of int or None
        Size that the mask has to have.
    values : tuple of int or None
        Values that count; None for every non-zero one.
    slice_index : int or None
        Slice of a label volume, counted as `unibiomed.images.read_volume` counts.

    Returns
    -------
    numpy.ndarray
        ``(height, width)`` bool.

    Raises
    ------
    DataError
        The file is missing, broken, too large, has colours, or does not fit.
    """
    numbers = _numbers(path, height_width, slice_index)
    return numbers > 0 if values is None else np.isin(numbers, values)


def check_values(path: Path, described: Collection[int], slice_index: int | None) -> None:
    """Refuse a mask file with a value that no target has: as background it would teach that nothing is there.

    Parameters
    ----------
    path, slice_index
        As in `load_mask`.
    described : collection of int
        Values of all targets; 0 is always the background.

    Raises
    ------
    DataError
        It has another value, or cannot be read.
    """
    numbers = _numbers(path, None, slice_index)
    known = np.isin(numbers, [0, *described])
    if not known.all():
        value = numbers[~known].min()
        raise DataError(
            f"{path.name}: value {value} belongs to no target; add one to the entry, or take it out of the mask"
        )


def load_labels(path: Path, height_width: tuple[int, int] | None, slice_index: int | None) -> np.ndarray:
    """Read a mask file that numbers its objects.

    Parameters
    ----------
    path, height_width, slice_index
        As in `load_mask`.

    Returns
    -------
    numpy.ndarray
        ``(height, width)`` int32: 0 outside, else the number of the object. A file with a single number beside 0 tells
        no objects apart; its connected parts are numbered instead.

    Raises
    ------
    DataError
        As `load_mask`.
    """
    numbers = _numbers(path, height_width, slice_index)
    marked = numbers > 0
    found = numbers[marked]
    if not found.size or found.min() == found.max():
        return parts(marked)
    return np.where(marked, numbers, 0).astype(np.int32)


def parts(mask: np.ndarray) -> np.ndarray:
    """Number the connected parts of a mask, neighbours across corners among them: (height, width) bool to int32."""
    return np.asarray(label(mask, structure=np.ones((3, 3), dtype=bool))[0], dtype=np.int32)


def _numbers(path: Path, height_width: tuple[int, int] | None, slice_index: int | None) -> np.ndarray:
    if slice_index is None:
        numbers = mask_numbers(path)
    else:
        try:
            numbers = _labels.read(path).labels(slice_index)
        except InputError as error:
            raise DataError(str(error)) from error
    if height_width is not None and numbers.shape != tuple(height_width):
        expected = f"{height_width[1]} x {height_width[0]}"
        raise DataError(
            f"{path.name}: mask is {numbers.shape[1]} x {numbers.shape[0]} pixels, its image {expected}; "
            "make them equal"
        )
    return numbers


class _Kept:
    """The volumes that were read last: slices are asked for one after the other, and each volume is decoded once."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._volumes: dict[tuple[str, int, int | None], Volume] = {}
        self._lock = threading.Lock()

    def read(self, path: Path, channel: int | None = None) -> Volume:
        try:
            key = str(path), path.stat().st_mtime_ns, channel
        except OSError as error:
            raise DataError(f"{path.name}: volume is missing from {path.parent}; restore it") from error
        # Two threads that ask for one volume should not both decode it.
        with self._lock:
            volume = self._volumes.pop(key, None)
            if volume is None:
                volume = read_volume(path, channel)
            self._volumes[key] = volume
            held = sum(known.values.nbytes for known in self._volumes.values())
            while held > self._budget and len(self._volumes) > 1:
                held -= self._volumes.pop(next(iter(self._volumes))).values.nbytes
            return volume

    def clear(self) -> None:
        self._volumes.clear()


_DATA_FILE = re.compile(rb"^(?:ElementDataFile\s*=|data ?file:)\s*([^\r\n]+)", re.IGNORECASE | re.MULTILINE)
MAX_HEADER = 2**16
# An image may have a label volume for every target; they must not drive out each other or their image.
_pictures, _labels = _Kept(KEPT_BYTES), _Kept(KEPT_BYTES)


def voxel_files(path: Path) -> list[Path]:
    """The files that hold an image: of a series all that are in its folder, of a detached header its data file too.

    Raises
    ------
    OSError
        One cannot be listed or read.
    """
    if path.is_dir():
        return sorted(item for item in path.iterdir() if item.is_file())
    if path.suffix.lower() not in (".mhd", ".nhdr"):
        return [path]
    with path.open("rb") as file:
        named = _DATA_FILE.search(file.read(MAX_HEADER))
    data = path.parent / named[1].decode("utf-8", "replace").strip() if named else path
    # "LOCAL" and lists of files are no names
    return [path, data] if data != path and data.is_file() else [path]
