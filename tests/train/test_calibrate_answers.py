"""Thresholds of findings and of "something else" keep what they promise on the images they were chosen by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unibiomed.data.records import NO_FINDINGS, Record
from unibiomed.train.calibrate_answers import (
    BoxedName,
    Recognition,
    choose_finding_threshold,
    choose_finding_thresholds,
    choose_offset,
    choose_recognized,
)


def images(logits: list[float], found: bool, modality: str = "MRI") -> list[Recognition]:
    return [Recognition(logit, found, modality) for logit in logits]


def test_the_lowest_threshold_with_few_false_findings() -> None:
    normal, abnormal = [-3.0, -2.0, -1.0, 0.0] + [-4.0] * 35, [1.0, 2.0, -0.4, -1.4]
    recognized = images(normal, False) + images(abnormal, True)
    # of 40 further images two may be above: one of these 39 is
    assert choose_finding_threshold(recognized, most=0.05) == pytest.approx(-0.7)
    assert choose_finding_threshold(recognized, most=0.0) == pytest.approx(0.5)


def test_the_threshold_lies_in_the_middle_of_a_gap() -> None:
    recognized = images([-5.0] * 12 + [-4.0], False, "OCT") + images([2.0, 3.0], True, "OCT")
    assert choose_finding_threshold(recognized, most=0.06) == pytest.approx(-1.0)
    assert choose_finding_threshold(images([-5.0, -4.0], False)) > -4.0


def test_modalities_with_enough_images_have_their_own_threshold() -> None:
    fundus = images([-5.0] * 12, False, "fundus") + images([-3.0] * 6, True, "fundus")
    slices = images([0.0] * 12, False, "CT") + images([1.0] * 6, True, "CT")
    rare = images([-2.0] * 9, False, "ultrasound") + images([3.0] * 9, True, "endoscopy")
    common, own = choose_finding_thresholds([*fundus, *slices, *rare], least=(10, 5))
    assert own == {"CT": pytest.approx(0.5), "fundus": pytest.approx(-4.0)}
    # that of all images together, 12 + 12 + 9 of them normal
    assert common == pytest.approx(0.5)
    assert choose_finding_thresholds([*fundus, *slices, *rare], least=(13, 5)) == (pytest.approx(0.5), {})


@given(
    st.lists(
        st.tuples(st.floats(-9, 9), st.booleans(), st.sampled_from(["CT", "MRI"])), min_size=2, max_size=60
    ).filter(lambda rows: any(not found for _, found, _ in rows)),
    st.floats(0, 0.3),
)
def test_false_findings_stay_below_the_limit(rows: list[tuple[float, bool, str]], most: float) -> None:
    recognized = [Recognition(*row) for row in rows]
    normal = [image.logit for image in recognized if not image.found]
    above = sum(logit > choose_finding_threshold(recognized, most) for logit in normal)
    assert above == 0 or (above + 1) / (len(normal) + 1) <= most + 1e-6


def make_record(name: str, modality: str = "OCT", dataset: str = "scans", **about: Any) -> Record:
    about = {"label": NO_FINDINGS, "abnormal_known": True, "split": "val", **about}
    return Record(f"{dataset}/{name}", Path("unread.png"), dataset, modality, "retina", name, **about)


def test_normal_images_are_taken_from_the_data_sets_in_turn() -> None:
    many = [make_record(f"n{i}") for i in range(30)]
    few = [make_record(f"f{i}", dataset="few") for i in range(3)]
    ill = [make_record(f"d{i}", label="Macular edema") for i in range(2)]
    unknown = [make_record("u", label=None, abnormal_known=False)]
    chosen = choose_recognized([*many, *few, *ill, *unknown], 8)
    assert {record.key for record, found in chosen if found} == {"scans/d0", "scans/d1"}
    normal = [record for record, found in chosen if not found]
    assert len(normal) == 8 and {record.key for record in normal} >= {record.key for record in few}
    assert choose_recognized([*ill, *few, *many, *unknown][::-1], 8) == chosen


def test_the_offset_parts_boxes_of_both_kinds() -> None:
    others = [BoxedName(share, False, True) for share in (0.2, 0.3, 0.4)]
    targets = [BoxedName(share, True, False) for share in (0.01, 0.02, 0.1)]
    offset = choose_offset([*others, *targets])
    said = [np.log(b.something_else / (1 - b.something_else)) + offset > 0 for b in (*others, *targets)]
    assert said == [True] * 3 + [False] * 3


def test_no_offset_where_none_is_needed() -> None:
    boxes = [BoxedName(0.9, False, True), BoxedName(0.1, True, False)]
    said = [np.log(b.something_else / (1 - b.something_else)) + choose_offset(boxes) > 0 for b in boxes]
    assert said == [True, False]
