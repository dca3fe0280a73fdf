"""What the readers share: which files are theirs, and which data set and image a file belongs to by its place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from .names import plain

__all__ = ["MaskFiles", "Reader"]


class Reader(ABC):
    """Takes the files of one kind out of the folder of a model.

    Parameters
    ----------
    folder : Path
        The folder of a model, with a folder for each data set.
    """

    endings: ClassVar[tuple[str, ...]]
    """Of the files that are its own, in small letters."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, path: Path) -> bool:
        """Take a file of the folder, if it is of this kind."""
        ending = next((ending for ending in self.endings if path.name.lower().endswith(ending)), None)
        if ending is None:
            return False
        first, *inner = path.relative_to(self.folder).with_name(path.name[: -len(ending)]).parts
        self._take(path, first if inner else None, "/".join(inner))
        return True

    @abstractmethod
    def _take(self, path: Path, dataset: str | None, name: str) -> None:
        """Keep a file that lies in the folder of a data set, under a name without its ending; else there is neither."""


class MaskFiles(Reader):
    """Files that are masks as a whole, found by their names."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._paths: dict[tuple[str | None, str], list[Path]] = defaultdict(list)

    def __len__(self) -> int:
        return len(self._paths)

    def paths(self) -> set[Path]:
        """All files."""
        return {path for paths in self._paths.values() for path in paths}

    def _take(self, path: Path, dataset: str | None, name: str) -> None:
        self._paths[dataset, plain(name)].append(path)

    def _named(self, dataset: str, names: Iterable[str]) -> list[Path]:
        """The files of a data set that have one of some names."""
        keys = sorted({plain(name) for name in names})
        return [path for key in keys for path in self._paths.get((dataset, key), [])]
