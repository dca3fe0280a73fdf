"""The index of a folder of shards: small enough to be read at once, and all that a reader needs in order to start."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from unibiomed.errors import DataError, OutputError

__all__ = [
    "INDEX",
    "TASKS",
    "Shard",
    "ShardIndex",
    "file_sha256",
    "locked",
    "read_index",
    "replacing",
    "to_disk",
    "write_index",
    "writing",
]

INDEX = "index.json"
TASKS = ("region", "label", "question", "report")
"""What a record may carry, and so can teach: targets with their regions, a diagnosis, questions, a report."""
VERSION = 1
MAX_INDEX_BYTES = 2**29
MAX_ROWS = 2**31 - 1
"""Of one shard."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One Parquet file of an index; all its records are of one data set, split, modality and set of tasks.

    Parameters
    ----------
    file : str
        Path under the folder of the index, with forward slashes.
    dataset, split, modality : str
        As in `unibiomed.data.Record`.
    tasks : tuple of str
        What its records can teach, of `TASKS`.
    external : bool
        Kept for testing alone.
    groups : tuple of int
        Rows of each row group.
    triplets : int
        Image-region-text triplets of all rows.
    bytes : int
        Size of the file.
    sha256 : str
        Checksum of the file, hexadecimal.
    """

    file: str
    dataset: str
    split: str
    modality: str
    tasks: tuple[str, ...]
    external: bool
    groups: tuple[int, ...]
    triplets: int
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        # An index has tens of thousands of these: pathlib would take most of the time to start.
        if self.file.startswith("/") or ".." in self.file.split("/") or "\\" in self.file or "\0" in self.file:
            raise DataError(f"shard '{self.file}' leaves the folder of the index")
        if not self.groups or min(self.groups) < 1:
            raise DataError(f"shard '{self.file}' has an empty row group")
        if sum(self.groups) > MAX_ROWS:
            raise DataError(f"shard '{self.file}' has more than {MAX_ROWS:,} rows")
        if self.external and self.split != "test":
            raise DataError(
                f"shard '{self.file}' is of an external data set, kept for testing, and not of the test split"
            )

    @property
    def rows(self) -> int:
        """Records in the file."""
        return sum(self.groups)

    def fits(self, path: Path) -> bool:
        """Whether a file is this shard to the last byte; an `OSError` where it cannot be read."""
        return path.stat().st_size == self.bytes and file_sha256(path) == self.sha256

    @classmethod
    def from_json(cls, item: Any) -> Shard:
        """Build it from what `json.loads` gave.

        Raises
        ------
        DataError
            A key is missing or of the wrong type.
        """
        try:
            values = {name: item[name] for name in _FIELDS}
            tasks, groups = values["tasks"], values["groups"] = tuple(item["tasks"]), tuple(item["groups"])
            words = (*tasks, item["file"], item["dataset"], item["split"], item["modality"], item["sha256"])
            numbers = (*groups, item["triplets"], item["bytes"])
            if set(map(type, words)) != {str} or set(map(type, numbers)) != {int} or type(item["external"]) is not bool:
                raise TypeError("wrong type")
        except (KeyError, TypeError) as error:
            raise DataError("an entry lacks a key or has one of the wrong type") from error
        return cls(**values)


_FIELDS = tuple(field.name for field in fields(Shard))


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """All shards of a folder.

    Parameters
    ----------
    folder : Path
        Where they lie.
    shards : tuple of Shard
        Sorted by file.
    stamp : str
        Checksum of the index, hexadecimal; changes with any byte of any shard.
    """

    folder: Path
    shards: tuple[Shard, ...]
    stamp: str


def read_index(folder: str | Path) -> ShardIndex:
    """Read the index of a folder of shards; no shard is opened.

    Parameters
    ----------
    folder : str or Path
        What `unibiomed.data.build.build_shards` wrote.

    Returns
    -------
    ShardIndex
        The shards, checked for form only.

    Raises
    ------
    DataError
        There is no index, or it is too large or broken.
    """
    path = Path(folder) / INDEX
    try:
        if path.stat().st_size > MAX_INDEX_BYTES:
            raise DataError(f"{path}: the index exceeds {MAX_INDEX_BYTES >> 20} MiB; build the shards again")
        content = path.read_bytes()
        values = json.loads(content)
    except FileNotFoundError as error:
        raise DataError(f"'{folder}' holds no {INDEX}; run unibiomed data build, to its end") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: the index cannot be read as JSON; build the shards again") from error
    if not isinstance(values, dict) or values.get("version") != VERSION or not isinstance(values.get("shards"), list):
        raise DataError(f"{path}: this is not an index of version {VERSION}; build the shards again")
    try:
        shards = tuple(Shard.from_json(item) for item in values["shards"])
    except DataError as error:
        raise DataError(f"{path}: {error}; build the shards again") from error
    if len({shard.file for shard in shards}) < len(shards):
        raise DataError(f"{path}: a shard is named twice; build the shards again")
    return ShardIndex(Path(folder), shards, hashlib.sha256(content).hexdigest())


def write_index(folder: Path, shards: Iterable[Shard]) -> None:
    """Write the index of a folder, whole or not at all, one shard a line.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    lines = [json.dumps(asdict(shard), separators=(",", ":")) for shard in sorted(shards, key=lambda s: s.file)]
    text = f'{{"version":{VERSION},"shards":[\n' + ",\n".join(lines) + "\n]}\n"
    with replacing(folder / INDEX) as fresh:
        fresh.write_text(text, encoding="utf-8")


def file_sha256(path: Path) -> str:
    """Checksum of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_disk(path: Path) -> None:
    """Wait until what a file, or the list of names of a folder, holds would outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other builds out of a folder; the lock goes with the process, however it ends.

    Raises
    ------
    OutputError
        Another process holds it, or the folder cannot be written.
    """
    path = folder / ".lock"
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    with file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"another build writes into '{folder}'; wait for it, or choose another --out") from error
        except (ImportError, OSError):  # Windows, or a file system without locks: as if alone
            pass
        yield


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a new file beside `path` to write to; at the end it takes the place of `path`, on the disk for good.

    Where the new file was not written or was taken away again, `path` is taken away as well.

    Raises
    ------
    OutputError
        The folder or the file cannot be written; `path` is as it was.
    """
    # On a cluster two machines may have processes of one number.
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    with writing(path):
        try:
            yield fresh
            if fresh.exists():
                to_disk(fresh)
                os.replace(fresh, path)
            else:
                path.unlink(missing_ok=True)
        finally:
            fresh.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Tell a full disk or a folder that may not be written in one line.

    Raises
    ------
    OutputError
        If what is done inside fails to write.
    """
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        reason = error.strerror or "not a usable path"
        raise OutputError(f"'{path}' cannot be written ({reason}); make room or choose another --out") from error
