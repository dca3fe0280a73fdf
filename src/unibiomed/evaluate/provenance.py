"""Provenance of an evaluation: software versions, command, selected images and models, stored in ``results.json``."""

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
from .suite import ALL_SPLITS, Suite

__all__ = ["model_provenance", "run_provenance"]

LIBRARIES = ("numpy", "scipy", "torch", "transformers", "monai", "pillow")
ARGUMENT = re.compile(r"((?:[^/=]*=)?(?:[a-z]+:)?)(.+)", re.DOTALL)
"""A command-line argument: an optional prefix (``--option=``, ``TITLE=``, ``kind:``) and a value that may be a path."""


def run_provenance(suite: Suite, command: Sequence[str]) -> dict[str, Any]:
    """Describe an evaluation for ``results.json``.

    Parameters
    ----------
    suite : Suite
    command : sequence of str
        The command line, or empty if there was none. Only the last component of paths is stored.

    Returns
    -------
    dict
        The selection of images at the top level; values that differ between repeated runs under ``run``.
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
        "selection": _selection(suite),
        "run": {
            "date": date.today().isoformat(),
            "command": shlex.join(map(_without_folder, command)) or None,
            "python": platform.python_version(),
            "libraries": libraries,
        },
    }


def model_provenance(predictor: Predictor) -> dict[str, str]:
    """Return the fingerprint and device type of a predictor; unknown values are omitted."""
    device = str(getattr(predictor, "device", "")).partition(":")[0]
    values = {"fingerprint": fingerprint_of(predictor), "device": device}
    return {name: value for name, value in values.items() if value}


def _selection(suite: Suite) -> str:
    """Describe in one sentence which images were evaluated."""
    split = "all splits" if suite.split == ALL_SPLITS else f"the {suite.split} split"
    if not suite.limit:
        return f"All images of {split}."
    return f"At most {suite.limit} images of each data set, sampled from {split} (seed {suite.seed})."


def _without_folder(argument: str) -> str:
    match = ARGUMENT.fullmatch(argument)
    if match is None or not Path(match[2]).exists():
        return argument
    return match[1] + os.path.basename(os.path.abspath(match[2]))
