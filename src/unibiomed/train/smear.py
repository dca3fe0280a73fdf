"""Red cells painted into a blood smear, beside the white cells.

Laboratories stain smears so that red cells are anything from colourless to crimson. Where all training images come from
one laboratory that leaves them colourless, whatever has a colour is learned to be a white cell.
"""

from __future__ import annotations

import math
import random

import torch

__all__ = ["SMEARS", "paint_red_cells"]

SMEARS = frozenset({"white blood cell", "white blood cell nucleus"})
"""Targets whose images are smears."""
LIGHTEST, DARKEST = (0.95, 0.7, 0.78), (0.55, 0.25, 0.3)


def paint_red_cells(image: torch.Tensor, kept: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """Paint some red cells of one colour.

    Parameters
    ----------
    image : torch.Tensor
        (3, height, width) float32 in [0, 1].
    kept : torch.Tensor
        (height, width) float32 in [0, 1]: the white cells, which stay on top.
    rng : random.Random
        Source of chance.

    Returns
    -------
    torch.Tensor
        A new image, in [0, 1].
    """
    height, width = kept.shape
    white = math.sqrt(float(kept.sum()) / math.pi) or 0.2 * width
    radius = white * rng.uniform(0.45, 0.9)
    dark, strength = rng.random(), rng.uniform(0.5, 1.0)
    mixed = [low + (high - low) * (1 - dark) + rng.gauss(0, 0.05) for low, high in zip(DARKEST, LIGHTEST, strict=True)]
    colour = torch.tensor(mixed).clamp(0, 1)[:, None, None]
    pale = rng.uniform(0.3, 0.9) if rng.random() < 0.6 else 0.0
    y, x = torch.arange(height)[:, None] + 0.5, torch.arange(width)[None] + 0.5
    cover = torch.zeros(height, width)
    for _ in range(rng.randint(3, 14)):
        own, stretch, angle = radius * rng.uniform(0.85, 1.15), rng.uniform(0.85, 1.0), rng.uniform(0, math.pi)
        middle_x, middle_y = rng.uniform(0, width), rng.uniform(0, height)
        # beyond this distance a cell covers less than one part in ten thousand
        reach = math.ceil(own + 15)
        columns = slice(max(0, int(middle_x) - reach), int(middle_x) + reach)
        rows = slice(max(0, int(middle_y) - reach), int(middle_y) + reach)
        right, down = x[:, columns] - middle_x, y[rows] - middle_y
        along, across = (
            right * math.cos(angle) + down * math.sin(angle),
            (down * math.cos(angle) - right * math.sin(angle)) / stretch,
        )
        # 0 in the middle, 1 at the edge
        rho = torch.hypot(along, across) / own
        disc = torch.sigmoid((1 - rho) * own / 1.5) * (1 - pale * torch.exp(-((rho / 0.45) ** 2)))
        cover[rows, columns] = torch.maximum(cover[rows, columns], disc)
    alpha = strength * cover * (1 - kept)
    return (image * (1 - alpha) + colour * alpha).clamp(0, 1)
