"""Loading of models in the format of this package or of the authors, and conversion between the two formats."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import initialization
from transformers.utils import logging as transformers_logging

from unibiomed.errors import InputError, ModelError, OutputError

from .checkpoint import Checkpoint, read_json, weight_files
from .configuration import UniBiomedConfig
from .modeling import UniBiomedModel
from .official import mismatch_message, official_config, official_settings, stream_official
from .processing import SETTINGS_FILE, ProcessorSettings, UniBiomedProcessor

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt",
)  # fmt: skip
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def load_model(
    name: str | os.PathLike[str], device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
) -> tuple[UniBiomedModel, UniBiomedProcessor]:
    """Load a model and its processor for inference.

    Parameters
    ----------
    name : str or path-like
        A model folder, in the format of this package or of the authors; or ``organization/model`` on the Hugging Face
        hub, which is contacted only if there is no such folder. Only safetensors and text files are downloaded.
    device : str or torch.device, optional
        Device of the model; default: CPU.
    dtype : str or torch.dtype, optional
        Data type of the weights; default: as stored.

    Returns
    -------
    model : UniBiomedModel
        In evaluation mode.
    processor : UniBiomedProcessor

    Raises
    ------
    ModelError
        If the model does not exist, is damaged, or is not a UniBiomed model.
    InputError
        If the device or dtype is not available.
    """
    target = _check_device(device)
    kind = _check_dtype(dtype)
    folder = find_folder(name)
    config = read_json(folder / "config.json")
    own = config.get("model_type") == UniBiomedConfig.model_type
    if not own and not _looks_official(config):
        raise ModelError(
            f"'{folder}' contains a model of type {str(config.get('model_type'))[:40]!r}: "
            "give the folder of a UniBiomed model"
        )
    # The processor is loaded first, so that errors in small files are reported before the weights are read.
    with _quiet_transformers():
        processor = UniBiomedProcessor.from_pretrained(folder, **({} if own else official_settings(config)))
    model = _load_own(folder, kind) if own else load_official(folder, kind)
    return model if target is None else model.to(target), processor


def find_folder(name: str | os.PathLike[str], more: Sequence[str] = ()) -> Path:
    """Folder of a model: `name` itself, or a download of ``organization/model`` from the Hugging Face hub.

    Parameters
    ----------
    name : str or path-like
        Folder or hub name.
    more : sequence of str
        Patterns of files to download in addition to JSON, safetensors and text files.

    Returns
    -------
    Path

    Raises
    ------
    ModelError
        If there is neither such a folder nor such a model on the hub.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    # If the parent folder exists, the name is a mistyped path and not a hub name.
    if folder.exists() or not _HUB_NAME.fullmatch(str(name)) or folder.parent.exists():
        raise ModelError(f"'{name}' is not a folder: give a model folder, or organization/model to download one")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(name), allow_patterns=["*.json", "*.safetensors", "*.txt", *more]))
    except (OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:150]
        raise ModelError(
            f"'{name}' is neither a folder nor can it be downloaded ({reason}): check the name and the connection"
        ) from error


def is_official(folder: str | os.PathLike[str]) -> bool:
    """Whether the ``config.json`` in `folder` is that of a checkpoint in the authors' format."""
    try:
        return _looks_official(read_json(Path(folder) / "config.json"))
    except ModelError:
        return False


def load_official(folder: str | os.PathLike[str], dtype: str | torch.dtype | None = None) -> UniBiomedModel:
    """Load a checkpoint in the authors' format; tensors are converted one at a time.

    Parameters
    ----------
    folder : str or path-like
        Folder with ``config.json``, the weights (safetensors, or PyTorch files with plain tensors, in one or several
        files), and the tokenizer, which gives the ids of the special tokens.
    dtype : str or torch.dtype, optional
        Data type of the weights; default: as stored.

    Returns
    -------
    UniBiomedModel
        In evaluation mode, on the CPU.

    Raises
    ------
    ModelError
        If a file is missing or damaged, or tensors are missing, unexpected, or of the wrong shape.
    """
    folder = Path(folder).expanduser()
    given = read_json(folder / "config.json")
    kind = _check_dtype(dtype)
    state = Checkpoint(weight_files(folder))
    config = official_config(given, state.shapes, _token_ids(folder))
    _check_size(config, state)
    model = _empty_model(config, kind or state.dtype)
    targets = model.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in targets.items()}
    for name, tensor in stream_official(state, shapes, lora_alpha=_lora_alpha(given)):
        targets[name].copy_(tensor)
    return model.eval()


def convert(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> Path:
    """Convert a checkpoint from the authors' format to the format of this package (safetensors).

    Parameters
    ----------
    source : str or path-like
        Folder of the authors' checkpoint, see :func:`load_official`.
    target : str or path-like
        New folder. If the conversion fails, no folder is created.

    Returns
    -------
    Path
        `target`.

    Raises
    ------
    ModelError
        If `source` cannot be read.
    OutputError
        If `target` exists or cannot be written.
    """
    source, target = Path(source).expanduser(), Path(target).expanduser()
    if target.exists():
        raise OutputError(f"'{target}' already exists: give a new folder")
    model = load_official(source)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        with _quiet_transformers():
            model.save_pretrained(part)
        for name in TOKENIZER_FILES:
            if (source / name).is_file():
                shutil.copyfile(source / name, part / name)
        settings = asdict(ProcessorSettings()) | official_settings(read_json(source / "config.json"))
        (part / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        part.rename(target)
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"'{target}' cannot be written ({error.__class__.__name__}: {error}): check space and permissions"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


# ---------------------------------------------------------------- the format of this package


def _load_own(folder: Path, dtype: torch.dtype | None) -> UniBiomedModel:
    files = weight_files(folder)
    if any(path.suffix != ".safetensors" for path in files):
        raise ModelError(f"'{folder}' has no model.safetensors: download the model folder again")
    state = Checkpoint(files)  # detects damaged files before shapes are compared
    try:
        with _quiet_transformers():
            _check_size(UniBiomedConfig.from_pretrained(folder, local_files_only=True), state)
            model, report = UniBiomedModel.from_pretrained(
                folder,
                dtype=dtype or "auto",
                use_safetensors=True,
                local_files_only=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except (
        OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, AssertionError, ImportError,
        ArithmeticError, IndexError, SafetensorError, StrictDataclassError,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise ModelError(f"'{folder}' cannot be loaded ({reason}): download the model folder again") from error
    missing, unexpected = report["missing_keys"], report["unexpected_keys"]
    wrong_shape = [f"{name}: {tuple(found)}, not {tuple(wanted)}" for name, found, wanted in report["mismatched_keys"]]
    if missing or unexpected or wrong_shape:
        raise ModelError(f"'{folder}': {mismatch_message(missing, unexpected, wrong_shape)}")
    if report["error_msgs"]:
        reason = str(report["error_msgs"][0])[:150]
        raise ModelError(f"'{folder}' cannot be loaded ({reason}): download the model folder again")
    return model.eval()


def _check_size(config: UniBiomedConfig, state: Checkpoint) -> None:
    """Refuse a configuration that needs far more weights than there are, before memory is allocated."""
    with torch.device("meta"):
        wanted = sum(tensor.numel() for tensor in _construct(config).parameters())
    found = sum(math.prod(shape) for shape in state.shapes.values())
    if wanted > 2 * found:
        raise ModelError(
            f"config.json describes a model with {wanted:,} parameters, but the weight files contain {found:,}: "
            "download all files of the model folder from the same release"
        )


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Disable the progress bars and loading reports of transformers; problems are reported as errors."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


# ---------------------------------------------------------------- the authors' format


def _looks_official(config: Mapping[str, Any]) -> bool:
    parts = isinstance(config.get("llm_config"), dict) and isinstance(config.get("vision_config"), dict)
    return parts and config.get("model_type") != UniBiomedConfig.model_type


def _empty_model(config: UniBiomedConfig, dtype: torch.dtype) -> UniBiomedModel:
    """Create a model without initializing its weights, which are overwritten later."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with initialization.no_init_weights():
            model = _construct(config)
    finally:
        torch.set_default_dtype(before)
    model.config.dtype = dtype
    return model


def _construct(config: UniBiomedConfig) -> UniBiomedModel:
    try:
        return UniBiomedModel(config)
    except (ValueError, TypeError, RuntimeError, ArithmeticError, LookupError, AttributeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise ModelError(
            f"config.json does not describe a model ({reason}): download it again from the release"
        ) from error


def _lora_alpha(config: Mapping[str, Any]) -> float | None:
    """LoRA's α in the configuration; for InternVL's ``use_llm_lora``, which is the rank, α is twice the rank."""
    alpha, rank = config.get("lora_alpha"), config.get("use_llm_lora")
    if isinstance(alpha, int | float) and not isinstance(alpha, bool) and alpha > 0:
        return float(alpha)
    return 2.0 * rank if isinstance(rank, int) and rank > 0 else None


def _token_ids(folder: Path) -> dict[str, int]:
    """Ids of the tokens that were added to the tokenizer, from any of its files."""
    ids: dict[str, int] = {}
    try:
        if (folder / "added_tokens.json").is_file():
            ids |= {str(token): int(i) for token, i in read_json(folder / "added_tokens.json").items()}
        if (folder / "tokenizer_config.json").is_file():
            table = read_json(folder / "tokenizer_config.json").get("added_tokens_decoder") or {}
            ids |= {str(entry["content"]): int(i) for i, entry in table.items()}
        if (folder / "tokenizer.json").is_file():
            table = read_json(folder / "tokenizer.json").get("added_tokens") or []
            ids |= {str(entry["content"]): int(entry["id"]) for entry in table}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"the tokenizer in '{folder}' is damaged: download its files again") from error
    return ids


# ---------------------------------------------------------------- options


def _check_device(device: str | torch.device | None) -> torch.device | None:
    if device is None:
        return None
    try:
        torch.zeros(1, device=device).item()  # .item() also excludes "meta", whose tensors have no values
        return torch.device(device)
    except (RuntimeError, AssertionError, TypeError, ValueError, NotImplementedError) as error:
        raise InputError(f"device {str(device)!r} is not available: use 'cpu'") from error


def _check_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    kind = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if dtype is not None and kind not in (torch.float32, torch.bfloat16, torch.float16):
        raise InputError(f"dtype {str(dtype)!r} is not supported: use 'float32', 'bfloat16' or 'float16'")
    return kind
