"""The table of targets (``targets.toml``)."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
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
    """

    name: str
    category: str
    color: str
    seen: frozenset[tuple[str, str]]
    synonyms: tuple[str, ...] = ()
    generic: tuple[str, ...] = ()
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


def _target(
    *,
    seen: Iterable[dict[str, list[str]]],
    synonyms: Iterable[str] = (),
    generic: Iterable[str] = (),
    parts: Iterable[str] = (),
    **rest: str,
) -> Target:
    pairs = {(modality, region) for item in seen for modality in item["modalities"] for region in item["regions"]}
    return Target(seen=frozenset(pairs), synonyms=tuple(synonyms), generic=tuple(generic), parts=tuple(parts), **rest)
