"""What a training can end by, told in one line: full memory, a full disk; and what is kept of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from unibiomed.errors import DataError, OutputError

from .checkpoint import find_checkpoint

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "is killed by signal: Killed")
"""What torch says when there is none left, the last of a process that prepares images."""


def last_good(out: Path) -> str:
    """End of a message: the checkpoint in the folder of a training, where there is one."""
    found = find_checkpoint(out / "checkpoint")
    return "" if found is None else f"; the last good checkpoint is '{found}'"


@contextmanager
def memory_told(cure: str, out: Path) -> Iterator[None]:
    """Tell in one line that memory ran out, of the machine or of its GPU.

    Parameters
    ----------
    cure : str
        What to change.
    out : Path
        Folder of the training.

    Raises
    ------
    DataError
        If it ran out inside.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise DataError(f"memory ran out: {cure}{last_good(out)}") from error
    except RuntimeError as error:
        if any(words in str(error) for words in OUT_OF_MEMORY):
            raise DataError(f"memory ran out: {cure}{last_good(out)}") from error
        raise


@contextmanager
def kept_told(out: Path) -> Iterator[None]:
    """Say what is kept of a training where its folder cannot be written any more.

    Raises
    ------
    OutputError
        If it cannot.
    """
    try:
        yield
    except OutputError as error:
        raise OutputError(f"{error}{last_good(out)}") from error
