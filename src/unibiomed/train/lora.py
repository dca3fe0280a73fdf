"""Low-rank adapters on the language model (Hu et al., ICLR 2022), through peft."""

from __future__ import annotations

import copy

from torch import nn

from unibiomed.errors import DataError
from unibiomed.model.modeling import UniBiomedModel

from .recipe import LoraRecipe

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""All matrices of a layer, as published."""


def add_lora(model: UniBiomedModel, recipe: LoraRecipe) -> None:
    """Put adapters beside the language model's matrices, in place; at first they change nothing.

    Raises
    ------
    DataError
        If peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise DataError("LoRA needs peft: pip install 'unibiomed[train]'") from None
    config = LoraConfig(r=recipe.rank, lora_alpha=recipe.alpha, lora_dropout=recipe.dropout, target_modules=TARGETS)
    inject_adapter_in_model(config, model.mllm.model.language_model)


def has_lora(model: nn.Module) -> bool:
    """Whether any matrix has an adapter."""
    return any("lora_" in name for name, _ in model.named_parameters())


def merge_lora(model: UniBiomedModel) -> UniBiomedModel:
    """Add the adapters to the matrices that they stand beside, in place, and take them away."""
    if not has_lora(model):
        return model
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.get_base_layer())
    # peft would warn of these adapters when others are added
    del model.mllm.model.language_model.peft_config
    return model


def merged(model: UniBiomedModel) -> UniBiomedModel:
    """A copy of a model with its adapters merged: what is saved and used."""
    return merge_lora(copy.deepcopy(model))
