"""Is what a verb needs installed? Asked before it begins, not when it is half done."""

from __future__ import annotations


def check_installed(what: str, extra: str, *modules: str) -> None:
    """Refuse to begin without modules of an optional extra.

    Raises
    ------
    InputError
        One is not installed.
    """
    from importlib.util import find_spec

    from ..errors import InputError

    for name in modules:
        if find_spec(name) is None:
            raise InputError(f"{what} needs {name}: pip install 'unibiomed[{extra}]'")
