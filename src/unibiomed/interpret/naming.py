"""What a drawn box holds: the names that a model was trained with, weighed by its own words and by its own masks.

A language model that is told of a box may take a part for the whole, or a rare thing for a common one. But the model
can also outline each target of such images, and the box of that outline should be the box that was
drawn. The probability of each name in words is therefore weighed with how well the target's mask fits the box. (Ours;
the published model's own words stand as they are.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.ndimage import find_objects, label
from transformers import DynamicCache

from unibiomed.findings import Box, mask_box
from unibiomed.images.geometry import box_iou
from unibiomed.model.mask_threshold import mask_threshold
from unibiomed.model.modeling import ImageFeatures, UniBiomedModel
from unibiomed.model.processing import END, UniBiomedProcessor
from unibiomed.tasks import read_class

from .scores import presence_scores, trained_scores

__all__ = ["Name", "Outline", "box_fit", "outline_targets", "rank_names", "word_logits"]

PARTS = 64
"""Parts of a mask whose boxes are looked at, the largest."""


@dataclass(frozen=True)
class Outline:
    """Where a target lies.

    Attributes
    ----------
    mask : numpy.ndarray or None
        (side, side) bool on the model's own square; None where it was not decoded.
    presence : float
        Presence score, in [0, 1].
    prompt : torch.Tensor or None
        (prompt width,), from which the mask can be decoded later.
    """

    mask: np.ndarray | None
    presence: float
    prompt: torch.Tensor | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Name:
    """What a box may hold.

    Attributes
    ----------
    label : str
        Such as "liver".
    words : str
        The answer of the training, such as "liver in abdomen CT".
    probability : float
        Of all that it may hold, words and masks weighed together; in [0, 1].
    in_words : float
        The same by words alone.
    """

    label: str
    words: str
    probability: float
    in_words: float


@torch.inference_mode()
def outline_targets(
    model: UniBiomedModel, features: ImageFeatures, prompts: Mapping[str, torch.Tensor], least: float = 0.0
) -> dict[str, Outline]:
    """Masks of targets and how surely they are there, for a model with trained scores.

    Parameters
    ----------
    model : UniBiomedModel
    features : ImageFeatures
        Of one image.
    prompts : mapping of str to torch.Tensor
        For each target, ``Answer.prompts``, of which the first counts; without any the target is left out.
    least : float
        A target with a lower presence score gets no mask where the model can tell the score without it.
    """
    firsts = {name: prompt[0] for name, prompt in prompts.items() if len(prompt)}
    if not firsts:
        return {}
    stacked = torch.stack(list(firsts.values()))
    known = presence_scores(model, features.maps, stacked)
    outlines = {} if known is None else {n: Outline(None, s, firsts[n]) for n, s in zip(firsts, known, strict=True)}
    drawn = [name for name in firsts if known is None or outlines[name].presence >= least]
    if drawn:
        predicted = model.decode_masks(features.maps, torch.stack([firsts[name] for name in drawn]))
        best = predicted.best()
        masks = (best > mask_threshold(best, model.config.mask_threshold)[:, None, None]).cpu().numpy()
        scores = trained_scores(predicted, model.config)[0] if known is None else [outlines[n].presence for n in drawn]
        for name, mask, score in zip(drawn, masks, scores, strict=True):
            outlines[name] = Outline(mask, score, firsts[name])
    return outlines


@torch.inference_mode()
def word_logits(
    model: UniBiomedModel,
    processor: UniBiomedProcessor,
    features: ImageFeatures,
    prompt: Sequence[int],
    names: Sequence[str],
) -> list[float]:
    """Logarithm of the probability with which the model would write each name, and nothing more.

    Parameters
    ----------
    model : UniBiomedModel
    processor : UniBiomedProcessor
    features : ImageFeatures
        Of one image, with the box where the question is about one.
    prompt : sequence of int
        The question.
    names : sequence of str
        Whole answers, such as "liver in abdomen CT".
    """
    replies = [processor.encode(name + END) for name in names]
    longest = max(map(len, replies))
    pad = model.config.mllm_config.text_config.eos_token_id
    ids = torch.tensor([[*reply, *[pad] * (longest - len(reply))] for reply in replies], device=model.device)
    read = model.mllm.model.language_model
    cache = DynamicCache(config=model.config.mllm_config.text_config)
    question = model.embed(torch.tensor([list(prompt)], device=model.device), features.tokens)
    # the question is read once; padding stands behind what counts, where no token can see it
    first = read(inputs_embeds=question, past_key_values=cache, use_cache=True).last_hidden_state[:, -1:]
    cache.batch_repeat_interleave(len(names))
    rest = read(inputs_embeds=model.embed(ids[:, :-1]), past_key_values=cache, use_cache=True).last_hidden_state
    hidden = torch.cat([first.expand(len(names), -1, -1), rest], 1)
    real = torch.arange(longest, device=model.device) < torch.tensor([[len(r)] for r in replies], device=model.device)
    odds = model.mllm.lm_head(hidden[real]).float().log_softmax(-1)
    told = odds.gather(1, ids[real][:, None])[:, 0]
    return [float(part.sum()) for part in told.split([len(reply) for reply in replies])]


def box_fit(mask: np.ndarray, box: Sequence[float]) -> float:
    """IoU of a box with the box of a mask, or of that one of its parts which fits best.

    Parameters
    ----------
    mask : numpy.ndarray
        (height, width) bool.
    box : sequence of float
        x0, y0, x1, y1 in pixels of the mask, the last two exclusive.

    Returns
    -------
    float
        In [0, 1]; 0 for an empty mask.
    """
    numbered, count = label(mask)
    if not count:
        return 0.0
    places = find_objects(numbered)
    places.sort(key=lambda place: -(place[0].stop - place[0].start) * (place[1].stop - place[1].start))
    boxes: list[Box] = [(x.start, y.start, x.stop, y.stop) for y, x in places[:PARTS]]
    whole = mask_box(mask)
    assert whole is not None, "a mask with parts has pixels"
    return max(box_iou(own, box) for own in (*boxes, whole))


def rank_names(
    words: Mapping[str, float],
    targets: Mapping[str, str],
    fits: Mapping[str, float],
    *,
    fit_weight: float,
    something_else_offset: float,
) -> list[Name]:
    """All that a box may hold, the likeliest first; answers that name the same are one.

    Parameters
    ----------
    words : mapping of str to float
        Answers with the logarithm of their probability, from :func:`word_logits`.
    targets : mapping of str to str
        The target of each answer; empty for "something else", which no mask speaks for.
    fits : mapping of str to float
        How well each target's mask fits, times its presence score; in [0, 1].
    fit_weight : float
        Logits that a fit of 1 adds to the words, see ``UniBiomedConfig.box_fit_weight``.
    something_else_offset : float
        Logits added to the words of "something else", see ``UniBiomedConfig.something_else_offset``.

    Raises
    ------
    ValueError
        A number is not finite.
    """
    logits = np.array(list(words.values()))
    masks = np.array([fits.get(targets[answer], 0.0) for answer in words])
    if not (np.isfinite(logits).all() and np.isfinite(masks).all()):
        raise ValueError("words or masks of a box are not numbers")
    offsets = np.array([0.0 if targets[answer] else something_else_offset for answer in words])
    weighed, alone = _shares(logits + fit_weight * masks + offsets), _shares(logits)
    named: dict[str, list[int]] = {}
    for i, answer in enumerate(words):
        named.setdefault(read_class(answer), []).append(i)
    answers = list(words)
    ranked = [
        Name(label, answers[max(rows, key=lambda i: weighed[i])], float(weighed[rows].sum()), float(alone[rows].sum()))
        for label, rows in named.items()
    ]
    return sorted(ranked, key=lambda name: -name.probability)


def _shares(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits - logits.max())
    shares: np.ndarray = odds / odds.sum()
    return shares
