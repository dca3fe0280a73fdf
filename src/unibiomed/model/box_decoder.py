"""The mask of what is in a box, by LiteMedSAM's decoder on the features of a small model (ours).

LiteMedSAM was trained with boxes on far more images than a small model sees, but its image encoder takes 75 GFLOP an
image. Here a convolutional neck turns the features that the model has anyway into an estimate of the features of
that encoder (knowledge distillation: Hinton et al. 2015), so that LiteMedSAM's prompt encoder and mask decoder can be
used with them.

The prompt encoder, the mask decoder and the last normalisation of the neck start from the weights of LiteMedSAM
(https://github.com/bowang-lab/MedSAM/tree/LiteMedSAM, Copyright the authors of MedSAM, Apache License 2.0).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers.models.sam.modeling_sam import SamLayerNorm

from .lite_medsam import LiteMedSam
from .sam import IMAGE_SIZE, SIDE, WIDTH, SamBoxes

__all__ = ["NOTICE", "BoxDecoder", "BoxNeck"]

NOTICE = (
    "The box decoder starts from the weights of LiteMedSAM (https://github.com/bowang-lab/MedSAM/tree/LiteMedSAM), "
    "Copyright the authors of MedSAM, Apache License 2.0; its image encoder taught the neck."
)
"""Goes with the weights of every model that has a box decoder."""

FINE_WIDTH = 64
"""Channels of the neck at stride 4 and finer."""
NECK_WIDTH = 160
"""Channels of the neck's blocks."""
BLOCKS = 3


class NeckBlock(nn.Module):
    """Two convolutions with a shortcut (He et al. 2016); dense ones, which learn fastest in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(NECK_WIDTH, NECK_WIDTH, 3, padding=1)
        self.norm = SamLayerNorm(NECK_WIDTH, data_format="channels_first")
        self.second = nn.Conv2d(NECK_WIDTH, NECK_WIDTH, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(images, channels, height, width) in and out."""
        y: torch.Tensor = self.second(F.gelu(self.norm(self.first(x))))
        return x + y


class BoxNeck(nn.Module):
    """Features of the model to those of LiteMedSAM's image encoder.

    Parameters
    ----------
    width : int
        Channels of the deepest features; those at strides 4 and 8 have an eighth and a quarter of them.
    fine : int
        Channels of the features at stride 2; 0 where the model has none.
    """

    def __init__(self, width: int, fine: int = 0) -> None:
        super().__init__()
        self.fine = nn.Conv2d(fine, FINE_WIDTH, 3, stride=2, padding=1) if fine else None
        self.lateral = nn.Conv2d(width // 8, FINE_WIDTH, 3, padding=1)
        self.join = nn.Conv2d(FINE_WIDTH + width // 4 + width, NECK_WIDTH, 1)
        self.blocks = nn.Sequential(*[NeckBlock() for _ in range(BLOCKS)])
        self.widen = nn.Conv2d(NECK_WIDTH, WIDTH, 1, bias=False)
        self.norm = SamLayerNorm(WIDTH, data_format="channels_first")
        self.last = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)
        self.last_norm = SamLayerNorm(WIDTH, data_format="channels_first")

    def forward(self, maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """``ImageFeatures.maps`` of images to (images, 256, 64, 64)."""
        x = self.lateral(maps[0])
        if self.fine is not None:
            x = x + self.fine(maps[3])
        # smoothed where it becomes smaller, which PyTorch does in float32 alone
        levels = [
            F.interpolate(level.float(), (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
            for level in (F.gelu(x), *maps[1:3])
        ]
        x = self.blocks(self.join(torch.cat(levels, 1).to(x.dtype)))
        features: torch.Tensor = self.last_norm(self.last(self.norm(self.widen(x))))
        return features


class BoxDecoder(SamBoxes):
    """Masks of what is in boxes, from the features of a small model.

    Parameters
    ----------
    width, fine : int
        See :class:`BoxNeck`.
    """

    def __init__(self, width: int, fine: int = 0) -> None:
        super().__init__()
        self.neck = BoxNeck(width, fine)

    def start_from(self, teacher: LiteMedSam) -> None:
        """Copy what LiteMedSAM's decoder knows; the rest of the neck stays as it is."""
        self.prompt_encoder.load_state_dict(teacher.prompt_encoder.state_dict())
        self.mask_decoder.load_state_dict(teacher.mask_decoder.state_dict())
        self.neck.last_norm.load_state_dict(teacher.image_encoder.neck[-1].state_dict())

    def decode(
        self,
        features: torch.Tensor,
        boxes: torch.Tensor,
        side: int,
        image_index: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Masks of what is in boxes.

        Parameters
        ----------
        features : torch.Tensor
            (images, 256, 64, 64) of the neck.
        boxes : torch.Tensor
            (N, 4) x0, y0, x1, y1 in pixels of the square that the model reads.
        side : int
            Side of that square.
        image_index : torch.Tensor, optional
            (N,) which image each box belongs to; None when there is one image.

        Returns
        -------
        tuple of torch.Tensor
            (N, 256, 256) logits of the masks on the square, and (N,) predicted IoU.
        """
        corners = boxes.float() * (IMAGE_SIZE / side)
        if image_index is None:
            logits, quality = self.outline(features, corners[None])
            return logits[0], quality[0]
        logits, quality = self.outline(features[image_index], corners[:, None])
        return logits[:, 0], quality[:, 0]
