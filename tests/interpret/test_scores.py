from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unibiomed.interpret.scores import calibrate, derived_scores, text_score, trained_scores
from unibiomed.model.modeling import MaskPrediction


def test_calibration_is_platt_scaling():
    assert calibrate(torch.tensor([0.0, 2.0]), [1.0, 0.0]).tolist() == pytest.approx([0.5, 0.8808], abs=1e-4)
    assert calibrate(torch.tensor([1.0]), [2.0, -2.0]).item() == pytest.approx(0.5)


def test_trained_scores_take_the_best_candidate_and_are_calibrated():
    config = SimpleNamespace(presence_calibration=[2.0, 1.0], mask_calibration=[1.0, 0.0])
    masks = MaskPrediction(
        logits=torch.zeros(2, 3, 4, 4),
        predicted_iou=torch.tensor([[0.2, 0.9, 0.5], [0.0, 0.0, 0.0]]),
        presence_logits=torch.tensor([0.5, -30.0]),
    )
    presence, quality = trained_scores(masks, config)
    assert presence == pytest.approx([1 / (1 + math.exp(-2)), 0.0], abs=1e-6)
    assert quality == pytest.approx([0.9, 0.0], abs=1e-3), "a quality of 0 has a logit of minus infinity"
    config.mask_calibration = [1.0, -1.0]
    assert trained_scores(masks, config)[1][0] < 0.9


def test_presence_may_rest_on_the_mask_too():
    config = SimpleNamespace(presence_calibration=[2.0, 1.0, 0.5], mask_calibration=[1.0, 0.0])
    logits = torch.full((1, 2, 20, 20), -9.0)
    logits[0, 1, 3, 4:6] = torch.tensor([3.0, 5.0])  # two of the best candidate's 400 pixels: half a per cent
    masks = MaskPrediction(
        logits=logits, predicted_iou=torch.tensor([[0.1, 0.6]]), presence_logits=torch.tensor([-0.5])
    )
    assert masks.peak().tolist() == [4.0]
    assert trained_scores(masks, config)[0] == pytest.approx([1 / (1 + math.exp(-2))])
    config.presence_calibration = [2.0, 1.0]
    assert trained_scores(masks, config)[0] == pytest.approx([0.5])


def test_derived_scores_of_certain_and_of_empty_masks():
    certain = torch.zeros(4, 4)
    certain[:2] = 1.0
    presence, quality = derived_scores(torch.stack([certain, torch.zeros(4, 4), torch.full((4, 4), 0.4)]))
    assert presence == pytest.approx([1.0, 0.0, 0.4])
    assert quality == pytest.approx([1.0, 0.0, 0.0]), "no pixel inside, no overlap to expect"


def test_derived_mask_score_is_the_expected_overlap():
    probabilities = torch.tensor([[[0.8, 0.6, 0.2, 0.0]]])
    assert derived_scores(probabilities)[1] == pytest.approx([1.4 / (2 + 0.2)])


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30))
def test_derived_scores_are_probabilities(values):
    presence, quality = derived_scores(torch.tensor(values).view(1, 1, -1))
    assert presence[0] == pytest.approx(max(values)) and 0 <= quality[0] <= 1


def test_text_score_is_the_product():
    assert text_score([]) == 0.0
    assert text_score([0.5, 0.5]) == pytest.approx(0.25)
    assert text_score([0.0, 1.0]) == pytest.approx(0.0, abs=1e-9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=300))
def test_text_score_is_a_probability(values):
    assert 0 <= text_score(values) <= min(values) + 1e-9
