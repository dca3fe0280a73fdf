"""Data sets that a recipe holds out are in no part of its training."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from unibiomed.data.records import Record
from unibiomed.errors import DataError
from unibiomed.train import trainer
from unibiomed.train.mixture import Mixture, Shards, check_names, streamed_datasets, streamed_licences
from unibiomed.train.recipe import DataRecipe
from unibiomed.train.store import ImageStore
from unibiomed.train.trainer import train

from .conftest import joint_recipe, tiny_recipe

HELD = DataRecipe(held_out=["colon"])


@pytest.mark.usefixtures("no_plot")
def test_no_split_of_a_held_out_set_is_used(data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored: dict[str, set[str]] = {"train": set(), "val": set()}
    drawn: set[str] = set()

    class Store(ImageStore):
        def __init__(self, records: list[Record], *rest: Any, **more: Any) -> None:
            for record in records:
                stored[record.split].add(record.dataset)
            super().__init__(records, *rest, **more)

    class Source(Mixture):
        def __init__(self, records: list[Record], *rest: Any, **more: Any) -> None:
            drawn.update(record.dataset for record in records)
            super().__init__(records, *rest, **more)

    monkeypatch.setattr(trainer, "ImageStore", Store)
    monkeypatch.setattr(trainer, "Mixture", Source)
    out = tmp_path / "run"
    train(joint_recipe({"steps": 1}, data=HELD, evaluate=1), data_root, out, progress=False)
    assert stored == {"train": {"abdomen"}, "val": {"abdomen"}}
    assert drawn == {"abdomen"}
    card = json.loads((out / "model" / "card.json").read_text())
    assert set(card["trained_on"]) == {"abdomen", "reports"}
    assert "liver" in card["targets"] and "polyp" not in json.dumps(card).lower()
    assert "polyp" not in (out / "heldout.csv").read_text()


def test_shards_of_a_held_out_set_are_not_read(shards: Path) -> None:
    assert streamed_datasets(shards, DataRecipe()) is None
    assert streamed_datasets(shards, DataRecipe(datasets=["abdomen"])) == ["abdomen"]
    assert streamed_datasets(shards, HELD) == ["abdomen", "reports"]
    assert streamed_datasets(shards, replace(HELD, datasets=["colon", "reports"])) == ["reports"]
    source = Shards(shards, HELD, seed=0)
    assert {source.draw(random.Random(0)).dataset for _ in range(60)} == {"abdomen", "reports"}
    assert streamed_licences(shards, HELD).keys() == {"abdomen", "reports"}
    watched = trainer._held_out(shards, tiny_recipe(data=HELD), None)
    assert {record.dataset for record in watched.choose(9)} == {"abdomen"}  # type: ignore[union-attr]
    with pytest.raises(DataError, match="hold no record"):
        Shards(shards, DataRecipe(held_out=["abdomen", "colon", "reports"]), seed=0)


@pytest.mark.parametrize("sharded", [False, True])
def test_a_name_that_nobody_knows_is_refused(data_root: Path, shards: Path, sharded: bool) -> None:
    data = shards if sharded else data_root
    # a data set of the catalogue may be held out whether it is there or not
    check_names(data, tiny_recipe(data=DataRecipe(held_out=["colon", "kvasir_seg_polyp"])))
    for name, words in (
        ("colom", "did you mean 'colon'"),
        ("kvasir_seg_polyps", "did you mean 'kvasir_seg_polyp'"),
        ("CT", "only data sets can be held out"),
    ):
        with pytest.raises(DataError, match=f"held_out: there is no data set '{name}'; .*{words}") as caught:
            check_names(data, tiny_recipe(data=DataRecipe(held_out=["abdomen", name])))
        assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("no_plot")
def test_a_training_refuses_unknown_names(data_root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="held_out: there is no data set 'colom'"):
        train(joint_recipe(data=DataRecipe(held_out=["colom"])), data_root, tmp_path / "run", progress=False)
    with pytest.raises(DataError, match="no training image"):
        held = DataRecipe(held_out=["abdomen", "colon"])
        train(joint_recipe(data=held), data_root, tmp_path / "other", progress=False)
