"""The few errors a user can meet.

Every message is one line that says what is wrong and what to do; the command prints it on stderr and exits with code 2.
"""

from __future__ import annotations


class UniBiomedError(Exception):
    """Base of all errors a user can mend; ``str(error)`` is the whole message, on one line."""


class InputError(UniBiomedError, ValueError):
    """An image, box, question, slice, window or option that cannot be used."""


class ModelError(UniBiomedError):
    """A model folder that is missing, broken, or does not fit this version."""


class DataError(UniBiomedError):
    """A data set, recipe or record that cannot be used."""


class OutputError(UniBiomedError, OSError):
    """A folder or file that cannot be written."""
