"""What a run was, so that a reader of its numbers can make them again: what was drawn, by what, on what."""

from __future__ import annotations

import os
import platform
import re
import shlex
from collections.abc import Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from unibiomed import __version__

from .predictors import Predictor, fingerprint_of
from .suite import EVERY_SPLIT, Suite

__all__ = ["about_model", "about_run"]

LIBRARIES = ("numpy", "scipy", "torch", "transformers", "monai", "pillow")
PLACE = re.compile(r"((?:[^/=]*=)?(?:[a-z]+:)?)(.+)", re.DOTALL)
"""An argument: ``--option=``, ``TITLE=`` or ``kind:``, and what may be a path."""


def about_run(suite: Suite, command: Sequence[str]) -> dict[str, Any]:
    """For ``results.json``: what was drawn, and under ``run`` what differs from one run to the next.

    Parameters
    ----------
    suite : Suite
    command : sequence of str
        What was typed; of paths the names are kept, as others stand elsewhere. Empty where nothing was.
    """
    libraries = {}
    for name in LIBRARIES:
        try:
            libraries[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "version": __version__,
        "split": suite.split,
        "limit": suite.limit,
        "seed": suite.seed,
        "tasks": list(suite.tasks),
        "drawn": _drawn(suite),
        "run": {
            "date": date.today().isoformat(),
            "command": shlex.join(map(_named, command)) or None,
            "python": platform.python_version(),
            "libraries": libraries,
        },
    }


def about_model(predictor: Predictor) -> dict[str, str]:
    """Which model it is, and the kind of device it ran on; each only where it is known."""
    device = str(getattr(predictor, "device", "")).partition(":")[0]
    about = {"fingerprint": fingerprint_of(predictor), "device": device}
    return {name: value for name, value in about.items() if value}


def _drawn(suite: Suite) -> str:
    """A sentence on which images were taken."""
    split = "all splits" if suite.split == EVERY_SPLIT else f"the {suite.split} split"
    if not suite.limit:
        return f"All images of {split}."
    return f"At most {suite.limit} images of each data set, drawn from {split} (seed {suite.seed})."


def _named(argument: str) -> str:
    found = PLACE.fullmatch(argument)
    if found is None or not Path(found[2]).exists():
        return argument
    return found[1] + os.path.basename(os.path.abspath(found[2]))
