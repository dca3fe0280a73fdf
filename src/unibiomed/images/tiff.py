"""TIFF variants that Pillow cannot read correctly: ImageJ stacks with one directory, and planar 16-bit colours."""

from __future__ import annotations

import re
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from ..errors import InputError
from .limits import check_slice

_BITS, _COMPRESSION, _PHOTOMETRIC, _DESCRIPTION, _OFFSETS = 258, 259, 262, 270, 273
_SAMPLES, _ROWS, _COUNTS, _PLANAR, _TILES, _FORMAT, _METAMORPH = 277, 278, 279, 284, 324, 339, 33629
_IMAGEJ_COUNT = re.compile(r"^images=(\d+)\s*$", re.MULTILINE)
_KINDS = {1: "u", 2: "i", 3: "f"}


def stack_size(picture: Image.Image, name: str) -> int:
    """Number of planes in a stack with a single directory.

    ImageJ writes large stacks in this way; the number of planes is given only in the image description.

    Raises
    ------
    InputError
        If the file is a MetaMorph stack, which has another layout.
    """
    tags: Any = getattr(picture, "tag_v2", {})
    if _METAMORPH in tags and getattr(picture, "n_frames", 1) == 1:
        raise InputError(f"{name}: this is a MetaMorph stack: save its planes as a TIFF file with a page for each")
    description = tags.get(_DESCRIPTION, "")
    if not isinstance(description, str) or not description.startswith("ImageJ="):
        return 1
    found = _IMAGEJ_COUNT.search(description.replace("\r", ""))
    count = int(found[1]) if found and len(found[1]) < 10 else 1
    return count if count > 1 and getattr(picture, "n_frames", 1) == 1 else 1


def read_stack(file: BinaryIO, picture: Image.Image, index: int, count: int, name: str) -> np.ndarray:
    """Read one plane of a stack with a single directory: (height, width) or RGB (height, width, 3), as stored.

    Raises
    ------
    InputError
        If the plane does not exist, or the stack is truncated or compressed.
    """
    tags: Any = picture.tag_v2  # type: ignore[attr-defined]
    index = check_slice(index, count, name)
    samples = int(tags.get(_SAMPLES, 1))
    if tags.get(_COMPRESSION, 1) != 1 or samples not in (1, 3) or _OFFSETS not in tags:
        raise InputError(f"{name}: this TIFF stack is compressed: save it with a page for each plane")
    dtype = _dtype(file, tags)
    shape = (picture.height, picture.width) if samples == 1 else (picture.height, picture.width, samples)
    size = int(np.prod(shape)) * dtype.itemsize
    file.seek(int(tags[_OFFSETS][0]) + index * size)
    values = _values(file.read(size), dtype, shape, name)
    return ~values if tags.get(_PHOTOMETRIC) == 0 and values.dtype.kind == "u" else values


def has_wide_planes(picture: Image.Image) -> bool:
    """Whether the colours are stored as uncompressed 16-bit planes, which Pillow reads as 8-bit pixels."""
    tags: Any = getattr(picture, "tag_v2", {})
    bits = int(tags.get(_BITS, (1,))[0])
    separate = tags.get(_PLANAR, 1) == 2 and int(tags.get(_SAMPLES, 1)) > 1
    return bool(separate and bits > 8 and tags.get(_COMPRESSION, 1) == 1)


def read_planes(file: BinaryIO, picture: Image.Image, name: str) -> np.ndarray:
    """Read colours that are stored as consecutive planes: (height, width, samples), as stored.

    Raises
    ------
    InputError
        If the planes are tiled, or the file is truncated.
    """
    tags: Any = picture.tag_v2  # type: ignore[attr-defined]
    samples = int(tags[_SAMPLES])
    if _TILES in tags or _OFFSETS not in tags or _COUNTS not in tags or samples > 4:
        raise InputError(
            f"{name}: tiled planar colours of this TIFF are not supported: save it with interleaved colours"
        )
    dtype = _dtype(file, tags)
    offsets, counts = tags[_OFFSETS], tags[_COUNTS]
    strips = -(-picture.height // max(1, min(int(tags.get(_ROWS, picture.height)), picture.height)))
    planes = []
    for sample in range(samples):
        data = b""
        for strip in range(sample * strips, (sample + 1) * strips):
            if strip >= min(len(offsets), len(counts)):
                break
            file.seek(int(offsets[strip]))
            data += file.read(int(counts[strip]))
        planes.append(_values(data, dtype, (picture.height, picture.width), name))
    return np.stack(planes, axis=-1)


def _dtype(file: BinaryIO, tags: Any) -> np.dtype:
    file.seek(0)
    order = ">" if file.read(2) == b"MM" else "<"
    kind = _KINDS[int(tags.get(_FORMAT, (1,))[0])]
    return np.dtype(f"{order}{kind}{int(tags.get(_BITS, (1,))[0]) // 8}")


def _values(data: bytes, dtype: np.dtype, shape: tuple[int, ...], name: str) -> np.ndarray:
    count = int(np.prod(shape))
    if len(data) < count * dtype.itemsize:
        raise InputError(f"{name}: this TIFF file is truncated: copy or export it again")
    return np.frombuffer(data, dtype=dtype, count=count).reshape(shape).astype(dtype.newbyteorder("="))
