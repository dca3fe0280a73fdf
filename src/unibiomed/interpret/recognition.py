"""Whether an image shows anything abnormal: the model's words weighed with its own masks.

A language model says "No findings" or names one from the whole of the image, and a small finding may escape it which
the mask decoder, asked for it by name, outlines at once. The odds of both are therefore multiplied. (Ours; the
published model's own words stand as they are.)
"""

from __future__ import annotations

import math

from unibiomed.model.generation import MAX_NEW_TOKENS, Answer
from unibiomed.tasks import NO_FINDINGS, is_no_findings

from .asking import Asker, EncodedImage
from .naming import word_logits
from .outlining import look_for

__all__ = ["FOUND", "found_logit", "weigh_findings"]

FOUND = 2.75
"""Logit above which something is found: the highest at which as many findings of the validation split are found as by
words alone (of 62 images without any, 3 in place of 4 then show one)."""
BEGIN = "It is"
"""First words of an answer that names a finding."""
LEAST = 1e-6


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
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> tuple[Answer, str | None]:
    """The answer of ``recognize`` after the masks of all that could be found have been asked.

    Parameters
    ----------
    asker : Asker
    encoded : EncodedImage
        Without a box.
    question : str
        What was asked.
    modality : str or None
        Where it is not known, nothing is weighed.
    free : Answer
        What the model wrote by itself.
    max_new_tokens : int
        Longest answer.

    Returns
    -------
    Answer
        `free`, or the other of naming a finding and denying any.
    str or None
        In the second case, a note that says so.
    """
    targets = asker.taught.sought(modality)
    if not (targets and asker.model.config.scores_trained):
        return free, None
    prompt = asker.processor.prompt_ids(question, encoded.tokens)
    (none,) = word_logits(asker.model, asker.processor, encoded.features, prompt, [NO_FINDINGS])
    outlines = look_for(asker, encoded, targets, modality)
    presence = max((outline.presence for outline in outlines.values() if outline), default=0.0)
    asker.check_numbers(math.isfinite(none) and math.isfinite(presence))
    there = found_logit(none, presence) > FOUND
    if there != is_no_findings(free.text):
        return free, None
    begin = BEGIN if there else NO_FINDINGS
    answer = asker.answer(encoded, [question], max_new_tokens=max_new_tokens, begin=begin)[0]
    return answer, f"by words alone there would be {'no' if there else 'a'} finding; the masks decided"
