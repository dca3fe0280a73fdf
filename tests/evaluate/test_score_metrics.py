from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unibiomed.evaluate.score_metrics import _areas, presence_auroc, summarise_scores
from unibiomed.evaluate.sample_scores import SampleScore
from unibiomed.metrics.calibration import calibration_error, risk_coverage
from unibiomed.metrics.classification import auroc


def judged(number: int, presence: float, there: bool) -> SampleScore:
    row = SampleScore(f"set/{number}#segment/x", "segment", "set", "CT", f"set/{number // 2}", number, "x", "own", target_present=there)
    row.intersection = row.predicted_area = row.true_area = 10 * there
    row.presence, row.mask_score = presence, presence
    return row


def test_the_numbers_are_those_of_the_metrics_and_lie_in_their_intervals():
    rng = np.random.default_rng(0)
    there = rng.random(200) < 0.5
    # with ties
    presence = np.round(np.clip(0.3 + 0.4 * there + rng.normal(0, 0.25, 200), 0, 1), 1)
    tables = summarise_scores([judged(i, float(presence[i]), bool(there[i])) for i in range(200)])
    found = tables["presence"]
    assert found["auroc"]["value"] == pytest.approx(auroc(presence, there), abs=1e-6)
    assert found["calibration_error"]["value"] == pytest.approx(calibration_error(presence, there), abs=1e-6)
    for one in (found["auroc"], found["calibration_error"], tables["mask"]["calibration_error"]):
        assert one["low"] < one["value"] < one["high"] and one["high"] - one["low"] < 0.25
    assert found["auroc"]["subjects"] == 100


def test_one_image_without_the_target_has_no_interval():
    # two draws in five miss it
    scores = presence_auroc([0.9, 0.8, 0.7, 0.1], [True, True, True, False], ["a", "b", "c", "d"])
    assert scores["value"] == 1.0 and scores["low"] is None


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.2, 0.5, 0.9]), st.floats(0, 1), st.integers(1, 3)), min_size=1))
def test_the_area_of_risk_is_that_of_the_metric(told: list[tuple[float, float, int]]) -> None:
    """An image that is drawn three times counts as three."""
    sure, losses, often = (np.array(column, dtype=float) for column in zip(*told, strict=True))
    drawn = [(s, loss) for s, loss, count in told for _ in range(count)]
    every, repeated = _areas(sure, losses, np.array([np.ones(len(told)), often]))
    assert every == pytest.approx(risk_coverage(sure, losses).area, abs=1e-9)
    assert repeated == pytest.approx(risk_coverage(*zip(*drawn, strict=True)).area, abs=1e-9)


def test_the_area_of_risk_has_an_interval():
    rng = np.random.default_rng(1)
    rows = [judged(i, float(presence), True) for i, presence in enumerate(rng.random(120))]
    for row in rows:
        row.intersection = int(10 * rng.random())
    found = summarise_scores(rows)["risk"]["aurc"]
    assert found["low"] < found["value"] < found["high"] and found["subjects"] == 60
