"""Presence and mask scores made to mean what they say, on the validation split."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable

import numpy as np
import torch
from tqdm import tqdm

from unibiomed.data.conversation import canonical_turns
from unibiomed.data.phrasing import foreign_targets
from unibiomed.data.records import Record
from unibiomed.metrics.classification import fit_platt
from unibiomed.model.modeling import UniBiomedModel
from unibiomed.model.processing import UniBiomedProcessor
from unibiomed.tasks import SEG, make_question

from .losses import soft_iou
from .packing import encode_turn, normalise_batch, pad
from .squares import read_square
from .store import ImageStore

MISSED = 0.05
"""Share of the targets that are there which the presence threshold may miss on the validation split."""


@torch.inference_mode()
def collect_scores(
    model: UniBiomedModel,
    processor: UniBiomedProcessor,
    store: ImageStore | None,
    records: Iterable[Record],
    seed: int,
    *,
    progress: bool = True,
) -> tuple[list[tuple[float, float, bool]], list[tuple[float, float]]]:
    """Raw scores beside the truth, for every known target of `records` and one surely absent target each.

    Images that no store holds are read from the records, one at a time.

    Returns
    -------
    tuple
        (presence logit, peak of the mask, present) for each question, and (quality logit, IoU) for each target that is
        there.
    """
    model.eval()
    rng = random.Random(seed)
    presence: list[tuple[float, float, bool]] = []
    quality: list[tuple[float, float]] = []
    tokens = processor.settings.tokens_per_tile
    for record in tqdm(records, desc="calibrating", unit="image", disable=None if progress else True):
        pixels, masks = (
            read_square(record, processor.settings.grounding_size) if store is None else store.load(record.key)
        )
        # the store leaves empty masks out; here they are what presence is measured against
        empty = np.zeros(pixels.shape[:2], dtype=bool)
        known = {j: masks[j] > 127 if j in masks else empty for j in range(len(record.regions))}
        turns = [t for t in canonical_turns(record, known) if t.task == "segment"]
        asked = [(t.question, t.masks[0]) for t in turns]
        if foreign := foreign_targets(record.modality, record.site):
            asked.append((make_question("segment", target=rng.choice(foreign), modality=record.modality), None))
        if not asked:
            continue
        batch = pad([encode_turn(processor, question, f"It is {SEG}.", tokens) for question, _ in asked])
        features = model.encode_image(normalise_batch([torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255]))
        index = torch.zeros(len(asked), dtype=torch.long)
        out = model(batch["input_ids"], batch["attention_mask"], batch["labels"], features=features, image_index=index)
        peaks = out.masks.peak().tolist()
        for i, (_, region) in enumerate(asked):
            mask = None if region is None else masks.get(region)
            presence.append((float(out.masks.presence_logits[i]), peaks[i], mask is not None))
            if mask is not None:
                truth = torch.from_numpy(mask.copy()).float()[None] / 255
                score = out.masks.quality[i].max().clamp(1e-4, 1 - 1e-4)
                quality.append((float(score.logit()), float(soft_iou(out.masks.best()[i : i + 1], truth))))
    return presence, quality


def calibrate_scores(
    model: UniBiomedModel,
    processor: UniBiomedProcessor,
    store: ImageStore | None,
    records: Iterable[Record],
    seed: int,
    *,
    progress: bool = True,
) -> None:
    """Fit ``presence_calibration`` and ``mask_calibration`` (Platt, 1999) into the model's configuration."""
    presence, quality = collect_scores(model, processor, store, records, seed, progress=progress)
    if presence:
        logits, peaks, truths = zip(*presence, strict=True)
        model.config.presence_calibration = list(fit_platt(logits, truths, peaks))
        scale, offset, own = model.config.presence_calibration
        sums = (scale * logit + offset + own * peak for logit, peak, present in presence if present)
        there = [1 / (1 + math.exp(-value)) for value in sums]
        if there:
            # a missed finding is worse than a false one, which its score still tells: miss one in twenty at most
            model.config.presence_threshold = min(0.5, float(np.quantile(there, MISSED)))
    if quality:
        model.config.mask_calibration = list(fit_platt(*zip(*quality, strict=True)))
