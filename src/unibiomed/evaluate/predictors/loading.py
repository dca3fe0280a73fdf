"""How models that are not of this package are opened: what they run on, and weights that are whole or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from unibiomed.errors import InputError, ModelError
from unibiomed.model.checkpoint import read_json

__all__ = ["load_part", "load_weights", "no_chat_template", "pick_device", "pixel_constants", "read_image_settings"]


def pick_device(device: str | None) -> torch.device:
    """The device of a name; the best there is for None.

    Raises
    ------
    InputError
        It cannot be used here.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.zeros(1, device=device).item()
        return torch.device(device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"device '{device}' cannot be used here; use 'cpu'") from error


def load_part(kind: Any, folder: Path, **options: Any) -> Any:
    """What a class of `transformers` makes of a folder: files of the folder alone, and no code from it.

    Raises
    ------
    ModelError
        It cannot be loaded.
    """
    try:
        return kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:  # the files of a stranger's model fail in more ways than can be named
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError(f"'{folder}' cannot be loaded as {kind.__name__} ({reason})") from error


def load_weights(kind: Any, folder: Path, device: torch.device, dtype: torch.dtype | str) -> Any:
    """A model of `transformers`, ready to answer.

    Parameters
    ----------
    kind : type
        Its class, or the ``Auto`` class of its task.
    folder : Path
        Holds ``config.json`` and safetensors.
    device : torch.device
    dtype : torch.dtype or "auto"

    Raises
    ------
    ModelError
        A file is missing or broken, or there are not all weights.
    """
    model, report = load_part(kind, folder, use_safetensors=True, dtype=dtype, output_loading_info=True)
    if missing := sorted(report["missing_keys"]):
        # transformers fills them with random numbers, which would be judged as if they were the model
        raise ModelError(f"'{folder}' lacks {len(missing)} weights ({missing[0]}, …); get the model folder again")
    return model.eval().to(device)


def no_chat_template(folder: Path) -> ModelError:
    """The error of a model that nobody can put a question to."""
    return ModelError(
        f"'{folder}' has no chat template, which says how it is asked; give a model that was taught to chat"
    )


def read_image_settings(folder: Path) -> tuple[Path, dict[str, Any]]:
    """What a folder says of how images are read, and the file that says it; nothing where no file does.

    Raises
    ------
    ModelError
        The file is broken.
    """
    path = folder / "processor_config.json"
    if path.is_file() and "image_processor" in (whole := read_json(path)):
        given = whole["image_processor"]
        if not isinstance(given, dict):
            raise ModelError(f"'{path}' is broken: image_processor is no object; get the model folder again")
        return path, given
    path = folder / "preprocessor_config.json"
    return path, read_json(path) if path.is_file() else {}


def pixel_constants(path: Path, mean: object, std: object) -> tuple[torch.Tensor, torch.Tensor]:
    """What is taken from pixels in [0, 1], and what they are then divided by: (3,) float32 each.

    Raises
    ------
    ModelError
        They are not three numbers each, or one that is divided by is not positive; `path` is the file that is blamed.
    """
    try:
        constants = [torch.tensor(values, dtype=torch.float32).view(3) for values in (mean, std)]
        good = bool(torch.stack(constants).isfinite().all()) and bool((constants[1] > 0).all())
    except (RuntimeError, TypeError, ValueError):
        good = False
    if not good:
        raise ModelError(f"'{path}' is broken: image_mean and image_std are three numbers each, the latter above 0")
    return constants[0], constants[1]
