"""One form for all spellings of a term: case, hyphens, plural, British and American."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

__all__ = ["normalize", "tokens"]

_IRREGULAR = {
    "apices": "apex",
    "areas": "area",
    "atria": "atrium",
    "cortices": "cortex",
    "crania": "cranium",
    "diagnoses": "diagnosis",
    "metastases": "metastasis",
    "pneumothoraces": "pneumothorax",
    "sacra": "sacrum",
    "septa": "septum",
    "stenoses": "stenosis",
    "teeth": "tooth",
    "feet": "foot",
    "thoraces": "thorax",
    "vertebrae": "vertebra",
    "aortae": "aorta",
    "bullae": "bulla",
}
_UNCHANGED = frozenset({"pancreas", "gas", "atlas", "bias", "lens", "series", "species", "biceps", "triceps", "pus"})
_STEMS = (
    (re.compile(r"(?<=[a-z])our$"), "or"),  # tumour, colour
    (re.compile(r"([tb])re$"), r"\1er"),  # centre, fibre
    (re.compile(r"^disk$"), "disc"),
    (re.compile(r"^leuco"), "leuko"),
    (re.compile(r"ise$"), "ize"),
    (re.compile(r"[ao]e"), "e"),  # haemorrhage, oesophagus, oedema, fovea
    (re.compile(r"grey"), "gray"),
)
_APOSTROPHES = str.maketrans(dict.fromkeys("\u2019\u2018`", "'"))


@cache
def normalize(words: str) -> str:
    """`words` in the form in which terms are compared.

    Parameters
    ----------
    words : str
        A term or a request, such as ``"Tumours"``.

    Returns
    -------
    str
        Lower case, singular, American, words separated by one space; ``"tumor"``. It is meant for comparison, not for
        reading: ``"lens"`` stays, but ``"toe"`` becomes ``"te"``.
    """
    return " ".join(tokens(words))


@cache
def tokens(words: str) -> tuple[str, ...]:
    """The words of :func:`normalize`."""
    text = unicodedata.normalize("NFKC", words).translate(_APOSTROPHES).lower()
    text = re.sub(r"'s\b", "", text)
    return tuple(_word(word) for word in re.findall(r"[^\W_]+", text))


def _word(word: str) -> str:
    word = _singular(word)
    for pattern, replacement in _STEMS:
        word = pattern.sub(replacement, word)
    return word


def _singular(word: str) -> str:
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) <= 3 or word in _UNCHANGED or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return f"{word[:-3]}y"
    if word.endswith(("sses", "ches", "shes", "xes", "zes", "uses")):
        return word[:-2]
    if word.endswith("s"):
        return word[:-1]
    # nuclei, hippocampi, bronchi
    return f"{word[:-1]}us" if word.endswith("i") and len(word) > 4 else word
