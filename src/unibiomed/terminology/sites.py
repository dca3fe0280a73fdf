"""Where findings lie (``sites.toml``), and the target that a label names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from .spelling import normalize
from .targets import Target, load_targets, read_table

__all__ = ["FindingSite", "finding_site", "match_target"]


@dataclass(frozen=True, slots=True)
class FindingSite:
    """A body structure.

    Attributes
    ----------
    code : str
        SNOMED CT concept id.
    meaning : str
        Its name in the DICOM standard.
    """

    code: str
    meaning: str


@cache
def finding_site(name: str) -> FindingSite | None:
    """Body structure in which a target lies.

    Parameters
    ----------
    name : str
        Canonical name of the target, see `load_targets`.

    Returns
    -------
    FindingSite or None
        None where it is not the same in all patients, or not listed.
    """
    found = read_table("sites.toml").get(name)
    return None if found is None else FindingSite(**found)


def match_target(label: str) -> Target | None:
    """The one target that a label names exactly, as its canonical name or a synonym in any spelling.

    Parameters
    ----------
    label : str
        Such as ``"Brain tumours"``.

    Returns
    -------
    Target or None
        None where the words are wider or narrower than any target, or mean several: see `resolve` for those.
    """
    named, synonymous = _by_term()
    term = normalize(label)
    found = named.get(term) or synonymous.get(term) or ()
    return found[0] if len(found) == 1 else None


@cache
def _by_term() -> tuple[dict[str, tuple[Target, ...]], dict[str, tuple[Target, ...]]]:
    """Targets by name, and by synonym, in normal form."""
    named: dict[str, tuple[Target, ...]] = {}
    synonymous: dict[str, tuple[Target, ...]] = {}
    for target in load_targets():
        for terms, table in (((target.name,), named), (target.synonyms, synonymous)):
            for term in {normalize(term) for term in terms}:
                table[term] = (*table.get(term, ()), target)
    return named, synonymous
