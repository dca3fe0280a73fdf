r"""A suite: which data sets and questions a model is judged on, read from a TOML file and checked.

Keys of the file (only ``name`` is always needed)::

    name = "shared"
    title = "..."
    datasets = ["liver_ct"]        # those that must be there; without it, all that are found
    optional = true                # of `datasets`, evaluate those that are there (at least one)
    catalogue = true               # all data sets of the paper's catalogue that are there, and shipped parts of them
    split = "test"                 # "all" for all images, of data sets that were held out of training
    tasks = ["segment", "ask"]     # of unibiomed.tasks; all but outline when left out
    limit = 0                      # images a data set, drawn by `seed`; 0 for all
    seed = 42
    foreign = true                 # of each image also ask for a target of another body part, which is not there
    all_pairs = false              # of each image ask for every target that the model knows, and for other words

    [volumes]                      # data set = what the slices of one volume share in their names (of volume files,
                                   # such as NIfTI, it is known)
    heart = '^(.+)_slice_\d+$'

    [paraphrases]                  # the same question in other words, for the agreement of answers
    segment = ["Show me the {target} in this {image}."]

    [changes]                      # what is done to the pixels, each at five strengths (unibiomed.evaluate.changes)
    names = ["noise", "rotation"]
    limit = 50                     # images a data set that are changed

    [pairs]                        # the paired test of trust: images with and without the same target
    limit = 50                     # pairs a target
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

from .changes import CHANGES

__all__ = ["BUILT_IN", "EVERY_SPLIT", "Changes", "Pairs", "Suite", "find_suite", "read_suite"]

BUILT_IN = ("published", "shared", "trust", "boxes", "absence")
EVERY_SPLIT = "all"
"""As the split of a suite: the images of all splits."""
IN_PAIRS = ("segment", "recognize")
"""Tasks of a suite with ``all_pairs``."""
REWORDED = ("segment", "recognize", "classify")
"""Tasks that may be asked in other words: an expert's question has its own, and of long texts no two are alike."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What is done to the pixels of images before the same questions are asked again."""

    names: list[str] = field(default_factory=lambda: list(CHANGES))
    limit: int = 50


@dataclass(frozen=True, slots=True)
class Pairs:
    """The paired test of trust: one question, one image with the target and one without."""

    limit: int = 50


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite; the keys are explained at the top of this module."""

    name: str
    title: str = ""
    datasets: list[str] = field(default_factory=list)
    optional: bool = False
    catalogue: bool = False
    split: str = "test"
    tasks: list[str] = field(default_factory=lambda: [task.name for task in TASKS.values() if task.in_words])
    limit: int = 0
    seed: int = 42
    foreign: bool = True
    all_pairs: bool = False
    volumes: dict[str, str] = field(default_factory=dict)
    paraphrases: dict[str, list[str]] = field(default_factory=dict)
    changes: Changes | None = None
    pairs: Pairs | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise DataError(f"suite name '{self.name}' holds other signs than letters, digits, '_', '-', '.'")
        if self.split not in (*SPLITS, EVERY_SPLIT):
            splits = ", ".join((*SPLITS, EVERY_SPLIT))
            raise DataError(f"suite '{self.name}': split '{self.split}' is unknown; use one of {splits}")
        for task in [*self.tasks, *self.paraphrases]:
            if task not in TASKS:
                raise DataError(f"suite '{self.name}': task '{task}' is unknown; use some of {', '.join(TASKS)}")
        for what, names in (("task", self.tasks), ("data set", self.datasets), ("change", self._changed)):
            if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
                raise DataError(f"suite '{self.name}': {what} '{twice[0]}' is named twice; name each once")
        if not self.tasks:
            raise DataError(f"suite '{self.name}' asks nothing; give tasks, some of {', '.join(TASKS)}")
        if self.all_pairs:
            if other := [task for task in self.tasks if task not in IN_PAIRS]:
                raise DataError(
                    f"suite '{self.name}': '{other[0]}' cannot be asked with all_pairs; use {' or '.join(IN_PAIRS)}"
                )
            if self.changes or self.pairs or self.paraphrases:
                raise DataError(
                    f"suite '{self.name}': all_pairs excludes changes, pairs and paraphrases; leave them out"
                )
        for task in self.paraphrases.keys() - set(REWORDED):
            raise DataError(
                f"suite '{self.name}': '{task}' cannot be asked in other words; paraphrases are for "
                f"{', '.join(REWORDED)}"
            )
        for number in (self.limit, *(part.limit for part in (self.changes, self.pairs) if part)):
            if number < 0:
                raise DataError(f"suite '{self.name}': a limit is negative; 0 means all")
        for name in self._changed:
            if name not in CHANGES:
                raise DataError(f"suite '{self.name}': change '{name}' is unknown; use some of {', '.join(CHANGES)}")
        for words in (words for several in self.paraphrases.values() for words in several):
            try:
                words.format(target="", image="")
            except (LookupError, ValueError, AttributeError) as error:
                raise DataError(
                    f"suite '{self.name}': paraphrase '{words}' cannot be filled in; use only {{target}} and {{image}}"
                ) from error
        for dataset, pattern in self.volumes.items():
            try:
                groups = re.compile(pattern).groups
            except re.error as error:
                raise DataError(f"suite '{self.name}': volumes of '{dataset}': {error}") from error
            if groups != 1:
                raise DataError(f"suite '{self.name}': volumes of '{dataset}' need exactly one group in brackets")

    @property
    def _changed(self) -> list[str]:
        return self.changes.names if self.changes else []

    def volume_of(self, dataset: str, name: str) -> str | None:
        """Name of the volume that an image is a slice of; None where images stand alone."""
        pattern = self.volumes.get(dataset)
        hit = re.search(pattern, name) if pattern else None
        return hit.group(1) if hit else None


def find_suite(name: str) -> Path:
    """The file of a suite: a built-in one by its name, else a path.

    Raises
    ------
    DataError
        There is none.
    """
    if name in BUILT_IN:
        return Path(str(files("unibiomed.evaluate") / "suites" / f"{name}.toml"))
    path = Path(name)
    if not path.is_file():
        raise DataError(f"'{name}' is no suite: give a TOML file, or one of {', '.join(BUILT_IN)}")
    return path


def read_suite(name: str, changes: Mapping[str, Any] | None = None) -> Suite:
    """Read a suite.

    Parameters
    ----------
    name : str
        A built-in suite, or a TOML file.
    changes : mapping, optional
        Fields that the command line sets in place of the file's.

    Raises
    ------
    DataError
        There is none, or a key is unknown, missing or of the wrong type.
    """
    path = find_suite(name)
    values = read_toml(path)
    try:
        for key, kind in (("changes", Changes), ("pairs", Pairs)):
            if key in values:
                values[key] = build(kind, values[key], key)
        return replace(build(Suite, values, "the suite"), **(changes or {}))
    except DataError as error:
        raise DataError(f"{path.name}: {error}") from error
