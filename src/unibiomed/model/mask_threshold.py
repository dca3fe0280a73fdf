"""Threshold of mask logits: a fixed probability of 0.5, or the threshold with the highest expected Dice."""

from __future__ import annotations

import math

import torch

__all__ = ["THRESHOLD_RULES", "mask_threshold"]

THRESHOLD_RULES = ("half", "dice")
"""``"half"``: probability 0.5, as in the paper. ``"dice"``: highest expected Dice, chosen for each mask."""
MIN_PROBABILITY = 0.1
"""Lower bound of the probability threshold: without it, the expected Dice of an empty mask selects all pixels."""


def mask_threshold(logits: torch.Tensor, rule: str) -> torch.Tensor:
    """Logit threshold of each mask; pixels above it belong to the mask.

    For ``"dice"``, pixels are added in descending order of probability until the expected Dice is highest. The
    probabilities are assumed to be calibrated. The result is close to 0.5 where the model is certain of all pixels; for
    thin or faint targets it is lower, so that they are segmented although no pixel reaches 0.5 (Lipton et al. 2014: the
    threshold with the best F1, which equals Dice, is half of the best F1).

    Parameters
    ----------
    logits : torch.Tensor
        Mask logits of shape (N, height, width).
    rule : str
        One of `THRESHOLD_RULES`.

    Returns
    -------
    torch.Tensor
        Logit thresholds of shape (N,), float32.

    Raises
    ------
    ValueError
        If `rule` is unknown.
    """
    if rule not in THRESHOLD_RULES:
        raise ValueError(f"unknown mask threshold '{rule}': choose one of {', '.join(THRESHOLD_RULES)}")
    if rule == "half":
        return torch.zeros(len(logits), device=logits.device)
    ordered = logits.float().flatten(1).sort(dim=1, descending=True).values
    probabilities = ordered.sigmoid()
    selected = torch.arange(1, ordered.shape[1] + 1, device=ordered.device)
    expected_dice = 2 * probabilities.cumsum(1) / (selected + probabilities.sum(1, keepdim=True))
    last = expected_dice.argmax(1, keepdim=True)
    # The threshold lies midway between the last selected pixel and the next one, if there is one.
    following = torch.cat([ordered[:, 1:], ordered[:, -1:] - 1], 1)
    best = (ordered.gather(1, last) + following.gather(1, last)) / 2
    return best.squeeze(1).clamp(min=math.log(MIN_PROBABILITY / (1 - MIN_PROBABILITY)))
