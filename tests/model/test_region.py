from __future__ import annotations

import pytest
import torch

from unibiomed.model.region import FREQUENCIES, GRID, RegionSummary, sinusoidal_embedding


def marked() -> tuple[RegionSummary, torch.Tensor]:
    """A summary that takes the first of 8 channels for its mark, and features with a sure box in rows 2 and 3."""
    region = RegionSummary(8, 16).requires_grad_(False)
    region.mark.weight.zero_()[0, 0] = 1.0
    region.mark.bias.zero_()
    features = torch.randn(2, 8, 6, 6)
    features[:, 0] = -10.0
    features[:, 0, 2:4, 1:5] = 10.0
    return region, features


def pyramid(features: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Maps as of an image, of which the finer ones are blank."""
    images, _, rows, columns = features.shape
    return torch.zeros(images, 1, 4 * rows, 4 * columns), torch.zeros(images, 2, 2 * rows, 2 * columns), features


def test_what_the_box_holds_is_told() -> None:
    torch.manual_seed(0)
    region, features = marked()
    told = region(pyramid(features))
    assert told.shape == (2, 16)
    elsewhere = features.clone()
    elsewhere[:, 1:, 5:] += 5.0
    assert torch.allclose(region(pyramid(elsewhere)), told, atol=1e-3)
    within = features.clone()
    within[:, 1:, 2] += torch.randn(2, 7, 6)
    assert not torch.allclose(region(pyramid(within)), told, atol=1e-2)
    # the same content at another place is told apart
    assert not torch.allclose(region(pyramid(features.roll(2, 2))), told, atol=1e-2)


def test_what_lies_around_the_box_is_told() -> None:
    """A ring is told from what it encloses by what is in the middle, along the border and beyond it."""
    torch.manual_seed(0)
    region, features = marked()
    fine, middle, deepest = pyramid(features)
    told = region((fine, middle, deepest))
    rows, columns = slice(8, 16), slice(4, 20)  # the box at stride 4
    for inner in (0, 2):
        ring = fine.clone()
        ring[:, :, rows, columns] = 1.0
        ring[:, :, 8 + inner : 16 - inner, 4 + inner : 20 - inner] = 0.0
        assert torch.allclose(region((ring, middle, deepest)), told, atol=1e-3) == (inner == 0)
    beyond = middle.clone()
    beyond[:, :, 3] = 1.0  # half a place above the box
    assert not torch.allclose(region((fine, beyond, deepest)), told, atol=1e-3)
    far = fine.clone()
    far[:, :, 20:] = 1.0
    assert torch.allclose(region((far, middle, deepest)), told, atol=1e-5)


def test_the_grid_lies_over_the_box() -> None:
    """Numbers that rise with the column are read at the columns of the grid's points."""
    region, features = marked()
    region.read = torch.nn.Identity()  # type: ignore[assignment]
    fine, middle, deepest = pyramid(features)
    fine[:, 0] = (torch.arange(24) + 0.5) / 4  # in columns of the deepest map
    place = torch.tensor([[0.0, -0.2, 0.3, 0.1, 1.0]] * 2)
    seen = region._around((fine, middle, deepest), place).reshape(2, GRID, GRID, -1)[..., 0]
    torch.testing.assert_close(seen[0, 0, GRID // 2], torch.tensor(3.0))
    wide = 0.3 * 3**0.5 * 5 / 2  # half of the box, in columns
    torch.testing.assert_close(seen[0, 0], 3 + torch.linspace(-1.5, 1.5, GRID) * wide, rtol=1e-4, atol=1e-4)
    assert torch.equal(seen[0], seen[1]) and torch.allclose(seen[0, 0], seen[0, -1])


def test_without_a_box_nothing_in_the_image_matters() -> None:
    torch.manual_seed(0)
    region, features = marked()
    features[:, 0] = -10.0
    plain = torch.zeros_like(features)
    plain[:, 0] = -10.0
    assert torch.allclose(region(pyramid(features)), region(pyramid(plain)), atol=1e-6)


def test_a_box_smaller_than_a_place_is_seen() -> None:
    torch.manual_seed(0)
    region, features = marked()
    features[:, 0] = -10.0
    without = region(pyramid(features))
    # a fifth of one place
    features[:, 0, 3, 3] = torch.logit(torch.tensor(0.2))
    inside = region.inside(features)
    assert inside.sum((1, 2)).tolist() == pytest.approx([0.15, 0.15])
    assert not torch.allclose(region(pyramid(features)), without, atol=1e-2)


def test_sizes_half_an_octave_apart_are_told_apart() -> None:
    small, larger, twice = sinusoidal_embedding(torch.log2(torch.tensor([[0.2], [0.2 * 2**0.5], [0.4]])))
    assert small.shape == (2 * FREQUENCIES,) and bool((small.abs() <= 1).all())
    for other in (larger, twice):
        assert torch.cosine_similarity(small, other, dim=0) < 0.6
