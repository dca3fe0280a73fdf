"""Greedy answers with a key-value cache, the ``[SEG]`` states caught on the way.

Many questions on one image share the work: the prompt up to and including the image is read once, and only what differs
is read for each. There is no second pass over the answer, and no states are kept but the last layer's at ``[SEG]``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from transformers import DynamicCache

from .modeling import ImageFeatures, UniBiomedModel
from .processing import END, UniBiomedProcessor

MAX_NEW_TOKENS = 256


@dataclass
class Answer:
    """What the model wrote for one question.

    Attributes
    ----------
    ids : list of int
        Generated token ids, the end included.
    text : str
        Their text with special tokens.
    probabilities : list of float
        Probability of each generated token, in [0, 1].
    prompts : torch.Tensor
        (N, prompt width) outputs of the grounding head, one for each ``[SEG]`` in order.
    finished : bool
        The answer ended by itself, before the limit on its length.
    """

    ids: list[int] = field(default_factory=list)
    text: str = ""
    probabilities: list[float] = field(default_factory=list)
    prompts: torch.Tensor | None = None
    finished: bool = False


def _common_prefix(prompts: list[list[int]], limit: int) -> int:
    shortest = min(map(len, prompts)) - 1  # at least one token of each prompt must be read to predict the next
    n = 0
    while n < min(shortest, limit) and all(p[n] == prompts[0][n] for p in prompts):
        n += 1
    return n


def _text(processor: UniBiomedProcessor, ids: list[int], seg: int) -> str:
    """Text of `ids` with a ``[SEG]`` for each `seg` and none for one that is only spelled, which has no state."""
    parts: list[list[int]] = [[]]
    for token in ids:
        if token == seg:
            parts.append([])
        else:
            parts[-1].append(token)
    return "[SEG]".join(processor.decode(part).replace("[SEG]", "SEG") for part in parts)


@torch.inference_mode()
def generate(
    model: UniBiomedModel,
    processor: UniBiomedProcessor,
    features: ImageFeatures | None,
    prompts: list[list[int]],
    image_index: list[int] | None = None,
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> list[Answer]:
    """Answer one or many questions, greedily.

    Parameters
    ----------
    model : UniBiomedModel
    processor : UniBiomedProcessor
        For the text of the answers, whose end decides when to stop.
    features : ImageFeatures or None
        From ``model.encode_image``; None for questions without an image.
    prompts : list of list of int
        Token ids of each prompt (``processor.prompt_ids``).
    image_index : list of int, optional
        Image of each prompt; by default all belong to image 0.
    max_new_tokens : int
        Longest answer.

    Returns
    -------
    list of Answer
        In the order of `prompts`.
    """
    if not prompts:
        return []
    device = model.device
    batch = len(prompts)
    image_index = image_index or [0] * batch
    image_token = model.config.mllm_config.image_token_id
    limit = len(prompts[0])
    if features is not None and len(set(image_index)) > 1:
        limit = next((i for i, token in enumerate(prompts[0]) if token == image_token), limit)
    shared = _common_prefix(prompts, limit)

    cache = DynamicCache(config=model.config.mllm_config.text_config)
    language_model = model.mllm.model.language_model
    tokens = features.tokens if features is not None else []
    if shared:
        ids = torch.tensor([prompts[0][:shared]], device=device)
        inside = [tokens[image_index[0]]] if image_token in prompts[0][:shared] else None
        language_model(inputs_embeds=model.embed(ids, inside), past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(batch)

    # the rest of each prompt, padded on the left: [shared][padding][rest], so that all rows end at one place
    rests = [p[shared:] for p in prompts]
    longest = max(map(len, rests))
    eos = model.config.mllm_config.text_config.eos_token_id
    ids = torch.tensor([[eos] * (longest - len(rest)) + rest for rest in rests], device=device)
    lengths = torch.tensor([len(rest) for rest in rests], device=device)
    columns = torch.arange(longest, device=device)
    real = columns >= (longest - lengths)[:, None]
    mask = torch.cat([torch.ones(batch, shared, dtype=torch.long, device=device), real.long()], 1)
    positions = (shared + columns - (longest - lengths)[:, None]).clamp(min=shared)
    inside = [tokens[i] for i, rest in zip(image_index, rests, strict=True) if image_token in rest]
    hidden = language_model(
        inputs_embeds=model.embed(ids, inside or None),
        attention_mask=None if bool(mask.all()) else mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state[:, -1]

    answers = [Answer() for _ in prompts]
    states: list[list[torch.Tensor]] = [[] for _ in prompts]
    position = torch.tensor([len(p) for p in prompts], device=device)
    active = list(range(batch))
    for step in range(max_new_tokens):
        probabilities = model.mllm.lm_head(hidden).float().softmax(-1)
        best, chosen = probabilities.max(-1)
        for row in active:
            answer = answers[row]
            answer.ids.append(int(chosen[row]))
            answer.probabilities.append(float(best[row]))
            # byte-level tokens: the end mark may be spelled out in up to its own length of tokens
            answer.finished = answer.ids[-1] == eos or processor.decode(answer.ids[-len(END) :]).endswith(END)
        open_rows = [row for row in active if not answers[row].finished]
        # a [SEG] written last has not been read yet: one more step gives it its state (the authors' code drops it)
        last_seg = any(answers[row].ids[-1] == model.config.seg_token_id for row in active)
        if not last_seg and (not open_rows or step + 1 == max_new_tokens):
            break
        mask = torch.cat([mask, mask.new_ones(batch, 1)], 1)
        hidden = language_model(
            inputs_embeds=model.get_input_embeddings()(chosen[:, None]),
            attention_mask=None if bool(mask.all()) else mask,
            position_ids=position[:, None],
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state[:, -1]
        position = position + 1
        for row in active:
            if answers[row].ids[-1] == model.config.seg_token_id:
                states[row].append(hidden[row])
        active = open_rows
        if not active:
            break
    for answer, caught in zip(answers, states, strict=True):
        answer.text = _text(processor, answer.ids, model.config.seg_token_id)
        width = model.grounding_head[-1].out_features
        stacked = torch.stack(caught) if caught else hidden.new_zeros(0, model.config.hidden_size)
        answer.prompts = model.grounding_head(stacked) if caught else hidden.new_zeros(0, width)
    return answers
