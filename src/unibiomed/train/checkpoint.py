"""Checkpoints that a kill or a power cut at any moment cannot break: written beside, then renamed; no pickle."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.tensor import DTensor

from unibiomed.data import index as files
from unibiomed.errors import DataError

from .divided import like, whole

BOX_DECODER = "box_decoder."


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Tell a full disk or a folder that may not be written in one line.

    Raises
    ------
    OutputError
        If what is done inside fails to write.
    """
    with files.writing(path):
        try:
            yield
        except SafetensorError as error:
            # safetensors has its own error for a full disk
            raise OSError(None, str(error).splitlines()[0]) from error
        except Exception as error:
            # tokenizers raise a bare one: "No space left on device (os error 28)"
            if type(error) is not Exception or "(os error " not in str(error):
                raise
            raise OSError(None, str(error)) from error


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    # a tied tensor is there once, under its first name
    kept = module.state_dict().keys()
    return dict(module.named_parameters()) | {k: v for k, v in module.named_buffers() if k in kept}


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {
        f"{index}.{key}": value if isinstance(value, torch.Tensor) else torch.tensor(value)
        for index, values in optimizer.state_dict()["state"].items()
        for key, value in values.items()
    }


def _gathered(tensors: dict[str, torch.Tensor], write: bool) -> dict[str, torch.Tensor]:
    """Whole tensors; nothing in a process that does not write, but it takes part."""
    kept = {}
    for name, tensor in tensors.items():
        full = whole(tensor.detach())
        if write:
            # gathered one at a time: the device may not have room for all
            kept[name] = full.cpu() if isinstance(tensor, DTensor) else full.contiguous()
    return kept


def save_checkpoint(
    folder: Path,
    modules: dict[str, nn.Module],
    optimizer: torch.optim.Optimizer | None,
    state: dict[str, Any],
    *,
    write: bool = True,
) -> None:
    """Write modules, the optimizer's moments and `state` (JSON) into `folder`, whole or not at all.

    Where weights are divided among processes all must call it, and `write` says which of them writes.

    Raises
    ------
    OutputError
        If the disk is full or the folder cannot be written; the checkpoint before stays.
    """
    fresh, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    with writing(folder):
        if write:
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
        for name, module in modules.items():
            tensors = _gathered(_tensors(module), write)
            if write:
                save_file({key: tensor.clone() for key, tensor in tensors.items()}, fresh / f"{name}.safetensors")
        if optimizer is not None:
            moments = _gathered(_moments(optimizer), write)
            if write:
                save_file(moments, fresh / "optimizer.safetensors")
        if not write:
            return
        (fresh / "state.json").write_text(json.dumps(state))
        # a rename may reach the disk before the files that it is about
        for path in (*fresh.iterdir(), fresh):
            files.to_disk(path)
        if folder.exists():
            # only now: without `folder`, what lies in `old` is the one whole checkpoint
            shutil.rmtree(old, ignore_errors=True)
            os.rename(folder, old)
        os.rename(fresh, folder)
        files.to_disk(folder.parent)
        shutil.rmtree(old, ignore_errors=True)


def find_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint: `folder`, or the one before it if a kill came between two renames."""
    for candidate in (folder, folder.with_name(folder.name + ".old")):
        if (candidate / "state.json").exists():
            return candidate
    return None


def read_state(folder: Path) -> dict[str, Any]:
    """The JSON state of a checkpoint.

    Raises
    ------
    DataError
        If it is missing or broken.
    """
    try:
        state = json.loads((folder / "state.json").read_text())
        return {"stage": int(state["stage"]), "step": int(state["step"]), **state}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _broken(folder / "state.json") from error


def load_modules(folder: Path, modules: dict[str, nn.Module]) -> None:
    """Read modules.

    A checkpoint from before the recipe gave the model a box decoder leaves that as it is.

    Raises
    ------
    DataError
        If the checkpoint is broken, or belongs to another recipe.
    """
    for name, module in modules.items():
        tensors, own = _read(folder / f"{name}.safetensors"), _tensors(module)
        if not any(key.startswith(BOX_DECODER) for key in tensors):
            own = {key: tensor for key, tensor in own.items() if not key.startswith(BOX_DECODER)}
        for key in sorted(tensors.keys() | own.keys()):
            if key not in own or key not in tensors or own[key].shape != tensors[key].shape:
                raise _foreign(folder, f"{name}.{key}")
        with torch.no_grad():
            for key, tensor in tensors.items():
                own[key].copy_(like(tensor, own[key]))


def load_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Read the optimizer's moments back.

    Raises
    ------
    DataError
        If the checkpoint is broken.
    """
    moments: dict[int, dict[str, torch.Tensor]] = {}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for key, tensor in _read(folder / "optimizer.safetensors").items():
        index, name = key.split(".", 1)
        if int(index) >= len(parameters):
            raise _foreign(folder, f"optimizer.{key}")
        parameter = parameters[int(index)]
        # not the number of steps
        moment = like(tensor, parameter) if tensor.shape == parameter.shape else tensor
        moments.setdefault(int(index), {})[name] = moment
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise _broken(path) from error


def _foreign(folder: Path, what: str) -> DataError:
    return DataError(f"checkpoint '{folder}' was made by another recipe ({what}): choose another --out")


def _broken(path: Path) -> DataError:
    return DataError(f"checkpoint file '{path}' is missing or broken: delete its folder, or choose another --out")
