"""Checkpoints that a kill at any moment cannot break: written beside, then renamed; safetensors and JSON only."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from unibiomed.errors import DataError, OutputError


def save_checkpoint(
    folder: Path, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer | None, state: dict[str, Any]
) -> None:
    """Write modules, the optimizer's moments and `state` (JSON) into `folder`, whole or not at all.

    Raises
    ------
    OutputError
        If the disk is full or the folder cannot be written; the checkpoint before stays.
    """
    fresh, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        for name, module in modules.items():
            # a tied tensor is stored once, under its first name; loading is not strict about the second
            tensors = {k: v.contiguous() for k, v in module.named_parameters()}
            tensors |= {k: v.contiguous() for k, v in module.named_buffers() if k in module.state_dict()}
            save_file({k: v.detach().clone() for k, v in tensors.items()}, fresh / f"{name}.safetensors")
        if optimizer is not None:
            moments = {
                f"{index}.{key}": value.contiguous() if isinstance(value, torch.Tensor) else torch.tensor(value)
                for index, values in optimizer.state_dict()["state"].items()
                for key, value in values.items()
            }
            save_file(moments, fresh / "optimizer.safetensors")
        (fresh / "state.json").write_text(json.dumps(state))
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.rename(folder, old)
        os.rename(fresh, folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"the checkpoint '{folder}' cannot be written: {error.strerror or error}") from error


def find_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint: `folder`, or the one before it if a kill came between two renames."""
    for candidate in (folder, folder.with_name(folder.name + ".old")):
        if (candidate / "state.json").exists():
            return candidate
    return None


def load_modules(folder: Path, modules: dict[str, nn.Module]) -> dict[str, Any]:
    """Read modules and return the state.

    Raises
    ------
    DataError
        If the checkpoint belongs to another recipe.
    """
    for name, module in modules.items():
        tensors = load_file(folder / f"{name}.safetensors")
        own = dict(module.named_parameters()) | dict(module.named_buffers())
        for key, tensor in tensors.items():
            if key not in own or own[key].shape != tensor.shape:
                raise DataError(f"checkpoint '{folder}' was made by another recipe ({name}.{key}): choose another --out")
            with torch.no_grad():
                own[key].copy_(tensor)
    return json.loads((folder / "state.json").read_text())


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Read the optimizer's moments back."""
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in load_file(folder / "optimizer.safetensors").items():
        index, name = key.split(".", 1)
        moments.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
