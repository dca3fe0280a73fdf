"""Weights, gradients and moments divided among processes (FSDP), for models that one device cannot train.

Accelerate is only asked whether this is wanted. How it is done is fixed here with `torch.distributed.fsdp`, so that it
is the same on every device and is tested on CPUs, where accelerate would do without.

A unit's weights are gathered by all processes together, and its gradients spread by all together. Not every process has
a mask, a box or a ``[SEG]`` in every step, so the only units are layers that in a step all processes run, or none does:
those of the language model and of its vision tower. Everything else is one unit, whole from the beginning of a step to
its end, and takes part in every step of every process (`unibiomed.train.net.DividedNet`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from unibiomed.errors import DataError

SWITCH = "ACCELERATE_USE_FSDP"
"""What ``accelerate launch --use_fsdp`` sets, and ``distributed_type: FSDP`` of its configuration file."""
REFUSED = {
    "FSDP_OFFLOAD_PARAMS": "fsdp_offload_params is not supported: turn it off",
    "FSDP_ACTIVATION_CHECKPOINTING": "fsdp_activation_checkpointing is not supported: set gradient_checkpointing in "
    "the recipe",
}
UNITS = ("mllm.model.language_model.layers", "mllm.model.vision_tower.encoder.layer")
"""Lists of layers in the model; a model may have only the first."""


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes")


@contextmanager
def asked(precision: str) -> Iterator[bool]:
    """Whether weights are to be divided; inside, neither accelerate nor transformers hear of it.

    They would wrap units of their own, and read the weights to start from in one process only.

    Parameters
    ----------
    precision : str
        Of the recipe.

    Raises
    ------
    DataError
        If FSDP is to do what it cannot here.
    """
    wanted = _is_set(SWITCH)
    if wanted and precision == "float16":
        raise DataError("precision float16 is not supported with FSDP: choose bfloat16 or float32")
    for name, words in REFUSED.items():
        if wanted and _is_set(name):
            raise DataError(words)
    before = os.environ.pop(SWITCH, None)
    try:
        yield wanted
    finally:
        if before is not None:
            os.environ[SWITCH] = before


def divide(net: nn.Module, model: nn.Module, device: torch.device, compute: torch.dtype | None) -> None:
    """Divide the weights of a module among all processes, in place.

    Parameters
    ----------
    net : torch.nn.Module
        What is run in each step.
    model : torch.nn.Module
        The part of it that has the layers.
    device : torch.device
        Of this process.
    compute : torch.dtype, optional
        What the layers' weights are gathered as; float32 by default. They are kept, and gradients added, in float32.
    """
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    # what goes into a layer stays float32, as without FSDP; autocast makes of it what it will
    policy = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for name in UNITS:
        if _has(model, name):
            for layer in model.get_submodule(name).children():
                fully_shard(layer, mesh=mesh, mp_policy=policy)
    # shards name no target before they are read: heads are empty, and nothing can be divided
    empty = {p for p in net.parameters() if p.numel() == 0}
    passed_over: dict[str, Any] = {"ignored_params": empty} if empty else {}
    fully_shard(net, mesh=mesh, reshard_after_forward=False, **passed_over)


def _has(model: nn.Module, name: str) -> bool:
    try:
        model.get_submodule(name)
    except AttributeError:
        return False
    return True


def leaves(losses: list[torch.Tensor]) -> set[torch.Tensor]:
    """The weights that losses depend on."""
    waiting = [loss.grad_fn for loss in losses if loss.grad_fn is not None]
    seen, found = set(waiting), set()
    while waiting:
        node = waiting.pop()
        if (weight := getattr(node, "variable", None)) is not None:
            found.add(weight)
        for parent, _ in node.next_functions:
            if parent is not None and parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return found


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that may be divided, whole; all processes must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """A whole tensor, divided if `other` is; all processes must ask for it."""
    if not isinstance(other, DTensor):
        return tensor
    return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements)


@torch.no_grad()
def copy_whole(source: nn.Module, target: nn.Module) -> None:
    """Copy a module that may be divided into one that is whole; all processes must call it."""
    own = dict(target.named_parameters()) | dict(target.named_buffers())
    for name, tensor in [*source.named_parameters(), *source.named_buffers()]:
        own[name].copy_(whole(tensor))
