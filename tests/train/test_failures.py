"""A full disk and full memory end a training with one line that says what is kept of it."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.tracking import GeneralTracker

from unibiomed.errors import DataError, OutputError
from unibiomed.train import finetune as finetuning
from unibiomed.train import processes
from unibiomed.train.checkpoint import read_state
from unibiomed.train.failures import kept_told, memory_told
from unibiomed.train.finetune import finetune
from unibiomed.train.stages import JointStage
from unibiomed.train.start import make_processor
from unibiomed.train.trainer import train

from .conftest import TINY, Kit, joint_recipe, log_rows, small_disk, state_of, tiny_recipe

pytestmark = pytest.mark.usefixtures("no_plot")

# ---------------------------------------------------------------- the disk


@pytest.fixture
def begun(whole_run: Path, tmp_path: Path) -> Path:
    """A training whose last stage is still to come."""
    for name in ("checkpoint", "processor", "cache"):
        shutil.copytree(whole_run / name, tmp_path / "run" / name)
    (tmp_path / "run" / "checkpoint" / "state.json").write_text('{"stage": 2, "step": 0}')
    return tmp_path / "run"


def test_a_disk_that_fills_up_in_a_training(begun: Path, data_root: Path) -> None:
    with pytest.raises(OutputError, match="checkpoint' cannot be written") as caught, small_disk():
        train(tiny_recipe(), data_root, begun, progress=False)
    assert str(caught.value).endswith(f"another --out; the last good checkpoint is '{begun / 'checkpoint'}'")
    assert "\n" not in str(caught.value)
    assert read_state(begun / "checkpoint") == {"stage": 2, "step": 0}


def test_no_room_for_the_tokenizer(kit: Kit, tmp_path: Path) -> None:
    """The library that writes it has no error of its own for that, only the bare `Exception`."""
    said = r"'.*processor' cannot be written \(.*; make room"
    with pytest.raises(OutputError, match=said) as caught, small_disk(4000):
        make_processor(TINY, kit.records, tmp_path / "processor")
    assert "\n" not in str(caught.value)


def test_a_checkpoint_is_named_only_where_there_is_one(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"^full$"), kept_told(tmp_path):
        raise OutputError("full")
    with pytest.raises(DataError, match=r"^memory ran out: ask for less$"), memory_told("ask for less", tmp_path):
        raise MemoryError
    (tmp_path / "checkpoint.old").mkdir()
    (tmp_path / "checkpoint.old" / "state.json").write_text("{}")
    kept = f"; the last good checkpoint is '{tmp_path / 'checkpoint.old'}'"
    with pytest.raises(OutputError, match=f"^full{kept}$"), kept_told(tmp_path):
        raise OutputError("full")
    with pytest.raises(DataError, match=f"^memory ran out: ask for less{kept}$"), memory_told("ask for less", tmp_path):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


# ---------------------------------------------------------------- trackers


class Noted(GeneralTracker):
    """A tracker that keeps what it is told; `full` names the method whose disk is full."""

    name = "noted"
    requires_logging_directory = False
    main_process_only = True

    def __init__(self, full: str = "") -> None:
        super().__init__()
        self.full, self.told = full, []  # type: ignore[var-annotated]

    @property
    def tracker(self) -> list[Any]:
        """What it was told."""
        return self.told

    def _note(self, method: str, *what: Any) -> None:
        self.told.append((method, *what))
        if method == self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def start(self) -> None:
        """Before the first step."""
        self._note("start")

    def log(self, values: dict[str, float], step: int | None = None, **_: Any) -> None:
        """The values of a step."""
        self._note("log", step, values)

    def finish(self) -> None:
        """At the end."""
        self._note("finish")


def test_what_a_tracker_is_told(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of `trackers` are, through accelerate."""
    noted = Noted()
    monkeypatch.setattr(processes, "find_trackers", lambda _: [noted])
    train(joint_recipe({"steps": 2}, evaluate=2), data_root, tmp_path, progress=False)
    assert [told[0] for told in noted.told] == ["start", "log", "log", "log", "finish"]
    steps = [told[1] for told in noted.told if told[0] == "log"]
    assert steps == [1, 2, 2]
    for row, (*_, values) in zip(log_rows(tmp_path), noted.told[1:3], strict=True):
        assert values["loss/total"] == pytest.approx(float(row["loss"]), abs=1e-4)
        names = {part.split("=")[0] for part in row["parts"].split()}
        assert values.keys() == {"loss/total", *(f"loss/{name}" for name in names)}
    assert noted.told[3][2].keys() == {"dice/liver", "dice/polyp", "dice/mean"}


@pytest.mark.parametrize("method", ["start", "log", "finish"])
def test_a_tracker_without_room(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setattr(processes, "find_trackers", lambda _: [Noted(method)])
    with pytest.raises(OutputError, match="No space left on device") as caught:
        train(joint_recipe({"steps": 1}), data_root, tmp_path, progress=False)
    assert "\n" not in str(caught.value)
    assert ("last good checkpoint" in str(caught.value)) == (method == "finish")


# ---------------------------------------------------------------- the memory of a fine-tuning


def test_memory_that_a_fine_tuning_lacks(
    whole_run: Path, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, in and after the training; a recipe's settings are of no use to who has none."""

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def tune() -> str:
        with pytest.raises(DataError, match=r"^memory ran out: ") as caught:
            finetune(data_root, tmp_path, str(whole_run / "model"), steps=1, batch=2, progress=False)
        assert "\n" not in str(caught.value) and "accumulate" not in str(caught.value)
        return str(caught.value)

    with monkeypatch.context() as patch:
        patch.setattr(finetuning, "held_out_dice", full)
        assert "smaller --model" in tune() and "checkpoint" not in tune()
    with monkeypatch.context() as patch:
        patch.setattr(JointStage, "losses", full)
        assert "lower --batch" in tune() and "checkpoint" not in tune()
    real, calls = finetuning.held_out_dice, []

    def later(*arguments: Any) -> Any:
        calls.append(1)
        return real(*arguments) if len(calls) == 1 else full()

    with monkeypatch.context() as patch:
        patch.setattr(finetuning, "held_out_dice", later)
        assert tune().endswith(f"last good checkpoint is '{tmp_path / 'checkpoint'}'")
    assert state_of(tmp_path)["stage"] == 1
