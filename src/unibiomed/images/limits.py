"""What is checked before anything is decoded, and the silence in which files are read."""

from __future__ import annotations

import logging
import operator
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import InputError

MAX_PIXELS = 100_000_000
"""Largest height times width that is decoded."""

MAX_BYTES = 4 * 2**30
"""Largest file, and largest uncompressed volume, that is opened, in bytes."""

_quiet_lock = threading.RLock()


def shown(name: str) -> str:
    """Return a file name that is safe in a one-line message: printable, at most 80 characters."""
    plain = "".join(c if c.isprintable() else "?" for c in name)
    return plain if len(plain) <= 80 else plain[:38] + "..." + plain[-39:]


def check_size(height: int, width: int, name: str) -> None:
    """Refuse images without pixels and images that are too large to decode.

    Parameters
    ----------
    height, width
        Size in pixels, from the file's header.
    name
        What to call the image in the message.

    Raises
    ------
    InputError
        If a side is not positive or ``height * width`` exceeds `MAX_PIXELS`.
    """
    if height <= 0 or width <= 0:
        raise InputError(f"{name}: the image is {width}x{height} pixels, so there is nothing to see: give another file")
    if height * width > MAX_PIXELS:
        raise InputError(too_large(name, f"{width}x{height}"))


def too_large(name: str, size: str = "") -> str:
    """Word the message for an image above `MAX_PIXELS`; ``size`` is ``"WIDTHxHEIGHT"`` where it is known."""
    what = f"{size} pixels are" if size else "the image is"
    return f"{name}: {what} more than the limit of {MAX_PIXELS // 10**6} million pixels: crop or shrink the image first"


def check_slice(slice_index: int, count: int, name: str, what: str = "slice") -> int:
    """Return ``slice_index`` as an int in ``0 <= index < count``; `what` is what is counted.

    Raises
    ------
    InputError
        If it is not a whole number or out of range.
    """
    index = whole_number(slice_index)
    if not 0 <= index < count:
        raise InputError(f"{name}: {what} {index} does not exist: choose 0 to {count - 1}")
    return index


def whole_number(slice_index: int) -> int:
    """Return ``slice_index`` as an int; InputError when it is anything but a whole number of sensible size."""
    try:
        index = operator.index(slice_index)
    except TypeError:
        raise InputError("the slice must be a whole number, counted from 0") from None
    if isinstance(slice_index, bool) or abs(index) > 2**31:
        raise InputError("the slice must be a whole number, counted from 0")
    return index


@contextmanager
def silent_stderr() -> Iterator[None]:
    """Send what C libraries write to the standard error output nowhere; to be used within `quiet`, which holds a lock.

    What other threads write meanwhile is lost too, so that it is for single calls that cannot be silenced otherwise.
    """
    try:
        kept = os.dup(2)
    except OSError:  # there is no standard error output
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the warnings and logs of the file libraries.

    Their messages may quote header values, and header values may be patient names. Warning filters belong to the whole
    process, so that one thread at a time reads; the lock may be taken again by its holder.
    """
    loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom", "nibabel", "nibabel.global", "PIL")]
    with _quiet_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
