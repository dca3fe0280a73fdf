"""What a look at a folder leads to, and the targets that masks suggest."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unibiomed.data.catalog import OWN_ENTRY
from unibiomed.data.entries import DatasetEntry, read_entry
from unibiomed.data.layouts.masks import MaskValues
from unibiomed.data.layouts.words import is_abnormal
from unibiomed.data.toml_text import toml_text

__all__ = ["Found", "Proposal", "make_target", "read_draft", "targets_of_values"]


@dataclass(frozen=True, slots=True)
class Proposal:
    """An entry for a folder that nobody described, and why it looks like that.

    Parameters
    ----------
    entry : dict
        Keys of the entry, as `unibiomed.data.entries` explains them.
    reasons : list of str
        What the folder was taken for, and what told.
    questions : list of str
        What could not be known, and was left out or guessed.
    """

    entry: dict[str, Any]
    reasons: list[str]
    questions: list[str]


@dataclass(slots=True)
class Found:
    """What one of the recognisers found: keys of the entry, and clues to modality and site."""

    keys: dict[str, Any]
    reasons: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    modality: Any = None
    """Of the files themselves: a name or a rule."""
    clues: list[str] = field(default_factory=list)
    """Words of the data set's own, such as names of targets."""


def read_draft(values: Mapping[str, Any], root: Path) -> DatasetEntry:
    """The entry that its keys make when they are written and read; `root` holds the data set's folder.

    Raises
    ------
    DataError
        They cannot be written as TOML, or are no entry.
    """
    with tempfile.TemporaryDirectory() as other:
        draft = Path(other) / OWN_ENTRY
        draft.write_text(toml_text(values), encoding="utf-8")
        return read_entry(draft, root)


def make_target(
    name: str,
    masks: Sequence[str] = (),
    values: Sequence[int] = (),
    *,
    missing: str = "",
    categories: Sequence[str] = (),
    objects: bool = False,
) -> dict[str, Any]:
    """A target of an entry; abnormal if its name says so."""
    target: dict[str, Any] = {"name": name}
    if masks and list(masks) != ["masks/{stem}.png"]:
        target["masks"] = list(masks)
    if values:
        target["values"] = list(values)
    if objects:
        target["objects"] = True
    if is_abnormal(name):
        target["abnormal"] = True
    if missing:
        target["missing"] = missing
    if categories and list(categories) != [name]:
        target["categories"] = list(categories)
    return target


def targets_of_values(
    seen: MaskValues, word: str, masks: Sequence[str], missing: str, found: Found
) -> list[dict[str, Any]]:
    """Targets that the values of masks suggest; what is told and asked goes to `found`."""
    name = word or "target"
    some = f"{seen.files} of the masks"
    if seen.kind == "classes":
        listed = ", ".join(str(value) for value in seen.values)
        prefix = f"{word} class" if word else "class"
        found.reasons.append(f"{some} hold the values {listed}: a class each")
        question = f"name the classes of the masks: '{prefix} {seen.values[0]}' and so on (--target)"
        if seen.whole:
            question += "; if the numbers are objects, such as cells, keep one target with objects = true, no values"
        found.questions.append(question)
        return [make_target(f"{prefix} {value}", masks, (value,), missing=missing) for value in seen.values]
    if seen.kind == "objects":
        found.reasons.append(f"{some} number their objects: all that is not 0 is '{name}', one number each")
    elif seen.kind == "binary":
        found.reasons.append(f"{some} hold the value {seen.values[0]} alone: '{name}' or nothing")
    elif seen.kind == "soft":
        found.reasons.append(f"{some} hold grey levels up to 255: all that is not 0 is '{name}'")
        found.questions.append("the masks have soft edges; save them with one value if their outlines matter")
    else:
        found.questions.append(f"nothing is marked in {some}; make sure that these are the masks of '{name}'")
    if not word:
        found.questions.append("name the target: it is called 'target' (--target)")
    return [make_target(name, masks, missing=missing, objects=seen.kind == "objects")]
