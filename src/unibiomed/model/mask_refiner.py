"""Mask refiner: mask logits at the input resolution, for thin targets such as vessels (an extension for small models).

SAM2 predicts one logit for 4 x 4 pixels, as a weighted sum of 32 channels. That is fine enough for an input of 1,024
pixels. At 384 pixels a retinal vessel is thinner than the logit grid: a perfect mask at that resolution has a Dice of
0.69. The refiner is the upper half of a U-Net decoder that all targets share: it applies convolutions to the features
of the mask decoder and to the input pixels, up to the input resolution. The mask token of the target modulates each
channel (FiLM: Perez et al., AAAI 2018).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers.models.sam2.modeling_sam2 import Sam2MaskDecoder

from .backbone import SameConv2d

__all__ = ["MaskDecoder", "MaskRefiner"]

CHANNELS = 16
"""Channels at stride 2. At stride 4 there are ``width / 8`` channels, as in SAM2's decoder."""


class MaskDecoder(Sam2MaskDecoder):
    """SAM2's mask decoder that also returns its mask tokens and upscaled features."""

    def forward(  # type: ignore[override]
        self, image: torch.Tensor, position: torch.Tensor, prompts: torch.Tensor, maps: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Decode masks as SAM2 does with ``multimask_output=True``; one row of the output per prompt.

        Parameters
        ----------
        image : torch.Tensor
            (images, width, h / 16, w / 16) features, with the dense prompt embedding added.
        position : torch.Tensor
            Positional embedding of the same shape.
        prompts : torch.Tensor
            (images, prompts, tokens, width) sparse prompt embeddings.
        maps : tuple of torch.Tensor
            High-resolution features: (images, width / 8, h / 4, w / 4) and (images, width / 4, h / 8, w / 8).

        Returns
        -------
        tuple of torch.Tensor
            For N = images * prompts: mask logits (N, candidates, h / 4, w / 4), predicted IoU (N, candidates), mask
            tokens (N, candidates, width), object-score logits (N,), and features (N, width / 8, h / 4, w / 4).
        """
        per_image = prompts.shape[1]
        tokens, image = self._attend(image, position, prompts)
        tokens = tokens.flatten(0, 1)
        s4, s8 = (m.repeat_interleave(per_image, 0) for m in maps)
        x = image.transpose(2, 3).reshape(len(s8), self.hidden_size, s8.shape[-2] // 2, s8.shape[-1] // 2)
        x = self.activation(self.upscale_layer_norm(self.upscale_conv1(x) + s8))
        x = self.activation(self.upscale_conv2(x) + s4)
        # SAM2's first mask token is for single-mask output, which is not used here.
        mask_tokens = tokens[:, 3 : 2 + self.num_mask_tokens]
        weights = [head(mask_tokens[:, i]) for i, head in enumerate(list(self.output_hypernetworks_mlps)[1:])]
        logits = torch.einsum("nmc,nchw->nmhw", torch.stack(weights, 1), x)
        predicted_iou = self.iou_prediction_head(tokens[:, 1])[:, 1:]
        return logits, predicted_iou, mask_tokens, self.pred_obj_score_head(tokens[:, 0])[:, 0], x

    def object_scores(self, image: torch.Tensor, position: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
        """Object-score logits (images * prompts,) without masks; the parameters are those of :meth:`forward`."""
        tokens, _ = self._attend(image, position, prompts)
        scores: torch.Tensor = self.pred_obj_score_head(tokens.flatten(0, 1)[:, 0])[:, 0]
        return scores

    def _attend(
        self, image: torch.Tensor, position: torch.Tensor, prompts: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Output tokens and image features of the two-way transformer."""
        images, per_image = prompts.shape[:2]
        own = torch.cat([self.obj_score_token.weight, self.iou_token.weight, self.mask_tokens.weight])
        tokens, image = self.transformer(
            point_embeddings=torch.cat([own.expand(images, per_image, -1, -1), prompts], dim=2),
            image_embeddings=image.repeat_interleave(per_image, 0),
            image_positional_embeddings=position.repeat_interleave(per_image, 0),
            attention_similarity=None,
        )
        return tokens, image


class MaskRefiner(nn.Module):
    """Residual that is added to SAM2's mask logits after interpolation to the input resolution.

    Before training the residual is zero, see :meth:`zero_init`.

    Parameters
    ----------
    width : int
        Channels of SAM2's mask decoder; its features at stride 4 have ``width / 8`` channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        coarse = width // 8
        self.pixels = SameConv2d(3, CHANNELS, 3, stride=2)
        self.edges = SameConv2d(CHANNELS, CHANNELS, 3)
        self.image = SameConv2d(coarse, coarse, 1)
        self.mask = SameConv2d(1, coarse, 1, bias=False)
        self.modulate = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2 * (coarse + CHANNELS)))
        self.coarse = nn.ModuleList([SameConv2d(coarse, coarse, 3), SameConv2d(coarse, coarse, 3)])
        self.narrow = SameConv2d(coarse, CHANNELS, 1)
        self.fine = nn.ModuleList([SameConv2d(CHANNELS, CHANNELS, 3), SameConv2d(CHANNELS, CHANNELS, 3)])
        # A sub-pixel convolution (Shi et al., CVPR 2016) avoids slow convolutions at full resolution.
        self.last = SameConv2d(CHANNELS, 4, 3)

    def zero_init(self) -> None:
        """Initialize the last layers with zeros, so that the refined logits equal SAM2's before training."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        modulation = self.modulate[-1]
        assert isinstance(modulation, nn.Linear)
        for layer in (self.last, modulation):
            nn.init.zeros_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features of the input pixels at stride 2; they do not depend on the prompt.

        Parameters
        ----------
        pixels : torch.Tensor
            (images, 3, height, width), normalized.

        Returns
        -------
        torch.Tensor
            (images, channels, height / 2, width / 2).
        """
        x = F.relu(self.pixels(pixels.contiguous(memory_format=torch.channels_last)))
        return x + F.relu(self.edges(x))

    def forward(
        self,
        logits: torch.Tensor,
        tokens: torch.Tensor,
        features: torch.Tensor,
        coarse: torch.Tensor,
        fine: torch.Tensor,
    ) -> torch.Tensor:
        """Refine mask logits to the input resolution.

        Parameters
        ----------
        logits : torch.Tensor
            SAM2's mask logits, (N, candidates, height / 4, width / 4).
        tokens : torch.Tensor
            Mask tokens of the candidates, (N, candidates, width).
        features : torch.Tensor
            Upscaled features of the mask decoder, (N, width / 8, height / 4, width / 4).
        coarse : torch.Tensor
            Image features at stride 4, the first of ``ImageFeatures.maps``, (N or 1, width / 8, height / 4, width / 4).
        fine : torch.Tensor
            Image features at stride 2 from :meth:`image_features`, (N or 1, channels, height / 2, width / 2).

        Returns
        -------
        torch.Tensor
            Mask logits, (N, candidates, height, width).
        """
        number, candidates = logits.shape[:2]
        scale, shift, fine_scale, fine_shift = self.modulate(tokens.flatten(0, 1))[..., None, None].split(
            [features.shape[1], features.shape[1], CHANNELS, CHANNELS], dim=1
        )
        # Candidates become rows of the batch. The coarse mask enters as probabilities.
        rows = logits.flatten(0, 1)[:, None]
        x = (features + self.image(coarse)).repeat_interleave(candidates, 0) + self.mask(rows.sigmoid())
        x = F.relu(self.coarse[0](x) * (1 + scale) + shift)
        x = x + F.relu(self.coarse[1](x))
        pixels = fine if len(fine) == 1 else fine.repeat_interleave(candidates, 0)
        x = F.interpolate(self.narrow(x), scale_factor=2.0, mode="nearest") + pixels * (1 + fine_scale) + fine_shift
        x = F.relu(self.fine[0](x))
        x = x + F.relu(self.fine[1](x))
        added = F.pixel_shuffle(self.last(x), 2)
        enlarged = F.interpolate(rows, size=added.shape[-2:], mode="bilinear", align_corners=False)
        return (enlarged + added).view(number, candidates, *added.shape[-2:])
