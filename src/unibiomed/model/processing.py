"""Pixels and questions to tensors, and mask logits back to the image's own pixel grid.

The published preprocessing (reference: InternVL2.5's dynamic tiling, SAM2's 1024-pixel square) is followed to the bit;
its sizes are settings, so that a small model uses the same code.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from unibiomed.errors import ModelError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
PROMPT = "<|user|>\n{question}<|end|>\n<|assistant|>\n"
END = "<|end|>"
IMAGE_START, IMAGE_TOKEN, IMAGE_END = "<img>", "<IMG_CONTEXT>", "</img>"
SETTINGS_FILE = "unibiomed_processor.json"
MAX_SETTING = 8192


@dataclass(frozen=True)
class ProcessorSettings:
    """How an image is prepared.

    Attributes
    ----------
    grounding_size : int
        Side in pixels of the square that SAM2 reads; the aspect ratio is not kept.
    tile_size : int
        Side in pixels of a tile for the vision tower; 0 for a model whose language half reads SAM2's features.
    max_tiles : int
        Most tiles of an image, the whole-image one not counted.
    tokens_per_tile : int
        Language-model tokens of one tile.
    bfloat16_constants : bool
        Round SAM2's mean and std to bfloat16, as the authors' inference code does.

    Raises
    ------
    ValueError
        If a size is not a whole number in its range.
    """

    grounding_size: int = 1024
    tile_size: int = 448
    max_tiles: int = 12
    tokens_per_tile: int = 256
    bfloat16_constants: bool = True

    def __post_init__(self) -> None:
        for name in ("grounding_size", "tile_size", "max_tiles", "tokens_per_tile"):
            value, least = getattr(self, name), 0 if name == "tile_size" else 1
            if type(value) is not int or not least <= value <= MAX_SETTING:
                raise ValueError(f"{name} is {value!r}, not a whole number from {least} to {MAX_SETTING}")
        if type(self.bfloat16_constants) is not bool:
            raise ValueError(f"bfloat16_constants is {self.bfloat16_constants!r}, neither true nor false")


@dataclass(frozen=True)
class ImageInputs:
    """One image, prepared.

    Attributes
    ----------
    grounding_pixels : torch.Tensor
        (1, 3, grounding_size, grounding_size) float32, normalised.
    tile_pixels : torch.Tensor or None
        (tiles, 3, tile_size, tile_size) float32, normalised.
    tokens : int
        Language-model tokens of the image.
    size : tuple of int
        (height, width) of the image in pixels.
    """

    grounding_pixels: torch.Tensor
    tile_pixels: torch.Tensor | None
    tokens: int
    size: tuple[int, int]


def choose_grid(width: int, height: int, max_tiles: int, tile_size: int, min_tiles: int = 1) -> tuple[int, int]:
    """Columns and rows of the tiling whose aspect ratio is closest to the image's (InternVL2.5, dynamic resolution).

    Among all grids of `min_tiles` to `max_tiles` tiles, in order of their number; on a tie the later one wins if the
    image has more than half of its pixels.
    """
    grids = [(i, j) for i in range(1, max_tiles + 1) for j in range(1, max_tiles // i + 1) if i * j >= min_tiles]
    grids.sort(key=lambda grid: grid[0] * grid[1])
    best, smallest = (1, 1), float("inf")
    for grid in grids:
        difference = abs(width / height - grid[0] / grid[1])
        if difference < smallest:
            best, smallest = grid, difference
        elif difference == smallest and width * height > 0.5 * tile_size**2 * grid[0] * grid[1]:
            best = grid
    return best


def cut_tiles(image: Image.Image, tile_size: int, max_tiles: int, min_tiles: int = 1) -> list[Image.Image]:
    """Squares of `tile_size` pixels: the tiles row by row, then the whole image if there are several."""
    side = tile_size
    columns, rows = choose_grid(*image.size, max_tiles, side, min_tiles)
    resized = image.resize((side * columns, side * rows), Image.Resampling.BICUBIC)
    tiles = [
        resized.crop((side * i, side * j, side * (i + 1), side * (j + 1))) for j in range(rows) for i in range(columns)
    ]
    if len(tiles) > 1:
        tiles.append(image.resize((side, side), Image.Resampling.BICUBIC))
    return tiles


def normalise(image: Image.Image, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """(3, height, width) float32 of an RGB image: /255, minus `mean`, over `std` (each of shape (3,))."""
    pixels = torch.from_numpy(np.asarray(image, dtype=np.uint8).copy()).permute(2, 0, 1).float() / 255
    return (pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)


class UniBiomedProcessor:
    """Prepares images and questions for a :class:`~unibiomed.model.modeling.UniBiomedModel`, and reads its masks back.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Must know ``[SEG]`` and the image tokens.
    settings : ProcessorSettings
        Sizes.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, settings: ProcessorSettings) -> None:
        self.tokenizer = tokenizer
        self.settings = settings
        mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        self._tile_constants = (mean, std)
        if settings.bfloat16_constants:
            mean, std = mean.bfloat16().float(), std.bfloat16().float()
        self._grounding_constants = (mean, std)

    # ---------------------------------------------------------------- images

    def grounding_pixels(self, image: Image.Image, side: int | None = None) -> torch.Tensor:
        """(3, side, side) float32 for SAM2; the side is ``grounding_size`` unless it is given."""
        side = side or self.settings.grounding_size
        resized = image if image.size == (side, side) else image.resize((side, side), Image.Resampling.BICUBIC)
        return normalise(resized, *self._grounding_constants)

    def tile_pixels(self, image: Image.Image) -> torch.Tensor:
        """(tiles, 3, tile_size, tile_size) float32: the tiles row by row, then the whole image if there are several."""
        tiles = cut_tiles(image, self.settings.tile_size, self.settings.max_tiles)
        return torch.stack([normalise(tile, *self._tile_constants) for tile in tiles])

    def image(self, image: Image.Image | np.ndarray) -> ImageInputs:
        """Prepare one image.

        Parameters
        ----------
        image : PIL.Image.Image or numpy.ndarray
            RGB; as an array (height, width, 3) uint8.
        """
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        image = image.convert("RGB")
        tiles = self.tile_pixels(image) if self.settings.tile_size else None
        count = 1 if tiles is None else len(tiles)
        tokens = count * self.settings.tokens_per_tile
        return ImageInputs(self.grounding_pixels(image)[None], tiles, tokens, (image.height, image.width))

    # ---------------------------------------------------------------- words

    def prompt(self, question: str, image_tokens: int) -> str:
        """The text that the language model continues.

        The image stands at the first ``<image>`` of the question, or before it when it has none.
        """
        if not image_tokens:
            return PROMPT.format(question=question)
        before, after = self._around_image(question)
        return before + IMAGE_TOKEN * image_tokens + after

    def encode(self, text: str) -> list[int]:
        """Token ids; nothing is added."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def decode(self, ids: list[int]) -> str:
        """Text of token ids, special tokens included."""
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def prompt_ids(self, question: str, image_tokens: int) -> list[int]:
        """Token ids of :meth:`prompt`, made without spelling out the image tokens."""
        if not image_tokens:
            return self.encode(self.prompt(question, 0))
        before, after = self._around_image(question)
        place = self.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        return [*self.encode(before), *[place] * image_tokens, *self.encode(after)]

    def _around_image(self, question: str) -> tuple[str, str]:
        """The prompt before and after the image tokens."""
        before, mark, after = question.partition("<image>")
        if not mark:
            before, after = "", question
        head, tail = PROMPT.split("{question}")
        return head + before + IMAGE_START, IMAGE_END + after + tail

    # ---------------------------------------------------------------- masks

    def mask_logits(self, logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Mask logits on the image's own pixel grid, in two steps as published (one step moves 0.7 % of the pixels).

        Parameters
        ----------
        logits : torch.Tensor
            (N, grounding_size / 4, grounding_size / 4).
        size : tuple of int
            (height, width) of the image.

        Returns
        -------
        torch.Tensor
            (N, height, width) float32.
        """
        side = self.settings.grounding_size
        square = F.interpolate(logits[:, None].float(), (side, side), mode="bilinear", align_corners=False)
        return F.interpolate(square, size, mode="bilinear", align_corners=False)[:, 0]

    # ---------------------------------------------------------------- files

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the settings and the tokenizer into `folder`."""
        folder = Path(folder)
        self.tokenizer.save_pretrained(folder)
        (folder / SETTINGS_FILE).write_text(json.dumps(asdict(self.settings), indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, folder: str | Path, **defaults: Any) -> UniBiomedProcessor:
        """Read a processor from a model folder.

        Parameters
        ----------
        folder : str or Path
            Holds a tokenizer; settings that its own file does not give are the published ones, or `defaults`.

        Raises
        ------
        ModelError
            If the tokenizer is missing, broken, or does not know the special tokens.
        """
        folder = Path(folder)
        settings = dict(defaults)
        try:
            if (folder / SETTINGS_FILE).exists():
                settings |= json.loads((folder / SETTINGS_FILE).read_text())
            known = {field.name for field in fields(ProcessorSettings)}
            if unknown := set(settings) - known:
                raise ValueError(f"unknown settings {sorted(map(str, unknown))}")
            chosen = ProcessorSettings(**settings)
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # for a broken file the tokenizers library raises nothing narrower
            reason = " ".join(str(error).split())[:150] or type(error).__name__
            raise ModelError(
                f"the tokenizer or settings in '{folder}' cannot be read ({reason}); get the model folder again"
            ) from error
        missing = [t for t in ("[SEG]", IMAGE_TOKEN) if t not in tokenizer.get_vocab()]
        if missing:
            raise ModelError(
                f"the tokenizer in '{folder}' lacks {', '.join(missing)}; give the folder of a UniBiomed model"
            )
        return cls(tokenizer, chosen)
