"""What a predictor is made of, as a short text: two models of one name are told apart by it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from unibiomed.data.index import file_sha256
from unibiomed.data.records import Record
from unibiomed.errors import DataError

__all__ = ["files_edition", "folder_fingerprint", "forget_series", "image_contents", "records_edition"]

PARTS = (
    "*.safetensors",
    "*config*.json",
    "*token*.json",
    "*vocab*",
    "merges.txt",
    "*.jinja",
    "chat_template*.json",
    "card.json",
    "*.model",
    "*__*.json",
)
"""What a model folder's answers depend on: weights, settings, tokens, what it was taught, what a U-Net is for."""


def folder_fingerprint(folder: Path) -> str:
    """Of the names, sizes and contents of a model's files.

    Raises
    ------
    DataError
        A file cannot be read.
    """
    paths = sorted({path for pattern in PARTS for path in folder.glob(pattern) if path.is_file()})
    lines = []
    for path in paths:
        try:
            stat = path.stat()
            lines.append(f"{path.name} {stat.st_size} {_contents(path, stat.st_size, stat.st_mtime_ns)}")
        except OSError as error:
            raise DataError(f"'{path}' cannot be read ({error.strerror})") from error
    return _short(lines)


@lru_cache(maxsize=4096)
def _contents(path: Path, size: int, changed: int) -> str:
    # weights are gigabytes: read once, unless they are written anew
    return file_sha256(path)


def files_edition(folder: Path) -> str:
    """Of the names, sizes and times of all files below a folder; none is opened."""
    lines = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            stat = path.stat()
            lines.append(f"{path.relative_to(folder).as_posix()} {stat.st_size} {stat.st_mtime_ns}")
    return _short([str(folder.resolve()), *lines])


def records_edition(records: Iterable[Record]) -> str:
    """Of all that records say, with the sizes and times of their images and masks; none is opened."""
    return _short(sorted(map(_stamped, records)))


def _stamped(record: Record) -> str:
    files = [record.image, *(path for region in record.regions for path in (region.mask, *region.further_masks))]
    # what an image in memory holds is too long to write out
    return repr((replace(record, image=b""), [_stamp(file) for file in files]))


def _stamp(file: object) -> str:
    if isinstance(file, bytes):
        return hashlib.sha256(file).hexdigest()
    try:
        stat = file.stat() if isinstance(file, Path) else None
    except OSError:
        stat = None
    return f"{stat.st_size} {stat.st_mtime_ns}" if stat else ""


def image_contents(record: Record) -> str:
    """Of what the file of an image holds, wherever it stands; empty where it cannot be read."""
    image = record.image
    if image is None:
        return ""
    if isinstance(image, bytes):
        return hashlib.sha256(image).hexdigest()
    try:
        if image.is_dir():
            return _series_contents(image)
        stat = image.stat()
        return _short([_contents(image, stat.st_size, stat.st_mtime_ns)])
    except (OSError, DataError):
        return ""


@lru_cache(maxsize=16)
def _series_contents(folder: Path) -> str:
    # each slice of a series asks for all of its files
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    stats = [path.stat() for path in paths]
    return _short(_contents(path, stat.st_size, stat.st_mtime_ns) for path, stat in zip(paths, stats, strict=True))


def forget_series() -> None:
    """Look at the folders of series anew: their slices may be others by now."""
    _series_contents.cache_clear()


def _short(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()[:32]
