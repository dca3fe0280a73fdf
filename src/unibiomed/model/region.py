"""Region summary: features of the drawn box as an input of the language model (an extension for small models).

In the paper the user's box is drawn on the image, and the language model has to find it among the image tokens. A
large language model learns this; one with a few million parameters answers for the whole image. Here a convolution
detects the box in SAM2's features, and a summary of the features in and around the box is added to each image token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["RegionSummary"]

GAIN = 8.0
"""Scale of the summary, to match the norm of the image tokens."""
MIN_SCORE = 0.05
"""Scores of the box detector that are lower count as 0."""
HALF_AREA = 0.1
"""Area of a box, in cells of the feature map, at which its weight is 0.5."""
FREQUENCIES = 4
"""Number of frequencies of the sinusoidal embedding; each wavelength is half of the previous one, the first is 4."""
GRID = 7
"""Number of sampling points along each axis of the grid over the box and its surroundings."""
REACH = 1.5
"""Distance from the centre to the outermost sampling points, in half widths of the box."""
CHANNELS = 24
"""Number of features that are kept for each sampling point."""


class RegionSummary(nn.Module):
    """Position, size and features of the drawn box, projected to the hidden size of the language model.

    The mean feature does not distinguish nested regions: the box of the left ventricle has almost the same content as
    the box of the myocardium. Therefore the features are also sampled on a grid over the box and its surroundings, as
    in RoIAlign (He et al. 2017).

    Parameters
    ----------
    width : int
        Channels of the features at stride 16; those at strides 4 and 8 have ``width / 8`` and ``width / 4`` channels.
    hidden_size : int
        Hidden size of the language model.
    """

    def __init__(self, width: int, hidden_size: int) -> None:
        super().__init__()
        self.mark = nn.Conv2d(width, 1, 1)
        self.norm = nn.LayerNorm(width)
        channels = width + width // 4 + width // 8
        self.read = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, CHANNELS), nn.GELU())
        self.tell = nn.Sequential(
            nn.Linear(width + 5 + 4 * 2 * FREQUENCIES + CHANNELS * GRID**2, hidden_size),
            nn.GELU(),
            nn.Linear(hidden_size, hidden_size, bias=False),
        )

    def forward(self, maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Summary vector of each image; it is almost constant for images without a box.

        Parameters
        ----------
        maps : tuple of torch.Tensor
            ``ImageFeatures.maps``: features at strides 4, 8 and 16.

        Returns
        -------
        torch.Tensor
            (images, hidden size).
        """
        features = maps[2]
        inside = self.inside(features)
        _, _, rows, columns = features.shape
        total = inside.sum((1, 2))
        weight = total / (total + HALF_AREA)
        share = inside / (total + HALF_AREA)[:, None, None]
        mean = torch.einsum("nhw,nchw->nc", share, features)
        across, down = (
            torch.linspace(-1, 1, size, device=features.device, dtype=features.dtype) for size in (columns, rows)
        )
        x, y = share.sum(1) @ across, share.sum(2) @ down
        # The lower bound is the spread of a single cell.
        wide, high = (
            (share.sum(axis) @ line.square() - centre.square()).clamp(min=1e-4).sqrt()
            for axis, line, centre in ((1, across, x), (2, down, y))
        )
        place = torch.stack([x, y, wide, high, weight], 1)
        # The box of an optic disc differs from that of its cup only in size, by half an octave: log2 of the size is
        # embedded. It is detached, because the gradient of log2 is very large for small boxes, and because the box
        # detector `mark` is trained by a loss of its own.
        geometry = sinusoidal_embedding(torch.stack([x, y, wide.log2(), high.log2()], 1).detach())
        details = torch.cat([self.norm(mean), geometry, self._around(maps, place.detach())], 1) * weight[:, None]
        summary: torch.Tensor = self.tell(torch.cat([place, details], 1))
        return GAIN * summary

    def _around(self, maps: tuple[torch.Tensor, ...], place: torch.Tensor) -> torch.Tensor:
        """Features of all three maps at the sampling points of each box, (images, GRID² * CHANNELS)."""
        rows, columns = maps[2].shape[-2:]
        # `place` is relative to the centres of the outermost cells, `grid_sample` to the edges of the map.
        scale = place.new_tensor([(columns - 1) / columns, (rows - 1) / rows])
        centre, spread = place[:, :2] * scale, place[:, 2:4] * scale
        # The half width of a uniformly filled box is √3 standard deviations.
        steps = torch.linspace(-REACH, REACH, GRID, device=place.device, dtype=place.dtype) * 3**0.5
        y, x = torch.meshgrid(steps, steps, indexing="ij")
        points = centre[:, None, None] + torch.stack([x, y], -1) * spread[:, None, None]
        sampled = torch.cat([F.grid_sample(m, points.to(m.dtype), align_corners=False) for m in maps[:3]], 1)
        return self.read(sampled.permute(0, 2, 3, 1)).flatten(1)

    def inside(self, features: torch.Tensor) -> torch.Tensor:
        """Share of each cell that lies in the box, (images, rows, columns) in [0, 1]; very low scores become 0."""
        return (self.mark(features)[:, 0].sigmoid() - MIN_SCORE).clamp(min=0)


def sinusoidal_embedding(values: torch.Tensor) -> torch.Tensor:
    """Sines and cosines of numbers at several frequencies (Vaswani et al. 2017).

    Parameters
    ----------
    values : torch.Tensor
        (N, numbers).

    Returns
    -------
    torch.Tensor
        (N, numbers * 2 * FREQUENCIES), each in [-1, 1].
    """
    octaves = torch.arange(FREQUENCIES, device=values.device, dtype=values.dtype)
    angles = values[:, :, None] * (torch.pi / 2 * 2**octaves)
    return torch.cat([angles.sin(), angles.cos()], 2).flatten(1)
