"""The tiny model, loaded, and the script of what it says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from unibiomed.interpret import Interpreter, load


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tiny_interpreter", Path(__file__).parent / "tiny.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def model_folder(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def shared_interpreter(model_folder: Path) -> Interpreter:
    return load(model_folder, device="cpu")


@pytest.fixture
def interpreter(shared_interpreter: Interpreter) -> Interpreter:
    """A fresh one over the same weights: tests may set its threshold."""
    return Interpreter(shared_interpreter.model, shared_interpreter.processor, shared_interpreter.name)


@pytest.fixture
def script(tiny: ModuleType, monkeypatch: pytest.MonkeyPatch):
    return tiny.Script().install(monkeypatch)


@pytest.fixture
def picture() -> np.ndarray:
    """(61, 97, 3) uint8: odd sides, and not square."""
    return np.random.default_rng(0).integers(0, 256, (61, 97, 3), dtype=np.uint8)
