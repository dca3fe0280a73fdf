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
from unibiomed.data.phrasing import foreign_targets
from unibiomed.data.records import Record
from unibiomed.interpret.scores import calibrate
from unibiomed.metrics.classification import fit_platt
from unibiomed.model.cut import CUTS, mask_cut
from unibiomed.model.modeling import UniBiomedModel
from unibiomed.model.processing import UniBiomedProcessor
from unibiomed.tasks import SEG, make_question

from .losses import soft_iou
from .packing import encode_turn, normalise_batch, pad
from .squares import read_square
from .store import ImageStore

MISSED = 0.05
"""Share of the images with a target that the presence threshold may miss, the mean over targets."""
FALSE = 0.1
"""Share of the absent targets that it may find for that, those of the image's own kind and the others weighed alike."""


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
        if foreign := foreign_targets(record.modality, record.site):
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
    if presence:
        logits, peaks, truths, targets, foreign = zip(*presence, strict=True)
        fitted = list(fit_platt(logits, truths, peaks))
        scores = calibrate(torch.tensor(logits), fitted, torch.tensor(peaks)).numpy()
        model.config.presence_calibration = fitted
        model.config.presence_threshold = choose_threshold(scores, np.array(truths), targets, np.array(foreign))
    if drawn:
        model.config.mask_cut = choose_cut(drawn)
        logits, ious = zip(*((mask.logit, mask.ious[model.config.mask_cut]) for mask in drawn), strict=True)
        model.config.mask_calibration = list(fit_platt(logits, ious))


def choose_cut(drawn: Sequence[Drawn]) -> str:
    """The one of `CUTS` with the higher Dice, the mean over targets; the published one where both are alike."""
    sizes = Counter(mask.target for mask in drawn)

    def dice(cut: str) -> float:
        return sum(2 * m.ious[cut] / (1 + m.ious[cut]) / sizes[m.target] for m in drawn) / len(sizes)

    return max(CUTS, key=dice)


def choose_threshold(scores: np.ndarray, present: np.ndarray, targets: Sequence[str], foreign: np.ndarray) -> float:
    """Presence score below which a target is reported absent.

    A missed finding is worse than a false one, which its score still tells: below one half where that is needed to
    miss one image in twenty at most, the mean over targets, so that rare ones count. But not so low that more than one
    in ten of the absent targets gets a mask; those of other body parts, of which any number can be asked for, weigh
    together as much as the image's own.

    Parameters
    ----------
    scores : numpy.ndarray
        (N,) in [0, 1].
    present : numpy.ndarray
        (N,) bool.
    targets : sequence of str
        What was asked for.
    foreign : numpy.ndarray
        (N,) bool: of another body part.

    Returns
    -------
    float
        In [0, 0.5].
    """
    if not present.any():
        return 0.5
    lowest = _first_above(MISSED, scores[present], np.array(targets)[present])
    # from the other end: that many may lie above it
    least = 0.0 if present.all() else -_first_above(FALSE, -scores[~present], foreign[~present])
    return min(0.5, max(lowest, least))


def _first_above(share: float, scores: np.ndarray, groups: np.ndarray) -> float:
    """The lowest score at and below which more than a share lies, the mean over groups."""
    sizes = Counter(groups.tolist())
    order = np.argsort(scores, kind="stable")
    below = np.cumsum([1 / sizes[group] / len(sizes) for group in groups[order].tolist()])
    # sums of fractions are not exact, nor has the last one to be 1
    place = int(np.searchsorted(below, share + 1e-9, side="right"))
    return float(scores[order[min(place, len(order) - 1)]])
