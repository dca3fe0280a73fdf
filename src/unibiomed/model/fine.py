"""Masks at twice SAM2's resolution, for targets as thin as vessels (ours, for small models).

SAM2 gives one logit for four by four pixels. On a square of 1,024 pixels that is fine enough; on one of 384 a retinal
vessel lies between two of them, and a perfect mask of that resolution has a Dice of 0.69. So what SAM2 does at
stride 4, a sum of fine channels weighed by the mask token, is done once more at stride 2, from the pixels themselves.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["FineMasks"]

CHANNELS = 16


class FineMasks(nn.Module):
    """What is added to SAM2's mask logits after they are enlarged to twice their side; nothing, before training.

    Parameters
    ----------
    width : int
        Channels of SAM2's mask decoder, whose features at stride 4 have an eighth of them.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pixels = nn.Conv2d(3, CHANNELS, 3, stride=2, padding=1)
        self.coarse = nn.Conv2d(width // 8, CHANNELS, 1)
        self.mix = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.last = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.weigh = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, CHANNELS))

    def start_as_nothing(self) -> None:
        """Let the masks be SAM2's own until training says otherwise."""
        last = self.weigh[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def look(self, pixels: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        """Fine channels of images, whatever is asked about them.

        Parameters
        ----------
        pixels : torch.Tensor
            (images, 3, height, width), normalised.
        coarse : torch.Tensor
            (images, width / 8, height / 4, width / 4), the first of ``ImageFeatures.maps``.

        Returns
        -------
        torch.Tensor
            (images, channels, height / 2, width / 2).
        """
        seen = self.pixels(pixels.contiguous(memory_format=torch.channels_last))
        x = F.relu(seen + F.interpolate(self.coarse(coarse), size=seen.shape[-2:], mode="nearest"))
        x = x + F.relu(self.mix(x))
        fine: torch.Tensor = self.last(x)
        return fine

    def forward(self, logits: torch.Tensor, tokens: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
        """Finer logits.

        Parameters
        ----------
        logits : torch.Tensor
            (N, candidates, height / 4, width / 4) of SAM2.
        tokens : torch.Tensor
            (N, candidates, width) mask tokens that made them.
        fine : torch.Tensor
            (N, channels, height / 2, width / 2) from :meth:`look`.

        Returns
        -------
        torch.Tensor
            (N, candidates, height / 2, width / 2).
        """
        enlarged = F.interpolate(logits, size=fine.shape[-2:], mode="bilinear", align_corners=False)
        return enlarged + torch.einsum("nmc,nchw->nmhw", self.weigh(tokens), fine)
