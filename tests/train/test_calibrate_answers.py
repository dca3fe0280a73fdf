"""Thresholds of findings and of "something else" keep what they promise on the images they were chosen by."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unibiomed.train.calibrate_answers import BoxedName, Recognition, choose_finding_threshold, choose_offset


def images(logits: list[float], found: bool, modality: str = "MRI") -> list[Recognition]:
    return [Recognition(logit, found, modality) for logit in logits]


def test_the_lowest_threshold_with_few_false_findings() -> None:
    normal, abnormal = [-3.0, -2.0, -1.0, 0.0] + [-4.0] * 16, [1.0, 2.0, -0.4]
    assert choose_finding_threshold(images(normal, False) + images(abnormal, True), most=0.05) == pytest.approx(-0.7)
    assert choose_finding_threshold(images(normal, False) + images(abnormal, True), most=0.0) == pytest.approx(0.5)


def test_each_modality_counts_the_same() -> None:
    """Ten normal retinas, half of them with a high score, among a hundred easy slices."""
    slices = images([-5.0] * 100, False)
    retinas = images([-5.0] * 5 + [2.0] * 5, False, "fundus")
    found = images([1.0, 3.0], True, "fundus")
    assert choose_finding_threshold([*slices, *retinas, *found], most=0.06) > 2.0


@given(
    st.lists(
        st.tuples(st.floats(-9, 9), st.booleans(), st.sampled_from(["CT", "MRI"])), min_size=2, max_size=60
    ).filter(lambda rows: any(not found for _, found, _ in rows))
)
def test_false_findings_stay_below_the_limit(rows: list[tuple[float, bool, str]]) -> None:
    recognized = [Recognition(*row) for row in rows]
    threshold = choose_finding_threshold(recognized, most=0.1)
    groups: dict[str, list[bool]] = {}
    counts = {name: sum(r.modality == name and not r.found for r in recognized) for name in ("CT", "MRI")}
    for r in recognized:
        if not r.found:
            groups.setdefault(r.modality if counts[r.modality] >= 5 else "few", []).append(r.logit > threshold)
    assert np.mean([np.mean(values) for values in groups.values()]) <= 0.1


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
