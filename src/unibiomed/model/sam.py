"""SAM's prompt encoder and mask decoder (Kirillov et al. 2023) for box prompts, at 256 pixels as in LiteMedSAM."""

from __future__ import annotations

import torch
from torch import nn
from transformers import SamConfig
from transformers.models.sam.modeling_sam import SamMaskDecoder, SamPromptEncoder

__all__ = ["IMAGE_SIZE", "PATCH", "SIDE", "WIDTH", "SamBoxes"]

IMAGE_SIZE = 256
"""Side of the square of boxes and masks, in pixels."""
PATCH = 4
"""Stride of the features, in pixels."""
SIDE = IMAGE_SIZE // PATCH
"""Side of the feature map."""
WIDTH = 256
"""Channels of the features."""


class SamBoxes(nn.Module):
    """Segments boxes from image features, with the prompt encoder and mask decoder of transformers' SAM."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"image_size": IMAGE_SIZE, "patch_size": PATCH}
        # The epsilon of PyTorch's LayerNorm, as in SAM's two-way transformer.
        decoder = {"layer_norm_eps": 1e-5}
        config = SamConfig(vision_config=sizes, prompt_encoder_config=sizes, mask_decoder_config=decoder)
        config.mask_decoder_config._attn_implementation = "sdpa"
        self.prompt_encoder = SamPromptEncoder(config)
        self.mask_decoder = SamMaskDecoder(config.mask_decoder_config)

    def outline(self, features: torch.Tensor, boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Segment boxes.

        Parameters
        ----------
        features : torch.Tensor
            Image features, (images, 256, 64, 64).
        boxes : torch.Tensor
            Boxes x0, y0, x1, y1 in pixels of the 256 × 256 square, (images, N, 4), float32.

        Returns
        -------
        tuple of torch.Tensor
            Mask logits (images, N, 256, 256) and predicted IoU (images, N).
        """
        sparse, dense = self.prompt_encoder(input_points=None, input_labels=None, input_boxes=boxes, input_masks=None)
        logits, quality = self.mask_decoder(
            image_embeddings=features,
            image_positional_embeddings=self._positions().expand(len(features), -1, -1, -1),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        return logits[:, :, 0], quality[:, :, 0]

    def _positions(self) -> torch.Tensor:
        """Positional embeddings of the centres of all cells, (1, 256, 64, 64)."""
        centres = (torch.arange(SIDE, device=self.prompt_encoder.no_mask_embed.weight.device) + 0.5) / SIDE
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        places: torch.Tensor = self.prompt_encoder.shared_embedding(torch.stack([x, y], -1)[None])
        return places.permute(0, 3, 1, 2)
