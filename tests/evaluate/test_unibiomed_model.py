"""Predictions made from the results of a model of this package."""

from __future__ import annotations

import numpy as np
import pytest

from unibiomed.evaluate.predictors.unibiomed_model import _prediction
from unibiomed.evaluate.samples import Sample
from unibiomed.findings import Finding
from unibiomed.interpret.result import Result

MASK = np.eye(4, dtype=bool)


def test_each_target_has_one_mask() -> None:
    """Masks of several meanings are combined; a target that was not searched has an empty mask."""
    sample = Sample("set/one#0", "segment", "?", "", target="tumor")
    other = np.rot90(MASK)
    for findings, expected, score in (
        ((Finding.from_mask("a", MASK, presence=0.9), Finding.from_mask("b", other, presence=0.7)), MASK | other, 0.9),
        ((Finding("tumor", "tumor", present=False, searched=False),), np.zeros((4, 4), bool), None),
    ):
        result = Result("segment", "?", "", "", findings, 4, 4)
        prediction = _prediction(sample, result)
        (mask,) = prediction.decode((4, 4))
        assert np.array_equal(mask, expected) and prediction.scores == (score,) and prediction.labels == ("tumor",)


@pytest.mark.parametrize(
    ("task", "read"), [("report", True), ("describe", True), ("recognize", False), ("ask", False), ("segment", False)]
)
def test_reports_are_scored_as_users_read_them(task: str, read: bool) -> None:
    result = Result(
        task=task,
        question="?",
        text="Polyp. It covers less.",
        raw_text="<p> Polyp. It covers more. </p> [SEG]",
        findings=(Finding.from_mask("Polyp", MASK),),
        height=4,
        width=4,
    )
    prediction = _prediction(Sample("set/one#0", task, "?", "", target="Polyp"), result)
    assert prediction.text == (result.text if read else result.raw_text)
