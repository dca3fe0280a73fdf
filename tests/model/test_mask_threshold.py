"""The threshold of a mask: the rule "dice" reaches the highest expected Dice for any probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from unibiomed.model.configuration import UniBiomedConfig
from unibiomed.model.mask_threshold import MIN_PROBABILITY, mask_threshold


def expected_dice(probabilities: torch.Tensor, inside: torch.Tensor) -> float:
    return float(2 * probabilities[inside].sum() / (inside.sum() + probabilities.sum()))


@given(arrays.arrays(np.float32, (5, 6), elements=st.floats(-6, 6, width=32)))
def test_no_other_threshold_has_a_higher_expected_dice(values: np.ndarray) -> None:
    logits = torch.from_numpy(values)
    probabilities = logits.sigmoid()
    threshold = float(mask_threshold(logits[None], "dice")[0])
    reached = expected_dice(probabilities, logits > threshold)
    lowest = np.log(MIN_PROBABILITY / (1 - MIN_PROBABILITY))
    assert threshold >= lowest - 1e-6
    for other in np.unique(values[values > lowest]):
        assert reached >= expected_dice(probabilities, logits >= float(other)) - 1e-5


def test_rule_half_is_fixed_and_rule_dice_adapts_to_faint_masks() -> None:
    logits = torch.full((2, 20, 20), -9.0)
    logits[0, 4:12, 4:12], logits[1, 4:12, 4:12] = 9.0, -1.0
    assert mask_threshold(logits, "half").tolist() == [0.0, 0.0]
    certain, faint = mask_threshold(logits, "dice").tolist()
    assert certain == pytest.approx(0.0, abs=1e-5)
    # No pixel reaches a probability of 0.5, and the target is segmented nevertheless.
    assert faint < -1.0
    assert torch.equal(logits > torch.tensor([certain, faint])[:, None, None], logits > -2.0)


def test_a_mask_of_low_probabilities_stays_empty() -> None:
    logits = torch.full((1, 10, 10), -5.0)
    assert not bool((logits > mask_threshold(logits, "dice")).any())


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown mask threshold 'third': choose one of half, dice"):
        mask_threshold(torch.zeros(1, 2, 2), "third")
    with pytest.raises(ValueError, match="unknown mask_threshold 'third': choose one of half, dice"):
        UniBiomedConfig(mask_threshold="third")


def test_the_old_configuration_key_is_read() -> None:
    config = UniBiomedConfig.from_dict({"mask_cut": "dice"})
    assert config.mask_threshold == "dice" and "mask_cut" not in config.to_dict()
    assert UniBiomedConfig.from_dict(config.to_dict()).mask_threshold == "dice"
