"""Weight files as a lazy mapping from tensor names to tensors."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from unibiomed.errors import ModelError

MAX_JSON_BYTES = 32 * 2**20
# In order of preference: safetensors before PyTorch files.
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
PATTERNS = ("model*.safetensors", "pytorch_model*.bin", "*.pth")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Parameters
    ----------
    path : Path
        The file, of at most ``MAX_JSON_BYTES``.

    Returns
    -------
    dict

    Raises
    ------
    ModelError
        If the file is missing, too large, or not a JSON object.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError(f"it is larger than {MAX_JSON_BYTES >> 20} MB")
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError("it is not a JSON object")
    except FileNotFoundError as error:
        raise ModelError(f"'{path.parent}' has no {path.name}: give the folder of a model") from error
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0][:200]
        raise ModelError(f"'{path}' cannot be read ({reason}): download the model folder again") from error
    return value


def weight_files(folder: Path) -> list[Path]:
    """Find the weight files in a model folder: those listed in an index file, otherwise those with a standard name.

    Parameters
    ----------
    folder : Path
        The model folder.

    Returns
    -------
    list of Path

    Raises
    ------
    ModelError
        If there are no weight files, or a file of the index is missing.
    """
    for pattern, index in zip(PATTERNS, (*INDEXES, None), strict=True):
        if index and (folder / index).is_file():
            table = read_json(folder / index).get("weight_map")
            names = sorted({str(name) for name in table.values()}) if isinstance(table, dict) else []
            if not names or any(Path(name).name != name for name in names):
                raise ModelError(f"'{folder / index}' lists no valid file names: download the model folder again")
            if missing := [name for name in names if not (folder / name).is_file()]:
                raise ModelError(
                    f"'{folder}' lacks {len(missing)} of {len(names)} weight files ({missing[0]}, …): "
                    "download the model folder again"
                )
            return [folder / name for name in names]
        if files := sorted(path for path in folder.glob(pattern) if path.is_file()):
            return files
    raise ModelError(f"'{folder}' has no weights (model.safetensors): download the model folder again")


class Checkpoint(Mapping[str, torch.Tensor]):
    """Lazy mapping of all tensors in weight files: safetensors, or PyTorch files with plain tensors only.

    Parameters
    ----------
    files : list of Path
        Weight files, from :func:`weight_files`.

    Attributes
    ----------
    shapes : dict
        Shape of each tensor, by name.
    dtype : torch.dtype
        Smallest dtype that represents all tensors without loss.

    Raises
    ------
    ModelError
        If a file is damaged, or contains anything but tensors.
    """

    def __init__(self, files: list[Path]) -> None:
        self._where: dict[str, tuple[Path, Any]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        dtypes: set[torch.dtype] = set()
        for path in files:
            try:
                tensors = _open(path)
                for name in tensors:
                    self.shapes[name], dtype = _header(tensors, name)
                    if dtype.is_floating_point:
                        dtypes.add(dtype)
                    self._where[name] = (path, tensors)
            except (OSError, ValueError, KeyError, RuntimeError, EOFError, SafetensorError) as error:
                raise _broken(path, error) from error
            except (pickle.UnpicklingError, zipfile.BadZipFile) as error:
                raise _broken(path, error) from error
        self.dtype = torch.float32
        if dtypes:
            first, *rest = dtypes
            for dtype in rest:
                first = torch.promote_types(first, dtype)
            self.dtype = first

    def __getitem__(self, name: str) -> torch.Tensor:
        path, tensors = self._where[name]
        try:
            return tensors[name] if isinstance(tensors, dict) else tensors.get_tensor(name)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise _broken(path, error) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)


class _Safetensors:
    """``safe_open`` as an iterable of tensor names."""

    def __init__(self, path: Path) -> None:
        self._file = safe_open(str(path), framework="pt", device="cpu")

    def __iter__(self) -> Iterator[str]:
        return iter(self._file.keys())

    def header(self, name: str) -> tuple[tuple[int, ...], torch.dtype]:
        part = self._file.get_slice(name)
        return tuple(part.get_shape()), part[:0].dtype if part.get_shape() else self.get_tensor(name).dtype

    def get_tensor(self, name: str) -> torch.Tensor:
        return self._file.get_tensor(name)


def _open(path: Path) -> dict[str, torch.Tensor] | _Safetensors:
    if path.suffix == ".safetensors":
        return _Safetensors(path)
    # mmap reads tensors from the disk when they are used; weights_only accepts only tensors and plain containers.
    loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(state, dict) or not state or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise ValueError("it is not a dictionary of tensors")
    return {str(name): tensor for name, tensor in state.items()}


def _header(tensors: dict[str, torch.Tensor] | _Safetensors, name: str) -> tuple[tuple[int, ...], torch.dtype]:
    if isinstance(tensors, _Safetensors):
        return tensors.header(name)
    return tuple(tensors[name].shape), tensors[name].dtype


def _broken(path: Path, error: Exception) -> ModelError:
    if isinstance(error, pickle.UnpicklingError):
        return ModelError(f"'{path}' contains Python objects, which are not loaded for security: save only its tensors")
    reason = (str(error).splitlines() or [type(error).__name__])[0][:150]
    return ModelError(f"'{path}' is truncated or damaged ({reason}): download it again")
