"""Loading of models of `transformers`: devices, weights and preprocessing settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from unibiomed.errors import InputError, ModelError
from unibiomed.model.checkpoint import read_json

__all__ = [
    "load_part",
    "load_weights",
    "missing_chat_template",
    "read_image_settings",
    "read_normalisation",
    "select_device",
]


def select_device(device: str | None) -> torch.device:
    """Return a device by name, or the best available one for None.

    Raises
    ------
    InputError
        The device is not available.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.zeros(1, device=device).item()
        return torch.device(device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"device '{device}' is not available: use 'cpu'") from error


def load_part(kind: Any, folder: Path, **options: Any) -> Any:
    """Load a class of `transformers` from local files, without executing code of the model.

    Raises
    ------
    ModelError
        It cannot be loaded.
    """
    try:
        return kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:  # transformers raises many kinds of errors for broken files
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError(f"'{folder}' cannot be loaded as {kind.__name__} ({reason})") from error


def load_weights(kind: Any, folder: Path, device: torch.device, dtype: torch.dtype | str) -> Any:
    """Load a model of `transformers` in evaluation mode.

    Parameters
    ----------
    kind : type
        Model class, or the ``Auto`` class of its task.
    folder : Path
        Folder with ``config.json`` and safetensors.
    device : torch.device
    dtype : torch.dtype or "auto"

    Raises
    ------
    ModelError
        A file is missing or broken, or weights are missing.
    """
    model, report = load_part(kind, folder, use_safetensors=True, dtype=dtype, output_loading_info=True)
    if missing := sorted(report["missing_keys"]):
        # transformers initialises missing weights at random
        raise ModelError(f"'{folder}' lacks {len(missing)} weights ({missing[0]}, …): get the model folder again")
    return model.eval().to(device)


def missing_chat_template(folder: Path) -> ModelError:
    """Return the error for a model without a chat template."""
    return ModelError(f"'{folder}' has no chat template: use an instruction-tuned release of the model")


def read_image_settings(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Read the image preprocessing settings of a model folder; also return their file.

    Raises
    ------
    ModelError
        The file is broken.
    """
    path = folder / "processor_config.json"
    if path.is_file() and "image_processor" in (values := read_json(path)):
        settings = values["image_processor"]
        if not isinstance(settings, dict):
            raise ModelError(f"'{path}' is broken: image_processor is not an object: get the model folder again")
        return path, settings
    path = folder / "preprocessor_config.json"
    return path, read_json(path) if path.is_file() else {}


def read_normalisation(path: Path, mean: object, std: object) -> tuple[torch.Tensor, torch.Tensor]:
    """Validate the mean and standard deviation of pixels in [0, 1] from the file `path`, (3,) float32 each.

    Raises
    ------
    ModelError
        They are not three finite numbers each, or a standard deviation is not positive.
    """
    try:
        constants = [torch.tensor(values, dtype=torch.float32).view(3) for values in (mean, std)]
        valid = bool(torch.stack(constants).isfinite().all()) and bool((constants[1] > 0).all())
    except (RuntimeError, TypeError, ValueError):
        valid = False
    if not valid:
        raise ModelError(
            f"'{path}' is broken: image_mean and image_std must be three numbers each, with image_std above 0"
        )
    return constants[0], constants[1]
