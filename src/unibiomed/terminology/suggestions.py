"""Known names near to words that mean nothing here: by spelling, by shared words, by kind."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import cache

from .spelling import normalize, tokens
from .targets import get_target

__all__ = ["similar_names"]

MAX_SUGGESTIONS = 3
MIN_SIMILARITY = 0.8
"""Ratio of `difflib.SequenceMatcher` from which two spellings count as one word with an error."""
RELATED = 0.9
"""Similarity of a target that the terminology relates to the one that was asked for."""
MIN_LETTERS = 4
"""Shorter words are like too many others."""
_LESION_WORDS = frozenset(
    tokens("tumor mass lesion cancer neoplasm nodule carcinoma growth lump metastasis abnormality malignancy cyst")
)


def similar_names(
    words: str, names: Sequence[str], relatives: Sequence[str] = (), imaged: Sequence[str] = ()
) -> tuple[str, ...]:
    """Names that may have been meant by `words`.

    Parameters
    ----------
    words : str
        The request.
    names : sequence of str
        What may be suggested: names that make sense in the image.
    relatives : sequence of str
        Of them, those that are known to be related to what was asked for.
    imaged : sequence of str
        Of them, those that the body region is imaged for. A lesion among them is suggested for any other kind of lesion
        if nothing is nearer; none where the body region is unknown.

    Returns
    -------
    tuple of str
        At most `MAX_SUGGESTIONS`, the nearest first.
    """
    scores = {name: max(_similarity(words, term) for term in _terms(name)) for name in names}
    for name in relatives:
        scores[name] = max(scores.get(name, 0.0), RELATED)
    found = sorted((name for name, score in scores.items() if score >= MIN_SIMILARITY), key=lambda name: -scores[name])
    if not found and set(tokens(words)) & _LESION_WORDS:
        found = [name for name in imaged if set(tokens(" ".join(_terms(name, generic=True)))) & _LESION_WORDS]
    return tuple(found[:MAX_SUGGESTIONS])


def _similarity(words: str, term: str) -> float:
    """1 where one holds all words of the other, else how alike the spellings are."""
    asked, known = normalize(words), normalize(term)
    if len(asked) < MIN_LETTERS or len(known) < MIN_LETTERS:
        return 0.0
    if set(known.split()) <= set(asked.split()) or _is_part(asked, known):
        return 1.0
    return SequenceMatcher(None, asked, known).ratio()


def _is_part(asked: str, known: str) -> bool:
    # the last word of an English term says what it is: "exudate" for "hard exudate", but not "white" for "white cell"
    return known.split()[-1] == asked and asked not in _LESION_WORDS


@cache
def _terms(name: str, generic: bool = False) -> tuple[str, ...]:
    target = get_target(name)
    if target is None:
        return (name,)
    return target.names if generic else (target.name, *target.synonyms)
