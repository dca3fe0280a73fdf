"""Requested targets in the user's words, resolved to the names that a model is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unibiomed.terminology import resolve
from unibiomed.terminology.spelling import tokens

from .vocabulary import ModelVocabulary

__all__ = ["Request", "resolve_request"]

MAX_LISTED = 8
"""Known targets that a note lists where none is similar to the request."""
_AN = ("MRI", "X-ray", "ultrasound", "endoscopy", "OCT")
_ARTICLES = frozenset({"the", "a", "an"})
_DRAW_ANYWAY = "use --allow-unknown (allow_unknown=True in Python) to draw it anyway"


@dataclass(frozen=True, slots=True)
class Request:
    """A requested target.

    Attributes
    ----------
    words : str
        As the user wrote it.
    names : tuple of str
        What the model is asked for: one name, or several where the words have several meanings. Empty where the target
        is not searched.
    score : float or None
        Presence of a target that is not searched: 0 where such an image cannot show it, None where it is unknown.
    notes : tuple of str
        What the user should know.
    """

    words: str
    names: tuple[str, ...]
    score: float | None = None
    notes: tuple[str, ...] = ()


def resolve_request(
    words: str, vocabulary: ModelVocabulary, modality: str | None, *, allow_unknown: bool = False
) -> Request:
    """Find out which targets of a model a request means.

    Parameters
    ----------
    words : str
    vocabulary : ModelVocabulary
        Where it has no targets, the model is asked for `words` as they are.
    modality : str or None
        Of the image.
    allow_unknown : bool
        Ask the model for words that are not in its vocabulary.

    Returns
    -------
    Request
    """
    if not vocabulary.targets:
        return Request(words, (words,))
    notes: list[str] = []
    suggestions: tuple[str, ...] = ()
    meanings = vocabulary.lookup(words, only_own=True)
    if not meanings:
        found = resolve(words, modality=modality, known=vocabulary.targets)
        # synonyms that only the card has
        meanings = found.meanings or vocabulary.lookup(words)
        suggestions = found.suggestions
        # what the words are read as is told below, for the names that are searched
        notes = [f"'{words.strip()}': {note}" for note in found.notes if "is read as" not in note]
    possible = [name for name in meanings if vocabulary.shows(name, modality)]
    if not possible:
        known = resolve(words, modality=modality)
        if not known.possible and (names := meanings or known.meanings):
            return _impossible(words, names, modality)
        if allow_unknown:
            warning = f"'{words}' is not in the model's vocabulary: searched as typed, the result is unreliable"
            return Request(words, (words,), notes=(warning,))
        return Request(words, (), notes=(_unknown(words, vocabulary, modality, suggestions),))
    trained = [name for name in possible if name in vocabulary.known_in(modality)]
    names = tuple(trained or possible)
    if len(names) > 1 and not any("by its parts" in note for note in notes):
        notes.append(f"'{words}' has several meanings in such an image: {_listed(names, 'and')} were searched")
    elif len(names) == 1 and not _same_words(words, names[0], ignore_others=bool(notes)):
        notes.append(f"'{words}' is read as '{names[0]}'")
    if not trained and modality is not None:
        notes.append(
            f"the model was not trained to segment {_listed(names, 'or')} in {modality} images: the result for "
            f"'{words}' is unreliable"
        )
    return Request(words, names, notes=tuple(notes))


def _same_words(words: str, name: str, *, ignore_others: bool) -> bool:
    """Whether a request differs from a name in spelling and articles only, or in words that another note is about."""
    asked, meant = set(tokens(words)), set(tokens(name))
    return meant <= asked and (ignore_others or asked - meant <= _ARTICLES)


def _impossible(words: str, names: Sequence[str], modality: str | None) -> Request:
    article = "an" if modality in _AN else "a"
    same = any(_same_words(words, name, ignore_others=True) for name in names)
    read = "" if same else f" is read as {_listed(names, 'or')}, which"
    return Request(words, (), 0.0, (f"'{words}'{read} cannot be seen in {article} {modality} image: not searched",))


def _unknown(words: str, vocabulary: ModelVocabulary, modality: str | None, suggestions: Sequence[str]) -> str:
    note = f"'{words}' is not in the model's vocabulary: not searched"
    known = sorted(name for name in vocabulary.known_in(modality) if vocabulary.shows(name, modality))
    if suggestions:
        note += f". Closest known terms: {', '.join(suggestions)}"
    elif modality is not None and known:
        more = ", ..." if len(known) > MAX_LISTED else ""
        note += f". Known in {modality} images: {', '.join(known[:MAX_LISTED])}{more}"
    return f"{note}; {_DRAW_ANYWAY}"


def _listed(names: Sequence[str], last: str) -> str:
    quoted = [f"'{name}'" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} {last} {quoted[-1]}"
