"""One small U-Net for each target of each data set: what training for nothing else reaches on the same images.

``benchmarks/specialists.py`` trains them and keeps each as ``DATASET__TARGET.safetensors``, with a JSON file beside it
that says what it is.
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
from .loading import pick_device

__all__ = [
    "Specialist",
    "SpecialistsPredictor",
    "UNet",
    "known_specialists",
    "read_specialist",
    "save_specialist",
    "specialist_path",
]

LEVELS = [16, 24, 40, 112, 320]
WIDTHS = [16, 32, 64, 128]
KEPT = 8
"""U-Nets in memory at once, 20 MB each: a data set's, which are asked image after image."""
LARGEST = 4096


class UNet(nn.Module):
    """U-Net on EfficientNet-Lite0: skip connections at strides 2, 4, 8, 16, one output channel at full resolution.

    The last doubling is a sub-pixel convolution (Shi et al., CVPR 2016): convolutions at full resolution would take as
    long as all the rest together.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = EfficientNetLiteModel(EfficientNetLiteConfig(outputs=[0, 1, 2, 4, 6]))
        below = [*WIDTHS[1:], LEVELS[-1]]
        self.up = nn.ModuleList(_block(s + b, w) for s, b, w in zip(LEVELS[:-1], below, WIDTHS, strict=True))
        self.out = nn.Sequential(nn.Conv2d(WIDTHS[0], 4, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, 3, height, width) to (batch, height, width) logits."""
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
    """What a U-Net was trained for.

    Parameters
    ----------
    dataset, target : str
    size : int
        Side in pixels of the square that it reads.
    samples : int
        Images that it saw in training, repeats included.
    """

    dataset: str
    target: str
    size: int
    samples: int

    def __post_init__(self) -> None:
        for name, kind in (("dataset", str), ("target", str), ("size", int), ("samples", int)):
            if type(getattr(self, name)) is not kind:
                raise ModelError(f"'{name}' of a specialist is of the wrong type")
        if not 32 <= self.size <= LARGEST:
            raise ModelError(f"size {self.size} of a specialist is not in 32 to {LARGEST}")


def specialist_path(folder: Path, dataset: str, target: str) -> Path:
    """File of the weights of a U-Net."""
    return folder / f"{dataset}__{re.sub(r'[^a-zA-Z0-9.-]+', '_', target)}.safetensors"


def save_specialist(net: UNet, about: Specialist, folder: Path) -> Path:
    """Write the weights in half precision, and what they are for; gives the file of the weights.

    Raises
    ------
    OutputError
        They cannot be written.
    """
    path = specialist_path(folder, about.dataset, about.target)
    state = {name: _halved(tensor.detach().cpu()).contiguous() for name, tensor in net.state_dict().items()}
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        save_file(state, fresh)
        os.replace(fresh, path)
        # the last to be there: it says that the weights are
        fresh.write_text(json.dumps(asdict(about)) + "\n", encoding="utf-8")
        os.replace(fresh, path.with_suffix(".json"))
    return path


def _halved(tensor: torch.Tensor) -> torch.Tensor:
    # a variance may be too large for half precision
    return tensor.half() if tensor.is_floating_point() and tensor.half().isfinite().all() else tensor


class SpecialistsPredictor:
    """Asks for each target the U-Net that was trained for it on the same data set.

    Parameters
    ----------
    folder : Path
        What `save_specialist` wrote.
    device : str, optional
        The best there is when left out.

    Raises
    ------
    InputError
        It is not a folder with U-Nets, or the device cannot be used.
    ModelError
        A file is missing or broken, or two are for one target.
    """

    tasks = frozenset({"segment"})
    worded: frozenset[str] = frozenset()
    note = "a U-Net for each target of each data set; what none was trained for is said to be absent"

    def __init__(self, folder: Path, device: str | None = None) -> None:
        self.name = folder.resolve().name
        self.device = pick_device(device)
        self.known = known_specialists(folder)
        self._net = lru_cache(maxsize=KEPT)(self._load)

    def predict(self, case: Case, pixels: np.ndarray) -> list[Prediction]:
        """One U-Net for each target; the masks have the size of the image."""
        out = []
        for sample in case.samples:
            started = time.perf_counter()
            key = case.record.dataset, sample.target
            if key in self.known:
                path, about = self.known[key]
                mask, score = self._outline(path, about.size, pixels)
            else:
                mask, score = np.zeros(pixels.shape[:2], dtype=bool), 0.0
            prediction = Prediction.of_masks(sample.id, "", [sample.target], [mask], [score])
            out.append(replace(prediction, seconds=time.perf_counter() - started))
        return out

    @torch.inference_mode()
    def _outline(self, path: Path, side: int, pixels: np.ndarray) -> tuple[np.ndarray, float]:
        """The mask, (height, width) bool, and the probability of its surest pixel: empty below one half."""
        square = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
        inputs = normalise(square, torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD))
        logits = self._net(path)(inputs[None].to(self.device)).cpu()
        # where a pixel reaches one half, the mask ends as nano's do: the two are held against each other alike
        cut = mask_threshold(logits, "dice")[0]
        logits = F.interpolate(logits[None], pixels.shape[:2], mode="bilinear", align_corners=False)[0, 0]
        mask = (logits > cut) & (logits.max() > 0)
        return mask.numpy(), float(logits.max().sigmoid())

    def _load(self, path: Path) -> UNet:
        return _read_net(path).eval().to(self.device)


def known_specialists(folder: Path) -> dict[tuple[str, str], tuple[Path, Specialist]]:
    """Weights and description of each U-Net of a folder, by data set and target.

    Raises
    ------
    InputError
        It is not a folder with U-Nets.
    ModelError
        A file is missing or broken, or two are for one target.
    """
    known: dict[tuple[str, str], tuple[Path, Specialist]] = {}
    for path in sorted(folder.glob("*__*.json")):
        about = _read_about(path)
        weights = path.with_suffix(".safetensors")
        if not weights.is_file():
            raise ModelError(f"'{folder}' has {path.name}, but no {weights.name}; train it again")
        key = about.dataset, about.target
        if key in known:
            raise ModelError(f"'{known[key][0].name}' and '{weights.name}' are for one target; delete one")
        known[key] = weights, about
    if not known:
        raise InputError(f"'{folder}' holds no U-Nets; benchmarks/specialists.py writes them")
    return known


def read_specialist(path: Path) -> tuple[UNet, Specialist] | None:
    """A U-Net in float32 that `save_specialist` wrote, and what it is for; None where there is none, or half of one.

    Raises
    ------
    ModelError
        A file is broken.
    """
    about = path.with_suffix(".json")
    return (_read_net(path), _read_about(about)) if about.is_file() and path.is_file() else None


def _read_net(path: Path) -> UNet:
    stored = Checkpoint([path])
    # copies: what is read is mapped from the file
    state = {k: t.to(torch.float32 if t.is_floating_point() else t.dtype, copy=True) for k, t in stored.items()}
    with torch.device("meta"):  # random weights would only be overwritten
        net = UNet()
    try:
        net.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ModelError(f"'{path.name}' holds no such U-Net; train it again") from error
    return net


def _read_about(path: Path) -> Specialist:
    values = read_json(path)
    known = {f.name for f in fields(Specialist)}
    try:
        return Specialist(**{name: value for name, value in values.items() if name in known})
    except (ModelError, TypeError) as error:
        raise ModelError(f"'{path.name}' does not say what its U-Net is for ({error}); train it again") from error
