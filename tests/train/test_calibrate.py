"""Scores are compared with the truth of held-out images, absent targets included, and become finite numbers."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest
import torch

from unibiomed.data.records import Record
from unibiomed.interpret.scores import calibrate
from unibiomed.model.modeling import UniBiomedModel
from unibiomed.train import calibrate as module
from unibiomed.train.calibrate import calibrate_scores, collect_scores
from unibiomed.train.store import ImageStore

from .conftest import TINY, Kit


@pytest.fixture
def held_out(records: list[Record], tmp_path: Path) -> tuple[ImageStore, list[Record]]:
    """Two abdomens with a liver and no spleen, a colon with a polyp and one whose polyp mask is empty."""
    chosen = [record for record in records if record.split == "val" and record.regions]
    assert len(chosen) == 4
    return ImageStore(chosen, TINY.image_size, tmp_path), chosen


@pytest.fixture
def model(kit: Kit) -> UniBiomedModel:
    return copy.deepcopy(kit.model).train()


def test_every_known_target_and_one_foreign(
    kit: Kit, model: UniBiomedModel, held_out: tuple[ImageStore, list[Record]]
) -> None:
    store, chosen = held_out
    presence, quality = collect_scores(model, kit.processor, store, chosen, 0, progress=False)
    # abdomen: liver there, spleen not, a foreign target not; colon: the polyp, and a foreign target not
    assert [there for *_, there in presence] == [True, False, False] * 2 + [True, False] + [False, False]
    assert len(quality) == 3
    assert all(0 <= iou <= 1 for _, iou in quality)
    assert all(math.isfinite(number) for numbers in presence + quality for number in numbers)
    assert not model.training
    again = collect_scores(model, kit.processor, store, chosen, 0, progress=False)
    assert again == (presence, quality)


def test_the_fit_is_kept(
    kit: Kit, model: UniBiomedModel, held_out: tuple[ImageStore, list[Record]], tmp_path: Path
) -> None:
    store, chosen = held_out
    presence, _ = collect_scores(model, kit.processor, store, chosen, 0, progress=False)
    calibrate_scores(model, kit.processor, store, chosen, 0, progress=False)
    for numbers, count in ((model.config.presence_calibration, 3), (model.config.mask_calibration, 2)):
        assert numbers is not None and len(numbers) == count
        assert all(isinstance(value, float) and math.isfinite(value) for value in numbers)
        assert numbers != [1.0, 0.0, 0.0][:count]
    logits, peaks, there = (torch.tensor(column) for column in zip(*presence, strict=True))
    share = float(there.float().mean())
    fitted = calibrate(logits, model.config.presence_calibration, peaks)  # type: ignore[arg-type]
    assert float(fitted.mean()) == pytest.approx(share, abs=0.05)  # what a calibrated score averages to
    model.save_pretrained(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["presence_calibration"] == model.config.presence_calibration
    assert config["mask_calibration"] == model.config.mask_calibration


def test_nothing_to_fit(
    kit: Kit, model: UniBiomedModel, held_out: tuple[ImageStore, list[Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, chosen = held_out
    calibrate_scores(model, kit.processor, store, [], 0, progress=False)
    assert model.config.presence_calibration == [1.0, 0.0] and model.config.mask_calibration == [1.0, 0.0]
    monkeypatch.setattr(module, "foreign_targets", lambda *_: ())
    empty = [record for record in chosen if not store.present(record.key)]
    presence, quality = collect_scores(model, kit.processor, store, empty, 0, progress=False)
    assert [there for *_, there in presence] == [False] and not quality
