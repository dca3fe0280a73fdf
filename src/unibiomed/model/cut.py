"""At which probability a mask ends: at one half, as published, or where its expected Dice is highest."""

from __future__ import annotations

import math

import torch

__all__ = ["CUTS", "mask_cut"]

CUTS = ("half", "dice")
LEAST = 0.1
"""Probability that a pixel of a mask has at least: where nothing is seen the expected Dice would take everything."""


def mask_cut(logits: torch.Tensor, cut: str) -> torch.Tensor:
    """Logit above which the pixels of each mask lie.

    For ``"dice"``, pixels are taken one after the other, the surest first, as long as the expected Dice rises, with
    each pixel's probability taken at its word. Where a model is sure of all pixels that is one half or so; a thin or
    faint target of which no pixel is sure is drawn all the same (Lipton et al. 2014: the best threshold for F1, which
    Dice is, is half of the best F1).

    Parameters
    ----------
    logits : torch.Tensor
        (N, height, width).
    cut : str
        One of `CUTS`.

    Returns
    -------
    torch.Tensor
        (N,) float32.

    Raises
    ------
    ValueError
        `cut` is none of them.
    """
    if cut not in CUTS:
        raise ValueError(f"cut '{cut}' is none of {', '.join(CUTS)}")
    if cut == "half":
        return torch.zeros(len(logits), device=logits.device)
    ordered = logits.float().flatten(1).sort(dim=1, descending=True).values
    probabilities = ordered.sigmoid()
    taken = torch.arange(1, ordered.shape[1] + 1, device=ordered.device)
    expected = 2 * probabilities.cumsum(1) / (taken + probabilities.sum(1, keepdim=True))
    last = expected.argmax(1, keepdim=True)
    # between the last pixel that is taken and the first that is not, if there is one
    beyond = torch.cat([ordered[:, 1:], ordered[:, -1:] - 1], 1)
    best = (ordered.gather(1, last) + beyond.gather(1, last)) / 2
    return best.squeeze(1).clamp(min=math.log(LEAST / (1 - LEAST)))
