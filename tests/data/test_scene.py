"""Regions of which only the box is known: they are there, but nothing is measured and no mask is asked for."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from unibiomed.data.conversation import TASK_WEIGHTS, canonical_turns, make_turns
from unibiomed.data.questions import made_question
from unibiomed.data.records import Record, Region
from unibiomed.data.scene import Scene
from unibiomed.tasks import SEG

BOX = (4, 6, 20, 30)
NODULE = Region("lung nodule", None, abnormal=True, box=BOX, attributes={"report": "It is spiculated."})
LIVER = Region("liver", Path("liver.png"))
SPLEEN = Region("spleen", None)


def record(*regions: Region, **more) -> Record:
    return Record("toy/a", Path("a.png"), "toy", "CT", "chest", "a", "train", regions=regions, **more)


def mask() -> np.ndarray:
    found = np.zeros((40, 40), dtype=bool)
    found[10:20, 5:30] = True
    return found


def test_a_box_is_present_and_known_but_not_outlined():
    scene = Scene(record(NODULE, LIVER, SPLEEN), {1: mask()})
    assert (scene.known, scene.present, scene.absent) == ((0, 1, 2), (0, 1), (2,))
    assert scene.outlined == (1,) and scene.segmentable == (1, 2)
    assert scene.box(0) == BOX and scene.parts(0) == []
    assert scene.box(1) == (5, 10, 30, 20)
    assert scene.findings == (0,)
    assert scene.region_text(0) == "Lung nodule. It is spiculated."
    assert not Scene(record(NODULE, abnormal_known=True), {}).is_normal


@pytest.mark.parametrize("given", [np.zeros((40, 40), dtype=bool), np.ones((40, 40), dtype=bool)])
def test_masks_in_the_place_of_a_box_are_not_looked_at(given):
    scene = Scene(record(NODULE), {0: given})
    assert scene.present == (0,) and scene.masks == {} and scene.box(0) == BOX


@pytest.mark.parametrize("regions", [(NODULE,), (NODULE, LIVER, SPLEEN), (Region("lung", None, box=BOX), LIVER)])
def test_boxes_give_no_mask_turns(regions):
    masks = {i: mask() for i, region in enumerate(regions) if region.mask is not None}
    for known in (True, False):
        made = record(*regions, abnormal_known=known, label="Lung cancer" if known else None)
        turns = canonical_turns(made, masks)
        rng = random.Random(0)
        for _ in range(60):
            turns += make_turns(made, masks, rng, count=4)
        boxed = {i for i, region in enumerate(regions) if region.box}
        assert not boxed & {index for turn in turns for index in turn.masks}
        assert {turn.task for turn in turns if turn.box_region in boxed} == {"classify", "describe"}
        assert all(turn.box == BOX and SEG not in turn.answer for turn in turns if turn.box_region in boxed)
        if regions[0].abnormal:
            # What is abnormal cannot be pointed at in full, so nothing that should point at it is asked.
            assert not {turn.task for turn in turns} & {"recognize", "report"}


def test_answers_of_boxes():
    turns = {turn.task: turn for turn in canonical_turns(record(NODULE, label="Lung cancer"), {})}
    assert set(turns) == {"classify", "describe"}
    assert turns["classify"].answer == "lung cancer in chest CT"
    assert turns["describe"].answer == "Lung cancer. It is spiculated."
    only = {task: 1.0 for task in TASK_WEIGHTS if task in ("classify", "describe")}
    assert len(make_turns(record(NODULE), {}, random.Random(1), tasks=only, count=2)) == 2


def test_made_questions_measure_outlines_only():
    scene = Scene(record(NODULE, abnormal_known=True), {})
    rng = random.Random(0)
    asked = {made_question(scene, rng) for _ in range(300)}
    words = " ".join(f"{question} {answer}" for pair in asked if pair for question, answer in [pair])
    assert "nodule" in words
    assert "%" not in words and "upper" not in words
