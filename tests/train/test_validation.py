"""Held-out images of shards: a bounded number, read anew, never trained on, and worth what those of a folder are."""

from __future__ import annotations

import copy
import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unibiomed.data import Record
from unibiomed.data.build import build_shards
from unibiomed.data.index import read_index, write_index
from unibiomed.data.reader import _Files
from unibiomed.data.records import Region
from unibiomed.errors import DataError
from unibiomed.train import trainer
from unibiomed.train.calibrate import collect_scores
from unibiomed.train.heldout import held_out_dice
from unibiomed.train.mixture import Shards
from unibiomed.train.recipe import DataRecipe
from unibiomed.train.store import ImageStore
from unibiomed.train.trainer import train
from unibiomed.train.validation import ShardedRecords, choose

from .conftest import TINY, Kit, different, interrupt_at, save_image, streamed_recipe

pytestmark = pytest.mark.usefixtures("no_plot")


@pytest.fixture
def held_out(records: list[Record]) -> list[Record]:
    return [record for record in records if record.split == "val" and record.regions]


@pytest.fixture
def without(shards: Path, tmp_path: Path) -> Path:
    """Shards as they are where nothing was held out."""
    folder = shutil.copytree(shards, tmp_path / "without")
    write_index(folder, [shard for shard in read_index(folder).shards if shard.split != "val"])
    return folder


def keys(records: Any) -> list[str]:
    return [record.key for record in records]


def calibrations(out: Path) -> list[list[float]]:
    config = json.loads((out / "model" / "config.json").read_text())
    return [config["presence_calibration"], config["mask_calibration"]]


# ---------------------------------------------------------------- what is read


def test_only_the_validation_split_is_held_out(shards: Path, held_out: list[Record]) -> None:
    sharded = ShardedRecords(shards, None)
    # reports have no regions, and what is for testing is not looked at
    assert sharded and sharded.datasets == ["abdomen", "colon"]
    assert sorted(keys(sharded.choose(99))) == sorted(keys(held_out))
    assert set(keys(ShardedRecords(shards, ["colon"]).choose(99))) == {"colon/val6", "colon/val7"}
    source, rng = Shards(shards, DataRecipe(), 0), random.Random(0)
    assert {source.draw(rng).split for _ in range(200)} == {"train"}


def test_no_more_is_read_than_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_image(tmp_path / "image.png", np.zeros((8, 8, 3), np.uint8))
    common: dict[str, Any] = {"image": tmp_path / "image.png", "modality": "CT", "site": "abdomen", "split": "val"}
    many = [
        Record(key=f"{name}/{n}", dataset=name, group=f"{n}", regions=(Region("liver", None),), **common)
        for name, count in (("large", 200), ("small", 3))
        for n in range(count)
    ]
    build_shards(many, tmp_path / "out", workers=1, rows_per_shard=2)
    real, reads = _Files.read, []
    monkeypatch.setattr(_Files, "read", lambda self, *place: reads.append(place) or real(self, *place))
    sharded = ShardedRecords(tmp_path / "out", None)
    assert reads == []
    chosen = keys(choose(sharded, 5))
    assert [key.split("/")[0] for key in chosen] == ["large"] * 5 + ["small"] * 3
    assert len(reads) <= 8  # row groups, of 102
    assert len(set(chosen)) == 8 and keys(sharded.choose(5)) == chosen
    # fewer are the first of more
    assert keys(sharded.choose(2)) == [*chosen[:2], *chosen[5:7]]


def test_shards_without_a_validation_split(without: Path) -> None:
    sharded = ShardedRecords(without, None)
    assert not sharded and list(sharded.choose(8)) == []


def test_a_lost_shard_is_told_before_anything_is_learned(
    whole_run: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(shards, tmp_path / "shards")
    (folder / "colon" / "val-00000.parquet").unlink()
    monkeypatch.setattr(trainer, "run_stage", None)
    with pytest.raises(DataError, match=r"colon/val-00000\.parquet: the shard is missing") as caught:
        train(streamed_recipe(whole_run), folder, tmp_path / "run", progress=False)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- what it is worth


def test_scores_are_those_of_the_files(shards: Path, kit: Kit, held_out: list[Record], tmp_path: Path) -> None:
    model = copy.deepcopy(kit.model)
    streamed = list(ShardedRecords(shards, None).choose(99))
    by_key = {record.key: record for record in held_out}
    same = [by_key[record.key] for record in streamed]
    store = ImageStore(same, TINY.image_size, tmp_path)
    expected = collect_scores(model, kit.processor, store, same, 0, progress=False)
    assert collect_scores(model, kit.processor, None, iter(streamed), 0, progress=False) == expected
    assert [asked.present for asked in expected[0]].count(True) == 3  # one polyp mask is empty


def test_dice_is_that_of_the_files(shards: Path, kit: Kit, held_out: list[Record]) -> None:
    model = copy.deepcopy(kit.model)
    expected = held_out_dice(model, None, kit.processor, held_out, 8)
    assert set(expected) == {"liver", "polyp"}
    assert held_out_dice(model, None, kit.processor, ShardedRecords(shards, None), 8) == pytest.approx(expected)


def test_a_training_from_shards_is_watched_and_calibrated(
    whole_run: Path, shards: Path, without: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = streamed_recipe(whole_run, evaluate=8)
    train(recipe, shards, tmp_path / "run", progress=False)
    rows = [line.split(",") for line in (tmp_path / "run" / "heldout.csv").read_text().splitlines()[1:]]
    assert [row[:3] for row in rows] == [["joint", "4", "liver"], ["joint", "4", "polyp"]]
    assert all(0 <= float(row[3]) <= 1 for row in rows)
    assert calibrations(tmp_path / "run") != calibrations(whole_run)
    # a stop changes none of it
    with monkeypatch.context() as patch:
        interrupt_at(patch, "joint", 2)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, shards, tmp_path / "stopped", progress=False)
    train(recipe, shards, tmp_path / "stopped", progress=False)
    assert different(tmp_path / "run", tmp_path / "stopped") == []
    assert calibrations(tmp_path / "run") == calibrations(tmp_path / "stopped")
    held_out = [(tmp_path / name / "heldout.csv").read_text() for name in ("run", "stopped")]
    assert held_out[0] == held_out[1]
    # where nothing is held out, that is said, and the scores stay as they were
    with pytest.warns(UserWarning, match="has no image with targets"):
        train(recipe, without, tmp_path / "old", progress=False)
    assert not (tmp_path / "old" / "heldout.csv").exists()
    assert calibrations(tmp_path / "old") == calibrations(whole_run)
