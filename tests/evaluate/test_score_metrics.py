from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unibiomed.evaluate.sample_scores import SampleScore
from unibiomed.evaluate.score_metrics import _weighted_aurc, presence_auroc, summarise_scores
from unibiomed.metrics.calibration import calibration_error, risk_coverage


def scored(number: int, presence: float, present: bool) -> SampleScore:
    row = SampleScore(
        f"set/{number}#segment/x",
        "segment",
        "set",
        "CT",
        f"set/{number // 2}",
        number,
        "x",
        "in_context",
        target_present=present,
    )
    row.intersection = row.predicted_area = row.true_area = 10 * present
    row.presence, row.mask_score = presence, presence
    return row


def test_values_match_the_metrics_and_lie_in_their_intervals():
    rng = np.random.default_rng(0)
    present = rng.random(200) < 0.5
    # with ties
    presence = np.round(np.clip(0.3 + 0.4 * present + rng.normal(0, 0.25, 200), 0, 1), 1)
    tables = summarise_scores([scored(i, float(presence[i]), bool(present[i])) for i in range(200)])
    found = tables["presence"]
    positives, negatives = presence[present, None], presence[~present]
    concordant = ((positives > negatives) + (positives == negatives) / 2).mean()
    assert found["auroc"]["value"] == pytest.approx(concordant, abs=1e-6)
    assert found["calibration_error"]["value"] == pytest.approx(calibration_error(presence, present), abs=1e-6)
    for one in (found["auroc"], found["calibration_error"], tables["mask"]["calibration_error"]):
        assert one["low"] < one["value"] < one["high"] and one["high"] - one["low"] < 0.25
    assert found["auroc"]["subjects"] == 100


def test_auroc_with_one_negative_has_no_interval():
    # a third of the resamples have no negative
    scores = presence_auroc([0.9, 0.8, 0.7, 0.1], [True, True, True, False], ["a", "b", "c", "d"])
    assert scores["value"] == 1.0 and scores["low"] is None


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.2, 0.5, 0.9]), st.floats(0, 1), st.integers(1, 3)), min_size=1))
def test_weighted_aurc_matches_the_metric(images: list[tuple[float, float, int]]) -> None:
    """An image with weight three counts as three images."""
    confidence, losses, weights = (np.array(column, dtype=float) for column in zip(*images, strict=True))
    drawn = [(c, loss) for c, loss, count in images for _ in range(count)]
    every, repeated = _weighted_aurc(confidence, losses, np.array([np.ones(len(images)), weights]))
    assert every == pytest.approx(risk_coverage(confidence, losses).area, abs=1e-9)
    assert repeated == pytest.approx(risk_coverage(*zip(*drawn, strict=True)).area, abs=1e-9)


def test_aurc_has_an_interval():
    rng = np.random.default_rng(1)
    rows = [scored(i, float(presence), True) for i, presence in enumerate(rng.random(120))]
    for row in rows:
        row.intersection = int(10 * rng.random())
    found = summarise_scores(rows)["risk"]["aurc"]
    assert found["low"] < found["value"] < found["high"] and found["subjects"] == 60
