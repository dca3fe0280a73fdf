"""Whether a path is a whole volume or a single picture."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import InputError
from .archive import is_zip
from .nifti import HEADER_BYTES
from .nrrd_mha import text_header_kind
from .read import sniff
from .volume import read_volume_header

__all__ = ["is_volume", "is_volume_only"]


def is_volume(path: str | os.PathLike[str]) -> bool:
    """Tell by its content whether a path is a volume of several slices.

    Parameters
    ----------
    path
        A file or a folder.

    Returns
    -------
    bool
        True for what `is_volume_only` names, for NIfTI files of several slices of grey values, and for DICOM files of
        several frames whose places are known. False for all else, also where the path is missing or cannot be read:
        `read_image` says what is wrong with it.
    """
    if is_volume_only(path):
        return True
    try:
        with Path(path).open("rb") as file:
            if sniff(file.read(HEADER_BYTES)) not in ("NIfTI", "gzip", "DICOM"):
                return False
        return read_volume_header(path)[0].shape[0] > 1
    except (OSError, ValueError, InputError):
        return False


def is_volume_only(path: str | os.PathLike[str]) -> bool:
    """Whether only `read_volume` reads a path: folders, zip files, and NRRD and MetaImage files."""
    place = Path(path)
    try:
        if place.is_dir():
            return True
        with place.open("rb") as file:
            head = file.read(HEADER_BYTES)
    except (OSError, ValueError):
        return False
    return is_zip(head) or text_header_kind(head) is not None
