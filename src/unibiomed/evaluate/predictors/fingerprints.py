"""Fingerprints of models and digests of the data that predictions are computed from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from unibiomed.data.index import file_sha256
from unibiomed.data.records import Record
from unibiomed.errors import DataError

__all__ = ["clear_series_cache", "files_digest", "folder_fingerprint", "image_contents", "records_digest"]

MODEL_FILES = (
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
"""Files of a model folder that determine its answers: weights, configuration, tokenizer, vocabulary, targets."""


def folder_fingerprint(folder: Path) -> str:
    """Return a digest of the names, sizes and contents of the files of a model.

    Raises
    ------
    DataError
        A file cannot be read.
    """
    paths = sorted({path for pattern in MODEL_FILES for path in folder.glob(pattern) if path.is_file()})
    lines = []
    for path in paths:
        try:
            stat = path.stat()
            lines.append(f"{path.name} {stat.st_size} {_content_digest(path, stat.st_size, stat.st_mtime_ns)}")
        except OSError as error:
            raise DataError(f"'{path}' cannot be read ({error.strerror})") from error
    return _digest(lines)


@lru_cache(maxsize=4096)
def _content_digest(path: Path, size: int, modified: int) -> str:
    # weights may have gigabytes, so a file is read again only if its size or time changes
    return file_sha256(path)


def files_digest(folder: Path) -> str:
    """Return a digest of the names, sizes and modification times of all files of a folder, without opening them."""
    lines = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            stat = path.stat()
            lines.append(f"{path.relative_to(folder).as_posix()} {stat.st_size} {stat.st_mtime_ns}")
    return _digest([str(folder.resolve()), *lines])


def records_digest(records: Iterable[Record]) -> str:
    """Return a digest of records and of the sizes and modification times of their files, without opening them."""
    return _digest(sorted(map(_describe_record, records)))


def _describe_record(record: Record) -> str:
    files = [record.image, *(path for region in record.regions for path in (region.mask, *region.further_masks))]
    # the bytes of an image in memory are represented by their digest
    return repr((replace(record, image=b""), [_describe_file(file) for file in files]))


def _describe_file(file: object) -> str:
    if isinstance(file, bytes):
        return hashlib.sha256(file).hexdigest()
    try:
        stat = file.stat() if isinstance(file, Path) else None
    except OSError:
        stat = None
    return f"{stat.st_size} {stat.st_mtime_ns}" if stat else ""


def image_contents(record: Record) -> str:
    """Return a digest of the content of an image, independent of its path; empty if it cannot be read."""
    image = record.image
    if image is None:
        return ""
    if isinstance(image, bytes):
        return hashlib.sha256(image).hexdigest()
    try:
        if image.is_dir():
            return _series_digest(image)
        stat = image.stat()
        return _digest([_content_digest(image, stat.st_size, stat.st_mtime_ns)])
    except (OSError, DataError):
        return ""


@lru_cache(maxsize=16)
def _series_digest(folder: Path) -> str:
    # cached, because each slice of a series needs the digest of all files
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    stats = [path.stat() for path in paths]
    return _digest(
        _content_digest(path, stat.st_size, stat.st_mtime_ns) for path, stat in zip(paths, stats, strict=True)
    )


def clear_series_cache() -> None:
    """Forget the digests of folders of series, whose files may have changed since."""
    _series_digest.cache_clear()


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()[:32]
