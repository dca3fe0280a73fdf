"""Masks of ``[SEG]`` prompts on the image's own pixels; only those of targets that are present are decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from unibiomed.errors import InputError
from unibiomed.findings import MAX_DECODED_PIXELS
from unibiomed.model.generation import Answer
from unibiomed.model.mask_threshold import mask_threshold

from .asking import Asker, EncodedImage
from .outlining import MAX_QUESTIONS
from .scores import derived_scores, presence_scores, trained_scores
from .second_look import MOST_LOOKS, can_look_again, larger_side, look_again, part_width, worth_a_look

__all__ = ["DrawnMask", "draw_masks", "looked_again"]


@dataclass(frozen=True, slots=True)
class DrawnMask:
    """The mask of one ``[SEG]``.

    Attributes
    ----------
    mask : numpy.ndarray
        (height, width) bool on the image's own pixels; all False where it was not decoded.
    presence : float
        Presence score, in [0, 1].
    quality : float or None
        Mask score, in [0, 1]; None where the mask was not decoded.
    refined : bool
        A second look refined the mask.
    """

    mask: np.ndarray
    presence: float
    quality: float | None
    refined: bool = False


@dataclass(frozen=True, slots=True)
class _Pass:
    """What the first pass gave for one mask: logits (1, side, side), and the logit above which its pixels lie."""

    logits: torch.Tensor
    level: torch.Tensor


@torch.inference_mode()
def draw_masks(
    asker: Asker,
    encoded: EncodedImage,
    answers: Sequence[Answer],
    threshold: float = 0.0,
    *,
    second_look: bool = False,
) -> list[DrawnMask]:
    """Decode the masks of all ``[SEG]`` in some answers.

    Parameters
    ----------
    asker : Asker
    encoded : EncodedImage
    answers : sequence of Answer
    threshold : float
        A target with a lower presence score needs no mask, in [0, 1]: the mask is left out where the model can tell the
        score without it.
    second_look : bool
        Refine up to `MOST_LOOKS` masks that are made of small parts, the smallest, see :mod:`.second_look`. Only where
        :func:`.second_look.can_look_again` is true, and without a box drawn on the image.

    Returns
    -------
    list of DrawnMask
        In the order of the answers.

    Raises
    ------
    InputError
        The masks need too much memory.
    ModelError
        The model's values are not finite.
    """
    caught = [a.prompts for a in answers if a.prompts is not None and len(a.prompts)]
    if not caught:
        return []
    prompts = torch.cat(caught)
    height, width = encoded.image.height, encoded.image.width
    if len(prompts) * height * width > MAX_DECODED_PIXELS:
        raise InputError(
            f"{len(prompts)} masks of {width}x{height} pixels are too much for one answer: shrink the image first, "
            "or ask for fewer targets"
        )
    drawn: list[DrawnMask] = []
    passes: list[_Pass | None] = []
    # a model that repeats itself must not fill the memory
    for part in prompts.split(MAX_QUESTIONS):
        scores = presence_scores(asker.model, encoded.features.maps, part)
        if scores is None:
            for one, own in _decode(asker, encoded, part):
                drawn.append(one)
                passes.append(own)
            continue
        asker.check_numbers(bool(np.isfinite(scores).all()))
        needed = [score >= threshold for score in scores]
        decoded = iter(_decode(asker, encoded, part[torch.tensor(needed, device=part.device)]) if any(needed) else [])
        empty = DrawnMask(np.zeros((height, width), bool), 0.0, None), None
        for score, need in zip(scores, needed, strict=True):
            mask, first = next(decoded) if need else empty
            # the score that decided is the one that is shown: that of the other way may be rounded differently
            drawn.append(replace(mask, presence=score))
            passes.append(first)
    if second_look and encoded.box is None and can_look_again(asker.model.config, (height, width)):
        _refine(asker, encoded, prompts, passes, drawn, threshold)
    return drawn


def looked_again(asker: Asker, labels: Sequence[str], drawn: Sequence[DrawnMask]) -> dict[str, object]:
    """What the ``details`` of a result say of a second look: nothing where no mask was refined.

    Parameters
    ----------
    asker : Asker
    labels : sequence of str
        What each mask is of.
    drawn : sequence of DrawnMask
    """
    refined = list(dict.fromkeys(label for label, one in zip(labels, drawn, strict=True) if one.refined))
    return {"second_look": {"side": larger_side(asker.model.config.image_size), "refined": refined}} if refined else {}


def _refine(
    asker: Asker,
    encoded: EncodedImage,
    prompts: torch.Tensor,
    passes: Sequence[_Pass | None],
    drawn: list[DrawnMask],
    threshold: float,
) -> None:
    """Replace the masks in `drawn` that are made of small parts by what a second look at them gives."""
    widths: dict[int, float] = {}
    for number, (one, first) in enumerate(zip(drawn, passes, strict=True)):
        if first is not None and one.presence >= threshold:
            square = (first.logits[0] > first.level).cpu().numpy()
            if worth_a_look(square):
                widths[number] = part_width(square)
    finest = sorted(widths, key=lambda number: (widths[number], number))[:MOST_LOOKS]
    if not finest:
        return
    firsts = [first for number in finest if (first := passes[number]) is not None]
    looks = look_again(
        asker,
        encoded.image,
        prompts[finest],
        torch.cat([first.logits for first in firsts]),
        torch.stack([first.level for first in firsts]),
        [drawn[number].mask for number in finest],
        [drawn[number].quality or 0.0 for number in finest],
    )
    for number, look in zip(finest, looks, strict=True):
        if look is not None:
            drawn[number] = replace(drawn[number], mask=look.mask, quality=look.quality, refined=True)


def _decode(asker: Asker, encoded: EncodedImage, prompts: torch.Tensor) -> list[tuple[DrawnMask, _Pass]]:
    size = (encoded.image.height, encoded.image.width)
    config = asker.model.config
    predicted = asker.model.decode_masks(encoded.features.maps, prompts)
    best = predicted.best()
    asker.check_numbers(bool(torch.isfinite(best).all()))
    trained = trained_scores(predicted, config) if config.scores_trained else None
    levels = mask_threshold(best, config.mask_threshold)
    drawn: list[tuple[DrawnMask, _Pass]] = []
    # one at a time: at the image's own size they are large
    for number, (logits, level) in enumerate(zip(best.split(1), levels.sigmoid().tolist(), strict=True)):
        probabilities = asker.processor.mask_logits(logits, size).sigmoid_()
        mask = (probabilities[0] > level).cpu().numpy()
        presence, quality = derived_scores(probabilities) if trained is None else trained
        index = 0 if trained is None else number
        drawn.append((DrawnMask(mask, presence[index], quality[index]), _Pass(logits, levels[number])))
    return drawn
