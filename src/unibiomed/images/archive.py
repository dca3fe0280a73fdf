"""Zip files that hold a study: checked before and while they are unpacked into a temporary folder."""

from __future__ import annotations

import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from ..errors import InputError
from .limits import MAX_BYTES

__all__ = ["is_zip", "unpacked"]

MAX_MEMBERS = 20_000
"""Files that a zip file may hold."""
MAX_RATIO = 200
"""Times that a member of more than `RATIO_FROM` bytes may grow: DICOM files grow 2 to 20 times."""
RATIO_FROM = 10 * 2**20
_CHUNK = 1 << 20


def is_zip(head: bytes) -> bool:
    """Tell by the first bytes of a file."""
    return head[:4] in (b"PK\x03\x04", b"PK\x05\x06")


@contextmanager
def unpacked(path: Path, name: str) -> Iterator[tuple[Path, dict[str, str]]]:
    """Unpack the files of a zip file into a temporary folder, which is removed in the end.

    Parameters
    ----------
    path
        The zip file.
    name
        What to call it in messages.

    Yields
    ------
    tuple of Path and dict of str to str
        The folder, without folders in it, and for each of its files the name of the member of the zip file.

    Raises
    ------
    InputError
        If the file is damaged or encrypted, a member's name leads out of the folder, or there are more members or bytes
        than are allowed. Nothing outside the temporary folder is written.
    """
    with tempfile.TemporaryDirectory(prefix="unibiomed-") as place:
        folder = Path(place)
        try:
            with zipfile.ZipFile(path) as archive:
                names = _extract(archive, folder, name)
        except InputError:
            raise
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError):
            # zipfile's own messages may quote the names of members
            raise InputError(f"{name}: this zip file is damaged or encrypted: unpack it and give the folder") from None
        yield folder, names


def _extract(archive: zipfile.ZipFile, folder: Path, name: str) -> dict[str, str]:
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) > MAX_MEMBERS:
        raise InputError(f"{name}: the zip file holds more than {MAX_MEMBERS} files: give that of one series")
    for member in members:
        _check_member(member, name)
    if sum(member.file_size for member in members) > MAX_BYTES:
        raise _too_large(name)
    names: dict[str, str] = {}
    left = MAX_BYTES
    for number, member in enumerate(members):
        base = PurePosixPath(member.filename.replace("\\", "/")).name
        # by a number and the suffixes: names in the zip file may be those of patients, or not be names here
        suffix = "".join(end for end in PurePosixPath(base).suffixes[-2:] if len(end) <= 8 and end[1:].isalnum())
        target = f"{number:05d}{suffix}"
        with archive.open(member) as packed, (folder / target).open("wb") as file:
            # what a member says of its size may be wrong
            while chunk := packed.read(_CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise _too_large(name)
                file.write(chunk)
        names[target] = member.filename
    return names


def _check_member(member: zipfile.ZipInfo, name: str) -> None:
    """Refuse a member that leads out of the folder, or would grow too much."""
    path = PurePosixPath(member.filename.replace("\\", "/"))
    drive = len(member.filename) > 1 and member.filename[1] == ":"
    if path.is_absolute() or drive or ".." in path.parts:
        raise InputError(f"{name}: the zip file holds a path outside of it: create it again from the series")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise InputError(f"{name}: the zip file holds a link: pack the files themselves")
    if member.file_size > max(RATIO_FROM, MAX_RATIO * member.compress_size):
        raise InputError(
            f"{name}: a file in the zip file would grow more than {MAX_RATIO} times: unpack it and give the folder"
        )


def _too_large(name: str) -> InputError:
    return InputError(f"{name}: the zip file holds more than {MAX_BYTES >> 30} GiB: give that of one series")
