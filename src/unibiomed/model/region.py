"""The region that a drawn box points at, told to the language model (ours, for small models).

A box drawn on the image, as published, asks the language model to find it among its image tokens, to look at what lies
inside and to name that. A large one learns to; one of a few million parameters answers for the whole image instead. So
one layer finds the box in SAM2's features, and what they hold in and around it is added to every image token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["RegionSummary"]

GAIN = 8.0
"""Image tokens are long vectors, among which what is added must not be lost."""
DOUBT = 0.05
LEAST = 0.1
"""Places of the feature map that a box fills when it counts half."""
WAVES = 4
"""Waves, each half as long as the one before, in which a number of the box's geometry is told; the first is 4 long."""
GRID = 7
"""Points in a row over the box and its surroundings, at which the finer features are read."""
REACH = 1.5
"""How far from the centre the last of them lie, in halves of the box."""
CHANNELS = 24
"""Numbers that are kept of each point."""


class RegionSummary(nn.Module):
    """The features in the drawn box and around it, its place and its size, as a vector of the language model's width.

    The mean tells little of regions within each other: the left ventricle's box holds the same as the myocardium's.
    What lies in the middle, along the border and beyond it tells them apart, so the features are also read on a grid
    over the box, as in RoIAlign (He et al. 2017).

    Parameters
    ----------
    width : int
        Channels of the deepest features; those at strides 4 and 8 have an eighth and a quarter of them.
    hidden_size : int
        Of the language model.
    """

    def __init__(self, width: int, hidden_size: int) -> None:
        super().__init__()
        self.mark = nn.Conv2d(width, 1, 1)
        self.norm = nn.LayerNorm(width)
        seen = width + width // 4 + width // 8
        self.read = nn.Sequential(nn.LayerNorm(seen), nn.Linear(seen, CHANNELS), nn.GELU())
        self.tell = nn.Sequential(
            nn.Linear(width + 5 + 4 * 2 * WAVES + CHANNELS * GRID**2, hidden_size),
            nn.GELU(),
            nn.Linear(hidden_size, hidden_size, bias=False),
        )

    def forward(self, maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Features of images as a vector for each; without a box nearly the same for all.

        Parameters
        ----------
        maps : tuple of torch.Tensor
            ``ImageFeatures.maps``: at strides 4, 8 and 16.

        Returns
        -------
        torch.Tensor
            (images, hidden size).
        """
        features = maps[2]
        inside = self.inside(features)
        _, _, rows, columns = features.shape
        total = inside.sum((1, 2))
        there = total / (total + LEAST)
        share = inside / (total + LEAST)[:, None, None]
        mean = torch.einsum("nhw,nchw->nc", share, features)
        across, down = (
            torch.linspace(-1, 1, size, device=features.device, dtype=features.dtype) for size in (columns, rows)
        )
        x, y = share.sum(1) @ across, share.sum(2) @ down
        # a spread below half a step is that of a single place
        wide, high = (
            (share.sum(axis) @ line.square() - centre.square()).clamp(min=1e-4).sqrt()
            for axis, line, centre in ((1, across, x), (2, down, y))
        )
        place = torch.stack([x, y, wide, high, there], 1)
        # an optic disc's box differs from that of its cup in size alone, by half an octave; within one place the
        # logarithm is so steep that it would teach rounding, and where the box is `mark` is taught elsewhere
        geometry = waves(torch.stack([x, y, wide.log2(), high.log2()], 1).detach())
        known = torch.cat([self.norm(mean), geometry, self._around(maps, place.detach())], 1) * there[:, None]
        told: torch.Tensor = self.tell(torch.cat([place, known], 1))
        return GAIN * told

    def _around(self, maps: tuple[torch.Tensor, ...], place: torch.Tensor) -> torch.Tensor:
        """(images, GRID² * CHANNELS): what all three maps hold at the points of a grid over each box."""
        rows, columns = maps[2].shape[-2:]
        # from between the centres of the outermost places, where `place` counts, to between the map's edges
        scale = place.new_tensor([(columns - 1) / columns, (rows - 1) / rows])
        centre, spread = place[:, :2] * scale, place[:, 2:4] * scale
        # evenly filled from end to end, half a box is √3 standard deviations
        steps = torch.linspace(-REACH, REACH, GRID, device=place.device, dtype=place.dtype) * 3**0.5
        y, x = torch.meshgrid(steps, steps, indexing="ij")
        points = centre[:, None, None] + torch.stack([x, y], -1) * spread[:, None, None]
        seen = torch.cat([F.grid_sample(m, points.to(m.dtype), align_corners=False) for m in maps[:3]], 1)
        return self.read(seen.permute(0, 2, 3, 1)).flatten(1)

    def inside(self, features: torch.Tensor) -> torch.Tensor:
        """(images, rows, columns) in [0, 1]: how much of each place lies in a box; faint doubts are none."""
        return (self.mark(features)[:, 0].sigmoid() - DOUBT).clamp(min=0)


def waves(values: torch.Tensor) -> torch.Tensor:
    """Sines and cosines of numbers, among which a linear layer tells near ones apart (Vaswani et al. 2017).

    Parameters
    ----------
    values : torch.Tensor
        (N, numbers).

    Returns
    -------
    torch.Tensor
        (N, numbers * 2 * WAVES), each in [-1, 1].
    """
    octaves = torch.arange(WAVES, device=values.device, dtype=values.dtype)
    angles = values[:, :, None] * (torch.pi / 2 * 2**octaves)
    return torch.cat([angles.sin(), angles.cos()], 2).flatten(1)
