"""Preprocessing of images and questions, and resampling of mask logits to the pixel grid of the image.

The preprocessing reproduces the published one bit by bit: InternVL2.5's dynamic tiling and SAM2's square input of 1,024
pixels. The sizes are settings, so that small models use the same code.
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
    """Settings of the image preprocessing.

    Attributes
    ----------
    grounding_size : int
        Side of SAM2's square input in pixels; the aspect ratio of the image is not preserved.
    tile_size : int
        Side of a tile for the vision tower in pixels; 0 for a model whose language model reads SAM2's features.
    max_tiles : int
        Maximum number of tiles of an image, not counting the thumbnail of the whole image.
    tokens_per_tile : int
        Number of language-model tokens per tile.
    bfloat16_constants : bool
        Whether SAM2's mean and standard deviation are rounded to bfloat16, as in the authors' inference code.

    Raises
    ------
    ValueError
        If a size is not an integer in its range.
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
                raise ValueError(f"{name} is {value!r}: give an integer from {least} to {MAX_SETTING}")
        if type(self.bfloat16_constants) is not bool:
            raise ValueError(f"bfloat16_constants is {self.bfloat16_constants!r}: give true or false")


@dataclass(frozen=True)
class ImageInputs:
    """Tensors of one preprocessed image.

    Attributes
    ----------
    grounding_pixels : torch.Tensor
        Normalized input of SAM2, (1, 3, grounding_size, grounding_size), float32.
    tile_pixels : torch.Tensor or None
        Normalized tiles for the vision tower, (tiles, 3, tile_size, tile_size), float32.
    tokens : int
        Number of language-model tokens of the image.
    size : tuple of int
        (height, width) of the image in pixels.
    """

    grounding_pixels: torch.Tensor
    tile_pixels: torch.Tensor | None
    tokens: int
    size: tuple[int, int]


def choose_grid(width: int, height: int, max_tiles: int, tile_size: int, min_tiles: int = 1) -> tuple[int, int]:
    """Columns and rows of the tile grid whose aspect ratio is closest to that of the image (as in InternVL2.5).

    All grids of `min_tiles` to `max_tiles` tiles are compared, in order of their number of tiles. If two grids are
    equally close, the later one is chosen if the image has more than half of its pixels.

    Parameters
    ----------
    width, height : int
        Size of the image in pixels.
    max_tiles, min_tiles : int
        Limits of the number of tiles.
    tile_size : int
        Side of a tile in pixels.

    Returns
    -------
    tuple of int
        Number of columns and rows.
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
    """Split an image into square tiles of `tile_size` pixels, in row order; a thumbnail follows several tiles."""
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
    """Scale an RGB image to [0, 1] and normalize it with `mean` and `std`, both (3,); (3, height, width) float32."""
    pixels = torch.from_numpy(np.asarray(image, dtype=np.uint8).copy()).permute(2, 0, 1).float() / 255
    return (pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)


class UniBiomedProcessor:
    """Preprocessing and mask resampling for a :class:`~unibiomed.model.modeling.UniBiomedModel`.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Tokenizer with ``[SEG]`` and the image tokens.
    settings : ProcessorSettings
        Settings of the image preprocessing.
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
        """Normalized input of SAM2, (3, side, side), float32; the side is ``grounding_size`` unless it is given."""
        side = side or self.settings.grounding_size
        resized = image if image.size == (side, side) else image.resize((side, side), Image.Resampling.BICUBIC)
        return normalise(resized, *self._grounding_constants)

    def tile_pixels(self, image: Image.Image) -> torch.Tensor:
        """Normalized tiles for the vision tower, (tiles, 3, tile_size, tile_size), float32; see :func:`cut_tiles`."""
        tiles = cut_tiles(image, self.settings.tile_size, self.settings.max_tiles)
        return torch.stack([normalise(tile, *self._tile_constants) for tile in tiles])

    def image(self, image: Image.Image | np.ndarray) -> ImageInputs:
        """Preprocess one image.

        Parameters
        ----------
        image : PIL.Image.Image or numpy.ndarray
            RGB image; arrays are uint8 of shape (height, width, 3).

        Returns
        -------
        ImageInputs
        """
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        image = image.convert("RGB")
        tiles = self.tile_pixels(image) if self.settings.tile_size else None
        count = 1 if tiles is None else len(tiles)
        tokens = count * self.settings.tokens_per_tile
        return ImageInputs(self.grounding_pixels(image)[None], tiles, tokens, (image.height, image.width))

    # ---------------------------------------------------------------- text

    def prompt(self, question: str, image_tokens: int) -> str:
        """Prompt of the language model for a question.

        The image tokens replace the first ``<image>`` of the question; without ``<image>`` they precede the question.

        Parameters
        ----------
        question : str
            The question.
        image_tokens : int
            Number of image tokens; 0 for a question without an image.
        """
        if not image_tokens:
            return PROMPT.format(question=question)
        before, after = self._around_image(question)
        return before + IMAGE_TOKEN * image_tokens + after

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without additional special tokens."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def decode(self, ids: list[int]) -> str:
        """Text of token ids, special tokens included."""
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def prompt_ids(self, question: str, image_tokens: int) -> list[int]:
        """Token ids of :meth:`prompt`; image tokens are inserted as ids, which is faster."""
        if not image_tokens:
            return self.encode(self.prompt(question, 0))
        before, after = self._around_image(question)
        place = self.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        return [*self.encode(before), *[place] * image_tokens, *self.encode(after)]

    def _around_image(self, question: str) -> tuple[str, str]:
        """Parts of the prompt before and after the image tokens."""
        before, mark, after = question.partition("<image>")
        if not mark:
            before, after = "", question
        head, tail = PROMPT.split("{question}")
        return head + before + IMAGE_START, IMAGE_END + after + tail

    # ---------------------------------------------------------------- masks

    def mask_logits(self, logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Resample mask logits to the pixel grid of the image.

        The logits are interpolated in two steps as in the authors' code: to SAM2's input size, then to the image. A
        single step would change 0.7 % of the pixels.

        Parameters
        ----------
        logits : torch.Tensor
            Mask logits, (N, grounding_size / 4, grounding_size / 4).
        size : tuple of int
            (height, width) of the image in pixels.

        Returns
        -------
        torch.Tensor
            Mask logits, (N, height, width), float32.
        """
        side = self.settings.grounding_size
        square = F.interpolate(logits[:, None].float(), (side, side), mode="bilinear", align_corners=False)
        return F.interpolate(square, size, mode="bilinear", align_corners=False)[:, 0]

    # ---------------------------------------------------------------- files

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the settings and the tokenizer to `folder`."""
        folder = Path(folder)
        self.tokenizer.save_pretrained(folder)
        (folder / SETTINGS_FILE).write_text(json.dumps(asdict(self.settings), indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, folder: str | Path, **defaults: Any) -> UniBiomedProcessor:
        """Load a processor from a model folder.

        Parameters
        ----------
        folder : str or Path
            Model folder with a tokenizer and, optionally, a settings file.
        **defaults
            Settings that apply where the settings file gives none; otherwise the published settings apply.

        Returns
        -------
        UniBiomedProcessor

        Raises
        ------
        ModelError
            If the tokenizer is missing or damaged or lacks the special tokens, or a setting is not valid.
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
        except Exception as error:  # the tokenizers library raises plain Exception for damaged files
            reason = " ".join(str(error).split())[:150] or type(error).__name__
            raise ModelError(
                f"the tokenizer or settings in '{folder}' cannot be read ({reason}): download the model folder again"
            ) from error
        missing = [t for t in ("[SEG]", IMAGE_TOKEN) if t not in tokenizer.get_vocab()]
        if missing:
            raise ModelError(
                f"the tokenizer in '{folder}' lacks {', '.join(missing)}: give the folder of a UniBiomed model"
            )
        return cls(tokenizer, chosen)
