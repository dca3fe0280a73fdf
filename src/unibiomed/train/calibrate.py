"""Presence and mask scores calibrated on the validation split, and the thresholds that follow from them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from unibiomed.data.conversation import canonical_turns
from unibiomed.data.records import Record
from unibiomed.interpret.scores import calibrate
from unibiomed.metrics.calibration import fit_platt
from unibiomed.model.cut import CUTS, mask_cut
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
ABSENT_ASKED = 16
"""Out-of-context targets that each image is asked for, drawn at random: all of them would take ten times as long."""
MAX_OUT_OF_CONTEXT = 0.01
"""Share of out-of-context targets that may be drawn on the validation split."""
MAX_IN_CONTEXT = 0.12
"""The same for targets that an image of that kind may show and this one does not, the mean over targets."""


class Presence(NamedTuple):
    """What the model says of one target in one image of the validation split, and what is true."""

    logit: float
    """Of the presence score, before calibration."""
    present: bool
    target: str
    out_of_context: bool
    """An image of this kind cannot show the target."""


class Drawn(NamedTuple):
    """A mask of a target that is there."""

    logit: float
    """Of the mask score, before calibration."""
    ious: dict[str, float]
    """IoU with the truth for each way to end a mask (`CUTS`)."""
    target: str


@torch.inference_mode()
def collect_scores(
    model: UniBiomedModel,
    processor: UniBiomedProcessor,
    store: ImageStore | None,
    records: Iterable[Record],
    seed: int,
    *,
    targets: Iterable[str] | None = None,
    progress: bool = True,
) -> tuple[list[Presence], list[Drawn]]:
    """Raw scores beside the truth: every known target of `records`, and targets that cannot be in such images.

    Images that no store holds are read from the records, one at a time.

    Parameters
    ----------
    model : UniBiomedModel
    processor : UniBiomedProcessor
    store : ImageStore or None
    records : iterable of Record
    seed : int
        Decides which out-of-context targets are asked for.
    targets : iterable of str, optional
        The model's vocabulary: others are not asked for. Every target of the terminology when left out.
    progress : bool
        Show a progress bar on a terminal.

    Returns
    -------
    tuple
        What the model says of presence in each question, and of the mask of each target that is there.
    """
    model.eval()
    rng = random.Random(seed)
    known_targets = None if targets is None else set(targets)
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
        if known_targets is not None:
            asked = [row for row in asked if row[2] in known_targets]
            others = tuple(target for target in others if target in known_targets)
        for target in rng.sample(others, min(ABSENT_ASKED, len(others))):
            asked.append((make_question("segment", target=target, modality=record.modality), None, target))
        if not asked:
            continue
        features = model.encode_image(normalise_batch([torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255]))
        prompts = question_prompts(model, processor, features, [question for question, *_ in asked])
        logits = _presence_logits(model, features.maps, prompts)
        for (_, region, target), raw in zip(asked, logits, strict=True):
            there = region is not None and region in masks
            presence.append(Presence(raw, there, target, out_of_context=region is None))
        shown = [(i, region, target) for i, (_, region, target) in enumerate(asked) if region in masks]
        if shown:
            drawn += _draw(model, features.maps, prompts, shown, masks)
    return presence, drawn


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
    assert predicted.quality is not None
    best = predicted.best()
    scores = predicted.quality.amax(1).clamp(1e-4, 1 - 1e-4).logit().tolist()
    drawn = []
    for logits, score, (_, region, target) in zip(best.split(1), scores, shown, strict=True):
        assert region is not None
        truth = torch.from_numpy(masks[region].copy()).float()[None] / 255
        ious = {cut: float(soft_iou(logits - mask_cut(logits, cut)[:, None, None], truth)) for cut in CUTS}
        drawn.append(Drawn(score, ious, target))
    return drawn


def calibrate_scores(
    model: UniBiomedModel,
    processor: UniBiomedProcessor,
    store: ImageStore | None,
    records: Iterable[Record],
    seed: int,
    *,
    targets: Iterable[str] | None = None,
    progress: bool = True,
) -> None:
    """Fit ``presence_calibration`` and ``mask_calibration`` (Platt, 1999) into the model's configuration.

    With them go ``presence_threshold`` and ``mask_cut``. Parameters are those of :func:`collect_scores`.
    """
    presence, drawn = collect_scores(model, processor, store, records, seed, targets=targets, progress=progress)
    if drawn:
        model.config.mask_cut = choose_cut(drawn)
        logits, ious = zip(*((mask.logit, mask.ious[model.config.mask_cut]) for mask in drawn), strict=True)
        model.config.mask_calibration = list(fit_platt(logits, ious))
    if presence:
        raw, truths, _, _ = zip(*presence, strict=True)
        fitted = list(fit_platt(raw, truths))
        scores = calibrate(torch.tensor(raw), fitted).numpy()
        model.config.presence_calibration = fitted
        # masks were drawn of the targets that are there, in their order
        masks = iter(drawn)
        dice = [_dice(next(masks).ious[model.config.mask_cut]) if there else None for there in truths]
        model.config.presence_threshold = choose_threshold(
            scores, dice, [OUT_OF_CONTEXT if p.out_of_context else p.target for p in presence]
        )


def choose_cut(drawn: Sequence[Drawn]) -> str:
    """The one of `CUTS` with the higher Dice, the mean over targets; the published one where both are alike."""
    sizes = Counter(mask.target for mask in drawn)

    def dice(cut: str) -> float:
        return sum(_dice(m.ious[cut]) / sizes[m.target] for m in drawn) / len(sizes)

    return max(CUTS, key=dice)


def choose_threshold(
    scores: np.ndarray,
    dice: Sequence[float | None],
    targets: Sequence[str],
    *,
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
    max_out_of_context, max_in_context : float
        Largest share of absent targets that may be drawn, in [0, 1]; of the second kind the mean over targets.

    Returns
    -------
    float
        In (0, 1]; one half where nothing is better, and halfway between two scores else.
    """
    if all(worth is None for worth in dice):
        return 0.5
    order = np.argsort(-scores, kind="stable")
    ranked = np.array([1.0, *scores[order].tolist(), 0.0])
    sizes = Counter(targets)
    gains = [(-1.0 if worth is None else worth) / sizes[t] for worth, t in zip(dice, targets, strict=True)]
    total = _running(gains, order)
    # after the n-th a threshold can lie where the next score is lower
    upper, lower = ranked[:-1], ranked[1:]
    total[lower >= upper] = -np.inf
    absent = Counter(t for t, worth in zip(targets, dice, strict=True) if worth is None)
    inside = len(absent.keys() - {OUT_OF_CONTEXT})
    for outside, most in ((True, max_out_of_context), (False, max_in_context)):
        shares = [
            (worth is None and (t == OUT_OF_CONTEXT) == outside) / max(absent[t] * (1 if outside else inside), 1)
            for worth, t in zip(dice, targets, strict=True)
        ]
        total[_running(shares, order) > most + 1e-9] = -np.inf
    if not np.isfinite(total).any():
        return 1.0
    best = np.flatnonzero(total >= total.max() - 1e-9)
    cuts = np.where((lower[best] < 0.5) & (upper[best] >= 0.5), 0.5, (lower[best] + upper[best]) / 2)
    return float(cuts[np.argmin(np.abs(cuts - 0.5))])


def _running(values: Sequence[float], order: np.ndarray) -> np.ndarray:
    """Sums of the first n values in an order, for n from 0."""
    sums: np.ndarray = np.concatenate([[0.0], np.cumsum(np.array(values, dtype=float)[order])])
    return sums


def _dice(iou: float) -> float:
    return 2 * iou / (1 + iou)
