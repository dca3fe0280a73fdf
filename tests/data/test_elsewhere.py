"""Boxes around nothing that is annotated, and the turns that call them "something else"."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unibiomed.data.conversation import ELSEWHERE_SHARE, canonical_turns, make_turns, text_pairs
from unibiomed.data.elsewhere import MAX_COVERED, MAX_IOU, box_elsewhere
from unibiomed.data.records import Record, Region
from unibiomed.data.scene import Scene, classes
from unibiomed.findings.regions import split_parts
from unibiomed.images.geometry import box_iou, mask_box
from unibiomed.tasks import SOMETHING_ELSE, read_class

FILE = Path("mask.png")
RECORD = Record(
    "set/one",
    Path("one.png"),
    "set",
    "CT",
    "abdomen",
    "one",
    "train",
    regions=(Region("liver", FILE), Region("liver lesion", FILE, abnormal=True)),
    abnormal_known=True,
)
BOXED = {"classify": 1.0, "describe": 1.0}


def blob(row: float, column: float, radius: float, side: int = 128) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    return (y - row) ** 2 + (x - column) ** 2 < radius**2


MASKS = {0: blob(40, 40, 25), 1: blob(45, 45, 6)}


@given(
    st.integers(0, 2**32),
    st.lists(st.tuples(st.floats(5, 123), st.floats(5, 123), st.floats(2, 40)), min_size=1, max_size=5),
    st.tuples(st.floats(5, 123), st.floats(5, 123), st.floats(2, 40)),
)
@settings(max_examples=150, deadline=None)
def test_a_box_elsewhere_is_around_no_region(seed, blobs, lesion) -> None:
    masks = {0: np.logical_or.reduce([blob(*one) for one in blobs]), 1: blob(*lesion)}
    scene = Scene(RECORD, masks)
    box = box_elsewhere(scene, random.Random(seed))
    if box is None:
        return
    x0, y0, x1, y1 = box
    assert 0 <= x0 < x1 <= 128 and 0 <= y0 < y1 <= 128
    assert (masks[0] | masks[1])[y0:y1, x0:x1].mean() < MAX_COVERED
    for mask in masks.values():
        for known in (mask_box(mask), *split_parts(mask)):
            assert known is None or box_iou(box, known) < MAX_IOU
        # neither a whole part nor most of a region is inside
        inside = np.zeros_like(mask)
        inside[y0:y1, x0:x1] = mask[y0:y1, x0:x1]
        assert not mask.any() or inside.sum() < mask.sum() / 2
        assert not any(x0 <= a and y0 <= b and x1 >= c and y1 >= d for a, b, c, d in split_parts(mask))


def test_nothing_is_claimed_where_a_region_is_unknown_or_none_is_outlined() -> None:
    empty = np.zeros((128, 128), dtype=bool)
    for masks in ({0: MASKS[0]}, {1: MASKS[1]}, {}, {0: empty, 1: empty}):
        assert box_elsewhere(Scene(RECORD, masks), random.Random(0)) is None
        assert not any(SOMETHING_ELSE in turn.answer for turn in canonical_turns(RECORD, masks))
    full = {0: np.ones((128, 128), dtype=bool), 1: empty}
    assert all(box_elsewhere(Scene(RECORD, full), random.Random(seed)) is None for seed in range(20))
    # a target that is known to be absent is known
    absent = replace(RECORD, regions=(RECORD.regions[0], Region("liver lesion", None, abnormal=True)))
    assert box_elsewhere(Scene(absent, {0: MASKS[0]}), random.Random(0)) is not None


def test_a_region_of_which_only_the_box_is_known_is_kept_clear_of() -> None:
    lesion = (64, 0, 128, 128)
    record = replace(RECORD, regions=(RECORD.regions[0], Region("liver lesion", None, box=lesion)))
    scene = Scene(record, {0: blob(40, 30, 20)})
    boxes = [box for seed in range(60) if (box := box_elsewhere(scene, random.Random(seed))) is not None]
    assert boxes
    for x0, _, x1, _ in boxes:
        assert max(0, x1 - 64) / (x1 - x0) < MAX_COVERED


def test_sparse_regions_are_not_taken_for_something_else() -> None:
    lines = np.zeros((128, 128), dtype=bool)
    lines[::7] = True
    record = replace(RECORD, regions=(Region("retinal vessel", FILE),), modality="fundus", site="retina")
    assert all(box_elsewhere(Scene(record, {0: lines}), random.Random(seed)) is None for seed in range(30))


def test_about_a_fifth_of_the_boxed_turns_are_about_something_else() -> None:
    rng, turns = random.Random(0), []
    for _ in range(500):
        turns += make_turns(RECORD, MASKS, rng, tasks=BOXED, count=1)
    others = [turn for turn in turns if turn.box_region is None]
    assert abs(len(others) / len(turns) - ELSEWHERE_SHARE) < 0.05
    assert all(turn.box is not None and not turn.masks for turn in others)
    assert {turn.answer for turn in others if turn.task == "classify"} == {"something else in abdomen CT"}
    told = {turn.answer for turn in others if turn.task == "describe"}
    assert len(told) == 1 and read_class(next(iter(told)).split(".")[0]).casefold() == SOMETHING_ELSE
    assert all("something else" not in turn.answer.lower() for turn in turns if turn.box_region is not None)


def test_turns_of_one_image_share_the_box_around_something_else() -> None:
    shared = 0
    for seed in range(60):
        turns = make_turns(RECORD, MASKS, random.Random(seed), tasks=BOXED, count=6)
        boxes = [turn.box for turn in turns if turn.box_region is None]
        assert len(set(boxes)) <= 1
        shared += len(boxes) > 1
    assert shared


def test_evaluation_asks_of_one_such_box_an_image_always_the_same() -> None:
    turns = [turn for turn in canonical_turns(RECORD, MASKS) if turn.box is not None]
    others = [turn for turn in turns if turn.box_region is None]
    assert [turn.task for turn in others] == ["classify"] and turns[-1] == others[0]
    assert others[0].answer == "something else in abdomen CT"
    assert others == [turn for turn in canonical_turns(RECORD, MASKS) if turn.box and turn.box_region is None]
    renamed = canonical_turns(replace(RECORD, key="set/two"), MASKS)
    assert [turn.box for turn in renamed if turn.box and turn.box_region is None] != [others[0].box]


def test_something_else_is_a_class_without_a_target() -> None:
    assert classes(RECORD)["something else in abdomen CT"] == ""
    for regions in ((), (Region("liver", None),), (Region("liver", None, box=(0, 0, 4, 4)),)):
        assert "something else in abdomen CT" not in classes(replace(RECORD, regions=regions))


@pytest.mark.parametrize("task", ["classify", "describe"])
def test_texts_without_images_speak_of_something_else(task) -> None:
    rng = random.Random(1)
    answers = [answer for _ in range(300) for _, answer in text_pairs(RECORD, rng)]
    start = "something else in" if task == "classify" else "Something else. "
    assert any(answer.startswith(start) for answer in answers)
