"""Segmentation of boxes with LiteMedSAM's decoder on the features of a small model (an extension for small models).

LiteMedSAM was trained with boxes on far more images than a small model, but its image encoder needs 75 GFLOP per image.
Here a convolutional neck estimates the features of that encoder from the features of the small model (knowledge
distillation: Hinton et al. 2015), so that LiteMedSAM's prompt encoder and mask decoder can be used.

The prompt encoder, the mask decoder and the last normalization of the neck are initialized with weights of LiteMedSAM
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
    "Copyright the authors of MedSAM, Apache License 2.0; the neck was trained to reproduce the features of its image "
    "encoder."
)
"""Notice that is stored with the weights of every model with a box decoder."""

FINE_WIDTH = 64
"""Channels of the neck at stride 4."""
NECK_WIDTH = 160
"""Channels of the neck's blocks."""
BLOCKS = 3


class NeckBlock(nn.Module):
    """Two dense convolutions with a residual connection (He et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(NECK_WIDTH, NECK_WIDTH, 3, padding=1)
        self.norm = SamLayerNorm(NECK_WIDTH, data_format="channels_first")
        self.second = nn.Conv2d(NECK_WIDTH, NECK_WIDTH, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (images, channels, height, width) to the same shape."""
        y: torch.Tensor = self.second(F.gelu(self.norm(self.first(x))))
        return x + y


class BoxNeck(nn.Module):
    """Estimates the features of LiteMedSAM's image encoder from the features of the model.

    Parameters
    ----------
    width : int
        Channels of the features at stride 16; those at strides 4 and 8 have ``width / 8`` and ``width / 4`` channels.
    fine : int
        Channels of the features at stride 2; 0 if the model has none.
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
        """Map ``ImageFeatures.maps`` to features of shape (images, 256, 64, 64)."""
        x = self.lateral(maps[0])
        if self.fine is not None:
            x = x + self.fine(maps[3])
        # Downsampling with anti-aliasing is only available in float32.
        levels = [
            F.interpolate(level.float(), (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
            for level in (F.gelu(x), *maps[1:3])
        ]
        x = self.blocks(self.join(torch.cat(levels, 1).to(x.dtype)))
        features: torch.Tensor = self.last_norm(self.last(self.norm(self.widen(x))))
        return features


class BoxDecoder(SamBoxes):
    """Segments boxes from the features of a small model.

    Parameters
    ----------
    width, fine : int
        See :class:`BoxNeck`.
    """

    def __init__(self, width: int, fine: int = 0) -> None:
        super().__init__()
        self.neck = BoxNeck(width, fine)

    def start_from(self, teacher: LiteMedSam) -> None:
        """Copy the weights of LiteMedSAM's decoder; other weights of the neck are unchanged."""
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
        """Segment boxes.

        Parameters
        ----------
        features : torch.Tensor
            Features from the neck, (images, 256, 64, 64).
        boxes : torch.Tensor
            Boxes x0, y0, x1, y1 in pixels of the model input, (N, 4).
        side : int
            Side of the model input in pixels.
        image_index : torch.Tensor, optional
            Index of the image of each box, (N,); None for a single image.

        Returns
        -------
        tuple of torch.Tensor
            Mask logits on the square, (N, 256, 256), and predicted IoU, (N,).
        """
        corners = boxes.float() * (IMAGE_SIZE / side)
        if image_index is None:
            logits, quality = self.outline(features, corners[None])
            return logits[0], quality[0]
        logits, quality = self.outline(features[image_index], corners[:, None])
        return logits[:, 0], quality[:, 0]
