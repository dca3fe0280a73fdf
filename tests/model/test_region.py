from __future__ import annotations

import pytest
import torch

from unibiomed.model.region import WAVES, RegionSummary, waves


def marked() -> tuple[RegionSummary, torch.Tensor]:
    """A summary that takes the first of 8 channels for its mark, and features with a sure box in rows 2 and 3."""
    region = RegionSummary(8, 16).requires_grad_(False)
    region.mark.weight.zero_()[0, 0] = 1.0
    region.mark.bias.zero_()
    features = torch.randn(2, 8, 6, 6)
    features[:, 0] = -10.0
    features[:, 0, 2:4, 1:5] = 10.0
    return region, features


def test_what_the_box_holds_is_told() -> None:
    torch.manual_seed(0)
    region, features = marked()
    told = region(features)
    assert told.shape == (2, 16)
    elsewhere = features.clone()
    elsewhere[:, 1:, 4:] += 5.0
    assert torch.allclose(region(elsewhere), told, atol=1e-3)
    within = features.clone()
    within[:, 1:, 2] += torch.randn(2, 7, 6)
    assert not torch.allclose(region(within), told, atol=1e-2)
    # the same content at another place is told apart
    assert not torch.allclose(region(features.roll(2, 2)), told, atol=1e-2)


def test_without_a_box_nothing_in_the_image_matters() -> None:
    torch.manual_seed(0)
    region, features = marked()
    features[:, 0] = -10.0
    plain = torch.zeros_like(features)
    plain[:, 0] = -10.0
    assert torch.allclose(region(features), region(plain), atol=1e-6)


def test_a_box_smaller_than_a_place_is_seen() -> None:
    torch.manual_seed(0)
    region, features = marked()
    features[:, 0] = -10.0
    without = region(features)
    # a fifth of one place
    features[:, 0, 3, 3] = torch.logit(torch.tensor(0.2))
    inside = region.inside(features)
    assert inside.sum((1, 2)).tolist() == pytest.approx([0.15, 0.15])
    assert not torch.allclose(region(features), without, atol=1e-2)


def test_sizes_half_an_octave_apart_are_told_apart() -> None:
    small, larger, twice = waves(torch.log2(torch.tensor([[0.2], [0.2 * 2**0.5], [0.4]])))
    assert small.shape == (2 * WAVES,) and bool((small.abs() <= 1).all())
    for other in (larger, twice):
        assert torch.cosine_similarity(small, other, dim=0) < 0.6
