"""Scores are compared with the truth of held-out images, absent targets included, and become finite numbers."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unibiomed.data.records import Record
from unibiomed.interpret.scores import calibrate
from unibiomed.model.cut import CUTS
from unibiomed.model.modeling import UniBiomedModel
from unibiomed.train import calibrate as module
from unibiomed.train.calibrate import Drawn, calibrate_scores, choose_cut, choose_threshold, collect_scores
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
    presence, drawn = collect_scores(model, kit.processor, store, chosen, 0, progress=False)
    # abdomen: liver there, spleen not, a foreign target not; colon: the polyp, and a foreign target not
    assert [asked.present for asked in presence] == [True, False, False] * 2 + [True, False] + [False, False]
    assert [asked.target for asked in presence][:2] == ["liver", "spleen"]
    assert [mask.target for mask in drawn] == ["liver", "liver", "polyp"]
    assert all(0 <= iou <= 1 for mask in drawn for iou in mask.ious.values())
    assert all(math.isfinite(number) for asked in presence for number in (asked.logit, asked.peak))
    assert all(math.isfinite(mask.logit) and set(mask.ious) == set(CUTS) for mask in drawn)
    assert not model.training
    again = collect_scores(model, kit.processor, store, chosen, 0, progress=False)
    assert again == (presence, drawn)


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
    logits, peaks, there = (torch.tensor(column) for column in list(zip(*presence, strict=True))[:3])
    share = float(there.float().mean())
    fitted = calibrate(logits, model.config.presence_calibration, peaks)  # type: ignore[arg-type]
    assert float(fitted.mean()) == pytest.approx(share, abs=0.05)  # what a calibrated score averages to
    model.save_pretrained(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["presence_calibration"] == model.config.presence_calibration
    assert config["mask_calibration"] == model.config.mask_calibration
    assert config["mask_cut"] == model.config.mask_cut in CUTS


def test_nothing_to_fit(
    kit: Kit, model: UniBiomedModel, held_out: tuple[ImageStore, list[Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, chosen = held_out
    calibrate_scores(model, kit.processor, store, [], 0, progress=False)
    assert model.config.presence_calibration == [1.0, 0.0] and model.config.mask_calibration == [1.0, 0.0]
    monkeypatch.setattr(module, "foreign_targets", lambda *_: ())
    empty = [record for record in chosen if not store.present(record.key)]
    presence, drawn = collect_scores(model, kit.processor, store, empty, 0, progress=False)
    assert [asked.present for asked in presence] == [False] and not drawn


def test_the_cut_with_the_higher_dice_is_chosen() -> None:
    """The mean over targets: a rare one counts as much as a common one."""

    def masks(target: str, half: float, dice: float, count: int) -> list[Drawn]:
        return [Drawn(0.0, {"half": half, "dice": dice}, target)] * count

    assert choose_cut(masks("liver", 0.8, 0.7, 30) + masks("tubes", 0.0, 0.4, 2)) == "dice"
    assert choose_cut(masks("liver", 0.8, 0.5, 30) + masks("tubes", 0.0, 0.1, 2)) == "half"
    # the published way, where nothing is won
    assert choose_cut(masks("liver", 0.8, 0.8, 3)) == "half"


def threshold(scores: np.ndarray, present: np.ndarray, targets: list[str]) -> float:
    """All of the image's own kind."""
    return choose_threshold(scores, present, targets, np.zeros(len(scores), dtype=bool))


def test_the_threshold_misses_one_in_twenty_of_each_target() -> None:
    """Forty easy livers and four cysts: a cyst counts ten times."""
    scores = np.array([0.9] * 40 + [0.15, 0.3, 0.6, 0.7] + [0.05] * 50)
    present, targets = np.arange(94) < 44, ["liver"] * 40 + ["cyst"] * 4 + ["spleen"] * 50
    assert threshold(scores, present, targets) == 0.15  # one cyst is an eighth of all
    scores[40:44] = 0.6
    assert threshold(scores, present, targets) == 0.5  # nothing is missed at a half
    scores[:4] = 0.2
    assert threshold(scores, present, targets) == 0.5  # 4 of 40, and no cyst: a twentieth
    scores[4] = 0.2
    assert threshold(scores, present, targets) == 0.2


def test_the_threshold_spares_nine_in_ten_absent_targets() -> None:
    scores = np.concatenate([np.full(10, 0.1), np.linspace(0.0, 0.4, 101)])
    assert threshold(scores, np.arange(111) < 10, ["liver"] * 111) == pytest.approx(0.36)
    scores[10:] *= 3
    assert threshold(scores, np.arange(111) < 10, ["liver"] * 111) == 0.5


def test_foreign_targets_weigh_as_much_as_the_images_own() -> None:
    """A hundred that are surely absent do not pay for the image's own."""
    scores = np.concatenate([np.full(10, 0.1), np.linspace(0.2, 0.4, 11), np.zeros(100)])
    foreign = np.arange(121) >= 21
    assert threshold(scores, np.arange(121) < 10, ["liver"] * 121) == 0.1
    # a tenth of both halves is a fifth of the own: two of eleven lie above
    assert choose_threshold(scores, np.arange(121) < 10, ["liver"] * 121, foreign) == pytest.approx(0.36)


def test_a_threshold_without_present_or_absent_targets() -> None:
    assert threshold(np.array([0.1, 0.2]), np.zeros(2, dtype=bool), ["liver", "spleen"]) == 0.5
    assert threshold(np.array([0.1, 0.2]), np.ones(2, dtype=bool), ["liver", "spleen"]) == 0.1


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.sampled_from("abc"), st.booleans()), min_size=1, max_size=60)
)
def test_what_a_threshold_promises(rows: list[tuple[float, bool, str, bool]]) -> None:
    scores, present, targets, foreign = (np.array(column) for column in zip(*rows, strict=True))
    found = choose_threshold(scores, present, list(targets), foreign)
    assert 0 <= found <= 0.5

    def missed(limit: float) -> float:
        return float(np.mean([np.mean(scores[present & (targets == t)] < limit) for t in set(targets[present])]))

    def false(limit: float) -> float:
        kinds = [k for k in (False, True) if (~present & (foreign == k)).any()]
        return float(np.mean([np.mean(scores[~present & (foreign == k)] > limit) for k in kinds])) if kinds else 0.0

    if present.any() and found < 0.5:
        assert false(found) <= 0.1 + 1e-9
        # one of the two promises holds it there: the next higher score misses more, or a lower one finds more
        above, below = scores[scores > found], scores[scores < found]
        if missed(found) <= 0.05 + 1e-9:
            assert not len(above) or missed(float(above.min())) > 0.05
        else:
            assert false(float(below.max())) > 0.1
