"""How good the masks are on images that are not trained on: what a training is watched by."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch

from unibiomed.data.records import Record
from unibiomed.metrics.segmentation import dice
from unibiomed.model.modeling import UniBiomedModel
from unibiomed.model.processing import UniBiomedProcessor
from unibiomed.tasks import SEG, make_question

from .heads import AuxiliaryHeads
from .packing import encode_turn, pad
from .validation import ShardedRecords, choose
from .views import Viewer


@torch.inference_mode()
def held_out_dice(
    model: UniBiomedModel,
    heads: AuxiliaryHeads | None,
    processor: UniBiomedProcessor,
    records: Sequence[Record] | ShardedRecords,
    limit: int,
    kind: str = "joint",
) -> dict[str, float]:
    """Mean Dice of each target over images that show it, whatever its presence score.

    It is measured on the square that a small model reads, else on the whole image.

    Parameters
    ----------
    model : UniBiomedModel
    heads : AuxiliaryHeads or None
        Hold the learned prompts; needed for ``encoder``.
    processor : UniBiomedProcessor
    records : sequence of Record, or ShardedRecords
        With an image and masks.
    limit : int
        Images a data set.
    kind : {"encoder", "text", "joint"}
        What was trained: after ``encoder`` targets are asked for by learned prompts, after ``joint`` in words. After
        ``text`` there is nothing to measure.

    Returns
    -------
    dict of str to float
    """
    if kind == "text":
        return {}
    model.eval()
    device = model.device
    viewer = Viewer(processor.settings.grounding_size, squared=model.config.shared_vision)
    scores: dict[str, list[float]] = defaultdict(list)
    for record in choose(records, limit):
        view = viewer.view(record, random.Random(record.key), 0.0)
        record = view.record
        shown = list(view.masks)
        if kind == "encoder" and heads is not None:
            shown = [j for j in shown if record.regions[j].target in heads.targets]
        if not shown:
            continue
        inputs = processor.image(view.image)
        tiles = None if inputs.tile_pixels is None else inputs.tile_pixels.to(device)
        counts = None if tiles is None else [len(tiles)]
        features = model.encode_image(inputs.grounding_pixels.to(device), tiles, counts, text=kind != "encoder")
        names = [record.regions[j].target for j in shown]
        if kind == "encoder":
            assert heads is not None
            prompts = heads.prompts(torch.tensor([heads.targets[name] for name in names], device=device))
        else:
            questions = [make_question("segment", target=name, modality=record.modality) for name in names]
            rows = pad([encode_turn(processor, question, f"It is {SEG}.", inputs.tokens) for question in questions])
            out = model(
                rows["input_ids"].to(device),
                rows["attention_mask"].to(device),
                rows["labels"].to(device),
                features=features,
                image_index=torch.zeros(len(shown), dtype=torch.long, device=device),
                seg_prompts=False,
            )
            prompts = out.seg_states
        logits = model.decode_masks(features.maps, prompts).best()
        found = processor.mask_logits(logits, view.image.shape[:2]).cpu().numpy() > 0
        for name, j, mask in zip(names, shown, found, strict=True):
            scores[name].append(dice(mask, view.solid(j)))
    return {name: float(np.mean(values)) for name, values in scores.items()}
