"""What a request in words means: "Tumours" in a brain MRI, "the left kidney", "breast cancer" on a mammogram."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache

from .spelling import tokens
from .suggestions import similar_names
from .targets import Target, get_target, load_targets
from .visibility import can_show, image_regions

__all__ = ["Resolution", "resolve"]

MAX_KEPT = 4096
"""Requests whose resolution is kept: those of a batch are the same for every image."""
_ARTICLES = frozenset(tokens("the a an any all every each some this that these both my"))
_SIDES = frozenset({"left", "right", "bilateral"})
_QUALIFIERS = frozenset(
    tokens(
        "malignant benign suspicious suspected possible abnormal large small big tiny primary metastatic visible acute "
        "chronic old new normal human main solid enhancing single multiple several"
    )
)
_PLACE = re.compile(
    r"\s+(?:in|on|of|from|within)\s+(?:this|the|that|my|an?)\s+(?:[\w-]+\s+)?"
    r"(?:image|picture|photo|photograph|scan|slice|x-?ray|radiograph|ct|mri|mr|ultrasound|oct)s?\s*$",
    re.IGNORECASE,
)
_OF = re.compile(r"^(.+?)\s+(?:of|in|within)\s+(.+)$")
_LEADING = re.compile(r"^(?:area|region|mask|outline|contour|segmentation|presence|evidence|site)\s+of\s+")


@dataclass(frozen=True, slots=True)
class Resolution:
    """What the words of a request mean.

    Attributes
    ----------
    words : str
        The request.
    meanings : tuple of str
        Names among those that were allowed: none where the words are unknown, several where they are ambiguous in this
        kind of image or name a target that is only known by its parts ("lungs").
    possible : bool
        Whether an image of this kind can show any of `meanings`; False where there are none.
    suggestions : tuple of str
        Names that may have been meant and that such an image can show, the nearest first. Only where there are no
        `meanings`, or none that are possible.
    outside : tuple of str
        Canonical names that the words mean in the terminology, where none of them was allowed.
    notes : tuple of str
        What was not understood to the letter, for the user: words of side or kind that are not told apart.
    """

    words: str
    meanings: tuple[str, ...] = ()
    possible: bool = False
    suggestions: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ambiguous(self) -> bool:
        """Whether there are several meanings."""
        return len(self.meanings) > 1


@dataclass(frozen=True, slots=True)
class _Entry:
    """A name that may be the answer, and all terms for it in normal form."""

    name: str
    names: frozenset[str]
    synonyms: frozenset[str]
    generic: frozenset[str]
    loose: frozenset[str]
    home: frozenset[str]


def resolve(
    words: str, *, modality: str | None = None, site: str | None = None, known: Iterable[str] | None = None
) -> Resolution:
    """Find out which targets a request means.

    Case, hyphens, articles, plural and British spelling make no difference. A name or synonym decides before a generic
    word ("tumor", "lesion"), unless an image of this kind cannot show what it names. Sides ("left kidney") and kinds
    ("malignant tumor") that the terminology does not know are left out, with a note.

    Parameters
    ----------
    words : str
        The request, such as ``"the breast cancer"``.
    modality, site : str or None
        Of the image; None where unknown, which leaves generic words with all of their meanings.
    known : iterable of str, optional
        Names that are allowed as meanings and suggestions, such as the vocabulary of a model. They need not be in the
        terminology: other names are compared as they are. All targets of the terminology by default.

    Returns
    -------
    Resolution
    """
    names = tuple(target.name for target in load_targets()) if known is None else tuple(dict.fromkeys(known))
    return _resolve(words, modality, site, names)


@lru_cache(maxsize=MAX_KEPT)
def _resolve(words: str, modality: str | None, site: str | None, names: tuple[str, ...]) -> Resolution:
    entries = _entries(names)
    found = _read(words, entries, modality, site)
    if not found.meanings:
        found = replace(found, outside=_read(words, _entries(_all_names()), modality, site).meanings)
        found = _by_parts(found, names, modality, site)
    possible = any(can_show(name, modality, site) for name in found.meanings)
    suggestions: tuple[str, ...] = ()
    if not possible:
        regions = image_regions(modality, site)
        shown = [entry for entry in entries if can_show(entry.name, modality, site)]
        imaged = [entry.name for entry in shown if not regions or entry.home & regions]
        relatives = _relatives(found, [target for name in imaged if (target := _target_of(name))])
        suggestions = similar_names(words, [entry.name for entry in shown], relatives, imaged if regions else ())
    return replace(found, possible=possible, suggestions=suggestions)


def _read(words: str, entries: Sequence[_Entry], modality: str | None, site: str | None) -> Resolution:
    for phrase, notes in _readings(words):
        if found := _match(phrase, entries, modality, site):
            meanings = tuple(entry.name for entry in found)
            if any(phrase in entry.loose for entry in found):
                notes = (*notes, f"'{words.strip()}' is read as {', '.join(meanings)}")
            return Resolution(words, meanings, notes=notes)
    return Resolution(words)


def _match(phrase: str, entries: Sequence[_Entry], modality: str | None, site: str | None) -> tuple[_Entry, ...]:
    """What `phrase` means, by the surest kind of term first; what such an image can show goes before the rest."""
    named = [entry for entry in entries if phrase in entry.names]
    others = [entry for entry in entries if phrase in entry.synonyms]
    wide = [entry for entry in entries if phrase in entry.generic or phrase in entry.loose]
    regions = image_regions(modality, site)
    for found in (named, others):
        if shown := [entry for entry in found if can_show(entry.name, modality, site)]:
            return tuple(shown)
    if shown := [entry for entry in wide if can_show(entry.name, modality, site)]:
        # a nodule in a CT of the chest is one of the lung, known or not, although thyroid and liver are in view
        looked_for = [entry for entry in shown if entry.home & regions]
        return tuple(looked_for if looked_for or _looked_for(phrase, modality, site) else shown)
    return next((tuple(found) for found in (named, others, wide) if found), ())


@cache
def _looked_for(phrase: str, modality: str | None, site: str | None) -> bool:
    """Whether any target of the terminology is meant by this wide word where the image is taken to look at it."""
    regions = image_regions(modality, site)
    return any(
        phrase in entry.generic | entry.loose and entry.home & regions and can_show(entry.name, modality, site)
        for entry in _entries(_all_names())
    )


def _readings(words: str) -> list[tuple[str, tuple[str, ...]]]:
    """`words` in normal form, the most literal reading first, each with notes on what it leaves out."""
    text = _LEADING.sub("", _strip_articles(_PLACE.sub("", words).strip().lower()))
    phrases = [_term(words), _term(text)]
    if turned := _OF.match(text):
        # "cancer of the breast" as "breast cancer"
        phrases.append(_term(f"{turned[2]} {turned[1]}"))
    readings: dict[str, tuple[str, ...]] = {}
    for ignored in (frozenset[str](), _QUALIFIERS, _QUALIFIERS | _SIDES):
        for phrase in phrases:
            left = [word for word in phrase.split() if word not in ignored]
            if left:
                readings.setdefault(" ".join(left), _notes(phrase, left))
    return list(readings.items())


def _notes(phrase: str, left: Sequence[str]) -> tuple[str, ...]:
    dropped = [word for word in phrase.split() if word not in left]
    notes = []
    if any(word in _SIDES for word in dropped):
        notes.append("left and right are not told apart")
    notes += [f"'{word}' is ignored" for word in dropped if word not in _SIDES]
    return tuple(notes)


def _strip_articles(text: str) -> str:
    words = text.split()
    while len(words) > 1 and words[0] in _ARTICLES:
        words = words[1:]
    return " ".join(words)


def _term(words: str) -> str:
    """`words` as terms are compared: in normal form, without articles."""
    return " ".join(word for word in tokens(words) if word not in _ARTICLES)


def _by_parts(found: Resolution, names: Sequence[str], modality: str | None, site: str | None) -> Resolution:
    """`found` with the known parts of what the words mean, where the whole is not known: both lungs for "lungs"."""
    by_name = {name.lower(): name for name in names}
    wholes = [target for name in found.outside if (target := get_target(name)) is not None]
    parts = tuple(by_name[part.lower()] for whole in wholes for part in whole.parts if part.lower() in by_name)
    if not parts or not any(can_show(part, modality, site) for part in parts):
        return found
    note = f"'{found.outside[0]}' is known by its parts: {', '.join(parts)}"
    return replace(found, meanings=parts, outside=(), notes=(*found.notes, note))


def _relatives(found: Resolution, allowed: Sequence[Target]) -> tuple[str, ...]:
    """Names of allowed targets that are a whole or a part of what was meant, or that share a generic word with it."""
    meant = [target for name in (*found.outside, *found.meanings) if (target := get_target(name)) is not None]
    wholes = [a.name for a in allowed for m in meant if m.name in a.parts or a.name in m.parts]
    shared = [a.name for a in allowed for m in meant if a.category == m.category and _kinds(a) & _kinds(m)]
    return tuple(dict.fromkeys((*wholes, *shared)))


def _kinds(target: Target) -> set[str]:
    return {_term(word) for word in (*target.generic, *target.loose)}


@cache
def _all_names() -> tuple[str, ...]:
    return tuple(target.name for target in load_targets())


@cache
def _entries(names: tuple[str, ...]) -> tuple[_Entry, ...]:
    return tuple(_entry(name) for name in names)


def _entry(name: str) -> _Entry:
    target = _target_of(name)
    own = frozenset({_term(name)})
    if target is None:
        nothing: frozenset[str] = frozenset()
        return _Entry(name, own, nothing, nothing, nothing, nothing)
    synonyms, generic, loose = (
        frozenset(_term(term) for term in terms) - own
        for terms in ((target.name, *target.synonyms), target.generic, target.loose)
    )
    return _Entry(name, own, synonyms, generic, loose, target.home)


@cache
def _target_of(name: str) -> Target | None:
    """The target with this name or synonym, in any spelling."""
    wanted = _term(name)
    exact = [target for target in load_targets() if _term(target.name) == wanted]
    others = [target for target in load_targets() if wanted in {_term(other) for other in target.synonyms}]
    return next(iter(exact or others), None)
