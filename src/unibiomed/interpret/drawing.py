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

__all__ = ["DrawnMask", "draw_masks"]


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
    """

    mask: np.ndarray
    presence: float
    quality: float | None


@torch.inference_mode()
def draw_masks(
    asker: Asker, encoded: EncodedImage, answers: Sequence[Answer], threshold: float = 0.0
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
    # a model that repeats itself must not fill the memory
    for part in prompts.split(MAX_QUESTIONS):
        scores = presence_scores(asker.model, encoded.features.maps, part)
        if scores is None:
            drawn += _decode(asker, encoded, part)
            continue
        asker.check_numbers(bool(np.isfinite(scores).all()))
        needed = [score >= threshold for score in scores]
        decoded = iter(_decode(asker, encoded, part[torch.tensor(needed, device=part.device)]) if any(needed) else [])
        empty = DrawnMask(np.zeros((height, width), bool), 0.0, None)
        # the score that decided is the one that is shown: that of the other way may be rounded differently
        drawn += [
            replace(next(decoded) if need else empty, presence=score)
            for score, need in zip(scores, needed, strict=True)
        ]
    return drawn


def _decode(asker: Asker, encoded: EncodedImage, prompts: torch.Tensor) -> list[DrawnMask]:
    size = (encoded.image.height, encoded.image.width)
    config = asker.model.config
    predicted = asker.model.decode_masks(encoded.features.maps, prompts)
    best = predicted.best()
    asker.check_numbers(bool(torch.isfinite(best).all()))
    trained = trained_scores(predicted, config) if config.scores_trained else None
    levels = mask_threshold(best, config.mask_threshold).sigmoid().tolist()
    drawn: list[DrawnMask] = []
    # one at a time: at the image's own size they are large
    for number, (logits, level) in enumerate(zip(best.split(1), levels, strict=True)):
        probabilities = asker.processor.mask_logits(logits, size).sigmoid_()
        mask = (probabilities[0] > level).cpu().numpy()
        presence, quality = derived_scores(probabilities) if trained is None else trained
        index = 0 if trained is None else number
        drawn.append(DrawnMask(mask, presence[index], quality[index]))
    return drawn
