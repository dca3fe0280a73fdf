from __future__ import annotations

import random

import pytest
import torch

from unibiomed.train.smear import paint_red_cells


def smear() -> tuple[torch.Tensor, torch.Tensor]:
    """A white image with a dark white cell of radius 10 in its middle, and where that is."""
    y, x = torch.meshgrid(torch.arange(64) - 31.5, torch.arange(64) - 31.5, indexing="ij")
    cell = (x**2 + y**2 < 100).float()
    return (1 - 0.7 * cell).expand(3, -1, -1).clone(), cell


@pytest.mark.parametrize("seed", range(20))
def test_red_cells_lie_under_the_white_one(seed):
    image, cell = smear()
    painted = paint_red_cells(image, cell, random.Random(seed))
    assert painted.shape == image.shape and painted.min() >= 0 and painted.max() <= 1
    assert torch.equal(painted[:, cell > 0], image[:, cell > 0])
    changed = (painted - image).abs().amax(0) > 0.05
    assert 0.02 < changed.float().mean() < 0.95
    assert torch.equal(painted, paint_red_cells(image, cell, random.Random(seed)))


def test_they_are_red_and_differ():
    image, cell = smear()
    seen = [paint_red_cells(image, cell, random.Random(seed)) for seed in range(20)]
    # red outlasts green and blue
    assert all((s[0] - s[1])[cell == 0].mean() > 0 for s in seen)
    assert len({float(s.mean()) for s in seen}) == 20


def test_an_image_without_a_white_cell_is_painted_too():
    image = torch.ones(3, 32, 48)
    painted = paint_red_cells(image, torch.zeros(32, 48), random.Random(0))
    assert painted.isfinite().all() and (painted < 0.9).any()
