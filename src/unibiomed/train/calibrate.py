"""Presence and mask scores made to mean what they say, on the validation split."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from unibiomed.data.conversation import canonical_turns
from unibiomed.data.records import Record
from unibiomed.interpret.scores import calibrate
from unibiomed.metrics.classification import fit_platt
from unibiomed.model.cut import CUTS, mask_cut
from unibiomed.model.modeling import UniBiomedModel
from unibiomed.model.processing import UniBiomedProcessor
from unibiomed.tasks import SEG, make_question
from unibiomed.terminology import absent_targets

from .losses import soft_iou
from .packing import encode_turn, normalise_batch, pad
from .squares import read_square
from .store import ImageStore

FOREIGN = ""
"""Stands for the targets of other body parts, of which any number can be asked for: together they weigh as one."""


class Presence(NamedTuple):
    """What the model says of one target in one image of the validation split, and what is true."""

    logit: float
    """Of the presence score, before calibration."""
    peak: float
    """Of the mask, see `MaskPrediction.peak`."""
    present: bool
    target: str
    foreign: bool
    """Of another body part than the image shows."""


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
    progress: bool = True,
) -> tuple[list[Presence], list[Drawn]]:
    """Raw scores beside the truth, for every known target of `records` and one surely absent target each.

    Images that no store holds are read from the records, one at a time.

    Returns
    -------
    tuple
        What the model says of presence in each question, and of the mask of each target that is there.
    """
    model.eval()
    rng = random.Random(seed)
    presence: list[Presence] = []
    drawn: list[Drawn] = []
    tokens = processor.settings.tokens_per_tile
    for record in tqdm(records, desc="calibrating", unit="image", disable=None if progress else True):
        pixels, masks = (
            read_square(record, processor.settings.grounding_size) if store is None else store.load(record.key)
        )
        # the store leaves empty masks out; here they are what presence is measured against
        empty = np.zeros(pixels.shape[:2], dtype=bool)
        known = {j: masks[j] > 127 if j in masks else empty for j in range(len(record.regions))}
        turns = [t for t in canonical_turns(record, known) if t.task == "segment"]
        asked = [(t.question, t.masks[0], record.regions[t.masks[0]].target) for t in turns]
        if foreign := absent_targets(record.modality, record.site, {r.target for r in record.regions}):
            target = rng.choice(foreign)
            asked.append((make_question("segment", target=target, modality=record.modality), None, target))
        if not asked:
            continue
        batch = pad([encode_turn(processor, question, f"It is {SEG}.", tokens) for question, *_ in asked])
        features = model.encode_image(normalise_batch([torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255]))
        index = torch.zeros(len(asked), dtype=torch.long)
        out = model(batch["input_ids"], batch["attention_mask"], batch["labels"], features=features, image_index=index)
        peaks = out.masks.peak().tolist()
        for i, (_, region, target) in enumerate(asked):
            mask = None if region is None else masks.get(region)
            raw = float(out.masks.presence_logits[i])
            presence.append(Presence(raw, peaks[i], mask is not None, target, foreign=region is None))
            if mask is not None:
                truth = torch.from_numpy(mask.copy()).float()[None] / 255
                score = out.masks.quality[i].max().clamp(1e-4, 1 - 1e-4)
                logits = out.masks.best()[i : i + 1]
                ious = {cut: float(soft_iou(logits - mask_cut(logits, cut)[:, None, None], truth)) for cut in CUTS}
                drawn.append(Drawn(float(score.logit()), ious, target))
    return presence, drawn


def calibrate_scores(
    model: UniBiomedModel,
    processor: UniBiomedProcessor,
    store: ImageStore | None,
    records: Iterable[Record],
    seed: int,
    *,
    progress: bool = True,
) -> None:
    """Fit ``presence_calibration`` and ``mask_calibration`` (Platt, 1999) into the model's configuration.

    With them go ``presence_threshold`` and ``mask_cut``.
    """
    presence, drawn = collect_scores(model, processor, store, records, seed, progress=progress)
    if drawn:
        model.config.mask_cut = choose_cut(drawn)
        logits, ious = zip(*((mask.logit, mask.ious[model.config.mask_cut]) for mask in drawn), strict=True)
        model.config.mask_calibration = list(fit_platt(logits, ious))
    if presence:
        raw, peaks, truths, _, _ = zip(*presence, strict=True)
        fitted = list(fit_platt(raw, truths, peaks))
        scores = calibrate(torch.tensor(raw), fitted, torch.tensor(peaks)).numpy()
        model.config.presence_calibration = fitted
        # masks were drawn of the targets that are there, in their order
        masks = iter(drawn)
        dice = [_dice(next(masks).ious[model.config.mask_cut]) if there else None for there in truths]
        model.config.presence_threshold = choose_threshold(
            scores, dice, [FOREIGN if p.foreign else p.target for p in presence]
        )


def choose_cut(drawn: Sequence[Drawn]) -> str:
    """The one of `CUTS` with the higher Dice, the mean over targets; the published one where both are alike."""
    sizes = Counter(mask.target for mask in drawn)

    def dice(cut: str) -> float:
        return sum(_dice(m.ious[cut]) / sizes[m.target] for m in drawn) / len(sizes)

    return max(CUTS, key=dice)


def choose_threshold(scores: np.ndarray, dice: Sequence[float | None], targets: Sequence[str]) -> float:
    """Presence score below which a target is reported absent: the one with the highest strict Dice.

    Strictly, a target that is there and not shown has a Dice of 0, and so has a mask of one that is not; to say that it
    is absent has 1. The mean is over targets, so that rare ones count.

    Parameters
    ----------
    scores : numpy.ndarray
        (N,) in [0, 1].
    dice : sequence of float or None
        Of the mask, were it shown; None where the target is absent.
    targets : sequence of str
        What was asked for, `FOREIGN` for what belongs to another body part.

    Returns
    -------
    float
        In (0, 1]; one half where nothing is better, and halfway between two scores else.
    """
    if all(worth is None for worth in dice):
        return 0.5
    sizes = Counter(targets)
    gains = [(-1.0 if worth is None else worth) / sizes[t] for worth, t in zip(dice, targets, strict=True)]
    order = np.argsort(-scores, kind="stable")
    ranked = np.array([1.0, *scores[order].tolist(), 0.0])
    total = np.concatenate([[0.0], np.cumsum(np.array(gains)[order])])
    # after the n-th a cut can be made where the next score is lower
    upper, lower = ranked[:-1], ranked[1:]
    total[lower >= upper] = -np.inf
    best = np.flatnonzero(total >= total.max() - 1e-9)
    cuts = np.where((lower[best] < 0.5) & (upper[best] >= 0.5), 0.5, (lower[best] + upper[best]) / 2)
    return float(cuts[np.argmin(np.abs(cuts - 0.5))])


def _dice(iou: float) -> float:
    return 2 * iou / (1 + iou)
