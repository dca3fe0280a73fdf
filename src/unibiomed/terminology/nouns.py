"""What sentences on regions call their targets (``nouns.toml``)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from .targets import read_table

__all__ = ["Noun", "find_noun", "get_noun"]


@dataclass(frozen=True, slots=True)
class Noun:
    """How a region of a target is called.

    Attributes
    ----------
    one : str
        In one piece, ``"cell nucleus"``.
    several : str
        In several separate pieces, ``"group of cell nuclei"``.
    counted : bool
        Whether the number of pieces is certain, so that it may be told.
    """

    one: str
    several: str
    counted: bool = True

    def form(self, parts: int) -> str:
        """The noun for so many separate pieces."""
        return self.several if parts > 1 else self.one


def get_noun(target: str) -> Noun | None:
    """How a target is called, by its canonical name; None where it is called by its name alone."""
    return _table().get(target.lower())


def find_noun(words: str) -> Noun | None:
    """The noun of which `words` are one form, in any letter case; None where they are none of the table."""
    return _forms().get(words.lower())


@cache
def _table() -> dict[str, Noun]:
    nouns = {}
    for name, item in read_table("nouns.toml").items():
        one = item.get("one", name)
        nouns[name.lower()] = Noun(one, item.get("several", one), item.get("counted", True))
    return nouns


@cache
def _forms() -> dict[str, Noun]:
    return {form.lower(): noun for noun in _table().values() for form in (noun.one, noun.several)}
