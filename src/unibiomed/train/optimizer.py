"""Which parameter learns how fast: parts, schedule, and the running mean of weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
from torch import nn

from unibiomed.errors import DataError

from .recipe import StageRecipe

LLM = "mllm.model.language_model."


def parts_of(name: str) -> tuple[str, ...]:
    """The parts of the model that a parameter belongs to, the narrowest first (see `recipe.PARTS`)."""
    if name.startswith("box_decoder."):
        # prompt encoder and position embeddings stay as they were learned
        kinds = {"neck": ("box_neck", "box_decoder"), "mask_decoder": ("box_decoder",)}
        return kinds.get(name.split(".")[1], ())
    if ".backbone." in name:
        return ("backbone",)
    if ".pred_obj_score_head." in name or ".iou_prediction_head." in name:
        return ("scores",)
    if ".vision_encoder." in name:
        return ("neck", "grounding")
    if ".conv_s0." in name or ".conv_s1." in name:
        return ("features", "decoder", "grounding")
    # no part of SAM2's mask decoder: as published it is frozen
    if name.startswith("grounding.no_memory_embedding"):
        return ("features", "grounding")
    if name.startswith("grounding."):
        return ("decoder", "grounding")
    if name.startswith("context."):
        return ("context", "scores")
    if name.startswith("fine."):
        return ("fine", "grounding")
    if "lora_" in name:
        return ("lora", "language")
    if ".embed_tokens." in name or ".lm_head." in name or name.startswith("mllm.lm_head"):
        return ("embeddings", "language")
    if name.startswith("mllm.model.vision_tower."):
        return ("vision", "language")
    if name.startswith("mllm.model.multi_modal_projector."):
        return ("projector", "language")
    if name.startswith("region."):
        return ("region", "language")
    if name.startswith(LLM):
        return ("layers", "language")
    return ("head",)


def part_of(name: str, recipe: StageRecipe) -> str | None:
    """The part whose learning rate a parameter takes; None where it is frozen, as it is with a rate of 0.

    With LoRA the language model's own layers are frozen, and its vision tower unless the recipe names it.
    """
    for part in parts_of(name):
        if recipe.lora and part == "language" and parts_of(name)[0] in ("layers", "vision"):
            return None
        if part in recipe.learning_rates:
            return part if recipe.learning_rates[part] else None
    return None


def make_optimizer(recipe: StageRecipe, model: nn.Module, heads: nn.Module) -> torch.optim.AdamW:
    """AdamW over the parts that the stage trains; the others are frozen.

    Raises
    ------
    DataError
        If the model has none of the parts.
    """
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter, own in _named(model, heads):
        part = part_of(name, recipe) if own else "head" if "head" in recipe.learning_rates else None
        parameter.requires_grad_(part is not None and not name.endswith("dtype_anchor"))
        if parameter.requires_grad:
            assert part is not None
            groups.setdefault((part, parameter.ndim > 1), []).append(parameter)
    if not groups:
        named = ", ".join(recipe.learning_rates)
        raise DataError(f"stage '{recipe.name}' trains nothing: the model has no {named}; see its learning_rates")
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": 0.0,
                "peak": recipe.learning_rates[part],
                "weight_decay": recipe.weight_decay if matrix else 0.0,
            }
            for (part, matrix), parameters in groups.items()
        ],
        betas=(0.9, 0.999),
        fused=True,
    )


def _named(model: nn.Module, heads: nn.Module) -> Iterator[tuple[str, nn.Parameter, bool]]:
    for name, parameter in model.named_parameters():
        yield name, parameter, True
    for name, parameter in heads.named_parameters():
        yield name, parameter, False


def rate_factor(step: int, steps: int, warmup: float, final: float = 0.0) -> float:
    """Linear warm-up, then a cosine to `final` (reference: the published schedule has final 0)."""
    rise = max(1, round(steps * warmup))
    if step < rise:
        return (step + 1) / rise
    progress = (step - rise) / max(1, steps - rise)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


class MovingAverage(nn.Module):
    """Exponential moving average of the weights that are learned (EMA), kept beside them.

    Parameters
    ----------
    parameters : iterable of (str, torch.nn.Parameter)
        Names and parameters; those without gradient are passed over.
    decay : float
        Share of the old mean that stays at each step, in [0, 1).
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], decay: float) -> None:
        super().__init__()
        self.decay = decay
        self._learned = {name: p for name, p in parameters if p.requires_grad}
        for name, p in self._learned.items():
            self.register_buffer(name.replace(".", "/"), p.detach().clone())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the weights; in the first steps faster, so that the start is soon forgotten."""
        decay = min(self.decay, (1 + step) / (10 + step))
        means = [self.get_buffer(name.replace(".", "/")) for name in self._learned]
        torch._foreach_lerp_(means, list(self._learned.values()), 1 - decay)

    @torch.no_grad()
    def copy_to_weights(self) -> None:
        """Put the means in the place of the weights, for good."""
        for name, p in self._learned.items():
            p.copy_(self.get_buffer(name.replace(".", "/")))
