"""Size limits that are checked before decoding, and suppression of messages of the file libraries."""

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
"""Maximum number of pixels (height times width) of an image."""

MAX_BYTES = 4 * 2**30
"""Maximum size in bytes of a file, and of an uncompressed volume."""

_quiet_lock = threading.RLock()


def shown(name: str) -> str:
    """Return a file name for a one-line message: printable, at most 80 characters."""
    plain = "".join(c if c.isprintable() else "?" for c in name)
    return plain if len(plain) <= 80 else plain[:38] + "..." + plain[-39:]


def check_size(height: int, width: int, name: str) -> None:
    """Check that an image is neither empty nor too large.

    Parameters
    ----------
    height, width
        Size in pixels, from the header of the file.
    name
        Name of the image for the message.

    Raises
    ------
    InputError
        If a side is not positive or ``height * width`` exceeds `MAX_PIXELS`.
    """
    if height <= 0 or width <= 0:
        raise InputError(f"{name}: the image is empty ({width}x{height} pixels): give another file")
    if height * width > MAX_PIXELS:
        raise InputError(too_large(name, f"{width}x{height}"))


def too_large(name: str, size: str = "") -> str:
    """Message for an image above `MAX_PIXELS`; ``size`` is ``"WIDTHxHEIGHT"`` if known."""
    what = f"{size} pixels are" if size else "the image is"
    limit = f"{MAX_PIXELS // 10**6} million pixels"
    return f"{name}: {what} more than the limit of {limit}: crop or downsample the image first"


def check_slice(slice_index: int, count: int, name: str, what: str = "slice") -> int:
    """Return ``slice_index`` as an int in ``0 <= index < count``.

    Parameters
    ----------
    slice_index
        The index, counted from 0.
    count
        Number of slices.
    name
        Name of the file for messages.
    what
        What is counted, for messages.

    Raises
    ------
    InputError
        If the index is not an integer or out of range.
    """
    index = whole_number(slice_index)
    if not 0 <= index < count:
        raise InputError(f"{name}: {what} {index} does not exist: choose 0 to {count - 1}")
    return index


def whole_number(slice_index: int) -> int:
    """Return ``slice_index`` as an int; InputError if it is not an integer, or too large."""
    message = "the slice is not valid: give a whole number, counted from 0"
    try:
        index = operator.index(slice_index)
    except TypeError:
        raise InputError(message) from None
    if isinstance(slice_index, bool) or abs(index) > 2**31:
        raise InputError(message)
    return index


@contextmanager
def silent_stderr() -> Iterator[None]:
    """Discard what C libraries write to stderr; must be used inside `quiet`, which holds a lock.

    Output of other threads is discarded as well, so use it only around single calls.
    """
    try:
        kept = os.dup(2)
    except OSError:  # stderr is closed
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
    """Suppress warnings and logs of the file libraries, which may quote patient data from headers.

    Warning filters are global to the process, so that only one thread at a time can read files. The lock is reentrant.
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
