"""Where a mask ends: the expected Dice is the highest there is, whatever the probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from unibiomed.model.configuration import UniBiomedConfig
from unibiomed.model.cut import LEAST, mask_cut


def expected(probabilities: torch.Tensor, inside: torch.Tensor) -> float:
    return float(2 * probabilities[inside].sum() / (inside.sum() + probabilities.sum()))


@given(arrays.arrays(np.float32, (5, 6), elements=st.floats(-6, 6, width=32)))
def test_no_other_threshold_promises_more(values: np.ndarray) -> None:
    logits = torch.from_numpy(values)
    probabilities = logits.sigmoid()
    cut = float(mask_cut(logits[None], "dice")[0])
    reached = expected(probabilities, logits > cut)
    least = np.log(LEAST / (1 - LEAST))
    assert cut >= least - 1e-6
    for other in np.unique(values[values > least]):
        assert reached >= expected(probabilities, logits >= float(other)) - 1e-5


def test_half_is_the_published_way_and_what_a_sure_mask_has() -> None:
    logits = torch.full((2, 20, 20), -9.0)
    logits[0, 4:12, 4:12], logits[1, 4:12, 4:12] = 9.0, -1.0
    assert mask_cut(logits, "half").tolist() == [0.0, 0.0]
    sure, faint = mask_cut(logits, "dice").tolist()
    assert sure == pytest.approx(0.0, abs=1e-5)
    # no pixel reaches one half, and the target is drawn all the same
    assert faint < -1.0
    assert torch.equal(logits > torch.tensor([sure, faint])[:, None, None], logits > -2.0)


def test_where_nothing_is_seen_nothing_is_drawn() -> None:
    logits = torch.full((1, 10, 10), -5.0)
    assert not bool((logits > mask_cut(logits, "dice")).any())


def test_an_unknown_cut() -> None:
    with pytest.raises(ValueError, match="cut 'third' is none of half, dice"):
        mask_cut(torch.zeros(1, 2, 2), "third")
    with pytest.raises(ValueError, match="mask_cut 'third' is none of half, dice"):
        UniBiomedConfig(mask_cut="third")
