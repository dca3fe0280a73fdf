"""Whether an image shows anything abnormal: the model's words weighed with its own masks.

A language model says "No findings" or names one from the whole of the image, and a small finding may escape it which
the mask decoder, asked for it by name, outlines at once. The odds of both are therefore multiplied. (Ours; the
published model's own words stand as they are.)
"""

from __future__ import annotations

import math
from collections.abc import Callable

from unibiomed.model.generation import Answer
from unibiomed.tasks import NO_FINDINGS, SEG, is_no_findings

from .asking import Asker, EncodedImage
from .naming import word_logits
from .outlining import look_for

__all__ = ["FOUND", "found_logit", "weigh_findings"]

FOUND = 3.25
"""Logit above which something is found: the highest at which `nano` finds as many findings of its validation split as
by words alone (and of 62 images without any 3 in place of 4). What is trained from other data inherits it."""
BEGIN = "It is"
"""First words of an answer that names a finding."""
LEAST = 1e-6
"""Of a probability, so that its odds are a number."""


def found_logit(none_in_words: float, presence: float) -> float:
    """Logit of anything being there, by words and masks.

    Parameters
    ----------
    none_in_words : float
        Logarithm of the probability with which the model would write "No findings"; at most 0.
    presence : float
        Presence score of the surest target that would be a finding, in [0, 1].
    """
    none = min(max(math.exp(none_in_words), LEAST), 1 - LEAST)
    there = min(max(presence, LEAST), 1 - LEAST)
    return math.log((1 - none) / none) + math.log(there / (1 - there))


def weigh_findings(
    asker: Asker,
    encoded: EncodedImage,
    question: str,
    modality: str | None,
    free: Answer,
    again: Callable[[str], Answer],
) -> tuple[Answer, str | None]:
    """The answer of ``recognize`` after the masks of all that could be found have been asked.

    Parameters
    ----------
    asker : Asker
    encoded : EncodedImage
        Without a box.
    question : str
        What was asked, in the task's own words.
    modality : str or None
        Where it is not known, nothing is weighed.
    free : Answer
        What the model wrote by itself; it stands where it was cut, or neither points at a finding nor denies any.
    again : callable
        Has the model answer the same question from given first words on.

    Returns
    -------
    Answer
        `free`, or the other of naming a finding and denying any.
    str or None
        In the second case, a note that says so.

    Raises
    ------
    ModelError
        If the model's values are not numbers.
    """
    targets = asker.taught.sought(modality)
    denied = is_no_findings(free.text)
    if not (targets and asker.model.config.scores_trained and free.finished and (denied or SEG in free.text)):
        return free, None
    prompt = asker.processor.prompt_ids(question, encoded.tokens)
    (none,) = word_logits(asker.model, asker.processor, encoded.features, prompt, [NO_FINDINGS])
    outlines = look_for(asker, encoded, targets, modality)
    presences = [outline.presence for outline in outlines.values() if outline]
    asker.check_numbers(all(map(math.isfinite, (none, *presences))))
    there = found_logit(none, max(presences, default=0.0)) > FOUND
    if there != denied:
        return free, None
    note = f"by words alone there would be {'no' if there else 'a'} finding; the masks decided"
    return again(BEGIN if there else NO_FINDINGS), note
