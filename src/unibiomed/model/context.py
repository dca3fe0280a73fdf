"""Image–target matching: can an image of this kind show a target at all (an extension for small models).

SAM2's object score detects one target. Trained on a few thousand images, it also reports livers in photographs of
skin. Whether a target belongs to a kind of image can be learned from every image for every target, annotated or not:
the match is a low-rank product of an image embedding and a target embedding, as in CLIP (Radford et al. 2021).
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["ContextMatch", "product_logit"]

CHANNELS = 64
"""Dimension of both embeddings. It is much smaller than the number of training images, to prevent memorization."""


class ContextMatch(nn.Module):
    """Logit of the match between an image and a target; an upper bound of the presence logit.

    Parameters
    ----------
    width : int
        Channels of the image features and of the prompts.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.image = _projection(width)
        self.target = _projection(width)
        self.bias = nn.Parameter(torch.zeros(1))

    def embed_image(self, features: torch.Tensor) -> torch.Tensor:
        """Image embedding (images, channels) of features (images, width, rows, columns).

        The features are detached: matching must not change the image encoder, which is trained for masks.
        """
        embedding: torch.Tensor = self.image(features.detach().mean((2, 3)))
        return embedding

    def forward(self, image_embedding: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
        """Match logits (N,) of image embeddings (N, channels) from :meth:`embed_image` and prompts (N, width)."""
        product = (image_embedding * self.target(prompts.detach().to(image_embedding.dtype))).sum(-1)
        return product / CHANNELS**0.5 + self.bias


def _projection(width: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, CHANNELS))


def product_logit(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Logit of the product of two probabilities that are given as logits.

    Parameters
    ----------
    first, second : torch.Tensor
        Logits of the same shape.

    Returns
    -------
    torch.Tensor
        Logits of the same shape, at most the smaller input.
    """
    return -torch.logsumexp(torch.stack([-first, -second, -first - second]), 0)
