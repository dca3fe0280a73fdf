"""The table of targets (``targets.toml``)."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

__all__ = ["Target", "get_target", "load_targets"]


@dataclass(frozen=True, slots=True)
class Target:
    """Something that can be outlined in an image.

    Attributes
    ----------
    name : str
        Canonical name, American spelling.
    synonyms : tuple of str
        Other names of exactly this target.
    generic : tuple of str
        Words that mean this target in some images and another one elsewhere, such as ``"tumor"``.
    loose : tuple of str
        Words by which a user may mean this target although they are none of its names: kinds and pieces of it, and
        wider words.
    parts : tuple of str
        Canonical names of the targets that this one is made of.
    code : str or None
        SNOMED CT concept id.
    category : str
        ``"anatomy"``, ``"lesion"``, ``"cell"`` or ``"device"``.
    color : str
        Hexadecimal sRGB, ``"#rrggbb"``.
    seen : frozenset of tuple
        Pairs of modality and body region (see `unibiomed.terminology.image_regions`) of the images that can show it.
    home : frozenset of str
        Body regions that are imaged to look at it; in others of `seen` it is seen by the way.
    """

    name: str
    category: str
    color: str
    seen: frozenset[tuple[str, str]]
    home: frozenset[str]
    synonyms: tuple[str, ...] = ()
    generic: tuple[str, ...] = ()
    loose: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    code: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Canonical name, synonyms and generic words."""
        return (self.name, *self.synonyms, *self.generic)


@cache
def load_targets() -> tuple[Target, ...]:
    """All targets of the table, in its order."""
    return tuple(_target(**item) for item in read_table("targets.toml")["targets"])


def get_target(name: str) -> Target | None:
    """The target with this canonical name, whatever its case; None where the table has none."""
    return _by_name().get(name.lower())


def read_table(file: str) -> dict[str, Any]:
    """One of the TOML files of this package."""
    return tomllib.loads(files("unibiomed.terminology").joinpath(file).read_text(encoding="utf-8"))


@cache
def _by_name() -> dict[str, Target]:
    return {target.name.lower(): target for target in load_targets()}


def _target(seen: Sequence[dict[str, list[str]]], **fields: Any) -> Target:
    pairs = {(modality, region) for item in seen for modality in item["modalities"] for region in item["regions"]}
    lists: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    return Target(seen=frozenset(pairs), home=frozenset(seen[0]["regions"]), **lists)
