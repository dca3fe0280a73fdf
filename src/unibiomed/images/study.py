"""Whether a path is a whole volume or a single picture."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import InputError
from .nifti import HEADER_BYTES, nifti_kind, unzip_head
from .nrrd_mha import worded_kind
from .read import sniff
from .volume import read_volume_header

__all__ = ["is_volume"]


def is_volume(path: str | os.PathLike[str]) -> bool:
    """Tell by its content whether a path is a volume of several slices.

    Parameters
    ----------
    path
        A file or a folder.

    Returns
    -------
    bool
        True for folders, NRRD and MetaImage files, and NIfTI files of several slices of grey values. False for all
        else, also where the path is missing or cannot be read: `read_image` says what is wrong with it.
    """
    place = Path(path)
    if place.is_dir():
        return True
    try:
        with place.open("rb") as file:
            head = file.read(HEADER_BYTES)
        if worded_kind(head):
            return True
        if nifti_kind(unzip_head(place) if sniff(head) == "gzip" else head) != "single":
            return False
        return read_volume_header(place)[0].shape[0] > 1
    except (OSError, InputError, ValueError):
        return False
