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
from unibiomed.interpret.vocabulary import ModelVocabulary
from unibiomed.model.mask_threshold import THRESHOLD_RULES
from unibiomed.model.modeling import UniBiomedModel
from unibiomed.terminology import absent_targets, can_show, load_targets
from unibiomed.train import calibrate as module
from unibiomed.train.calibrate import (
    OUT_OF_CONTEXT,
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


def test_every_known_target_and_some_out_of_context(
    kit: Kit, model: UniBiomedModel, held_out: tuple[ImageStore, list[Record]]
) -> None:
    store, chosen = held_out
    presence, drawn, refused = collect_scores(model, kit.processor, store, chosen, 0, progress=False)
    assert refused == 0
    own = [asked for asked in presence if not asked.out_of_context]
    # abdomen: the liver is there, the spleen is not; colon: a polyp in the first image alone
    assert [(asked.target, asked.present) for asked in own] == [
        *[("liver", True), ("spleen", False)] * 2,
        ("polyp", True),
        ("polyp", False),
    ]
    assert len(presence) - len(own) == len(chosen) * module.ABSENT_ASKED
    others = [asked for asked in presence if asked.out_of_context]
    assert not any(asked.present for asked in others)
    assert [mask.target for mask in drawn] == ["liver", "liver", "polyp"]
    assert all(0 <= iou <= 1 for mask in drawn for iou in mask.ious.values())
    assert all(math.isfinite(asked.logit) for asked in presence)
    assert all(math.isfinite(mask.logit) and set(mask.ious) == set(THRESHOLD_RULES) for mask in drawn)
    assert not model.training
    again = collect_scores(model, kit.processor, store, chosen, 0, progress=False)
    assert again == (presence, drawn, refused)


def test_only_the_vocabulary_is_asked_for(
    kit: Kit, model: UniBiomedModel, held_out: tuple[ImageStore, list[Record]]
) -> None:
    store, chosen = held_out
    vocabulary = ModelVocabulary({"liver": [], "polyp": [], "brain tumor": []})
    presence, _, refused = collect_scores(model, kit.processor, store, chosen, 0, vocabulary=vocabulary, progress=False)
    # no CT shows a polyp and no endoscopy a brain tumor: a user's question is refused before the model is asked
    assert [(asked.target, asked.out_of_context) for asked in presence] == [
        *[("liver", False), ("brain tumor", True)] * 2,
        *[("polyp", False), ("liver", True)] * 2,
    ]
    assert refused == 4 and all(asked.pairs == 1 for asked in presence)
    vocabulary = ModelVocabulary({target.name: [] for target in load_targets()})
    presence, *_ = collect_scores(model, kit.processor, store, chosen[:1], 0, vocabulary=vocabulary, progress=False)
    others = [name for name in absent_targets("CT", "abdomen", ["liver", "spleen"]) if can_show(name, "CT", None)]
    assert len(others) > module.ABSENT_ASKED == sum(asked.out_of_context for asked in presence)
    assert sum(asked.pairs for asked in presence if asked.out_of_context) == pytest.approx(len(others))


def test_the_fit_is_kept(
    kit: Kit, model: UniBiomedModel, held_out: tuple[ImageStore, list[Record]], tmp_path: Path
) -> None:
    store, chosen = held_out
    presence, *_ = collect_scores(model, kit.processor, store, chosen, 0, progress=False)
    calibrate_scores(model, kit.processor, store, chosen, 0, progress=False)
    for numbers in (model.config.presence_calibration, model.config.mask_calibration):
        assert numbers is not None and len(numbers) == 2 and numbers != [1.0, 0.0]
        assert all(isinstance(value, float) and math.isfinite(value) for value in numbers)
    logits, there = (torch.tensor(column) for column in list(zip(*presence, strict=True))[:2])
    share = float(there.float().mean())
    fitted = calibrate(logits, model.config.presence_calibration)  # type: ignore[arg-type]
    assert float(fitted.mean()) == pytest.approx(share, abs=0.05)  # what a calibrated score averages to
    model.save_pretrained(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["presence_calibration"] == model.config.presence_calibration
    assert config["mask_calibration"] == model.config.mask_calibration
    assert config["mask_threshold"] == model.config.mask_threshold in THRESHOLD_RULES
    assert 0 < config["presence_threshold"] == model.config.presence_threshold <= 1


def test_nothing_to_fit(
    kit: Kit, model: UniBiomedModel, held_out: tuple[ImageStore, list[Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, chosen = held_out
    calibrate_scores(model, kit.processor, store, [], 0, progress=False)
    assert model.config.presence_calibration == [1.0, 0.0] and model.config.mask_calibration == [1.0, 0.0]
    monkeypatch.setattr(module, "absent_targets", lambda *_: ())
    empty = [record for record in chosen if not store.present(record.key)]
    presence, drawn, _ = collect_scores(model, kit.processor, store, empty, 0, progress=False)
    assert [asked.present for asked in presence] == [False] and not drawn


def test_the_cut_with_the_higher_dice_is_chosen() -> None:
    """The mean over targets: a rare one counts as much as a common one."""

    def masks(target: str, half: float, dice: float, count: int) -> list[Drawn]:
        return [Drawn(0.0, {"half": half, "dice": dice}, target)] * count

    assert choose_cut(masks("liver", 0.8, 0.7, 30) + masks("tubes", 0.0, 0.4, 2)) == "dice"
    assert choose_cut(masks("liver", 0.8, 0.5, 30) + masks("tubes", 0.0, 0.1, 2)) == "half"
    # the published way, where nothing is won
    assert choose_cut(masks("liver", 0.8, 0.8, 3)) == "half"


NO_LIMITS = {"max_out_of_context": 1.0, "max_in_context": 1.0}


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
    assert choose_threshold(np.array(scores), dice, ["liver"] * len(scores), **NO_LIMITS) == pytest.approx(chosen)


def test_a_rare_target_counts_as_much_as_a_common_one() -> None:
    """One cyst of two is worth a fourth, three livers that are not there an eighth."""
    scores = np.array([0.9, 0.3] + [0.9] * 9 + [0.4] * 3)
    dice = [0.8, 0.8] + [0.8] * 9 + [None] * 3
    assert choose_threshold(scores, dice, ["cyst"] * 2 + ["liver"] * 12, **NO_LIMITS) == pytest.approx(0.15)
    assert choose_threshold(scores, dice, ["liver"] * 14, **NO_LIMITS) == 0.5


def test_targets_of_other_body_parts_weigh_as_one() -> None:
    scores, dice = np.array([0.3] + [0.4] * 50 + [0.1] * 50), [0.8] + [None] * 100
    foreign = [OUT_OF_CONTEXT] * 100
    assert choose_threshold(scores, dice, ["liver", *foreign], **NO_LIMITS) == pytest.approx(0.2)
    assert choose_threshold(scores, dice, ["liver", *(f"target {i}" for i in range(100))], **NO_LIMITS) == 0.5


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
    found = choose_threshold(scores, dice, targets, **NO_LIMITS)
    assert 0 < found <= 1

    def strict(limit: float) -> float:
        means = []
        for name in set(targets):
            asked = [(score >= limit, worth) for score, worth, target in rows if target == name]
            means.append(np.mean([float(not shown) if worth is None else worth * shown for shown, worth in asked]))
        return float(np.mean(means))

    if any(worth is not None for worth in dice):
        assert strict(found) >= max(strict(limit) for limit in (0.05, 0.2, 0.4, 0.6, 0.8, 0.99)) - 1e-9


def test_few_absent_targets_are_drawn() -> None:
    """Of 1,000 out-of-context targets 5 may be drawn; of the targets of the image's kind 12 %."""
    scores = np.concatenate([[0.3], np.linspace(0.2, 0.9, 1000)])
    dice = [0.9] + [None] * 1000
    limit = choose_threshold(scores, dice, ["liver"] + [OUT_OF_CONTEXT] * 1000)
    assert 1 <= (scores[1:] >= limit).sum() <= 5 or limit > 0.9
    assert (scores[1:] >= choose_threshold(scores, dice, ["liver"] + ["spleen"] * 1000)).mean() <= 0.12


def test_refused_and_sampled_pairs_count_in_the_share() -> None:
    """Of 16 questions that stand for 32 pairs two are drawn; with 368 further ones refused that is 1 % of 400."""
    scores, dice = np.array([0.4, 0.4] + [0.9, 0.8] + [0.1] * 14), [0.9, 0.9] + [None] * 16
    targets, pairs = ["liver"] * 2 + [OUT_OF_CONTEXT] * 16, [1.0] * 2 + [2.0] * 16
    limit = {"max_out_of_context": 0.01, "max_in_context": 1.0}
    assert choose_threshold(scores, dice, targets, pairs=pairs, refused=368, **limit) == pytest.approx(0.25)
    assert choose_threshold(scores, dice, targets, pairs=pairs, refused=360, **limit) > 0.8
    assert choose_threshold(scores, dice, targets, refused=368, **limit) == pytest.approx(0.25)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.sampled_from(["", "a", "b"])), min_size=1, max_size=60))
def test_the_limits_hold_on_what_they_were_chosen_by(rows: list[tuple[float, bool, str]]) -> None:
    rows = [(score, there and target != OUT_OF_CONTEXT, target) for score, there, target in rows]
    if not any(there for _, there, _ in rows):
        return
    scores, targets = np.array([row[0] for row in rows]), [row[2] for row in rows]
    limit = choose_threshold(scores, [0.8 if row[1] else None for row in rows], targets)
    drawn = {name: [s >= limit for s, there, t in rows if t == name and not there] for name in set(targets)}
    inside = [s >= limit for s, there, t in rows if t != OUT_OF_CONTEXT and not there]
    if limit < 1:
        assert not any(drawn.get(OUT_OF_CONTEXT, []))
        assert not inside or np.mean(inside) <= module.MAX_IN_CONTEXT + 1e-9
