"""SAM, SAM2 and models of their form (MedSAM), which `transformers` runs: given a box, they outline what is in it.

They know no words, so each target is asked for with the tight box of its truth. That is more than any other predictor
is told: their tables say what is left to do once a target has been found.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import Sam2Model, SamModel, SamProcessor

from unibiomed.errors import ModelError
from unibiomed.images.geometry import Box, mask_box
from unibiomed.model.checkpoint import read_json
from unibiomed.model.processing import IMAGENET_MEAN, IMAGENET_STD, normalise
from unibiomed.model.weights import find_folder

from ..predictions import Prediction
from ..samples import Case
from .base import mark_boxed
from .loading import load_part, load_weights, pick_device, pixel_constants, read_image_settings

__all__ = ["BoxPredictor"]

MODELS: dict[object, Any] = {"sam": SamModel, "sam2": Sam2Model, "sam2_video": Sam2Model}
"""Class by the ``model_type`` of ``config.json``; the released SAM2 carries the parts for videos as well."""


class BoxPredictor:
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

    tasks = frozenset({"segment"})
    worded: frozenset[str] = frozenset()
    boxed = True
    note = "is given the box of the truth: not judged on whether the target is there"

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

    def predict(self, case: Case, pixels: np.ndarray) -> list[Prediction]:
        """The image is looked at once; each box is asked about once."""
        started = time.perf_counter()
        size = (pixels.shape[0], pixels.shape[1])
        masks = case.masks(size)
        boxes = {s.id: mask_box(case.truths(s, masks, size)[0]) for s in case.samples}
        outlines = self._outline(pixels, list(dict.fromkeys(box for box in boxes.values() if box)))
        nothing: tuple[np.ndarray, float | None] = (np.zeros(size, dtype=bool), None)
        out = []
        for sample in case.samples:
            box = boxes[sample.id]
            mask, quality = outlines[box] if box else nothing
            out.append(Prediction.of_masks(sample.id, "", [sample.target], [mask], mask_scores=[quality]))
        seconds = (time.perf_counter() - started) / max(len(out), 1)
        return [replace(prediction, seconds=seconds) for prediction in out]

    @torch.inference_mode()
    def _outline(self, pixels: np.ndarray, boxes: list[Box]) -> dict[Box, tuple[np.ndarray, float | None]]:
        """Of each box the mask, (height, width) bool, and the overlap with the truth that the model expects."""
        if not boxes:
            return {}
        asked = [[[float(side) for side in box] for box in boxes]]
        inputs = self._reader(images=pixels, input_boxes=asked, return_tensors="pt")
        embeddings = self.model.get_image_embeddings(inputs["pixel_values"].to(self.device))
        found = self.model(
            image_embeddings=embeddings,
            input_boxes=inputs["input_boxes"].to(self.device, torch.float32),
            multimask_output=False,
        )
        sizes = [inputs[key].tolist() for key in ("original_sizes", "reshaped_input_sizes")]
        out: dict[Box, tuple[np.ndarray, float | None]] = {}
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
