"""Base classes of the readers, and the rules for file names.

Names are compared by letters and digits only; case and the characters between words are ignored.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from ...samples import Case

__all__ = ["MaskFiles", "MaskSource", "Reader", "image_name", "normalise_name", "remove_extension"]

EXTENSIONS = (
    *(".nii.gz", ".nii", ".npz", ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"),
    *(".dcm", ".nrrd", ".mha", ".mhd"),
)


@dataclass(frozen=True)
class MaskSource:
    """Source of the mask of a target.

    Parameters
    ----------
    name : str
        Name for messages.
    load : callable
        Maps (height, width) to a bool array of that size; raises DataError if the source is broken or has another size.
    """

    name: str
    load: Callable[[tuple[int, int]], np.ndarray]


def normalise_name(name: str) -> str:
    """Return the words of a name in lower case, separated by single spaces."""
    return " ".join(re.split(r"[\W_]+", name.lower())).strip()


def remove_extension(name: str) -> str:
    """Remove the extension of an image or volume file; other dots are kept."""
    for extension in EXTENSIONS:
        if name.lower().endswith(extension) and len(name) > len(extension):
            return name[: -len(extension)]
    return name


def image_name(case: Case) -> str:
    """Return the name of an image in its data set, followed by its perturbation."""
    return case.record.key.removeprefix(f"{case.record.dataset}/") + case.id_suffix


class Reader(ABC):
    """Collects the files of one kind in the folder of a model.

    Parameters
    ----------
    folder : Path
        Folder of a model, with a folder for each data set.
    """

    extensions: ClassVar[tuple[str, ...]]
    """Extensions of the files of this kind, in lower case."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, path: Path) -> bool:
        """Add a file if it is of this kind; return whether it is."""
        extension = next((one for one in self.extensions if path.name.lower().endswith(one)), None)
        if extension is None:
            return False
        first, *inner = path.relative_to(self.folder).with_name(path.name[: -len(extension)]).parts
        self._add(path, first if inner else None, "/".join(inner))
        return True

    @abstractmethod
    def _add(self, path: Path, dataset: str | None, name: str) -> None:
        """Add a file by its data set and its name without extension; both are empty outside of a data set's folder."""


class MaskFiles(Reader):
    """Files that are masks and are found by their names."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._paths: dict[tuple[str | None, str], list[Path]] = defaultdict(list)

    def __len__(self) -> int:
        return len(self._paths)

    def paths(self) -> set[Path]:
        """Return all files."""
        return {path for paths in self._paths.values() for path in paths}

    def _add(self, path: Path, dataset: str | None, name: str) -> None:
        self._paths[dataset, normalise_name(name)].append(path)

    def _find(self, dataset: str, names: Iterable[str]) -> list[Path]:
        """Return the files of a data set that have one of some names."""
        keys = sorted({normalise_name(name) for name in names})
        return [path for key in keys for path in self._paths.get((dataset, key), [])]
