"""What a drawn box holds: the names that a model was taught, weighed by its own words and by its own masks.

A language model that is told of a box may take a part for the whole, or a rare thing for a common one. But the model
can also outline each thing it was taught to see in such images, and the box of that outline should be the box that was
drawn. The probability of each name in words is therefore weighed with how well the target's mask fits the box. (Ours;
the published model's own words stand as they are.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import find_objects, label
from transformers import DynamicCache

from unibiomed.findings import Box
from unibiomed.model.cut import mask_cut
from unibiomed.model.generation import Answer
from unibiomed.model.modeling import ImageFeatures, UniBiomedModel
from unibiomed.model.processing import END, UniBiomedProcessor

from .scores import trained_scores

__all__ = ["Named", "Outline", "box_fit", "name_answers", "outline_targets", "rank_names"]

FIT_WEIGHT = 6.0
"""Logits that a mask gives whose box is the drawn one, where the target is surely there; by the validation split."""
PARTS = 64
"""Parts of a mask whose boxes are looked at, the largest."""


@dataclass(frozen=True)
class Outline:
    """Where a target lies: its (side, side) bool mask on the model's own square, and its presence score in [0, 1]."""

    mask: np.ndarray
    presence: float


@dataclass(frozen=True)
class Named:
    """What a box may hold.

    Attributes
    ----------
    answer : Answer
        In the words that the model was taught, with their probabilities.
    target : str or None
        What it is called as a target; None for words of the model's own.
    fit : float
        How well the target's mask fits the box, times its presence score; in [0, 1].
    probability : float
        Of all that it may hold, words and masks weighed together; in [0, 1].
    """

    answer: Answer
    target: str | None
    fit: float
    probability: float = 0.0


@torch.inference_mode()
def outline_targets(
    model: UniBiomedModel, features: ImageFeatures, prompts: Mapping[str, torch.Tensor]
) -> dict[str, Outline]:
    """Masks of targets and how surely they are there, for a model with trained scores.

    Parameters
    ----------
    model : UniBiomedModel
    features : ImageFeatures
        Of one image.
    prompts : mapping of str to torch.Tensor
        For each target, ``Answer.prompts``, of which the first counts; without any the target is left out.
    """
    firsts = {name: prompt[0] for name, prompt in prompts.items() if len(prompt)}
    if not firsts:
        return {}
    predicted = model.decode_masks(features.maps, torch.stack(list(firsts.values())))
    best = predicted.best()
    presence, _ = trained_scores(predicted, model.config)
    masks = (best > mask_cut(best, model.config.mask_cut)[:, None, None]).cpu().numpy()
    return {name: Outline(mask, score) for name, mask, score in zip(firsts, masks, presence, strict=True)}


@torch.inference_mode()
def name_answers(
    model: UniBiomedModel,
    processor: UniBiomedProcessor,
    features: ImageFeatures,
    prompt: Sequence[int],
    names: Sequence[str],
) -> list[Answer]:
    """What the model would have to write for each name, with the probability of each token.

    Parameters
    ----------
    model : UniBiomedModel
    processor : UniBiomedProcessor
    features : ImageFeatures
        Of one image, the box drawn on it.
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
    odds = model.mllm.lm_head(hidden[real]).float().softmax(-1)
    told = odds.gather(1, ids[real][:, None])[:, 0]
    parts = told.split([len(reply) for reply in replies])
    return [
        Answer(ids=reply, text=name + END, probabilities=part.tolist(), finished=True)
        for name, reply, part in zip(names, replies, parts, strict=True)
    ]


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
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    boxes.append((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))
    return max(_iou(own, box) for own in boxes)


def _iou(one: Sequence[float], other: Sequence[float]) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(wide, 0.0) * max(high, 0.0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / (areas - shared) if areas > shared else 0.0


def rank_names(
    own: Answer, answers: Sequence[Answer], targets: Mapping[str, str], fits: Mapping[str, float]
) -> list[Named]:
    """All that a box may hold, the likeliest first.

    Parameters
    ----------
    own : Answer
        What the model writes by itself; a candidate too.
    answers : sequence of Answer
        From :func:`name_answers`.
    targets : mapping of str to str
        The target of each name.
    fits : mapping of str to float
        How well each target's mask fits, times its presence score; in [0, 1].
    """
    texts = [answer.text.removesuffix(END).strip() for answer in answers]
    named = [
        Named(answer, targets[text], fits.get(targets[text], 0.0)) for answer, text in zip(answers, texts, strict=True)
    ]
    if own.text.removesuffix(END).strip() not in texts:
        named.append(Named(own, None, 0.0))
    words = [sum(np.log(max(p, 1e-12)) for p in n.answer.probabilities) for n in named]
    weighed = np.array(words) + FIT_WEIGHT * np.array([n.fit for n in named])
    odds = np.exp(weighed - weighed.max())
    odds /= odds.sum()
    ranked = [Named(n.answer, n.target, n.fit, float(p)) for n, p in zip(named, odds, strict=True)]
    return sorted(ranked, key=lambda n: -n.probability)
