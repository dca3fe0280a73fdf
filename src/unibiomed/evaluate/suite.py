r"""Suites: the data sets and tasks of an evaluation, read from a TOML file.

Keys of the file (only ``name`` is required)::

    name = "shared"
    title = "..."
    datasets = ["liver_ct"]        # data sets that must be present; all that are found if omitted
    optional = true                # of `datasets`, evaluate those that are present (at least one)
    catalogue = true               # all data sets of the paper's catalogue that are present, and shipped parts of them
    split = "test"                 # "all" for all images, for data sets that were held out of training
    tasks = ["segment", "ask"]     # from unibiomed.tasks; all but outline if omitted
    limit = 0                      # images per data set, sampled with `seed`; 0 for all
    seed = 42
    out_of_context = true          # also segment one target per image that cannot occur in this kind of image
    all_pairs = false              # segment every target that the model knows in every image, and unknown words

    [volumes]                      # data set = pattern whose group is the volume in the name of a slice
                                   # (not needed for slices of volume files such as NIfTI)
    heart = '^(.+)_slice_\d+$'

    [paraphrases]                  # other wordings of a question, for measuring the agreement of the answers
    segment = ["Show me the {target} in this {image}."]

    [perturbations]                # image perturbations at five strengths (unibiomed.evaluate.perturbations)
    names = ["noise", "rotation"]
    limit = 50                     # perturbed images per data set

    [pairs]                        # paired test: images with and without the same target
    limit = 50                     # pairs per target
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from unibiomed.data.keys import build, read_toml
from unibiomed.data.records import SPLITS
from unibiomed.errors import DataError
from unibiomed.tasks import TASKS

from .deprecated import SUITE_KEYS, rename_keys, warn_deprecated
from .perturbations import PERTURBATIONS

__all__ = ["ALL_SPLITS", "BUILT_IN", "PairOptions", "PerturbationOptions", "Suite", "find_suite", "read_suite"]

BUILT_IN = ("published", "shared", "trust", "boxes", "absence")
ALL_SPLITS = "all"
"""Value of ``split`` that selects the images of all splits."""
ALL_PAIRS_TASKS = ("segment", "recognize")
"""Tasks allowed in a suite with ``all_pairs``."""
PARAPHRASED_TASKS = ("segment", "recognize", "classify")
"""Tasks that may have paraphrases. Experts' questions have their own wording, and long texts are never identical."""


@dataclass(frozen=True, slots=True)
class PerturbationOptions:
    """Table ``perturbations`` of a suite."""

    names: list[str] = field(default_factory=lambda: list(PERTURBATIONS))
    limit: int = 50


@dataclass(frozen=True, slots=True)
class PairOptions:
    """Table ``pairs`` of a suite."""

    limit: int = 50


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite. The fields are the keys described in the module docstring."""

    name: str
    title: str = ""
    datasets: list[str] = field(default_factory=list)
    optional: bool = False
    catalogue: bool = False
    split: str = "test"
    tasks: list[str] = field(default_factory=lambda: [task.name for task in TASKS.values() if task.in_words])
    limit: int = 0
    seed: int = 42
    out_of_context: bool = True
    all_pairs: bool = False
    volumes: dict[str, str] = field(default_factory=dict)
    paraphrases: dict[str, list[str]] = field(default_factory=dict)
    perturbations: PerturbationOptions | None = None
    pairs: PairOptions | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise DataError(f"suite name '{self.name}' is invalid: use letters, digits, '_', '-' and '.' only")
        if self.split not in (*SPLITS, ALL_SPLITS):
            splits = ", ".join((*SPLITS, ALL_SPLITS))
            raise self._error(f"split '{self.split}' is unknown: use one of {splits}")
        for task in [*self.tasks, *self.paraphrases]:
            if task not in TASKS:
                raise self._error(f"task '{task}' is unknown: use some of {', '.join(TASKS)}")
        names = self.perturbations.names if self.perturbations else []
        for what, values in (("task", self.tasks), ("data set", self.datasets), ("perturbation", names)):
            if repeated := [value for value in dict.fromkeys(values) if values.count(value) > 1]:
                raise self._error(f"{what} '{repeated[0]}' is listed twice: list it once")
        if not self.tasks:
            raise self._error(f"there are no tasks: give some of {', '.join(TASKS)}")
        if self.all_pairs:
            if other := [task for task in self.tasks if task not in ALL_PAIRS_TASKS]:
                allowed = " or ".join(ALL_PAIRS_TASKS)
                raise self._error(f"task '{other[0]}' cannot be combined with all_pairs: use {allowed}")
            if self.perturbations or self.pairs or self.paraphrases:
                raise self._error("all_pairs excludes perturbations, pairs and paraphrases: remove them")
        for task in self.paraphrases.keys() - set(PARAPHRASED_TASKS):
            allowed = ", ".join(PARAPHRASED_TASKS)
            raise self._error(f"task '{task}' cannot have paraphrases: give them for {allowed} only")
        for limit in (self.limit, *(part.limit for part in (self.perturbations, self.pairs) if part)):
            if limit < 0:
                raise self._error("limit is negative: give a positive number, or 0 for all")
        for name in names:
            if name not in PERTURBATIONS:
                raise self._error(f"perturbation '{name}' is unknown: use some of {', '.join(PERTURBATIONS)}")
        for template in (template for templates in self.paraphrases.values() for template in templates):
            try:
                template.format(target="", image="")
            except (LookupError, ValueError, AttributeError) as error:
                raise self._error(
                    f"paraphrase '{template}' has unknown placeholders: use only {{target}} and {{image}}"
                ) from error
        for dataset, pattern in self.volumes.items():
            try:
                groups = re.compile(pattern).groups
            except re.error as error:
                raise self._error(f"pattern of volumes of '{dataset}' is invalid: {error}") from error
            if groups != 1:
                raise self._error(f"pattern of volumes of '{dataset}' has {groups} groups: give exactly one")

    def _error(self, message: str) -> DataError:
        return DataError(f"suite '{self.name}': {message}")

    def volume_of(self, dataset: str, name: str) -> str | None:
        """Return the name of the volume that an image is a slice of, or None for a single image."""
        pattern = self.volumes.get(dataset)
        match = re.search(pattern, name) if pattern else None
        return match.group(1) if match else None


def find_suite(name: str) -> Path:
    """Return the TOML file of a built-in suite or of a path.

    Raises
    ------
    DataError
        There is no such suite.
    """
    if name in BUILT_IN:
        return Path(str(files("unibiomed.evaluate") / "suites" / f"{name}.toml"))
    path = Path(name)
    if not path.is_file():
        raise DataError(f"suite '{name}' not found: give a TOML file or one of {', '.join(BUILT_IN)}")
    return path


def read_suite(name: str, overrides: Mapping[str, Any] | None = None) -> Suite:
    """Read a suite.

    Parameters
    ----------
    name : str
        Name of a built-in suite, or a TOML file.
    overrides : mapping, optional
        Fields that replace those of the file.

    Raises
    ------
    DataError
        The suite is not found, or a key is unknown, missing or of the wrong type.
    """
    path = find_suite(name)
    values = read_toml(path)
    for key in SUITE_KEYS.keys() & values.keys():
        warn_deprecated(f"key '{key}' of {path.name}", f"'{SUITE_KEYS[key]}'")
    values = rename_keys(values, SUITE_KEYS)
    try:
        for key, kind in (("perturbations", PerturbationOptions), ("pairs", PairOptions)):
            if key in values:
                values[key] = build(kind, values[key], key)
        return replace(build(Suite, values, "the suite"), **(overrides or {}))
    except DataError as error:
        raise DataError(f"{path.name}: {error}") from error
