"""NRRD and MetaImage (MHA, MHD) files: raw or compressed voxels after a header of words.

Read here and not through ITK, whose MetaImage reader brings the whole process down on some damaged headers.
"""

from __future__ import annotations

import bz2
import gzip
import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import InputError
from .grid import StoredVolume, make_grid
from .limits import MAX_BYTES, shown
from .notes import geometry_notes

_MAX_HEADER = 2**16
_LPS = np.diag([-1.0, -1.0, 1.0])
_SPACES = {
    "left-posterior-superior": _LPS,
    "right-anterior-superior": np.eye(3),
    "left-anterior-superior": np.diag([-1.0, 1.0, 1.0]),
}
_NRRD_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"),
    "float": "f4",
    "double": "f8",
}
_META_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    # Four bytes whatever the machine that wrote them.
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
Words = Mapping[str, str]


def worded_kind(head: bytes) -> str | None:
    """Tell by the first bytes: ``"NRRD"``, ``"MetaImage"``, or None."""
    if head.startswith(b"NRRD000"):
        return "NRRD"
    return "MetaImage" if re.match(rb"\s*(ObjectType|NDims|Comment)\s*=", head) else None


def open_worded(path: Path, kind: str, name: str) -> StoredVolume:
    """Read the header of an NRRD or MetaImage file.

    Parameters
    ----------
    path
        The file, whatever its suffix.
    kind
        What `worded_kind` says of it.
    name
        What to call it in messages.

    Returns
    -------
    StoredVolume
        The axes of the file are those of its header, the fastest first.

    Raises
    ------
    InputError
        The file is damaged or too large, not a grey volume, or its voxels lie in a file elsewhere.
    """
    try:
        with path.open("rb") as file:
            words, start = _header(file.read(_MAX_HEADER), kind)
        return (_open_nrrd if kind == "NRRD" else _open_meta)(path, words, start, name)
    except (KeyError, ValueError, OverflowError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise _damaged(name) from None


def _header(head: bytes, kind: str) -> tuple[Words, int]:
    """The words of a header, in small letters before the sign, and where it ends."""
    words: dict[str, str] = {}
    start = 0
    for line in head.splitlines(keepends=True):
        start += len(line)
        key, found, value = line.decode("latin-1").partition(":" if kind == "NRRD" else "=")
        word = key.strip().lower()
        if kind == "NRRD" and not line.strip():
            break
        # "key:=value" is a remark of the writer's in NRRD.
        if found and word not in words and not value.startswith("="):
            words[word] = value.strip()
        if word == "elementdatafile":
            break
    return words, start


def _open_nrrd(path: Path, words: Words, start: int, name: str) -> StoredVolume:
    sizes = _numbers(words["sizes"], int)
    if int(words["dimension"]) != 3 or len(sizes) != 3:
        raise _not_grey(name, sizes)
    kind = _NRRD_TYPES[words["type"].lower()]
    space = "-".join(_LONG.get(letter, letter) for letter in _split_space(words.get("space", "").lower()))
    directions, known = np.eye(3), space in _SPACES and "space directions" in words
    if "space directions" in words:
        directions = np.array([_numbers(part, float) for part in _vectors(words["space directions"], 3)]).T
    elif "spacings" in words:
        directions = np.diag(_numbers(words["spacings"], float, 3))
    affine = np.eye(4)
    affine[:3, :3] = directions
    if "space origin" in words:
        affine[:3, 3] = _numbers(_vectors(words["space origin"], 1)[0], float, 3)
    affine[:3] = _SPACES.get(space, _LPS) @ affine[:3]
    encoding = words["encoding"].lower()
    if encoding not in ("raw", "gzip", "gz", "bzip2", "bz2"):
        raise InputError(f"{name}: its voxels are written as '{shown(encoding)}': save it as raw or gzip")
    data = words.get("data file", words.get("datafile"))
    source = path if data is None else _beside(path, data, name)
    lines = int(words.get("line skip", words.get("lineskip", "0")))
    skip = int(words.get("byte skip", words.get("byteskip", "0")))
    order = ">" if words.get("endian", "").lower() == "big" else "<"
    if (kind[1] != "1" and "endian" not in words) or lines < 0 or skip < -1 or (skip < 0 and encoding != "raw"):
        raise _damaged(name)

    def read(file: BinaryIO, count: int) -> bytes:
        file.seek(0 if data is not None else start)
        for _ in range(lines):
            file.readline(_MAX_HEADER)
        if skip < 0:
            file.seek(-count, 2)
        if encoding == "raw":
            file.seek(max(skip, 0), 1)
            return file.read(count)
        with gzip.GzipFile(fileobj=file) if encoding in ("gzip", "gz") else bz2.BZ2File(file) as packed:
            packed.seek(skip)
            return packed.read(count)

    sized = "space directions" in words or "spacings" in words
    return _stored("NRRD", sizes, order + kind, affine, known, sized, source, read, name)


def _open_meta(path: Path, words: Words, start: int, name: str) -> StoredVolume:
    sizes = _numbers(words["dimsize"], int)
    if int(words["ndims"]) != 3 or len(sizes) != 3 or int(words.get("elementnumberofchannels", "1")) != 1:
        raise _not_grey(name, sizes)
    if words.get("binarydata", "true").lower() == "false":
        raise InputError(f"{name}: its voxels are written as text: save it in binary form")
    kind = _META_TYPES[words["elementtype"].upper()]
    matrix = next((words[word] for word in ("transformmatrix", "rotation", "orientation") if word in words), None)
    spacing = _numbers(words.get("elementspacing", words.get("elementsize", "1 1 1")), float, 3)
    place = next((words[word] for word in ("offset", "position", "origin") if word in words), "0 0 0")
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if matrix is None else np.reshape(_numbers(matrix, float, 9), (3, 3)).T) * spacing
    affine[:3, 3] = _numbers(place, float, 3)
    affine[:3] = _LPS @ affine[:3]
    big = words.get("binarydatabyteordermsb", words.get("elementbyteordermsb", "false")).lower() == "true"
    packed = words.get("compresseddata", "false").lower() == "true"
    data = words["elementdatafile"]
    source = path if data.upper() == "LOCAL" else _beside(path, data, name)
    head = start if source == path else int(words.get("headersize", "0"))
    if head < -1:
        raise _damaged(name)

    def read(file: BinaryIO, count: int) -> bytes:
        if head < 0:
            file.seek(-count, 2)
        else:
            file.seek(head)
        # 32 more than the largest window: zlib and gzip streams alike.
        return zlib.decompressobj(32 + zlib.MAX_WBITS).decompress(file.read(), count) if packed else file.read(count)

    order = ">" if big else "<"
    sized = "elementspacing" in words or "elementsize" in words
    return _stored("MetaImage", sizes, order + kind, affine, matrix is not None, sized, source, read, name)


def _stored(
    format_name: str,
    sizes: Sequence[int],
    kind: str,
    affine: np.ndarray,
    known: bool,
    sized: bool,
    source: Path,
    read: Callable[[BinaryIO, int], bytes],
    name: str,
) -> StoredVolume:
    """Check what the header promises before anything is read."""
    if min(sizes) < 1:
        raise _damaged(name)
    dtype = np.dtype(kind)
    count = math.prod(sizes) * dtype.itemsize
    if count > MAX_BYTES or source.stat().st_size > MAX_BYTES:
        raise InputError(f"{name}: the volume holds more than {MAX_BYTES >> 30} GiB: crop it first")

    def load() -> np.ndarray:
        try:
            with source.open("rb") as file:
                voxels = read(file, count)
        except (OSError, EOFError, ValueError, zlib.error):
            raise _damaged(name) from None
        if len(voxels) != count:
            raise _damaged(name)
        values = np.frombuffer(voxels, dtype=dtype).reshape(sizes[::-1]).transpose(2, 1, 0)
        return values.astype(dtype.newbyteorder("="), copy=False)

    details: dict[str, Any] = {
        "format": format_name,
        "bits": 8 * dtype.itemsize,
        "orientation_known": known,
        "notes": tuple(geometry_notes(orientation_known=known, sizes_known=sized)),
    }
    return StoredVolume(make_grid(sizes, affine, name, sizes_known=sized), load, None, details)


_LONG = {"l": "left", "r": "right", "p": "posterior", "a": "anterior", "s": "superior", "i": "inferior"}


def _split_space(space: str) -> Sequence[str]:
    return list(space) if len(space) == 3 else space.split("-")


def _numbers(text: str, kind: Callable[[str], Any], count: int | None = None) -> list[Any]:
    numbers = [kind(part) for part in text.replace(",", " ").split()]
    if (count is not None and len(numbers) != count) or not all(math.isfinite(number) for number in numbers):
        raise ValueError(text)
    return numbers


def _vectors(text: str, count: int) -> list[str]:
    found = re.findall(r"\(([^()]*)\)", text)
    if len(found) != count:
        raise ValueError(text)
    return found


def _beside(path: Path, data: str, name: str) -> Path:
    """The file of voxels that a header names; any of the machine may be named, but only one beside it is its own."""
    file = path.with_name(data) if re.fullmatch(r"[\w.+() -]+", data) and data.strip(". ") else path
    if file == path or not file.is_file():
        raise InputError(f"{name}: its voxels are not in one file beside it: save it as one file (.nrrd or .mha)")
    return file


def _damaged(name: str) -> InputError:
    return InputError(f"{name}: this volume is truncated or damaged: export it again")


def _not_grey(name: str, sizes: Sequence[int]) -> InputError:
    return InputError(f"{name}: the shape {'x'.join(str(n) for n in sizes[:8])} is not a grey volume: save it in 3-D")
