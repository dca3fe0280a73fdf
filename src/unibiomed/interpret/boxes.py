"""Name what a drawn box holds, and have it described under that name."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from unibiomed.findings.regions import RegionFacts, describe_region
from unibiomed.model.generation import Answer
from unibiomed.tasks import clean_text, make_question

from .asking import Asker, EncodedImage, ImageLike
from .naming import Name, box_fit, rank_names, word_logits
from .outlining import in_parts, look_for

__all__ = ["describe_box", "facts_in_box", "name_box", "without_box", "words_overruled"]

LEAST_FIT = 0.01
"""Presence below which a mask is not compared with a box: it could add at most this part of the weight of a fit."""


def name_box(
    asker: Asker, image: ImageLike | EncodedImage, boxed: EncodedImage, modality: str | None, said: str | None = None
) -> list[Name]:
    """What a box may hold, the likeliest first; nothing where it is not known what the model was trained with.

    Parameters
    ----------
    asker : Asker
    image : path, array, PIL image, MedicalImage or EncodedImage
        Without a box; where it is encoded, it is not looked at again.
    boxed : EncodedImage
        With the box drawn on it.
    modality : str or None
    said : str, optional
        The model's own answer, where it was asked what the box holds.
    """
    box, question = boxed.box, make_question("classify", modality=modality)
    assert box is not None, "no box was drawn"
    if not (asker.vocabulary.regions and asker.model.config.scores_trained):
        return []
    if modality is None and said is None:
        said = clean_text(asker.answer(boxed, [question])[0].text)
    targets = asker.vocabulary.held(modality, said or "")
    if len(targets) < 2:
        return []
    fits: dict[str, float] = {}
    # where all are names of one target, its mask cannot tell them apart; "something else" has no target
    if len(set(targets.values())) > 1:
        wanted = sorted({name for name in targets.values() if name})
        for name, outline in look_for(
            asker, without_box(asker, image, boxed), wanted, modality, least=LEAST_FIT
        ).items():
            if outline and outline.mask is not None:
                down, right = outline.mask.shape[0] / boxed.image.height, outline.mask.shape[1] / boxed.image.width
                scaled = (box[0] * right, box[1] * down, box[2] * right, box[3] * down)
                fits[name] = outline.presence * box_fit(outline.mask, scaled)
    prompt = asker.processor.prompt_ids(question, boxed.tokens)
    words: dict[str, float] = {}
    for part in in_parts(list(targets)):
        words |= dict(zip(part, word_logits(asker.model, asker.processor, boxed.features, prompt, part), strict=True))
    asker.check_numbers(all(map(math.isfinite, (*fits.values(), *words.values()))))
    config = asker.model.config
    return rank_names(
        words,
        targets,
        fits,
        fit_weight=config.box_fit_weight,
        something_else_offset=config.something_else_offset,
    )


def facts_in_box(
    asker: Asker,
    image: ImageLike | EncodedImage,
    boxed: EncodedImage,
    modality: str | None,
    label: str,
    threshold: float,
) -> RegionFacts | None:
    """What the mask of a box's target shows within the box.

    Parameters
    ----------
    asker, image, boxed, modality
        As for :func:`name_box`.
    label : str
        What the box is called, such as "liver".
    threshold : float
        Presence score below which the target is not in the image, in [0, 1].

    Returns
    -------
    RegionFacts or None
        On the image's own pixels; the patient's side is left out. None where the target has no mask within the box.
    """
    assert boxed.box is not None, "no box was drawn"
    target = asker.vocabulary.target_of(label, modality)
    if not (target and asker.model.config.scores_trained):
        return None
    outline = look_for(asker, without_box(asker, image, boxed), [target], modality, least=threshold)[target]
    if outline is None or outline.mask is None or outline.presence < threshold:
        return None
    x0, y0, x1, y1 = boxed.box
    size = (boxed.image.width, boxed.image.height)
    whole = np.asarray(Image.fromarray(outline.mask.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)) > 0.5
    inside = np.zeros_like(whole)
    inside[y0:y1, x0:x1] = whole[y0:y1, x0:x1]
    facts = describe_region(inside, modality=modality or "", site="", spacing=boxed.image.spacing)
    return None if facts.empty else facts


def without_box(asker: Asker, image: ImageLike | EncodedImage, boxed: EncodedImage) -> EncodedImage:
    """The image as it is, looked at once for all that is asked about the box."""
    if isinstance(image, EncodedImage) and image.box is None:
        return image
    if boxed.unboxed is None:
        boxed.unboxed = asker.encode(boxed.image)
    return boxed.unboxed


def words_overruled(label: str) -> str:
    """The note on a box that the words alone would have called `label`."""
    return f"named from mask evidence (the text said '{label}')"


def describe_box(
    asker: Asker,
    image: ImageLike | EncodedImage,
    boxed: EncodedImage,
    modality: str | None,
    free: Answer,
    again: Callable[[str], Answer],
) -> tuple[Answer, list[Name], str | None]:
    """A description that begins with the same name as `classify` gives the box.

    Descriptions of the training begin with a name ("Kidney. A small, oval kidney in ..."). Where it is not
    the one that masks and words together tell, the model writes its description anew, from that name on.

    Parameters
    ----------
    asker, image, boxed, modality
        As for :func:`name_box`.
    free : Answer
        What the model wrote by itself.
    again : callable
        Has the model answer the same question from given first words on.

    Returns
    -------
    Answer
    list of Name
        As of :func:`name_box`; empty where the description begins with none of them, and stands as it is.
    str or None
        Where it was written anew, a note that says so.
    """
    begun = clean_text(free.text).split(".")[0].strip().casefold()
    if begun not in asker.vocabulary.labels:
        return free, [], None
    names = name_box(asker, image, boxed, modality)
    told = next((name.label for name in names if name.label.casefold() == begun), None)
    if told is None:
        return free, [], None
    label = names[0].label
    if told == label:
        return free, names, None
    return again(f"{label[:1].upper()}{label[1:]}."), names, words_overruled(told)
