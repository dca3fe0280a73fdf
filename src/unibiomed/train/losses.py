"""The losses of the paper (section 4.1, equations 1-4), and those for this package's presence and mask scores."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

BCE_WEIGHT = 2.0
DICE_WEIGHT = 0.5


def sample_points(values: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Bilinear values of maps at points.

    Parameters
    ----------
    values : torch.Tensor
        (N, height, width).
    points : torch.Tensor
        (N, P, 2) x and y in [0, 1].

    Returns
    -------
    torch.Tensor
        (N, P).
    """
    grid = (2 * points - 1)[:, None]
    return F.grid_sample(values[:, None], grid, mode="bilinear", align_corners=False)[:, 0, 0]


def uncertain_points(
    logits: torch.Tensor,
    count: int,
    *,
    oversample: float = 3.0,
    importance: float = 0.75,
    seeds: Sequence[int] | None = None,
) -> torch.Tensor:
    """Draw points, most of them where the mask is undecided (PointRend; the published training's numbers by default).

    Parameters
    ----------
    logits : torch.Tensor
        (N, height, width) mask logits.
    count : int
        Points a mask.
    oversample : float
        Random candidates for each point kept.
    importance : float
        Share of the points that are taken for their uncertainty; the rest is uniform.
    seeds : sequence of int, optional
        A seed for each mask: its points then do not depend on which other masks are in the batch, or on the device.

    Returns
    -------
    torch.Tensor
        (N, count, 2) x and y in [0, 1].
    """
    chosen = int(count * importance)
    drawn = _uniform(len(logits), int(count * oversample) + count - chosen, seeds).to(logits.device)
    candidates, rest = drawn.split([int(count * oversample), count - chosen], 1)
    with torch.no_grad():
        uncertainty = -sample_points(logits, candidates).abs()
    best = uncertainty.topk(chosen, dim=1).indices
    points = candidates.gather(1, best[..., None].expand(-1, -1, 2))
    return torch.cat([points, rest], 1)


def _uniform(masks: int, points: int, seeds: Sequence[int] | None) -> torch.Tensor:
    if seeds is None:
        return torch.rand(masks, points, 2)
    rows = [torch.rand(points, 2, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows) if rows else torch.zeros(0, points, 2)


def mask_losses(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Binary cross-entropy and Dice loss of each mask (paper equations 2 and 3).

    Parameters
    ----------
    logits, targets : torch.Tensor
        (N, P) logits, and truth in [0, 1], at the same points.

    Returns
    -------
    tuple of torch.Tensor
        Two (N,) losses.
    """
    bce = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)
    p = logits.sigmoid()
    dice = 1 - (2 * (p * targets).sum(1) + 1) / (p.sum(1) + targets.sum(1) + 1)
    return bce, dice


def segmentation_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    *,
    points: int = 12544,
    seeds: Sequence[int] | None = None,
    weights: tuple[float, float] = (BCE_WEIGHT, DICE_WEIGHT),
) -> torch.Tensor:
    """L_seg = 2 BCE + 0.5 Dice for each mask (paper equation 1).

    Parameters
    ----------
    logits : torch.Tensor
        (N, h, w) logits of the chosen candidate.
    targets : torch.Tensor
        (N, height, width) truth in [0, 1].
    points : int
        Points a mask, drawn by uncertainty; 0 takes every pixel at twice the logits' resolution, or the truth's own.
    seeds : sequence of int, optional
        A seed for each mask's points.
    weights : tuple of float
        Of cross-entropy and Dice; the paper's by default.

    Returns
    -------
    torch.Tensor
        (N,).
    """
    if points:
        where = uncertain_points(logits.detach(), points, seeds=seeds)
        bce, dice = mask_losses(sample_points(logits, where), sample_points(targets, where))
    else:
        sides = zip(logits.shape[-2:], targets.shape[-2:], strict=True)
        size = tuple(min(2 * side, true) for side, true in sides)
        fine = F.interpolate(logits[:, None], size, mode="bilinear", align_corners=False)
        truth = F.interpolate(targets[:, None], size, mode="area")
        bce, dice = mask_losses(fine.flatten(1), truth.flatten(1))
    return weights[0] * bce + weights[1] * dice


def soft_iou(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """IoU in [0, 1] of thresholded (N, h, w) logits with (N, height, width) truth; 1 where both are empty."""
    truth = F.interpolate(targets[:, None], logits.shape[-2:], mode="area")[:, 0] > 0.5
    guess = logits > 0
    union = (truth | guess).flatten(1).sum(1)
    return torch.where(union > 0, (truth & guess).flatten(1).sum(1) / union.clamp(min=1), 1.0)


def score_losses(
    presence_logits: torch.Tensor, quality: torch.Tensor, present: torch.Tensor, iou: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Teach the presence and mask scores (ours; the published training leaves SAM2's heads without gradient).

    Parameters
    ----------
    presence_logits, present : torch.Tensor
        (N,) logits, and whether the target is there.
    quality, iou : torch.Tensor
        (N,) predicted and true IoU in [0, 1].

    Returns
    -------
    tuple of torch.Tensor
        (N,) cross-entropy of presence, and (N,) squared error of the quality, 0 where the target is not there.
    """
    presence = F.binary_cross_entropy_with_logits(presence_logits, present.float(), reduction="none")
    return presence, (quality - iou.detach()).square() * present
