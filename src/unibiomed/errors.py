"""Errors that a user can fix.

Each message is one line of the form "what is wrong: how to fix it". The command prints it on stderr and exits with
code 2.
"""

from __future__ import annotations


class UniBiomedError(Exception):
    """Base class of all errors that a user can fix; ``str(error)`` is the complete one-line message."""


class InputError(UniBiomedError, ValueError):
    """An image, box, question, slice, window or option is not valid."""


class ModelError(UniBiomedError):
    """A model folder is missing, damaged, or not compatible with this version."""


class DataError(UniBiomedError):
    """A data set, recipe or record is not valid."""


class OutputError(UniBiomedError, OSError):
    """A folder or file cannot be written."""
