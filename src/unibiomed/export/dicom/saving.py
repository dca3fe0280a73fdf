"""DICOM objects as files, all of them or none."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

from pydicom.dataset import Dataset

from unibiomed.errors import OutputError
from unibiomed.export.masks import write_files

__all__ = ["save_datasets"]


def save_datasets(datasets: Mapping[Path, Dataset]) -> None:
    """Write DICOM files, all in the same folder.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    folder = next(iter(datasets)).parent
    files = {}
    for path, dataset in datasets.items():
        stream = io.BytesIO()
        dataset.save_as(stream, enforce_file_format=True)
        files[path.name] = stream.getvalue()
    try:
        write_files(folder, files)
    except OSError as error:
        where = ascii(str(folder)[:200])
        raise OutputError(
            f"cannot write to {where}: {error.strerror or error}; choose another output folder"
        ) from error
