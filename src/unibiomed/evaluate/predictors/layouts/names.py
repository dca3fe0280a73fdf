"""How files are called, whatever the program: letters and digits count, what stands between them does not."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...samples import Case

__all__ = ["ENDINGS", "MaskSource", "image_name", "plain", "without_ending"]

ENDINGS = (".nii.gz", ".nii", ".npz", ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".dcm", ".nrrd", ".mha", ".mhd")


@dataclass(frozen=True)
class MaskSource:
    """One place that holds the mask of a target.

    Parameters
    ----------
    name : str
        What to call it in messages.
    load : callable
        From (height, width) to a bool array of that size; DataError where it is broken or of another size.
    """

    name: str
    load: Callable[[tuple[int, int]], np.ndarray]


def plain(name: str) -> str:
    """The words of a name in small letters with single spaces."""
    return " ".join(re.split(r"[\W_]+", name.lower())).strip()


def without_ending(name: str) -> str:
    """The name of a file of pictures or voxels without its ending; other names stay, dots included."""
    for ending in ENDINGS:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return name


def image_name(case: Case) -> str:
    """The name of an image in its data set, with its change."""
    name = case.record.key.removeprefix(f"{case.record.dataset}/")
    return name if case.change is None else f"{name}@{case.change[0]}{case.change[1]}"
