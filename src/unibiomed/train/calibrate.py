"""Presence and mask scores calibrated on the validation split, and the thresholds that follow from them."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from unibiomed.data.conversation import canonical_turns
from unibiomed.data.records import Record
from unibiomed.interpret.scores import calibrate
from unibiomed.interpret.vocabulary import ModelVocabulary
from unibiomed.metrics.calibration import fit_platt
from unibiomed.model.mask_threshold import THRESHOLD_RULES, mask_threshold
from unibiomed.model.modeling import ImageFeatures, UniBiomedModel
from unibiomed.model.processing import UniBiomedProcessor
from unibiomed.tasks import SEG, make_question
from unibiomed.terminology import absent_targets

from .losses import soft_iou
from .packing import encode_turn, normalise_batch, pack
from .squares import read_square
from .store import ImageStore

OUT_OF_CONTEXT = ""
"""Stands for all targets that cannot be in an image of that kind: together they weigh as one target."""
ABSENT_ASKED = 8
"""Out-of-context targets that each image is asked for, drawn at random: all of them would take several times longer."""
# The goals on other images are 1 % and 12 %. Of version 8 of `nano`, with a threshold of 0.345, validation had
# 0.5 % out of context, and the test split with held-out data sets 1.0 %: most of these have no validation images, and
# sources that were never seen are worse by a factor of two. In context it was the other way round, 14.6 % of 206 on the
# validation split and 12.3 % of 138 on the test split (standard errors of 2.5 % and 2.8 %), so that no margin is taken
# there: with a limit of 10 %, the strict Dice of what is there was lower by 0.03.
MAX_OUT_OF_CONTEXT = 0.005
"""Share of out-of-context targets that may be drawn on the validation split."""
MAX_IN_CONTEXT = 0.12
"""The same for targets that an image of that kind may show and this one does not."""


class Presence(NamedTuple):
    """What the model says of one target in one image of the validation split, and what is true."""

    logit: float
    """Of the presence score, before calibration."""
    present: bool
    target: str
    out_of_context: bool
    """An image of this kind cannot show the target."""
    pairs: float = 1.0
    """Pairs of image and target that it stands for: of many out-of-context targets of one image, some are asked."""


class Drawn(NamedTuple):
    """A mask of a target that is there."""

    logit: float
    """Of the mask score, before calibration."""
    ious: dict[str, float]
    """IoU with the truth for each way to end a mask (`THRESHOLD_RULES`)."""
    target: str


class Scores(NamedTuple):
    """Raw scores of the images of the validation split."""

    presence: list[Presence]
    """One a question."""
    drawn: list[Drawn]
    """One for each target that is there, in the order of `presence`."""
    refused: int
    """Pairs out of context that are answered without the model, see :func:`collect_scores`."""


@torch.inference_mode()
def collect_scores(
    model: UniBiomedModel,
    processor: UniBiomedProcessor,
    store: ImageStore | None,
    records: Iterable[Record],
    seed: int,
    *,
    vocabulary: ModelVocabulary | None = None,
    progress: bool = True,
) -> Scores:
    """Raw scores beside the truth: every known target of `records`, and targets that cannot be in such images.

    Of the latter, :class:`~unibiomed.interpret.Interpreter` does not ask a model with a vocabulary for those that the
    modality alone excludes (:meth:`~unibiomed.interpret.vocabulary.ModelVocabulary.shows`). These are counted and not
    asked here either, so that a threshold is fitted to the questions that it decides: the targets of other body parts.

    Images that no store holds are read from the records, one at a time.

    Parameters
    ----------
    model : UniBiomedModel
    processor : UniBiomedProcessor
    store : ImageStore or None
    records : iterable of Record
    seed : int
        Decides which out-of-context targets are asked for.
    vocabulary : ModelVocabulary, optional
        Of the model: no other target is asked for. Without one, or without targets in it, every target of the
        terminology is, and none is refused.
    progress : bool
        Show a progress bar on a terminal.

    Returns
    -------
    Scores
    """
    model.eval()
    rng = random.Random(seed)
    vocabulary = vocabulary or ModelVocabulary()
    refused = 0
    presence: list[Presence] = []
    drawn: list[Drawn] = []
    for record in tqdm(records, desc="calibrating", unit="image", disable=None if progress else True):
        pixels, masks = (
            read_square(record, processor.settings.grounding_size) if store is None else store.load(record.key)
        )
        # the store leaves empty masks out; here they are what presence is measured against
        empty = np.zeros(pixels.shape[:2], dtype=bool)
        known = {j: masks[j] > 127 if j in masks else empty for j in range(len(record.regions))}
        turns = [t for t in canonical_turns(record, known) if t.task == "segment"]
        asked: list[tuple[str, int | None, str]] = [
            (t.question, t.masks[0], record.regions[t.masks[0]].target) for t in turns
        ]
        others = absent_targets(record.modality, record.site, [region.target for region in record.regions])
        if vocabulary.targets:
            asked = [row for row in asked if row[2] in vocabulary.targets]
            known_others = [target for target in others if target in vocabulary.targets]
            others = tuple(target for target in known_others if vocabulary.shows(target, record.modality))
            refused += len(known_others) - len(others)
        sampled = rng.sample(others, min(ABSENT_ASKED, len(others)))
        for target in sampled:
            asked.append((make_question("segment", target=target, modality=record.modality), None, target))
        if not asked:
            continue
        features = model.encode_image(normalise_batch([torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255]))
        prompts = question_prompts(model, processor, features, [question for question, *_ in asked])
        logits = _presence_logits(model, features.maps, prompts)
        for (_, region, target), raw in zip(asked, logits, strict=True):
            there = region is not None and region in masks
            outside = region is None
            pairs = len(others) / len(sampled) if outside else 1.0
            presence.append(Presence(raw, there, target, outside, pairs))
        shown = [(i, region, target) for i, (_, region, target) in enumerate(asked) if region in masks]
        if shown:
            drawn += _draw(model, features.maps, prompts, shown, masks)
    return Scores(presence, drawn, refused)


def question_prompts(
    model: UniBiomedModel, processor: UniBiomedProcessor, features: ImageFeatures, questions: Sequence[str]
) -> torch.Tensor:
    """Prompts of ``[SEG]`` in the answers to questions for one target each, the image read once for all.

    Parameters
    ----------
    model : UniBiomedModel
    processor : UniBiomedProcessor
    features : ImageFeatures
        Of one image.
    questions : sequence of str

    Returns
    -------
    torch.Tensor
        (questions, prompt width).
    """
    tokens = processor.settings.tokens_per_tile
    rows = pack([[encode_turn(processor, question, f"It is {SEG}.", tokens) for question in questions]])
    out = model(
        rows["input_ids"],
        rows["attention_mask"],
        rows["labels"],
        rows["position_ids"],
        features=features,
        seg_prompts=False,
    )
    states: torch.Tensor = out.seg_states
    assert len(states) == len(questions), "one [SEG] for each question"
    return states


def _presence_logits(model: UniBiomedModel, maps: tuple[torch.Tensor, ...], prompts: torch.Tensor) -> list[float]:
    if model.config.fine_masks:
        return model.presence_logits(maps, prompts).tolist()
    logits = model.decode_masks(maps, prompts).presence_logits
    assert logits is not None
    return logits.tolist()


def _draw(
    model: UniBiomedModel,
    maps: tuple[torch.Tensor, ...],
    prompts: torch.Tensor,
    shown: Sequence[tuple[int, int | None, str]],
    masks: Mapping[int, np.ndarray],
) -> list[Drawn]:
    """Masks of the targets that are there, in their order."""
    predicted = model.decode_masks(maps, prompts[[i for i, *_ in shown]])
    assert predicted.predicted_iou is not None
    best = predicted.best()
    scores = predicted.predicted_iou.amax(1).clamp(1e-4, 1 - 1e-4).logit().tolist()
    drawn = []
    for logits, score, (_, region, target) in zip(best.split(1), scores, shown, strict=True):
        assert region is not None
        truth = torch.from_numpy(masks[region].copy()).float()[None] / 255
        ious = {
            cut: float(soft_iou(logits - mask_threshold(logits, cut)[:, None, None], truth)) for cut in THRESHOLD_RULES
        }
        drawn.append(Drawn(score, ious, target))
    return drawn


def calibrate_scores(
    model: UniBiomedModel,
    processor: UniBiomedProcessor,
    store: ImageStore | None,
    records: Iterable[Record],
    seed: int,
    *,
    vocabulary: ModelVocabulary | None = None,
    progress: bool = True,
) -> None:
    """Fit ``presence_calibration`` and ``mask_calibration`` (Platt, 1999) into the model's configuration.

    With them go ``presence_threshold`` and ``mask_threshold``. Parameters are those of :func:`collect_scores`.
    """
    presence, drawn, refused = collect_scores(
        model, processor, store, records, seed, vocabulary=vocabulary, progress=progress
    )
    if drawn:
        model.config.mask_threshold = choose_cut(drawn)
        logits, ious = zip(*((mask.logit, mask.ious[model.config.mask_threshold]) for mask in drawn), strict=True)
        model.config.mask_calibration = list(fit_platt(logits, ious))
    if presence:
        raw, truths, *_ = zip(*presence, strict=True)
        fitted = list(fit_platt(raw, truths))
        scores = calibrate(torch.tensor(raw), fitted).numpy()
        model.config.presence_calibration = fitted
        # masks were drawn of the targets that are there, in their order
        masks = iter(drawn)
        dice = [_dice(next(masks).ious[model.config.mask_threshold]) if there else None for there in truths]
        model.config.presence_threshold = choose_threshold(
            scores,
            dice,
            [OUT_OF_CONTEXT if p.out_of_context else p.target for p in presence],
            pairs=[p.pairs for p in presence],
            refused=refused,
        )


def choose_cut(drawn: Sequence[Drawn]) -> str:
    """The one of `THRESHOLD_RULES` with the higher mean Dice over targets; the published rule if both are equal."""
    sizes = Counter(mask.target for mask in drawn)

    def dice(cut: str) -> float:
        return sum(_dice(m.ious[cut]) / sizes[m.target] for m in drawn) / len(sizes)

    return max(THRESHOLD_RULES, key=dice)


def choose_threshold(
    scores: np.ndarray,
    dice: Sequence[float | None],
    targets: Sequence[str],
    *,
    pairs: Sequence[float] | None = None,
    refused: int = 0,
    max_out_of_context: float = MAX_OUT_OF_CONTEXT,
    max_in_context: float = MAX_IN_CONTEXT,
) -> float:
    """Presence score below which a target is reported absent.

    Of the thresholds that draw few enough targets that are not there, it is the one with the highest strict Dice: a
    target that is there and not shown has a Dice of 0, and so has a mask of one that is not there; to say that it is
    absent has 1. The mean is over targets, so that rare ones count.

    Parameters
    ----------
    scores : numpy.ndarray
        (N,) in [0, 1].
    dice : sequence of float or None
        Of the mask, were it shown; None where the target is absent.
    targets : sequence of str
        What was asked for, `OUT_OF_CONTEXT` for what cannot be in such an image.
    pairs : sequence of float, optional
        Pairs of image and target that each question stands for; 1 when left out.
    refused : int
        Further pairs out of context, of which no mask is ever drawn.
    max_out_of_context, max_in_context : float
        Largest share of absent targets that may be drawn, in [0, 1]. It is that of all pairs, as in evaluation: most
        targets have fewer than five absent questions, which are too few for a mean over targets.

    Returns
    -------
    float
        In (0, 1]; one half where nothing is better, and halfway between two scores else.
    """
    if all(worth is None for worth in dice):
        return 0.5
    order = np.argsort(-scores, kind="stable")
    ranked = np.array([1.0, *scores[order].tolist(), 0.0])
    counted = np.ones(len(scores)) if pairs is None else np.array(pairs, dtype=float)
    sizes: dict[str, float] = defaultdict(float)
    absent: dict[str, float] = defaultdict(float)
    for target, worth, count in zip(targets, dice, counted.tolist(), strict=True):
        sizes[target] += count
        if worth is None:
            absent[target] += count
    if OUT_OF_CONTEXT in sizes:
        sizes[OUT_OF_CONTEXT] += refused
        absent[OUT_OF_CONTEXT] += refused
    gains = [(-1.0 if worth is None else worth) / sizes[t] for worth, t in zip(dice, targets, strict=True)]
    total = _running(counted * np.array(gains), order)
    # after the n-th a threshold can lie where the next score is lower
    upper, lower = ranked[:-1], ranked[1:]
    total[lower >= upper] = -np.inf
    for outside, most in ((True, max_out_of_context), (False, max_in_context)):
        kind = np.array([w is None and (t == OUT_OF_CONTEXT) == outside for w, t in zip(dice, targets, strict=True)])
        whole = sum(count for target, count in absent.items() if (target == OUT_OF_CONTEXT) == outside)
        total[_running(counted * kind, order) > (most + 1e-9) * whole] = -np.inf
    if not np.isfinite(total).any():
        return 1.0
    best = np.flatnonzero(total >= total.max() - 1e-9)
    cuts = np.where((lower[best] < 0.5) & (upper[best] >= 0.5), 0.5, (lower[best] + upper[best]) / 2)
    return float(cuts[np.argmin(np.abs(cuts - 0.5))])


def _running(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Sums of the first n values in an order, for n from 0."""
    sums: np.ndarray = np.concatenate([[0.0], np.cumsum(values[order])])
    return sums


def _dice(iou: float) -> float:
    return 2 * iou / (1 + iou)
