"""Pairs of an image and a word, by what is known about the word in the image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from unibiomed.data.records import Record
from unibiomed.data.scene import Scene
from unibiomed.terminology import resolve

from ..predictors import Predictor

__all__ = [
    "ABSENT",
    "IN_CONTEXT",
    "KINDS",
    "MEANINGLESS",
    "MEANINGLESS_WORDS",
    "OTHER_MEDICAL",
    "OTHER_MEDICAL_WORDS",
    "OUT_OF_CONTEXT",
    "PRESENT",
    "Pair",
    "make_pairs",
    "unknown_words",
    "vocabulary_of",
]

PRESENT = "present"
"""The target is in the image."""
IN_CONTEXT = "in context"
"""In-context negative: the data set annotates the target for this image, and it is absent."""
OUT_OF_CONTEXT = "out of context"
"""Out-of-context negative: the target cannot occur in this image (`unibiomed.terminology.absent_targets`)."""
MEANINGLESS = "meaningless"
"""An everyday word."""
OTHER_MEDICAL = "other medical"
"""A medical word outside of the vocabulary."""
KINDS = (PRESENT, IN_CONTEXT, OUT_OF_CONTEXT, MEANINGLESS, OTHER_MEDICAL)
ABSENT = KINDS[1:]

MEANINGLESS_WORDS = (
    "airplane",
    "banana",
    "bicycle",
    "bottle",
    "cat",
    "chair",
    "dog",
    "fire truck",
    "guitar",
    "house",
    "laptop",
    "mountain",
    "pizza",
    "rainbow",
    "shoe",
    "teapot",
    "traffic light",
    "tree",
    "umbrella",
    "unicorn",
)
"""Everyday things, which occur in no medical image."""

OTHER_MEDICAL_WORDS = (
    "adrenal gland",
    "appendix",
    "cochlea",
    "esophageal varices",
    "femur",
    "gallbladder",
    "gallstone",
    "meniscus",
    "ovarian cyst",
    "tooth",
    "urinary bladder",
    "uterus",
)
"""Structures and findings outside of the terminology. They are reported separately, because some images show them."""


class Pair(NamedTuple):
    """A word for one image.

    Parameters
    ----------
    target : str
    kind : str
        One of `KINDS`.
    region : int or None
        Index of the region that is annotated for it.
    """

    target: str
    kind: str
    region: int | None = None


def vocabulary_of(predictor: Predictor, records: Iterable[Record]) -> tuple[str, ...]:
    """Return the targets that a predictor knows, or else all targets with a mask in the data, sorted by name."""
    known: Sequence[str] = getattr(predictor, "vocabulary", ())
    return tuple(known) or tuple(sorted({g.target for r in records for g in r.regions if g.mask is not None}))


def make_pairs(scene: Scene, vocabulary: Sequence[str]) -> list[Pair]:
    """Make the pairs of one image.

    Targets that may occur in the image and are not annotated are left out, because their presence is unknown.

    Parameters
    ----------
    scene : Scene
        With all masks.
    vocabulary : sequence of str
        Targets that the model knows.
    """
    regions = {region.target.casefold(): number for number, region in enumerate(scene.record.regions)}
    impossible = {name.casefold() for name in scene.impossible}
    pairs = []
    for target in vocabulary:
        number = regions.get(target.casefold())
        if number in scene.present:
            pairs.append(Pair(target, PRESENT, number))
        elif number in scene.absent:
            pairs.append(Pair(target, IN_CONTEXT, number))
        elif target.casefold() in impossible:
            pairs.append(Pair(target, OUT_OF_CONTEXT))
    for kind, words in ((MEANINGLESS, MEANINGLESS_WORDS), (OTHER_MEDICAL, OTHER_MEDICAL_WORDS)):
        pairs += [Pair(word, kind) for word in unknown_words(words, vocabulary)]
    return pairs


def unknown_words(words: Sequence[str], vocabulary: Sequence[str]) -> tuple[str, ...]:
    """Return the words that have no meaning in a vocabulary.

    Parameters
    ----------
    words : sequence of str
    vocabulary : sequence of str
        Targets that a model knows.
    """
    return tuple(word for word in words if not resolve(word, known=vocabulary).meanings)
