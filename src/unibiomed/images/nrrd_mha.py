"""NRRD and MetaImage (MHA, MHD) files: a text header followed by raw or compressed voxels.

ITK is not used, because its MetaImage reader crashes the process on some damaged headers.
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
    # Always four bytes, independent of the platform.
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
Fields = Mapping[str, str]


def text_header_kind(head: bytes) -> str | None:
    """Format by the first bytes: ``"NRRD"``, ``"MetaImage"``, or None."""
    if head.startswith(b"NRRD000"):
        return "NRRD"
    return "MetaImage" if re.match(rb"\s*(ObjectType|NDims|Comment)\s*=", head) else None


def open_text_header(path: Path, kind: str, name: str) -> StoredVolume:
    """Read the header of an NRRD or MetaImage file.

    Parameters
    ----------
    path
        The file; its extension is ignored.
    kind
        Format from `text_header_kind`.
    name
        Name of the file for messages.

    Returns
    -------
    StoredVolume
        The axes of the file are those of its header, the fastest first.

    Raises
    ------
    InputError
        If the file is damaged or too large, is not a grey volume, or its voxels are in another folder.
    """
    try:
        with path.open("rb") as file:
            header, start = _header(file.read(_MAX_HEADER), kind)
        return (_open_nrrd if kind == "NRRD" else _open_meta)(path, header, start, name)
    except (KeyError, ValueError, OverflowError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise _damaged(name) from None


def _header(head: bytes, kind: str) -> tuple[Fields, int]:
    """Fields of a header, with lower-case keys, and the offset of its end."""
    header: dict[str, str] = {}
    start = 0
    for line in head.splitlines(keepends=True):
        start += len(line)
        key, found, value = line.decode("latin-1").partition(":" if kind == "NRRD" else "=")
        key = key.strip().lower()
        if kind == "NRRD" and not line.strip():
            break
        # In NRRD, "key:=value" is an application-specific field.
        if found and key not in header and not value.startswith("="):
            header[key] = value.strip()
        if key == "elementdatafile":
            break
    return header, start


def _open_nrrd(path: Path, header: Fields, start: int, name: str) -> StoredVolume:
    sizes = _numbers(header["sizes"], int)
    if int(header["dimension"]) != 3 or len(sizes) != 3:
        raise _not_grey(name, sizes)
    kind = _NRRD_TYPES[header["type"].lower()]
    space = "-".join(_LONG.get(letter, letter) for letter in _split_space(header.get("space", "").lower()))
    directions, known = np.eye(3), space in _SPACES and "space directions" in header
    if "space directions" in header:
        directions = np.array([_numbers(part, float) for part in _vectors(header["space directions"], 3)]).T
    elif "spacings" in header:
        directions = np.diag(_numbers(header["spacings"], float, 3))
    affine = np.eye(4)
    affine[:3, :3] = directions
    if "space origin" in header:
        affine[:3, 3] = _numbers(_vectors(header["space origin"], 1)[0], float, 3)
    affine[:3] = _SPACES.get(space, _LPS) @ affine[:3]
    encoding = header["encoding"].lower()
    if encoding not in ("raw", "gzip", "gz", "bzip2", "bz2"):
        raise InputError(f"{name}: the encoding '{shown(encoding)}' is not supported: save it as raw or gzip")
    data = header.get("data file", header.get("datafile"))
    source = path if data is None else _beside(path, data, name)
    lines = int(header.get("line skip", header.get("lineskip", "0")))
    skip = int(header.get("byte skip", header.get("byteskip", "0")))
    order = ">" if header.get("endian", "").lower() == "big" else "<"
    if (kind[1] != "1" and "endian" not in header) or lines < 0 or skip < -1 or (skip < 0 and encoding != "raw"):
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

    sized = "space directions" in header or "spacings" in header
    return _stored("NRRD", sizes, order + kind, affine, known, sized, source, read, name)


def _open_meta(path: Path, header: Fields, start: int, name: str) -> StoredVolume:
    sizes = _numbers(header["dimsize"], int)
    if int(header["ndims"]) != 3 or len(sizes) != 3 or int(header.get("elementnumberofchannels", "1")) != 1:
        raise _not_grey(name, sizes)
    if header.get("binarydata", "true").lower() == "false":
        raise InputError(f"{name}: voxels in text form are not supported: save it in binary form")
    kind = _META_TYPES[header["elementtype"].upper()]
    matrix = next((header[key] for key in ("transformmatrix", "rotation", "orientation") if key in header), None)
    spacing = _numbers(header.get("elementspacing", header.get("elementsize", "1 1 1")), float, 3)
    place = next((header[key] for key in ("offset", "position", "origin") if key in header), "0 0 0")
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if matrix is None else np.reshape(_numbers(matrix, float, 9), (3, 3)).T) * spacing
    affine[:3, 3] = _numbers(place, float, 3)
    affine[:3] = _LPS @ affine[:3]
    big = header.get("binarydatabyteordermsb", header.get("elementbyteordermsb", "false")).lower() == "true"
    packed = header.get("compresseddata", "false").lower() == "true"
    data = header["elementdatafile"]
    source = path if data.upper() == "LOCAL" else _beside(path, data, name)
    head = start if source == path else int(header.get("headersize", "0"))
    if head < -1:
        raise _damaged(name)

    def read(file: BinaryIO, count: int) -> bytes:
        if head < 0:
            file.seek(-count, 2)
        else:
            file.seek(head)
        # Adding 32 to the window size accepts both zlib and gzip streams.
        return zlib.decompressobj(32 + zlib.MAX_WBITS).decompress(file.read(), count) if packed else file.read(count)

    order = ">" if big else "<"
    sized = "elementspacing" in header or "elementsize" in header
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
    """Check the size in the header and create the volume; voxels are read later."""
    if min(sizes) < 1:
        raise _damaged(name)
    dtype = np.dtype(kind)
    count = math.prod(sizes) * dtype.itemsize
    if count > MAX_BYTES or source.stat().st_size > MAX_BYTES:
        raise InputError(f"{name}: the volume has more than {MAX_BYTES >> 30} GiB: crop it first")

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
    """Voxel file named in a header; for security, only files in the same folder are accepted."""
    file = path.with_name(data) if re.fullmatch(r"[\w.+() -]+", data) and data.strip(". ") else path
    if file == path or not file.is_file():
        raise InputError(
            f"{name}: its voxels are not in one file in the same folder: save it as one file (.nrrd or .mha)"
        )
    return file


def _damaged(name: str) -> InputError:
    return InputError(f"{name}: this volume is truncated or damaged: export it again")


def _not_grey(name: str, sizes: Sequence[int]) -> InputError:
    return InputError(f"{name}: the shape {'x'.join(str(n) for n in sizes[:8])} is not a grey volume: save it in 3-D")
