"""Masks as fine as the input, for targets as thin as vessels (ours, for small models).

SAM2 gives one logit for four by four pixels, each a weighted sum of 32 channels. On a square of 1,024 pixels that is
fine enough; on one of 384 a retinal vessel lies between two of them, and a perfect mask of that resolution has a Dice
of 0.69. What a U-Net for one target does in the upper half of its decoder is done here for every target: convolutions
on what the mask decoder knows of the target, with the pixels themselves, up to the input's own resolution. The mask
token says, channel by channel, what the target makes of them (FiLM: Perez et al., AAAI 2018).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers.models.sam2.modeling_sam2 import Sam2MaskDecoder

from .backbone import SameConv2d

__all__ = ["FineMasks", "MaskDecoder"]

CHANNELS = 16
"""At stride 2; SAM2's decoder has an eighth of its width at stride 4."""


class MaskDecoder(Sam2MaskDecoder):
    """SAM2's mask decoder, which also gives the features that its logits are a sum of."""

    def forward(  # type: ignore[override]
        self, image: torch.Tensor, position: torch.Tensor, prompts: torch.Tensor, maps: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """As SAM2's own with several candidates, one row a prompt.

        Parameters
        ----------
        image : torch.Tensor
            (images, width, h / 16, w / 16) features, the dense prompt added.
        position : torch.Tensor
            The same shape: where each of them lies.
        prompts : torch.Tensor
            (images, prompts, tokens, width) sparse prompts.
        maps : tuple of torch.Tensor
            (images, width / 8, h / 4, w / 4) and (images, width / 4, h / 8, w / 8).

        Returns
        -------
        tuple of torch.Tensor
            For N = images * prompts: (N, candidates, h / 4, w / 4) logits, (N, candidates) predicted IoU,
            (N, candidates, width) mask tokens, (N,) object-score logits, and (N, width / 8, h / 4, w / 4) features.
        """
        per_image = prompts.shape[1]
        tokens, image = self._attend(image, position, prompts)
        tokens = tokens.flatten(0, 1)
        s4, s8 = (m.repeat_interleave(per_image, 0) for m in maps)
        x = image.transpose(2, 3).reshape(len(s8), self.hidden_size, s8.shape[-2] // 2, s8.shape[-1] // 2)
        x = self.activation(self.upscale_layer_norm(self.upscale_conv1(x) + s8))
        x = self.activation(self.upscale_conv2(x) + s4)
        # the first mask token is that of a single candidate, which prompts in words never ask for
        mask_tokens = tokens[:, 3 : 2 + self.num_mask_tokens]
        weights = [head(mask_tokens[:, i]) for i, head in enumerate(list(self.output_hypernetworks_mlps)[1:])]
        logits = torch.einsum("nmc,nchw->nmhw", torch.stack(weights, 1), x)
        quality = self.iou_prediction_head(tokens[:, 1])[:, 1:]
        return logits, quality, mask_tokens, self.pred_obj_score_head(tokens[:, 0])[:, 0], x

    def object_scores(self, image: torch.Tensor, position: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
        """(images * prompts,) object-score logits alone; parameters as of :meth:`forward`."""
        tokens, _ = self._attend(image, position, prompts)
        scores: torch.Tensor = self.pred_obj_score_head(tokens.flatten(0, 1)[:, 0])[:, 0]
        return scores

    def _attend(
        self, image: torch.Tensor, position: torch.Tensor, prompts: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and image features after the two-way transformer."""
        images, per_image = prompts.shape[:2]
        own = torch.cat([self.obj_score_token.weight, self.iou_token.weight, self.mask_tokens.weight])
        tokens, image = self.transformer(
            point_embeddings=torch.cat([own.expand(images, per_image, -1, -1), prompts], dim=2),
            image_embeddings=image.repeat_interleave(per_image, 0),
            image_positional_embeddings=position.repeat_interleave(per_image, 0),
            attention_similarity=None,
        )
        return tokens, image


class FineMasks(nn.Module):
    """What is added to SAM2's mask logits after they are enlarged to the input's size; nothing, before training.

    Parameters
    ----------
    width : int
        Channels of SAM2's mask decoder, whose features at stride 4 have an eighth of them.
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
        # a sub-pixel convolution (Shi et al., CVPR 2016), as convolutions at full resolution would take longest
        self.last = SameConv2d(CHANNELS, 4, 3)

    def start_as_nothing(self) -> None:
        """Let the masks be SAM2's own until training says otherwise."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        said = self.modulate[-1]
        assert isinstance(said, nn.Linear)
        for layer in (self.last, said):
            nn.init.zeros_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def look(self, pixels: torch.Tensor) -> torch.Tensor:
        """Fine channels of images, whatever is asked about them.

        Parameters
        ----------
        pixels : torch.Tensor
            (images, 3, height, width), normalised.

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
        """Finer logits.

        Parameters
        ----------
        logits : torch.Tensor
            (N, candidates, height / 4, width / 4) of SAM2.
        tokens : torch.Tensor
            (N, candidates, width) mask tokens that made them.
        features : torch.Tensor
            (N, width / 8, height / 4, width / 4) that they were made of.
        coarse : torch.Tensor
            (N or 1, width / 8, height / 4, width / 4) of the image, the first of ``ImageFeatures.maps``.
        fine : torch.Tensor
            (N or 1, channels, height / 2, width / 2) from :meth:`look`.

        Returns
        -------
        torch.Tensor
            (N, candidates, height, width).
        """
        number, candidates = logits.shape[:2]
        scale, shift, fine_scale, fine_shift = self.modulate(tokens.flatten(0, 1))[..., None, None].split(
            [features.shape[1], features.shape[1], CHANNELS, CHANNELS], dim=1
        )
        # each candidate is a row; the sigmoid says what the coarse mask is, as far as it goes
        rows = logits.flatten(0, 1)[:, None]
        x = (features + self.image(coarse)).repeat_interleave(candidates, 0) + self.mask(rows.sigmoid())
        x = F.relu(self.coarse[0](x) * (1 + scale) + shift)
        x = x + F.relu(self.coarse[1](x))
        shown = fine if len(fine) == 1 else fine.repeat_interleave(candidates, 0)
        x = F.interpolate(self.narrow(x), scale_factor=2.0, mode="nearest") + shown * (1 + fine_scale) + fine_shift
        x = F.relu(self.fine[0](x))
        x = x + F.relu(self.fine[1](x))
        added = F.pixel_shuffle(self.last(x), 2)
        enlarged = F.interpolate(rows, size=added.shape[-2:], mode="bilinear", align_corners=False)
        return (enlarged + added).view(number, candidates, *added.shape[-2:])
