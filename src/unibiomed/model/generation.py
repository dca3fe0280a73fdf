"""Greedy decoding with a key-value cache that also collects the hidden states at ``[SEG]``.

Questions about one image share the prefix of the prompt up to and including the image: it is processed once, and only
the remaining tokens are processed for each question. No second pass over the answer is needed, and only the last
hidden states at ``[SEG]`` are kept.
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
    """The generated answer to one question.

    Attributes
    ----------
    ids : list of int
        Generated token ids, including the end token.
    text : str
        Decoded text with special tokens.
    probabilities : list of float
        Probability of each generated token, in [0, 1].
    prompts : torch.Tensor
        Outputs of the grounding head for each ``[SEG]``, in order, (N, prompt width).
    finished : bool
        Whether the answer ended before ``max_new_tokens``.
    """

    ids: list[int] = field(default_factory=list)
    text: str = ""
    probabilities: list[float] = field(default_factory=list)
    prompts: torch.Tensor | None = None
    finished: bool = False


def _common_prefix(prompts: list[list[int]], limit: int) -> int:
    shortest = min(map(len, prompts)) - 1  # the last token of each prompt predicts the first token of the answer
    n = 0
    while n < min(shortest, limit) and all(p[n] == prompts[0][n] for p in prompts):
        n += 1
    return n


def _text(processor: UniBiomedProcessor, ids: list[int], seg: int) -> str:
    """Text of `ids` with ``[SEG]`` for each token `seg`; a ``[SEG]`` spelled with other tokens becomes ``SEG``."""
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
    """Answer a batch of questions by greedy decoding.

    Parameters
    ----------
    model : UniBiomedModel
        The model.
    processor : UniBiomedProcessor
        Decodes the answers; generation stops at the end mark in the text.
    features : ImageFeatures or None
        Output of ``model.encode_image``; None for questions without an image.
    prompts : list of list of int
        Token ids of each prompt, from ``processor.prompt_ids``.
    image_index : list of int, optional
        Index of the image of each prompt; default: image 0 for all.
    max_new_tokens : int
        Maximum length of an answer in tokens, at least 1.

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

    # The remaining tokens are padded on the left, [shared][padding][rest], so that all rows end at the same column.
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
            # With byte-level tokens, the end mark may be spelled with as many tokens as it has characters.
            answer.finished = answer.ids[-1] == eos or processor.decode(answer.ids[-len(END) :]).endswith(END)
        open_rows = [row for row in active if not answers[row].finished]
        # A [SEG] at the end of an answer needs one more step for its hidden state. The authors' code omits its mask.
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
