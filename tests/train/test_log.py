"""What is written while a training runs: log, trackers, held-out Dice, and the picture at the end."""

from __future__ import annotations

import csv
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unibiomed.data import Record
from unibiomed.errors import DataError, OutputError
from unibiomed.train.heldout import choose, held_out_dice
from unibiomed.train.log import Log, find_trackers
from unibiomed.train.plot import plot_log
from unibiomed.train.recipe import TRACKERS
from unibiomed.train.trainer import train

from .conftest import Kit, joint_recipe, log_rows, logged, tiny_recipe


def test_log_keeps_what_is_done(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    log = Log(path, {"old": 3})
    for stage in ("one", "two"):
        for step in range(3):
            log.add(stage, step, 0.5, {"mask": 1.0, "text": 0.25})
    assert log.means == {"mask": 1.0, "text": 0.25}
    whole = path.read_text()
    assert whole.splitlines()[:2] == ["stage,step,seconds,loss,parts", "one,0,0.50,1.25000,mask=1.0000 text=0.2500"]
    Log(path, {"one": math.inf, "two": math.inf})
    assert path.read_text() == whole
    path.write_text(whole + "two,3,0.5")  # cut short by a kill
    Log(path, {"one": math.inf, "two": 1})
    assert logged(tmp_path) == [("one", "0"), ("one", "1"), ("one", "2"), ("two", "0")]
    Log(path, {})
    assert logged(tmp_path) == []


# ---------------------------------------------------------------- trackers


def test_trackers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unibiomed.train.log.find_spec", lambda name: None if name == "wandb" else object())
    assert find_trackers(None) == ["tensorboard"]
    assert find_trackers([]) == []
    assert find_trackers(["mlflow", "tensorboard"]) == ["mlflow", "tensorboard"]
    with pytest.raises(DataError, match="'wandb' is not installed: pip install wandb"):
        find_trackers(["tensorboard", "wandb"])
    monkeypatch.setattr("unibiomed.train.log.find_spec", lambda _: None)
    assert find_trackers(None) == []


def test_a_tracker_that_is_not_installed(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unibiomed.train.log.find_spec", lambda _: None)
    for name in TRACKERS:
        with pytest.raises(DataError, match=f"'{name}' is not installed") as caught:
            train(joint_recipe(trackers=[name]), data_root, tmp_path / "run", progress=False)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "log.csv").exists()


def test_tensorboard(data_root: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    recipe = tiny_recipe(trackers=None, evaluate=2)
    stages = [recipe.stages[1], replace(recipe.stages[2], steps=2)]
    train(replace(recipe, stages=stages), data_root, tmp_path, progress=False)
    files = list(tmp_path.rglob("events.out.tfevents*"))
    assert len(files) == 1
    events = accumulator.EventAccumulator(str(files[0].parent))
    events.Reload()
    totals = [(event.step, event.value) for event in events.Scalars("loss/total")]
    assert totals == [(i + 1, pytest.approx(float(row["loss"]), rel=1e-5)) for i, row in enumerate(log_rows(tmp_path))]
    # a step without a mask has no such loss
    masked = [i + 1 for i, row in enumerate(log_rows(tmp_path)) if "mask=" in row["parts"]]
    assert masked and [event.step for event in events.Scalars("loss/mask")] == masked
    (dice,) = events.Scalars("dice/mean")
    rows = dice_rows(tmp_path)
    assert dice.step == 4 and dice.value == pytest.approx(np.mean([float(row["dice"]) for row in rows]), abs=1e-4)


# ---------------------------------------------------------------- held-out images


def dice_rows(out: Path) -> list[dict[str, str]]:
    with (out / "heldout.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_held_out_dice_of_a_run(whole_run: Path) -> None:
    rows = dice_rows(whole_run)
    # after the text stage there is nothing to measure; no image shows a spleen
    wanted = [("encoder", "3", "liver"), ("encoder", "3", "polyp"), ("joint", "2", "liver"), ("joint", "2", "polyp")]
    assert [(row["stage"], row["step"], row["target"]) for row in rows] == wanted
    assert all(0 <= float(row["dice"]) <= 1 for row in rows)


@pytest.mark.parametrize("kind", ["encoder", "joint"])
def test_held_out_dice(kit: Kit, records: list[Record], monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """With masks that are the truth, but for their upper half, Dice is what the areas say; nothing is learned."""
    shown = [record for record in records if record.split == "val" and record.regions]
    real = kit.model.decode_masks
    logits: list[torch.Tensor] = []

    def perfect(maps: tuple[torch.Tensor, ...], prompts: torch.Tensor) -> object:
        out = real(maps, prompts)
        out.logits = torch.full_like(out.logits, 5.0)
        out.logits[..., : out.logits.shape[-2] // 2, :] = -5.0
        logits.append(out.logits)
        return out

    monkeypatch.setattr(kit.model, "decode_masks", perfect)
    scores = held_out_dice(kit.model, kit.heads, kit.processor, shown, 8, kind)
    assert set(scores) == {"liver", "polyp"} and len(logits) == 3  # one colon shows no polyp
    assert not kit.model.training and not any(p.grad_fn for p in kit.model.parameters())
    for target, score in scores.items():
        expected = []
        for record in shown:
            for region in record.regions:
                if region.target == target:
                    mask = Image.fromarray(region.load() * np.uint8(255)).resize((64, 64), Image.Resampling.BOX)
                    truth = np.asarray(mask) > 127
                    if truth.any():
                        expected.append(2 * truth[32:].sum() / (truth.sum() + 32 * 64))
        assert score == pytest.approx(np.mean(expected), abs=0.02), target
    assert held_out_dice(kit.model, kit.heads, kit.processor, shown, 8, "text") == {}


def test_the_same_images_are_held_out_each_time(records: list[Record]) -> None:
    shown = [record for record in records if record.image is not None]
    chosen = [record.key for record in choose(shown, 3)]
    assert [record.key for record in choose(shown[::-1], 3)] == chosen
    assert sum(key.startswith("colon/") for key in chosen) == sum(key.startswith("abdomen/") for key in chosen) == 3


def test_held_out_rows_of_a_stage_are_written_once(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.csv", {})
    for stage, value in (("one", 0.25), ("two", 0.5), ("one", 0.75)):
        log.held_out(tmp_path / "heldout.csv", stage, 10, {"polyp": value, "liver": value / 2})
    assert (tmp_path / "heldout.csv").read_text().splitlines() == [
        "stage,step,target,dice",
        "two,10,liver,0.2500",
        "two,10,polyp,0.5000",
        "one,10,liver,0.3750",
        "one,10,polyp,0.7500",
    ]


# ---------------------------------------------------------------- the picture


def test_the_picture_of_a_run(whole_run: Path) -> None:
    with Image.open(whole_run / "training.png") as image:
        assert image.format == "PNG" and image.size == (1320, 540)
        pixels = np.asarray(image.convert("RGB"))
    halves = pixels[:, :660], pixels[:, 660:]
    # more than a frame: curves on the left, points on the right
    for half in halves:
        coloured = (half.max(2).astype(int) - half.min(2)) > 60
        assert coloured.sum() > 50


def test_every_loss_is_in_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    axes = pytest.importorskip("matplotlib.axes")
    real, drawn = axes.Axes.plot, []

    def plot(self: Any, *values: Any, label: str, **more: Any) -> Any:
        drawn.append(label)
        return real(self, *values, label=label, **more)

    monkeypatch.setattr(axes.Axes, "plot", plot)
    names = ["mask", "quality", "box", "prompted", "align", "new"]
    log = Log(tmp_path / "log.csv", {})
    for step in range(2):
        log.add("one", step, 0.1, dict.fromkeys(names, 0.5))
    plot_log(tmp_path / "log.csv", tmp_path / "heldout.csv", tmp_path / "training.png")
    assert drawn == names


def test_the_picture_of_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    log, out = tmp_path / "log.csv", tmp_path / "training.png"
    held_out = tmp_path / "heldout.csv"
    log.write_text("stage,step,seconds,loss,parts\n")
    plot_log(log, held_out, out)
    assert out.stat().st_size > 1000
    out.unlink()
    log.write_text("stage,step,seconds,loss,parts\none,0,0.1,0.0,text=0.0000\n")
    held_out.write_text("stage,step,target,dice\n")
    plot_log(log, held_out, out)
    assert out.stat().st_size > 1000
    assert [str(warning.message) for warning in recwarn] == []
    with pytest.raises(OutputError):
        plot_log(log, held_out, tmp_path / "none" / "training.png")
    out.unlink()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.warns(UserWarning, match="pip install matplotlib"):
        plot_log(log, held_out, out)
    assert not out.exists()
