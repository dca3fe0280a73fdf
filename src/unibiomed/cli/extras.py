"""Check for optional dependencies before a command starts."""

from __future__ import annotations


def check_installed(what: str, extra: str, *modules: str) -> None:
    """Check that the modules of an optional extra are installed.

    Parameters
    ----------
    what : str
        What needs the modules, for the message.
    extra : str
        Name of the extra.
    *modules : str
        Names of the modules.

    Raises
    ------
    InputError
        If a module is not installed.
    """
    from importlib.util import find_spec

    from ..errors import InputError

    for name in modules:
        if find_spec(name) is None:
            raise InputError(f"{what} needs {name}: pip install 'unibiomed[{extra}]'")
