"""Prompts of targets whose answer is known: one pass over question and answer in place of a word-by-word generation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import DynamicCache

from .modeling import ImageFeatures, UniBiomedModel

__all__ = ["seg_prompts"]


@torch.inference_mode()
def seg_prompts(
    model: UniBiomedModel, features: ImageFeatures, sequences: Sequence[Sequence[int]]
) -> list[torch.Tensor]:
    """Outputs of the grounding head for the same questions on every image of a batch.

    They equal those of :func:`unibiomed.model.generation.generate` where the model would write the same answers. What
    the sequences have in common, the image included, is read once an image.

    Parameters
    ----------
    model : UniBiomedModel
    features : ImageFeatures
        Of images that have equally many tokens.
    sequences : sequence of sequence of int
        Token ids of a question and its answer up to a last ``[SEG]``, the same for all images.

    Returns
    -------
    list of torch.Tensor
        For each image, (sequences, prompt width).
    """
    device = model.device
    shared = _shared_length(sequences)
    first = list(sequences[0][:shared])
    image_token = model.config.mllm_config.image_token_id
    assert image_token in first and all(image_token not in one[shared:] for one in sequences), "image after question"
    read = model.mllm.model.language_model
    cache = DynamicCache(config=model.config.mllm_config.text_config)
    start = torch.tensor([first] * len(features), device=device)
    read(inputs_embeds=model.embed(start, features.tokens), past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(len(sequences))
    rests = [list(one[shared:]) for one in sequences]
    longest = max(map(len, rests))
    pad = model.config.mllm_config.text_config.eos_token_id
    # padding stands behind the last token, where no other token sees it
    ids = torch.tensor([rest + [pad] * (longest - len(rest)) for rest in rests], device=device)
    hidden = read(
        inputs_embeds=model.embed(ids.repeat(len(features), 1)), past_key_values=cache, use_cache=True
    ).last_hidden_state
    last = torch.tensor([len(rest) - 1 for rest in rests], device=device).repeat(len(features))
    states = hidden[torch.arange(len(hidden), device=device), last]
    return list(model.grounding_head(states).split(len(sequences)))


def _shared_length(sequences: Sequence[Sequence[int]]) -> int:
    """Number of first tokens that all sequences share; at least one token of each is left."""
    shortest = min(map(len, sequences)) - 1
    n = 0
    while n < shortest and all(one[n] == sequences[0][n] for one in sequences):
        n += 1
    return n
