"""Specialist U-Nets, one for each target of each data set, for comparison with a model for all targets.

``benchmarks/specialists.py`` trains them and stores each as ``DATASET__TARGET.safetensors`` with a JSON file that
describes it.
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from unibiomed.data.index import writing
from unibiomed.errors import InputError, ModelError
from unibiomed.model.backbone import EfficientNetLiteConfig, EfficientNetLiteModel
from unibiomed.model.checkpoint import Checkpoint, read_json
from unibiomed.model.mask_threshold import mask_threshold
from unibiomed.model.processing import IMAGENET_MEAN, IMAGENET_STD, normalise

from ..predictions import Prediction
from ..samples import Case
from .loading import select_device

__all__ = [
    "Specialist",
    "SpecialistsPredictor",
    "UNet",
    "find_specialists",
    "read_specialist",
    "save_specialist",
    "specialist_path",
]

ENCODER_WIDTHS = [16, 24, 40, 112, 320]
DECODER_WIDTHS = [16, 32, 64, 128]
CACHE_SIZE = 8
"""Number of U-Nets in memory, 20 MB each. They cover the targets of one data set."""
MAX_SIZE = 4096


class UNet(nn.Module):
    """U-Net on EfficientNet-Lite0: skip connections at strides 2, 4, 8, 16, one output channel at full resolution.

    The last upsampling is a sub-pixel convolution (Shi et al., CVPR 2016), because convolutions at full
    resolution would double the time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = EfficientNetLiteModel(EfficientNetLiteConfig(outputs=[0, 1, 2, 4, 6]))
        below = [*DECODER_WIDTHS[1:], ENCODER_WIDTHS[-1]]
        self.up = nn.ModuleList(
            _block(s + b, w) for s, b, w in zip(ENCODER_WIDTHS[:-1], below, DECODER_WIDTHS, strict=True)
        )
        self.out = nn.Sequential(nn.Conv2d(DECODER_WIDTHS[0], 4, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, 3, height, width) to (batch, height, width) logits."""
        levels = [f.permute(0, 3, 1, 2) for f in self.encoder(pixel_values=x).intermediate_hidden_states]
        y = levels[-1]
        for skip, up in zip(reversed(levels[:-1]), reversed(self.up), strict=True):
            y = up(torch.cat([F.interpolate(y, size=skip.shape[-2:], mode="nearest"), skip], 1))
        logits: torch.Tensor = self.out(y)[:, 0, : x.shape[-2], : x.shape[-1]]
        return logits


def _block(inside: int, out: int) -> nn.Sequential:
    """Two 3x3 convolutions, as in U-Net, with batch normalisation."""
    layers: list[nn.Module] = []
    for channels in (inside, out):
        layers += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


@dataclass(frozen=True, slots=True)
class Specialist:
    """Description of a specialist U-Net.

    Parameters
    ----------
    dataset, target : str
    size : int
        Side of the square input in pixels.
    samples : int
        Number of images seen in training, including repetitions.
    """

    dataset: str
    target: str
    size: int
    samples: int

    def __post_init__(self) -> None:
        for name, kind in (("dataset", str), ("target", str), ("size", int), ("samples", int)):
            if type(getattr(self, name)) is not kind:
                raise ModelError(f"'{name}' of a specialist has the wrong type")
        if not 32 <= self.size <= MAX_SIZE:
            raise ModelError(f"size {self.size} of a specialist is not from 32 to {MAX_SIZE}")


def specialist_path(folder: Path, dataset: str, target: str) -> Path:
    """Return the file of the weights of a U-Net."""
    return folder / f"{dataset}__{re.sub(r'[^a-zA-Z0-9.-]+', '_', target)}.safetensors"


def save_specialist(net: UNet, description: Specialist, folder: Path) -> Path:
    """Write weights in half precision and their description; return the file of the weights.

    Raises
    ------
    OutputError
        A file cannot be written.
    """
    path = specialist_path(folder, description.dataset, description.target)
    state = {name: _to_half(tensor.detach().cpu()).contiguous() for name, tensor in net.state_dict().items()}
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        save_file(state, temporary)
        os.replace(temporary, path)
        # written last, so that it exists only if the weights do
        temporary.write_text(json.dumps(asdict(description)) + "\n", encoding="utf-8")
        os.replace(temporary, path.with_suffix(".json"))
    return path


def _to_half(tensor: torch.Tensor) -> torch.Tensor:
    # variances of batch normalisation may exceed the range of half precision
    return tensor.half() if tensor.is_floating_point() and tensor.half().isfinite().all() else tensor


class SpecialistsPredictor:
    """Predictor that uses the U-Net of the target and data set of each sample.

    Parameters
    ----------
    folder : Path
        Folder that `save_specialist` wrote to.
    device : str, optional
        Default: the best available.

    Raises
    ------
    InputError
        The folder holds no U-Nets, or the device is not available.
    ModelError
        A file is missing or broken, or two U-Nets have the same target.
    """

    tasks = frozenset({"segment"})
    paraphrase_tasks: frozenset[str] = frozenset()
    note = "one U-Net per target and data set; targets without a U-Net are predicted as absent"

    def __init__(self, folder: Path, device: str | None = None) -> None:
        self.name = folder.resolve().name
        self.device = select_device(device)
        self.specialists = find_specialists(folder)
        self._net = lru_cache(maxsize=CACHE_SIZE)(self._load)

    def predict(self, case: Case, pixels: np.ndarray) -> list[Prediction]:
        """Predict the samples of a case; the masks have the size of the image."""
        predictions = []
        for sample in case.samples:
            started = time.perf_counter()
            key = case.record.dataset, sample.target
            if key in self.specialists:
                path, description = self.specialists[key]
                mask, score = self._segment(path, description.size, pixels)
            else:
                mask, score = np.zeros(pixels.shape[:2], dtype=bool), 0.0
            prediction = Prediction.from_masks(sample.id, "", [sample.target], [mask], [score])
            predictions.append(replace(prediction, seconds=time.perf_counter() - started))
        return predictions

    @torch.inference_mode()
    def _segment(self, path: Path, side: int, pixels: np.ndarray) -> tuple[np.ndarray, float]:
        """Return the mask, (height, width) bool, and the highest probability; below 0.5 the mask is empty."""
        square = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
        inputs = normalise(square, torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD))
        logits = self._net(path)(inputs[None].to(self.device)).cpu()
        # the same threshold as for the masks of nano, so that the comparison is fair
        threshold = mask_threshold(logits, "dice")[0]
        logits = F.interpolate(logits[None], pixels.shape[:2], mode="bilinear", align_corners=False)[0, 0]
        mask = (logits > threshold) & (logits.max() > 0)
        return mask.numpy(), float(logits.max().sigmoid())

    def _load(self, path: Path) -> UNet:
        return _read_net(path).eval().to(self.device)


def find_specialists(folder: Path) -> dict[tuple[str, str], tuple[Path, Specialist]]:
    """Return the weights and description of each U-Net of a folder by data set and target.

    Raises
    ------
    InputError
        The folder holds no U-Nets.
    ModelError
        A file is missing or broken, or two U-Nets have the same target.
    """
    specialists: dict[tuple[str, str], tuple[Path, Specialist]] = {}
    for path in sorted(folder.glob("*__*.json")):
        description = _read_description(path)
        weights = path.with_suffix(".safetensors")
        if not weights.is_file():
            raise ModelError(f"'{folder}' holds {path.name} but not {weights.name}: train the U-Net again")
        key = description.dataset, description.target
        if key in specialists:
            raise ModelError(f"'{specialists[key][0].name}' and '{weights.name}' have the same target: delete one")
        specialists[key] = weights, description
    if not specialists:
        raise InputError(f"'{folder}' holds no U-Nets: train them with benchmarks/specialists.py")
    return specialists


def read_specialist(path: Path) -> tuple[UNet, Specialist] | None:
    """Read a U-Net that `save_specialist` wrote, in float32, and its description; None if either is missing.

    Raises
    ------
    ModelError
        A file is broken.
    """
    description = path.with_suffix(".json")
    return (_read_net(path), _read_description(description)) if description.is_file() and path.is_file() else None


def _read_net(path: Path) -> UNet:
    stored = Checkpoint([path])
    # copies, because the tensors are mapped from the file
    state = {k: t.to(torch.float32 if t.is_floating_point() else t.dtype, copy=True) for k, t in stored.items()}
    with torch.device("meta"):  # no need to initialise weights that are replaced
        net = UNet()
    try:
        net.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ModelError(f"'{path.name}' does not hold a U-Net of this architecture: train it again") from error
    return net


def _read_description(path: Path) -> Specialist:
    values = read_json(path)
    names = {f.name for f in fields(Specialist)}
    try:
        return Specialist(**{name: value for name, value in values.items() if name in names})
    except (ModelError, TypeError) as error:
        raise ModelError(f"'{path.name}' is not a valid description ({error}): train the U-Net again") from error
