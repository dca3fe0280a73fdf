"""The learned prompts of a model that comes without them: what its own words prompt."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from unibiomed.data.records import Record
from unibiomed.model.modeling import UniBiomedModel
from unibiomed.model.processing import UniBiomedProcessor
from unibiomed.tasks import SEG, make_question

from .heads import AuxiliaryHeads
from .packing import encode_turn, normalise_batch, pad
from .recipe import StageRecipe
from .store import ImageStore

ASKED = 8
"""Images in which a target is asked for, at most."""


def uses_prompts(stages: Sequence[StageRecipe]) -> bool:
    """Whether any stage asks by a target's learned prompt, or draws words towards it."""
    return any(s.kind == "encoder" or s.distill_weight or s.prompted for s in stages)


@torch.inference_mode()
def prompts_from_words(
    model: UniBiomedModel,
    processor: UniBiomedProcessor,
    heads: AuxiliaryHeads,
    store: ImageStore,
    records: Sequence[Record],
    seed: int,
) -> None:
    """Set each target's learned prompt to the mean of what ``[SEG]`` prompts where the model is asked for it in words.

    A model folder has no learned prompts: they are not shipped. Without them a stage that goes on from one would have
    to find them first, and the mask decoder would forget what the words prompt.

    Parameters
    ----------
    model : UniBiomedModel
        It is left in the mode in which it was.
    processor : UniBiomedProcessor
    heads : AuxiliaryHeads
        Its ``prompts`` are changed.
    store : ImageStore
        Of `records`.
    records : sequence of Record
        Up to `ASKED` images that name a target are asked for it.
    seed : int
        Which ones.
    """
    training = model.training
    model.eval()
    rng = random.Random(f"{seed}/prompts")
    size, tokens = processor.settings.grounding_size, processor.settings.tokens_per_tile
    naming: dict[str, list[Record]] = {target: [] for target in heads.targets}
    for record in records:
        for target in {region.target for region in record.regions if not region.box} & naming.keys():
            naming[target].append(record)
    for target, found in naming.items():
        states = []
        for record in rng.sample(found, min(ASKED, len(found))):
            pixels = torch.from_numpy(store.load(record.key)[0].copy()).permute(2, 0, 1).float() / 255
            if pixels.shape[-2:] != (size, size):
                pixels = torch.nn.functional.interpolate(pixels[None], (size, size), mode="area")[0]
            question = make_question("segment", target=target, modality=record.modality)
            batch = pad([encode_turn(processor, question, f"It is {SEG}.", tokens)])
            features = model.encode_image(normalise_batch([pixels]))
            out = model(
                batch["input_ids"], batch["attention_mask"], batch["labels"], features=features, seg_prompts=False
            )
            states.append(out.seg_states)
        if states:
            heads.prompts.weight[heads.targets[target]] = torch.cat(states).mean(0)
    model.train(training)
