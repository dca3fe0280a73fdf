"""SAM, SAM2 and MedSAM of `transformers`, which segment the content of a box."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import Sam2Model, SamModel, SamProcessor

from unibiomed.errors import ModelError
from unibiomed.images.geometry import Box
from unibiomed.model.checkpoint import read_json
from unibiomed.model.processing import IMAGENET_MEAN, IMAGENET_STD, normalise
from unibiomed.model.weights import find_folder

from .base import add_box_suffix
from .box_prompts import BoxOutlines, BoxPredictor
from .loading import load_part, load_weights, read_image_settings, read_normalisation, select_device

__all__ = ["SamPredictor"]

MODELS: dict[object, Any] = {"sam": SamModel, "sam2": Sam2Model, "sam2_video": Sam2Model}
"""Class for each ``model_type`` of ``config.json``. Released SAM2 models also contain the parts for videos."""


class SamPredictor(BoxPredictor):
    """Predictor of a model that is given the ground-truth box.

    Parameters
    ----------
    name : str
        Folder, or ``organisation/model`` on the Hugging Face hub, with safetensors.
    device : str, optional
        Default: the best available.

    Raises
    ------
    InputError
        The device is not available.
    ModelError
        The model is missing, broken or of another type.
    """

    def __init__(self, name: str, device: str | None = None) -> None:
        folder = find_folder(name)
        kind = read_json(folder / "config.json").get("model_type")
        if kind not in MODELS:
            raise ModelError(
                f"'{name}' is a model of type {str(kind)[:40]!r}: 'sam:' supports {', '.join(map(str, MODELS))}"
            )
        self.name = add_box_suffix(Path(os.path.abspath(name)).name)
        self.device = select_device(device)
        self.model = load_weights(MODELS[kind], folder, self.device, torch.float32)
        self._processor: Any
        if kind == "sam":
            self._processor = load_part(SamProcessor, folder)
        else:
            self._processor = _Sam2Processor(folder, self.model.config.prompt_encoder_config.image_size)

    @torch.inference_mode()
    def outline(self, pixels: np.ndarray, boxes: list[Box]) -> BoxOutlines:
        """See :meth:`.BoxPredictor.outline`."""
        input_boxes = [[[float(value) for value in box] for box in boxes]]
        inputs = self._processor(images=pixels, input_boxes=input_boxes, return_tensors="pt")
        embeddings = self.model.get_image_embeddings(inputs["pixel_values"].to(self.device))
        outputs = self.model(
            image_embeddings=embeddings,
            input_boxes=inputs["input_boxes"].to(self.device, torch.float32),
            multimask_output=False,
        )
        sizes = [inputs[key].tolist() for key in ("original_sizes", "reshaped_input_sizes")]
        outlines: BoxOutlines = {}
        for k, box in enumerate(boxes):
            # one at a time, because masks at the size of the image may be large
            [mask] = self._processor.post_process_masks(outputs.pred_masks[:, k : k + 1].cpu(), *sizes)
            iou = float(outputs.iou_scores[0, k, 0].clamp(0, 1))
            outlines[box] = mask.reshape(pixels.shape[:2]).numpy(), iou
        return outlines


class _Sam2Processor:
    """Preprocessing of SAM2, which resizes images to a square whatever their aspect ratio.

    It does the same as ``Sam2Processor`` for boxes, but does not need torchvision.
    """

    def __init__(self, folder: Path, side: int) -> None:
        self.side = side
        path, settings = read_image_settings(folder)
        mean, std = settings.get("image_mean", IMAGENET_MEAN), settings.get("image_std", IMAGENET_STD)
        self.mean, self.std = read_normalisation(path, mean, std)

    def __call__(self, images: np.ndarray, input_boxes: list[list[list[float]]], **_: str) -> dict[str, torch.Tensor]:
        height, width = images.shape[:2]
        square = Image.fromarray(images).resize((self.side, self.side), Image.Resampling.BILINEAR)
        scale = torch.tensor([self.side / width, self.side / height] * 2)
        return {
            "pixel_values": normalise(square, self.mean, self.std)[None],
            "input_boxes": torch.tensor(input_boxes) * scale,
            "original_sizes": torch.tensor([[height, width]]),
            "reshaped_input_sizes": torch.tensor([[self.side, self.side]]),
        }

    def post_process_masks(
        self, masks: torch.Tensor, original_sizes: list[list[int]], reshaped_input_sizes: list[list[int]]
    ) -> list[torch.Tensor]:
        pairs = zip(masks, original_sizes, strict=True)
        return [F.interpolate(m, (size[0], size[1]), mode="bilinear", align_corners=False) > 0 for m, size in pairs]
