"""The losses against plain formulas of the paper."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from unibiomed.train.losses import (
    BCE_WEIGHT,
    DICE_WEIGHT,
    mask_losses,
    sample_points,
    score_losses,
    segmentation_loss,
    soft_iou,
    uncertain_points,
)
from unibiomed.train.recipe import StageRecipe


def plain_losses(logits: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Equations 2 and 3, written out."""
    bce, dice = [], []
    for row, target in zip(logits.tolist(), truth.tolist(), strict=True):
        p = [1 / (1 + math.exp(-z)) for z in row]
        pairs = list(zip(p, target, strict=True))
        bce.append(-sum(t * math.log(q) + (1 - t) * math.log(1 - q) for q, t in pairs) / len(pairs))
        dice.append(1 - (2 * sum(q * t for q, t in pairs) + 1) / (sum(p) + sum(target) + 1))
    return np.array(bce), np.array(dice)


def pixel_centres(height: int, width: int) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([(x.flatten() + 0.5) / width, (y.flatten() + 0.5) / height], 1)[None]


@pytest.mark.parametrize("soft", [False, True])
def test_mask_losses_are_those_of_the_paper(soft: bool) -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, (4, 50))
    truth = rng.random((4, 50))
    truth = truth if soft else (truth > 0.7).astype(float)
    truth[3] = 0
    bce, dice = mask_losses(torch.from_numpy(logits), torch.from_numpy(truth))
    expected_bce, expected_dice = plain_losses(logits, truth)
    np.testing.assert_allclose(bce, expected_bce, rtol=1e-9)
    np.testing.assert_allclose(dice, expected_dice, rtol=1e-9)


def test_perfect_and_opposite_masks() -> None:
    truth = torch.tensor([[1.0, 1, 0, 0], [0, 0, 0, 0]])
    sure = (2 * truth - 1) * 50
    right = mask_losses(sure, truth)
    assert torch.allclose(torch.stack(right), torch.zeros(2, 2), atol=1e-6)
    bce, dice = mask_losses(-sure, truth)
    assert torch.allclose(bce, torch.tensor([50.0, 50.0]))
    # nothing of two pixels found: 1 - 1 / 5; four pixels found where there are none: the same
    assert torch.allclose(dice, torch.tensor([0.8, 0.8]))


def test_sample_points_is_exact_at_pixel_centres_and_linear_between() -> None:
    values = torch.randn(1, 3, 5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(sample_points(values, pixel_centres(3, 5)), values.flatten(1), atol=1e-6)
    middle = torch.tensor([[[2 / 5, 0.5 / 3]]])  # between the second and third pixel of the first row
    assert sample_points(values, middle).item() == pytest.approx(values[0, 0, 1:3].mean().item(), abs=1e-6)
    below = torch.tensor([[[0.5 / 5, 2 / 3]]])  # between the second and third pixel of the first column
    assert sample_points(values, below).item() == pytest.approx(values[0, 1:3, 0].mean().item(), abs=1e-6)


@pytest.mark.parametrize("count", [8, 40])
def test_uncertain_points_are_the_least_decided_candidates(count: int) -> None:
    logits = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(3))
    points = uncertain_points(logits, count, seeds=[7, 8])
    assert points.shape == (2, count, 2)
    assert points.min() >= 0 and points.max() <= 1
    drawn = [torch.rand(4 * count - count * 3 // 4, 2, generator=torch.Generator().manual_seed(s)) for s in (7, 8)]
    candidates, rest = torch.stack(drawn).split([3 * count, count - count * 3 // 4], 1)
    chosen = count * 3 // 4
    for row in range(2):
        certainty = sample_points(logits[row : row + 1], candidates[row : row + 1]).abs()[0]
        expected = candidates[row][certainty.argsort()[:chosen]]
        assert {tuple(p) for p in points[row, :chosen].tolist()} == {tuple(p) for p in expected.tolist()}
    assert torch.equal(points[:, chosen:], rest)


def test_points_of_a_mask_depend_on_its_own_seed_alone() -> None:
    logits = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(3))
    points = uncertain_points(logits, 20, seeds=[5, 6, 7])
    torch.manual_seed(99)
    assert torch.equal(uncertain_points(logits[[2, 0]], 20, seeds=[7, 5]), points[[2, 0]])
    assert uncertain_points(logits[:0], 20, seeds=[]).shape == (0, 20, 2)
    # without seeds they are drawn anew each time
    assert not torch.equal(uncertain_points(logits, 20), uncertain_points(logits, 20))


def test_uncertain_points_gather_at_the_edge() -> None:
    logits = torch.full((1, 32, 32), -8.0)
    logits[:, :, 16:] = 8.0
    points = uncertain_points(logits, 400, seeds=[0])
    near = ((points[0, :, 0] - 0.5).abs() < 1 / 64).float().mean()
    assert near > 2 / 32  # of a thirty-second of the area
    other = uncertain_points(logits, 400, seeds=[1])
    assert not torch.equal(points, other)


@pytest.mark.parametrize("points", [0, 64])
def test_segmentation_loss_weighs_two_and_a_half(points: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from unibiomed.train import losses

    monkeypatch.setattr(
        losses, "mask_losses", lambda logits, _: (torch.ones(len(logits)), torch.full((len(logits),), 10))
    )
    loss = segmentation_loss(torch.randn(3, 8, 8), torch.zeros(3, 32, 32), points=points)
    assert torch.equal(loss, torch.full((3,), 2.0 * 1 + 0.5 * 10))


@pytest.mark.parametrize("points", [0, 40])
def test_other_weights_of_the_segmentation_loss(points: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, truth = torch.randn(3, 8, 8, generator=generator), torch.rand(3, 32, 32, generator=generator)

    def loss(*weights: float) -> torch.Tensor:
        return segmentation_loss(logits, truth, points=points, seeds=[5, 6, 7], weights=weights)

    bce, dice = loss(1.0, 0.0), loss(0.0, 1.0)
    assert (bce > 0.5).all() and (dice > 0.1).all() and not torch.allclose(bce, dice)
    torch.testing.assert_close(loss(3.0, 7.0), 3 * bce + 7 * dice)
    # those of the paper where none are given, in a recipe too
    torch.testing.assert_close(segmentation_loss(logits, truth, points=points, seeds=[5, 6, 7]), 2 * bce + 0.5 * dice)
    recipe = StageRecipe("any", "joint", 1)
    assert (recipe.bce_weight, recipe.dice_weight) == (BCE_WEIGHT, DICE_WEIGHT) == (2.0, 0.5)


def test_segmentation_loss_on_every_pixel() -> None:
    # constant maps: interpolation leaves them as they are
    logits = torch.full((1, 4, 4), 0.7, dtype=torch.float64)
    truth = torch.zeros(1, 16, 16, dtype=torch.float64)
    truth[:, :8] = 1
    bce, dice = plain_losses(np.full((1, 64), 0.7), np.repeat([1.0, 0.0], 32)[None])
    assert segmentation_loss(logits, truth, points=0).numpy() == pytest.approx(2 * bce + 0.5 * dice)


def test_segmentation_loss_at_points() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, truth = torch.randn(2, 8, 8, generator=generator), torch.rand(2, 32, 32, generator=generator)
    points = uncertain_points(logits, 40, seeds=[5, 6])
    bce, dice = plain_losses(sample_points(logits, points).numpy(), sample_points(truth, points).numpy())
    loss = segmentation_loss(logits, truth, points=40, seeds=[5, 6])
    np.testing.assert_allclose(loss, 2 * bce + 0.5 * dice, rtol=1e-5)


@pytest.mark.parametrize("points", [0, 128])
def test_gradients_lead_to_the_truth(points: int) -> None:
    truth = torch.zeros(2, 32, 32)
    truth[0, 8:24, 8:24] = 1
    logits = torch.zeros(2, 8, 8, requires_grad=True)
    before = segmentation_loss(logits, truth, points=points, seeds=[0, 1])
    assert before.shape == (2,)
    before.sum().backward()
    assert logits.grad is not None
    assert logits.grad[0, 3:5, 3:5].max() < 0 < logits.grad[0, 0].min()
    assert logits.grad[1].mean() > 0
    with torch.no_grad():
        after = segmentation_loss(logits - 50 * logits.grad, truth, points=0)
    assert (after < segmentation_loss(logits.detach(), truth, points=0)).all()


def test_soft_iou() -> None:
    truth = torch.zeros(4, 32, 32)
    truth[0, :16] = truth[1, :16] = 1
    logits = torch.full((4, 8, 8), -1.0)
    logits[0, :4] = 1  # the same
    logits[1, 2:6] = 1  # half of each shared
    logits[2, 0, 0] = 1  # nothing there
    iou = soft_iou(logits, truth)
    assert iou.tolist() == pytest.approx([1, 1 / 3, 0, 1])
    assert soft_iou(torch.zeros(1, 8, 8), torch.zeros(1, 32, 32)).item() == 1  # a logit of 0 is outside


def test_score_losses() -> None:
    presence_logits = torch.tensor([2.0, -1.0, 0.5], requires_grad=True)
    quality = torch.tensor([0.9, 0.2, 0.4], requires_grad=True)
    present = torch.tensor([True, False, True])
    iou = torch.tensor([0.7, 0.9, 0.1], requires_grad=True)
    presence, error = score_losses(presence_logits, quality, present, iou)
    expected = [math.log1p(math.exp(-2)), math.log1p(math.exp(-1)), math.log1p(math.exp(-0.5))]
    assert presence.tolist() == pytest.approx(expected, rel=1e-5)
    assert error.tolist() == pytest.approx([0.2**2, 0.0, 0.3**2], rel=1e-5)
    (presence + error).sum().backward()
    assert presence_logits.grad is not None and quality.grad is not None
    assert quality.grad[1] == 0 and quality.grad[0] > 0
    assert iou.grad is None  # the mask is not changed to please its score
    _, nothing = score_losses(presence_logits, quality, torch.zeros(3, dtype=torch.bool), iou)
    assert nothing.tolist() == [0, 0, 0]
