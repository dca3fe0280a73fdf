"""Whether an image shows the kind of scene that a target belongs to at all (ours, for small models).

SAM2's object score looks for a target; trained on a few thousand images, it also finds livers in photographs of skin.
That a liver is no part of skin can be learned from every image at once, whichever of its targets is annotated: a
low-rank product of what the image shows and of what is asked for, as in CLIP (Radford et al. 2021).
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["ContextMatch", "both"]

CHANNELS = 64
"""Numbers that image and target are compared by: far fewer than there are images to remember."""


class ContextMatch(nn.Module):
    """Logit of a target being possible in an image; the presence score is at most that.

    Parameters
    ----------
    width : int
        Channels of the image features and of the prompts.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.image = _side(width)
        self.target = _side(width)
        self.bias = nn.Parameter(torch.zeros(1))

    def look(self, features: torch.Tensor) -> torch.Tensor:
        """Features (images, width, rows, columns) to (images, channels); no gradient returns: masks come first."""
        seen: torch.Tensor = self.image(features.detach().mean((2, 3)))
        return seen

    def forward(self, seen: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
        """Logits (N,) of images (N, channels) as :meth:`look` saw them and prompts (N, width)."""
        product = (seen * self.target(prompts.detach().to(seen.dtype))).sum(-1)
        return product / CHANNELS**0.5 + self.bias


def _side(width: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, CHANNELS))


def both(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Logit of the product of two probabilities that are given as logits.

    Parameters
    ----------
    first, second : torch.Tensor
        Logits of one shape.

    Returns
    -------
    torch.Tensor
        Logits; never above either.
    """
    return -torch.logsumexp(torch.stack([-first, -second, -first - second]), 0)
