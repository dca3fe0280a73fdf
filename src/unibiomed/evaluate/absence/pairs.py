"""All pairs of an image and a word that a model is asked for, by what is known of the word in the image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from unibiomed.data.records import Record
from unibiomed.data.scene import Scene

from ..predictors import Predictor
from .words import MEANINGLESS, OTHER_MEDICAL, unknown_words

__all__ = [
    "ABSENT",
    "IN_CONTEXT",
    "KINDS",
    "MEANINGLESS_WORD",
    "MEDICAL_WORD",
    "OUT_OF_CONTEXT",
    "PRESENT",
    "Pair",
    "pairs_of",
    "vocabulary_of",
]

PRESENT = "present"
"""The target is in the image."""
IN_CONTEXT = "in context"
"""The data set annotates the target for this image, and it is not there."""
OUT_OF_CONTEXT = "out of context"
"""An image of this modality and body part cannot show the target (`unibiomed.terminology.absent_targets`)."""
MEANINGLESS_WORD = "meaningless"
"""A word of daily life."""
MEDICAL_WORD = "other medical"
"""A medical word outside the vocabulary."""
KINDS = (PRESENT, IN_CONTEXT, OUT_OF_CONTEXT, MEANINGLESS_WORD, MEDICAL_WORD)
ABSENT = KINDS[1:]


class Pair(NamedTuple):
    """A word that is asked for in one image.

    Parameters
    ----------
    target : str
    kind : str
        One of `KINDS`.
    region : int or None
        The region of the record that is annotated for it.
    """

    target: str
    kind: str
    region: int | None = None


def vocabulary_of(predictor: Predictor, records: Iterable[Record]) -> tuple[str, ...]:
    """Targets that a predictor is asked for: those that it knows, else all that have a mask in the data, by name."""
    known: Sequence[str] = getattr(predictor, "vocabulary", ())
    return tuple(known) or tuple(sorted({g.target for r in records for g in r.regions if g.mask is not None}))


def pairs_of(scene: Scene, vocabulary: Sequence[str]) -> list[Pair]:
    """The pairs of one image.

    A target that the image may show, but that its data set does not annotate, is in none of them: whether it is there
    is not known.

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
    for kind, words in ((MEANINGLESS_WORD, MEANINGLESS), (MEDICAL_WORD, OTHER_MEDICAL)):
        pairs += [Pair(word, kind) for word in unknown_words(words, vocabulary)]
    return pairs
