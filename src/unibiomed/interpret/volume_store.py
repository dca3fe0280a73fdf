"""Finished slices of a volume, in memory or in a folder, so that an interrupted run can go on."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from unibiomed.errors import OutputError

__all__ = ["LIMIT", "SliceStore"]

LIMIT = 8.0
"""Margins are kept between -LIMIT and LIMIT: beyond them a pixel's probability is above 0.999 or below 0.001."""
STEP = 1 / 64
_BROKEN = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


class SliceStore:
    """Presence and margins of finished slices, compressed.

    Parameters
    ----------
    folder : Path, optional
        Where slices are written, one file each; made with the first. In memory when left out.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._kept: dict[str, bytes] = {}

    def put(self, index: int, key: str, presence: np.ndarray, margins: Mapping[int, np.ndarray]) -> None:
        """Keep a finished slice.

        Parameters
        ----------
        index : int
            Number of the slice.
        key : str
            Of its content and the model, see `unibiomed.interpret.volume`.
        presence : numpy.ndarray
            (targets,) probabilities.
        margins : mapping of int to numpy.ndarray
            By target, (side, side) margins of the masks that were decoded.

        Raises
        ------
        OutputError
            The folder cannot be written.
        """
        buffer = io.BytesIO()
        whole = {f"margin_{k}": np.rint(np.clip(m, -LIMIT, LIMIT) / STEP).astype(np.int16) for k, m in margins.items()}
        np.savez_compressed(buffer, presence=presence.astype(np.float32), **whole)
        name = _name(index, key)
        if self.folder is None:
            self._kept[name] = buffer.getvalue()
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            fresh = self.folder / f".{name}.{os.getpid()}"
            fresh.write_bytes(buffer.getvalue())
            os.replace(fresh, self.folder / name)
        except OSError as error:
            raise OutputError(f"cannot write to '{self.folder}': {error.strerror}; choose another folder") from error

    def presence(self, index: int, key: str) -> np.ndarray | None:
        """(targets,) float32 of a finished slice; None where it is not there or damaged."""
        return self._read(index, key, "presence")

    def margin(self, index: int, key: str, target: int) -> np.ndarray | None:
        """(side, side) float32 margin of a target; None where its mask was not decoded."""
        whole = self._read(index, key, f"margin_{target}")
        return None if whole is None else whole.astype(np.float32) * np.float32(STEP)

    def clear(self) -> None:
        """Remove all slices, and the folder if nothing else is in it."""
        self._kept.clear()
        if self.folder is None or not self.folder.is_dir():
            return
        for path in self.folder.glob("*.npz"):
            path.unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _read(self, index: int, key: str, member: str) -> np.ndarray | None:
        name = _name(index, key)
        try:
            if self.folder is None:
                if name not in self._kept:
                    return None
                source: io.BytesIO | Path = io.BytesIO(self._kept[name])
            else:
                source = self.folder / name
                if not source.exists():
                    return None
            with np.load(source, allow_pickle=False) as held:
                return held[member] if member in held.files else None
        except _BROKEN:
            # a damaged slice is read again
            return None


def _name(index: int, key: str) -> str:
    return f"{index:05d}-{key}.npz"
