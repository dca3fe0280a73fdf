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
from unibiomed.train.calibrate import (
    FOREIGN,
    Drawn,
    calibrate_scores,
    choose_cut,
    choose_threshold,
    collect_scores,
)
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
    assert 0 < config["presence_threshold"] == model.config.presence_threshold <= 1


def test_nothing_to_fit(
    kit: Kit, model: UniBiomedModel, held_out: tuple[ImageStore, list[Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, chosen = held_out
    calibrate_scores(model, kit.processor, store, [], 0, progress=False)
    assert model.config.presence_calibration == [1.0, 0.0] and model.config.mask_calibration == [1.0, 0.0]
    monkeypatch.setattr(module, "absent_targets", lambda *_: ())
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


@pytest.mark.parametrize(
    ("scores", "dice", "chosen"),
    [
        ([0.9, 0.7, 0.2], [0.8, 0.8, None], 0.5),  # a half parts them
        ([0.9, 0.3, 0.1], [0.8, 0.8, None], 0.2),
        ([0.9, 0.8, 0.6], [0.8, None, None], 0.85),
        ([0.9, 0.8, 0.3], [0.9, None, 0.9], 0.85),  # a false mask is spared, worth more than a mask
        ([0.9, 0.9, 0.2], [0.3, None, None], 0.95),  # the first two cannot be told apart
        ([0.7, 0.4], [0.0, 0.0], 0.5),  # nothing is won
    ],
)
def test_the_threshold_with_the_highest_strict_dice(
    scores: list[float], dice: list[float | None], chosen: float
) -> None:
    assert choose_threshold(np.array(scores), dice, ["liver"] * len(scores)) == pytest.approx(chosen)


def test_a_rare_target_counts_as_much_as_a_common_one() -> None:
    """One cyst of two is worth a fourth, three livers that are not there an eighth."""
    scores = np.array([0.9, 0.3] + [0.9] * 9 + [0.4] * 3)
    dice = [0.8, 0.8] + [0.8] * 9 + [None] * 3
    assert choose_threshold(scores, dice, ["cyst"] * 2 + ["liver"] * 12) == pytest.approx(0.15)
    assert choose_threshold(scores, dice, ["liver"] * 14) == 0.5


def test_targets_of_other_body_parts_weigh_as_one() -> None:
    scores, dice = np.array([0.3] + [0.4] * 50 + [0.1] * 50), [0.8] + [None] * 100
    foreign = [FOREIGN] * 100
    assert choose_threshold(scores, dice, ["liver", *foreign]) == pytest.approx(0.2)
    assert choose_threshold(scores, dice, ["liver", *(f"target {i}" for i in range(100))]) == 0.5


def test_a_threshold_without_present_or_absent_targets() -> None:
    assert choose_threshold(np.array([0.9, 0.2]), [None, None], ["liver", "spleen"]) == 0.5
    assert choose_threshold(np.array([0.6, 0.2]), [0.5, 0.5], ["liver", "spleen"]) == pytest.approx(0.1)


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 1.0]), st.none() | st.floats(0, 1), st.sampled_from("abc")),
        min_size=1,
        max_size=60,
    )
)
def test_no_threshold_has_a_higher_strict_dice(rows: list[tuple[float, float | None, str]]) -> None:
    scores, dice, targets = np.array([row[0] for row in rows]), [row[1] for row in rows], [row[2] for row in rows]
    found = choose_threshold(scores, dice, targets)
    assert 0 < found <= 1

    def strict(limit: float) -> float:
        means = []
        for name in set(targets):
            asked = [(score >= limit, worth) for score, worth, target in rows if target == name]
            means.append(np.mean([float(not shown) if worth is None else worth * shown for shown, worth in asked]))
        return float(np.mean(means))

    if any(worth is not None for worth in dice):
        assert strict(found) >= max(strict(limit) for limit in (0.05, 0.2, 0.4, 0.6, 0.8, 0.99)) - 1e-9
