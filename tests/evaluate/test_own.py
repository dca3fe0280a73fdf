"""What of this package's own results is scored."""

from __future__ import annotations

import numpy as np
import pytest

from unibiomed.evaluate.predictors.own import _prediction
from unibiomed.evaluate.samples import Sample
from unibiomed.findings import Finding
from unibiomed.interpret.result import Result

MASK = np.eye(4, dtype=bool)


@pytest.mark.parametrize(
    ("task", "read"), [("report", True), ("describe", True), ("recognize", False), ("ask", False), ("segment", False)]
)
def test_reports_and_descriptions_are_scored_as_they_are_read(task: str, read: bool) -> None:
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
