"""SAM, SAM2 and models of their form (MedSAM), which `transformers` runs: given a box, they outline what is in it."""

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

from .base import mark_boxed
from .box_prompts import BoxOutlines, BoxPredictor
from .loading import load_part, load_weights, pick_device, pixel_constants, read_image_settings

__all__ = ["SamPredictor"]

MODELS: dict[object, Any] = {"sam": SamModel, "sam2": Sam2Model, "sam2_video": Sam2Model}
"""Class by the ``model_type`` of ``config.json``; the released SAM2 carries the parts for videos as well."""


class SamPredictor(BoxPredictor):
    """A model that outlines what is in the box of the truth.

    Parameters
    ----------
    name : str
        A folder, or ``organisation/model`` on the Hugging Face hub, with safetensors.
    device : str, optional
        The best there is when left out.

    Raises
    ------
    InputError
        The device cannot be used.
    ModelError
        The model is missing, broken, or none of these.
    """

    def __init__(self, name: str, device: str | None = None) -> None:
        folder = find_folder(name)
        kind = read_json(folder / "config.json").get("model_type")
        if kind not in MODELS:
            raise ModelError(
                f"'{name}' is a model of type {str(kind)[:40]!r}; 'sam:' takes {', '.join(map(str, MODELS))}"
            )
        self.name = mark_boxed(Path(os.path.abspath(name)).name)
        self.device = pick_device(device)
        self.model = load_weights(MODELS[kind], folder, self.device, torch.float32)
        self._reader: Any
        if kind == "sam":
            self._reader = load_part(SamProcessor, folder)
        else:
            self._reader = _SquareReader(folder, self.model.config.prompt_encoder_config.image_size)

    @torch.inference_mode()
    def outline(self, pixels: np.ndarray, boxes: list[Box]) -> BoxOutlines:
        """See :meth:`.BoxPredictor.outline`."""
        asked = [[[float(side) for side in box] for box in boxes]]
        inputs = self._reader(images=pixels, input_boxes=asked, return_tensors="pt")
        embeddings = self.model.get_image_embeddings(inputs["pixel_values"].to(self.device))
        found = self.model(
            image_embeddings=embeddings,
            input_boxes=inputs["input_boxes"].to(self.device, torch.float32),
            multimask_output=False,
        )
        sizes = [inputs[key].tolist() for key in ("original_sizes", "reshaped_input_sizes")]
        out: BoxOutlines = {}
        for k, box in enumerate(boxes):
            # one at a time: at the size of the image they may be large
            [mask] = self._reader.post_process_masks(found.pred_masks[:, k : k + 1].cpu(), *sizes)
            quality = float(found.iou_scores[0, k, 0].clamp(0, 1))
            out[box] = mask.reshape(pixels.shape[:2]).numpy(), quality
        return out


class _SquareReader:
    """What SAM2 reads and writes: the image as a square, whatever its aspect ratio.

    It does what ``Sam2Processor`` does with boxes. That one needs torchvision, which this package can do without.
    """

    def __init__(self, folder: Path, side: int) -> None:
        self.side = side
        path, given = read_image_settings(folder)
        mean, std = given.get("image_mean", IMAGENET_MEAN), given.get("image_std", IMAGENET_STD)
        self.mean, self.std = pixel_constants(path, mean, std)

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
