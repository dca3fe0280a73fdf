"""The image encoder of LiteMedSAM: a TinyViT (Wu et al., ECCV 2022) without the strides of its patch embedding.

Implemented from the published architecture (TinyViT-5M of MobileSAM, and the LiteMedSAM branch of MedSAM, Apache-2.0).
Modules have the names of the published weights, which load without a mapping.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn
from transformers.models.sam.modeling_sam import SamLayerNorm

from .sam import WIDTH

__all__ = ["TinyVit"]

WIDTHS = (64, 128, 160, 320)
"""Channels of the four stages."""
DEPTHS = (2, 2, 6, 2)
HEADS = (2, 4, 5, 10)
"""Attention heads of each stage; the first stage has convolutions only."""
WINDOWS = (7, 7, 14, 7)
"""Side of the attention windows of each stage, in cells of the feature map."""
STRIDES = (2, 2, 1)
"""Strides of the downsampling after each stage but the last."""
EXPANSION = 4
"""Ratio of the widths of hidden layers and stage."""


class ConvNorm(nn.Sequential):
    """A convolution with batch normalization."""

    def __init__(self, width_in: int, width_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        conv = nn.Conv2d(width_in, width_out, kernel, stride, kernel // 2, groups=groups, bias=False)
        super().__init__(OrderedDict(c=conv, bn=nn.BatchNorm2d(width_out)))


class ConvBlock(nn.Module):
    """Inverted residual block (MobileNetV2) of the first stage."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = EXPANSION * width
        self.conv1 = ConvNorm(width, hidden)
        self.conv2 = ConvNorm(hidden, hidden, 3, groups=hidden)
        self.conv3 = ConvNorm(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map features (N, channels, height, width) to the same shape."""
        return F.gelu(x + self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x))))))


class Downsample(nn.Module):
    """Downsampling between two stages."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(width_in, width_out)
        self.conv2 = ConvNorm(width_out, width_out, 3, stride, groups=width_out)
        self.conv3 = ConvNorm(width_out, width_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, width_in, height, width) to (N, width_out, height / stride, width / stride)."""
        out: torch.Tensor = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return out


class Attention(nn.Module):
    """Self-attention in a window, with a learned bias for each offset between two cells (as in LeViT).

    Parameters
    ----------
    width, heads : int
    window : int
        Side of the window.
    """

    index: torch.Tensor

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window**2))
        place = torch.arange(window)
        apart = (place[:, None] - place).abs()
        # Offsets in rows and columns, numbered like the cells of a window.
        index = apart[:, None, :, None] * window + apart[None, :, None, :]
        self.register_buffer("index", index.reshape(window**2, window**2), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (windows, window², width) to the same shape."""
        number, places, width = x.shape
        # Query, key and value of each head are adjacent.
        mixed = self.qkv(self.norm(x)).view(number, places, self.heads, -1).transpose(1, 2)
        query, key, value = mixed.chunk(3, dim=-1)
        bias = self.attention_biases[:, self.index]
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        out: torch.Tensor = self.proj(seen.transpose(1, 2).reshape(number, places, width))
        return out


class Mlp(nn.Module):
    """The two linear layers of a block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, EXPANSION * width)
        self.fc2 = nn.Linear(EXPANSION * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., width) to the same shape."""
        out: torch.Tensor = self.fc2(F.gelu(self.fc1(self.norm(x))))
        return out


class AttentionBlock(nn.Module):
    """Attention in windows, a convolution across their borders, and an MLP."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = Attention(width, heads, window)
        self.local_conv = ConvNorm(width, width, 3, groups=width)
        self.mlp = Mlp(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map features (N, channels, height, width) to the same shape."""
        x = self.local_conv(x + self._attend(x))
        return x + self.mlp(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def _attend(self, x: torch.Tensor) -> torch.Tensor:
        number, width, rows, columns = x.shape
        side = self.window
        # Windows at the right and lower border are padded with zeros, which are part of the attention.
        x = F.pad(x, (0, -columns % side, 0, -rows % side))
        down, across = x.shape[2] // side, x.shape[3] // side
        x = x.view(number, width, down, side, across, side).permute(0, 2, 4, 3, 5, 1)
        x = self.attn(x.reshape(-1, side**2, width)).view(number, down, across, side, side, width)
        x = x.permute(0, 5, 1, 3, 2, 4).reshape(number, width, down * side, across * side)
        return x[:, :, :rows, :columns]


class Stage(nn.Module):
    """Blocks of one width, and the downsampling to the next stage."""

    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        if downsample is not None:
            self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the input of the next stage."""
        x = self.blocks(x)
        return self.downsample(x) if hasattr(self, "downsample") else x


class TinyVit(nn.Module):
    """The encoder, with 5.7 million parameters; 75 GFLOP per image, because the first stage has the full resolution."""

    def __init__(self) -> None:
        super().__init__()
        first = WIDTHS[0]
        embed = nn.Sequential(ConvNorm(3, first // 2), nn.GELU(), ConvNorm(first // 2, first))
        self.patch_embed = nn.Sequential(OrderedDict(seq=embed))
        stages = []
        for i, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
            blocks: list[nn.Module] = [
                ConvBlock(width) if i == 0 else AttentionBlock(width, HEADS[i], WINDOWS[i]) for _ in range(depth)
            ]
            following = Downsample(width, WIDTHS[i + 1], STRIDES[i]) if i < len(STRIDES) else None
            stages.append(Stage(blocks, following))
        self.layers = nn.Sequential(*stages)
        self.neck = nn.Sequential(
            nn.Conv2d(WIDTHS[-1], WIDTH, 1, bias=False),
            SamLayerNorm(WIDTH, data_format="channels_first"),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False),
            SamLayerNorm(WIDTH, data_format="channels_first"),
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Compute image features.

        Parameters
        ----------
        pixels : torch.Tensor
            (N, 3, 256, 256) in [0, 1].

        Returns
        -------
        torch.Tensor
            (N, 256, 64, 64).
        """
        out: torch.Tensor = self.neck(self.layers(self.patch_embed(pixels)))
        return out
