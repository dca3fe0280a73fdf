"""Whether an image shows anything abnormal: the model's words weighed with its own masks.

A language model says "No findings" or names one from the whole of the image, and a small finding may escape it which
the mask decoder, asked for it by name, outlines at once. The odds of both are therefore multiplied. (Ours; the
published model's own words stand as they are.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from unibiomed.findings import SearchedTarget
from unibiomed.model.generation import Answer
from unibiomed.tasks import NO_FINDINGS, SEG, is_no_findings

from .asking import Asker, EncodedImage
from .naming import word_logits
from .outlining import look_for

__all__ = ["WeighedAnswer", "found_logit", "search_findings", "surest_answer", "weigh_findings", "weigh_words"]

BEGIN = "It is"
"""First words of an answer that names a finding."""
LEAST = 1e-6
"""Of a probability, so that its odds are a number."""


@dataclass(frozen=True, slots=True)
class WeighedAnswer:
    """The answer of ``recognize`` after words and masks were weighed.

    Attributes
    ----------
    answer : Answer
        As the model wrote it, or the other of naming a finding and denying any.
    note : str or None
        In the second case, a note that says so.
    searched : tuple of SearchedTarget
        The targets that were searched, with their presence, the surest first.
    found : bool
        Whether words and masks together say that there is a finding; False where they were not weighed.
    """

    answer: Answer
    note: str | None = None
    searched: tuple[SearchedTarget, ...] = ()
    found: bool = False


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
) -> WeighedAnswer:
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
    WeighedAnswer

    Raises
    ------
    ModelError
        If the model's values are not numbers.
    """
    denied = is_no_findings(free.text)
    if not (free.finished and (denied or SEG in free.text)):
        return WeighedAnswer(free)
    weighed = weigh_words(asker, encoded, question, modality)
    if weighed is None:
        return WeighedAnswer(free)
    logit, searched = weighed
    there = logit > asker.model.config.finding_threshold_in(modality)
    if there != denied:
        return WeighedAnswer(free, None, searched, there)
    note = (
        f"finding added from mask evidence (the text said '{NO_FINDINGS}')"
        if there
        else "finding removed for lack of mask evidence (the text named one)"
    )
    return WeighedAnswer(again(BEGIN if there else NO_FINDINGS), note, searched, there)


def surest_answer(
    encoded: EncodedImage, weighed: WeighedAnswer, modality: str | None, threshold: float
) -> Answer | None:
    """The surest target as an answer, for words that name nothing that is there although something was found.

    Parameters
    ----------
    encoded : EncodedImage
        In which the targets were searched.
    weighed : WeighedAnswer
    modality : str or None
    threshold : float
        Presence score below which a target is reported absent, in [0, 1].

    Returns
    -------
    Answer or None
        Not in the model's own words; None where nothing was found, or no target is surely there.
    """
    surest = next(iter(weighed.searched), None)
    if not weighed.found or surest is None or (surest.presence or 0.0) < threshold:
        return None
    outline = encoded.outlines.get((modality, surest.label))
    if outline is None or outline.prompt is None:
        return None
    label = surest.label[:1].upper() + surest.label[1:]
    return Answer(text=f"{BEGIN} {SEG}. {label}", prompts=outline.prompt[None], finished=True)


def weigh_words(
    asker: Asker, encoded: EncodedImage, question: str, modality: str | None
) -> tuple[float, tuple[SearchedTarget, ...]] | None:
    """Logit of anything abnormal being there, by words and masks, and the targets that were searched for it.

    Parameters
    ----------
    asker : Asker
    encoded : EncodedImage
        Without a box.
    question : str
        That of ``recognize``, in the task's own words.
    modality : str or None

    Returns
    -------
    tuple or None
        See :func:`found_logit` and :func:`search_findings`; None where nothing can be searched.

    Raises
    ------
    ModelError
        If the model's values are not finite.
    """
    searched = search_findings(asker, encoded, modality)
    if not searched:
        return None
    prompt = asker.processor.prompt_ids(question, encoded.tokens)
    (none,) = word_logits(asker.model, asker.processor, encoded.features, prompt, [NO_FINDINGS])
    asker.check_numbers(math.isfinite(none))
    return found_logit(none, max(target.presence or 0.0 for target in searched)), searched


def search_findings(asker: Asker, encoded: EncodedImage, modality: str | None) -> tuple[SearchedTarget, ...]:
    """Presence of every target that would be abnormal in an image of this modality.

    Parameters
    ----------
    asker : Asker
    encoded : EncodedImage
        Without a box.
    modality : str or None

    Returns
    -------
    tuple of SearchedTarget
        The likeliest first; empty where the modality or the vocabulary is not known, or presence was not trained.

    Raises
    ------
    ModelError
        If the model's values are not finite.
    """
    targets = asker.vocabulary.sought(modality)
    if not (targets and asker.model.config.scores_trained):
        return ()
    # presence alone counts here: masks are only decoded where presence cannot be told without them
    outlines = look_for(asker, encoded, targets, modality, least=math.inf)
    presences = {name: outline.presence if outline else 0.0 for name, outline in outlines.items()}
    asker.check_numbers(all(map(math.isfinite, presences.values())))
    return tuple(SearchedTarget(name, presences[name]) for name in sorted(presences, key=lambda n: -presences[n]))
