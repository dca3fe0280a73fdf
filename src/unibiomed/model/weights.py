"""Loading a model folder, our own or the authors', and turning theirs into ours."""

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
from .official import misfit, official_config, official_settings, stream_official
from .processing import SETTINGS_FILE, ProcessorSettings, UniBiomedProcessor

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt",
)  # fmt: skip
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def load_model(
    name: str | os.PathLike[str], device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
) -> tuple[UniBiomedModel, UniBiomedProcessor]:
    """Load a model and its processor, ready to answer.

    Parameters
    ----------
    name : str or path-like
        A folder, in our format or the authors'; or ``organisation/model`` on the Hugging Face hub, which is asked only
        if there is no such folder. Only safetensors and text files are taken from there.
    device : str or torch.device, optional
        Where to put the model; the CPU by default.
    dtype : str or torch.dtype, optional
        Of the weights; as they are stored by default.

    Returns
    -------
    model : UniBiomedModel
        In evaluation mode.
    processor : UniBiomedProcessor

    Raises
    ------
    ModelError
        If there is no such model, or it is broken or of another kind.
    InputError
        If the device or dtype cannot be used.
    """
    target = _check_device(device)
    kind = _check_dtype(dtype)
    folder = find_folder(name)
    config = read_json(folder / "config.json")
    own = config.get("model_type") == UniBiomedConfig.model_type
    if not own and not _looks_official(config):
        raise ModelError(
            f"'{folder}' holds a model of type {str(config.get('model_type'))[:40]!r}, not a UniBiomed; "
            "give the folder of a UniBiomed model"
        )
    # the processor first: what is wrong with a small file is told before a large one is read
    with _quiet_transformers():
        processor = UniBiomedProcessor.from_pretrained(folder, **({} if own else official_settings(config)))
    model = _load_own(folder, kind) if own else load_official(folder, kind)
    return model if target is None else model.to(target), processor


def find_folder(name: str | os.PathLike[str], more: Sequence[str] = ()) -> Path:
    """Folder of a model: `name` itself, or a download of ``organisation/model`` from the Hugging Face hub.

    Parameters
    ----------
    name : str or path-like
    more : sequence of str
        Patterns of files to download besides JSON, safetensors and text.

    Raises
    ------
    ModelError
        If there is neither.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    # a path whose first part is a folder here is a slip of the pen, not a reason to go to the network
    if folder.exists() or not _HUB_NAME.fullmatch(str(name)) or folder.parent.exists():
        raise ModelError(f"'{name}' is not a folder; give a model folder, or organisation/model to download one")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(name), allow_patterns=["*.json", "*.safetensors", "*.txt", *more]))
    except (OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:150]
        raise ModelError(f"no folder '{name}' here, and the hub does not give it ({reason}); check the name") from error


def is_official(folder: str | os.PathLike[str]) -> bool:
    """Whether `folder` holds a checkpoint in the authors' format, by its ``config.json``."""
    try:
        return _looks_official(read_json(Path(folder) / "config.json"))
    except ModelError:
        return False


def load_official(folder: str | os.PathLike[str], dtype: str | torch.dtype | None = None) -> UniBiomedModel:
    """Load a checkpoint in the authors' format, converted tensor by tensor as it is read.

    Parameters
    ----------
    folder : str or path-like
        ``config.json``, the weights (safetensors, or PyTorch files of plain tensors; in one file or several), and,
        for the ids of the special tokens, the tokenizer.
    dtype : str or torch.dtype, optional
        Of the weights; as they are stored by default.

    Returns
    -------
    UniBiomedModel
        In evaluation mode, on the CPU.

    Raises
    ------
    ModelError
        If anything is missing, broken, left over, or does not fit.
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
    """Write a checkpoint of the authors' in our format (safetensors), with its tokenizer.

    Parameters
    ----------
    source : str or path-like
        See :func:`load_official`.
    target : str or path-like
        Folder to make. It appears whole or not at all.

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
        raise OutputError(f"'{target}' exists; give a new folder")
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
        raise OutputError(f"'{target}' cannot be written ({error.__class__.__name__}: {error})") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


# ---------------------------------------------------------------- our own format


def _load_own(folder: Path, dtype: torch.dtype | None) -> UniBiomedModel:
    files = weight_files(folder)
    if any(path.suffix != ".safetensors" for path in files):
        raise ModelError(f"'{folder}' has no model.safetensors; get the model folder again")
    state = Checkpoint(files)  # a broken file is told as such, before it is taken for a misfit
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
        raise ModelError(f"'{folder}' cannot be loaded ({reason}); get the model folder again") from error
    missing, unexpected = report["missing_keys"], report["unexpected_keys"]
    misshapen = [f"{name}: {tuple(found)}, not {tuple(wanted)}" for name, found, wanted in report["mismatched_keys"]]
    if missing or unexpected or misshapen:
        raise ModelError(f"'{folder}': {misfit(missing, unexpected, misshapen)}")
    if report["error_msgs"]:
        raise ModelError(f"'{folder}' cannot be loaded ({str(report['error_msgs'][0])[:150]}); get it again")
    return model.eval()


def _check_size(config: UniBiomedConfig, state: Checkpoint) -> None:
    """Refuse weights far too few for `config`, before memory is asked for: a wrong size there may be a hundred-fold."""
    with torch.device("meta"):
        wanted = sum(tensor.numel() for tensor in _construct(config).parameters())
    found = sum(math.prod(shape) for shape in state.shapes.values())
    if wanted > 2 * found:
        raise ModelError(
            f"config.json describes a model of {wanted:,} numbers, most of them missing (the files hold {found:,}); "
            "get the whole model folder again from one release"
        )


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No progress bars and no loading tables: what is wrong is told once, in the error."""
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
    """A model whose weights are not set: a billion random numbers would only be overwritten."""
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
        raise ModelError(f"no model can be built of config.json ({reason}); get it again from the release") from error


def _lora_alpha(config: Mapping[str, Any]) -> float | None:
    """LoRA's α as the checkpoint says it; InternVL's ``use_llm_lora`` is the rank, with α twice that."""
    alpha, rank = config.get("lora_alpha"), config.get("use_llm_lora")
    if isinstance(alpha, int | float) and not isinstance(alpha, bool) and alpha > 0:
        return float(alpha)
    return 2.0 * rank if isinstance(rank, int) and rank > 0 else None


def _token_ids(folder: Path) -> dict[str, int]:
    """Ids of the tokens that were added to the tokenizer, from whichever of its files is there."""
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
        raise ModelError(f"the tokenizer in '{folder}' is broken; get its files again from the release") from error
    return ids


# ---------------------------------------------------------------- options


def _check_device(device: str | torch.device | None) -> torch.device | None:
    if device is None:
        return None
    try:
        torch.zeros(1, device=device).item()  # "meta" makes tensors, but none that hold numbers
        return torch.device(device)
    except (RuntimeError, AssertionError, TypeError, ValueError, NotImplementedError) as error:
        raise InputError(f"device {str(device)!r} cannot be used here; use 'cpu'") from error


def _check_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    kind = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if dtype is not None and kind not in (torch.float32, torch.bfloat16, torch.float16):
        raise InputError(f"dtype {str(dtype)!r} cannot be used; use 'float32', 'bfloat16' or 'float16'")
    return kind
