"""A first look at an unknown folder: the names of its files, up to a limit; no file is opened."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unibiomed.errors import DataError

__all__ = ["Survey", "spread", "survey_folder"]

MAX_FOLDERS = 500
MAX_NAMES = 20_000
NAMES_EACH = 3_000
MAX_DEPTH = 6
PASSED_OVER = ("__macosx",)


@dataclass(frozen=True, slots=True)
class Survey:
    """Names of the files of a folder.

    Parameters
    ----------
    folder : Path
        The folder.
    names : dict of str to tuple of str
        File names by the folder they are in, ``""`` for the folder itself, else its path in there; all sorted.
    whole : bool
        All names were taken; else the limits were reached.
    """

    folder: Path
    names: dict[str, tuple[str, ...]]
    whole: bool

    def ending_in(self, endings: Sequence[str]) -> dict[str, list[str]]:
        """Names with one of some endings, by folder; folders without any are left out."""
        found = {where: [name for name in names if name.lower().endswith(tuple(endings))] for where, names in self}
        return {where: names for where, names in found.items() if names}

    def paths(self, endings: Sequence[str]) -> list[str]:
        """The same as paths in the folder."""
        listed = self.ending_in(endings).items()
        return [f"{where}/{name}" if where else name for where, names in listed for name in names]

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self.names.items())


def spread(items: Sequence[str], count: int) -> list[str]:
    """At most `count` items, evenly spread over all."""
    if len(items) <= count:
        return list(items)
    return [items[place * len(items) // count] for place in range(count)]


def survey_folder(folder: Path) -> Survey:
    """List a folder, level by level, up to `MAX_FOLDERS` folders, `NAMES_EACH` files of each and `MAX_NAMES` in all.

    Hidden files and folders are passed over, and links to folders are not followed.

    Raises
    ------
    DataError
        The folder is missing, is none, or holds no file.
    """
    if not folder.is_dir():
        raise DataError(f"'{folder}' is not a folder; give the folder that holds the images")
    names: dict[str, tuple[str, ...]] = {}
    level, depth, total, whole = [""], 0, 0, True
    while level:
        below: list[str] = []
        for where in level:
            if len(names) >= MAX_FOLDERS or total >= MAX_NAMES:
                whole = False
                break
            files, folders = _list(folder / where)
            below += [f"{where}/{name}" if where else name for name in folders]
            whole = whole and len(files) <= NAMES_EACH
            names[where] = tuple(files[:NAMES_EACH])
            total += len(names[where])
        depth += 1
        whole = whole and (depth < MAX_DEPTH or not below)
        level = below if depth < MAX_DEPTH else []
    if not total:
        raise DataError(f"'{folder}' holds no file; give the folder that holds the images")
    return Survey(folder, names, whole)


def _list(folder: Path) -> tuple[list[str], list[str]]:
    try:
        with os.scandir(folder) as listed:
            entries = [item for item in listed if not item.name.startswith(".")]
            files = sorted(item.name for item in entries if item.is_file())
            folders = [item.name for item in entries if item.is_dir(follow_symlinks=False)]
    except OSError as error:
        raise DataError(f"'{folder}' cannot be read ({error.strerror}); mend its permissions") from error
    return files, sorted(name for name in folders if name.lower() not in PASSED_OVER)
