"""How good masks and answers are on images that are not trained on: what a training is watched by."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch

from unibiomed.data.conversation import Turn, canonical_turns
from unibiomed.data.records import Record
from unibiomed.findings import Box
from unibiomed.images.geometry import draw_box, mask_box
from unibiomed.interpret.box_masks import prompt_box
from unibiomed.metrics.segmentation import dice
from unibiomed.model.modeling import ImageFeatures, UniBiomedModel
from unibiomed.model.processing import UniBiomedProcessor
from unibiomed.tasks import SEG, make_question

from .heads import AuxiliaryHeads
from .packing import IGNORE, encode_turn, pad
from .validation import ShardedRecords, choose
from .views import Viewer

EXACT = ("ask", "classify", "recognize")
"""Tasks with answers of a few words, which are right or wrong; of the others, sentences, shares of words count."""
MAX_ASKED = 2
"""Questions of one task that an image is asked."""


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
    kind : {"encoder", "text", "joint", "boxes"}
        What was trained: after ``encoder`` targets are asked for by learned prompts, after ``joint`` in words, after
        ``boxes`` by the boxes of their masks. After ``text`` there is nothing to measure.

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
        features, tokens = _look(model, processor, view.image, text=kind == "joint")
        names = [record.regions[j].target for j in shown]
        size = (view.image.shape[0], view.image.shape[1])
        if kind == "boxes":
            tight = [mask_box(view.solid(j)) or (0, 0, 1, 1) for j in shown]
            corners = [prompt_box(box, size, processor.settings.grounding_size) for box in tight]
            masks = model.decode_boxes(features.maps, torch.tensor(corners, device=device))
        elif kind == "encoder":
            assert heads is not None
            prompts = heads.prompts(torch.tensor([heads.targets[name] for name in names], device=device))
            masks = model.decode_masks(features.maps, prompts)
        else:
            questions = [make_question("segment", target=name, modality=record.modality) for name in names]
            rows = pad([encode_turn(processor, question, f"It is {SEG}.", tokens) for question in questions])
            out = model(
                rows["input_ids"].to(device),
                rows["attention_mask"].to(device),
                rows["labels"].to(device),
                features=features,
                image_index=torch.zeros(len(shown), dtype=torch.long, device=device),
                seg_prompts=False,
            )
            masks = model.decode_masks(features.maps, out.seg_states)
        found = processor.mask_logits(masks.best(), size).cpu().numpy() > 0
        for name, j, mask in zip(names, shown, found, strict=True):
            scores[name].append(dice(mask, view.solid(j)))
    return {name: float(np.mean(values)) for name, values in scores.items()}


@torch.inference_mode()
def held_out_answers(
    model: UniBiomedModel,
    processor: UniBiomedProcessor,
    records: Sequence[Record] | ShardedRecords,
    limit: int,
) -> dict[str, float]:
    """How much of the answers to each kind of question is right, in [0, 1].

    Nothing is generated: each word (token) is foretold from the true ones before it. Where all are, the model would
    also have written exactly that answer, the likeliest word first.

    Parameters
    ----------
    model : UniBiomedModel
    processor : UniBiomedProcessor
    records : sequence of Record, or ShardedRecords
        With an image; those that answer nothing are passed over.
    limit : int
        Images a data set; of each, at most `MAX_ASKED` questions of a task.

    Returns
    -------
    dict of str to float
        By task: of those in `EXACT` the share of answers that are right to the last word, of others the mean share of
        words. Tasks that no image answers are left out.
    """
    model.eval()
    viewer = Viewer(processor.settings.grounding_size, squared=model.config.shared_vision)
    scores: dict[str, list[float]] = defaultdict(list)
    for record in choose(records, limit):
        view = viewer.view(record, random.Random(record.key), 0.0)
        solid = {j: view.solid(j) for j, region in enumerate(view.record.regions) if not region.box}
        asked: dict[str, list[Turn]] = defaultdict(list)
        for turn in canonical_turns(view.record, solid):
            if turn.task != "segment":
                asked[turn.task].append(turn)
        seen: dict[Box | None, list[Turn]] = defaultdict(list)
        for turn in (turn for turns in asked.values() for turn in turns[:MAX_ASKED]):
            seen[turn.box].append(turn)
        for box, turns in seen.items():
            image = view.image if box is None else draw_box(view.image, box)
            features, tokens = _look(model, processor, image)
            rows = pad([encode_turn(processor, turn.question, turn.answer, tokens) for turn in turns])
            out = model(
                rows["input_ids"].to(model.device),
                rows["attention_mask"].to(model.device),
                rows["labels"].to(model.device),
                features=features,
                image_index=torch.zeros(len(turns), dtype=torch.long, device=model.device),
                seg_prompts=False,
            )
            truth = rows["labels"][:, 1:]
            told = truth != IGNORE
            right = out.logits.argmax(-1).cpu() == truth[told]
            for turn, own in zip(turns, right.split(told.sum(1).tolist()), strict=True):
                scores[turn.task].append(float(own.all() if turn.task in EXACT else own.float().mean()))
    return {task: float(np.mean(values)) for task, values in sorted(scores.items())}


def _look(
    model: UniBiomedModel, processor: UniBiomedProcessor, image: np.ndarray, *, text: bool = True
) -> tuple[ImageFeatures, int]:
    """What the model sees in an image, and for how many tokens it stands in a question."""
    inputs = processor.image(image)
    tiles = None if inputs.tile_pixels is None else inputs.tile_pixels.to(model.device)
    counts = None if tiles is None else [len(tiles)]
    return model.encode_image(inputs.grounding_pixels.to(model.device), tiles, counts, text=text), inputs.tokens
