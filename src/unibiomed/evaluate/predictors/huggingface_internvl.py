"""Preprocessing of InternVL: image tiles, and the prompt with placeholders for their tokens.

It gives the same inputs as ``InternVLProcessor`` for an image and a question, but does not need torchvision.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoConfig, AutoTokenizer, BatchFeature

from unibiomed.errors import ModelError
from unibiomed.model.checkpoint import read_json
from unibiomed.model.processing import IMAGE_END, IMAGE_START, IMAGE_TOKEN, cut_tiles, normalise

from .loading import load_part, missing_chat_template, read_image_settings, read_normalisation

__all__ = ["InternVLPreprocessor"]

MAX_TILE_SIDE = 4096
MAX_TILES = 128


class InternVLPreprocessor:
    """Preprocessing of an image and a question for an InternVL model of `transformers`.

    Parameters
    ----------
    folder : Path
        Model folder with tokenizer, chat template and preprocessing settings.

    Raises
    ------
    ModelError
        A file or setting is missing or inconsistent.
    """

    def __init__(self, folder: Path) -> None:
        config = load_part(AutoConfig, folder)
        processor_file = folder / "processor_config.json"
        processor_config = read_json(processor_file) if processor_file.is_file() else {}
        path, settings = read_image_settings(folder)
        self._mean, self._std = read_normalisation(path, settings.get("image_mean"), settings.get("image_std"))
        size = settings.get("size")
        sides = [size.get("height"), size.get("width")] if isinstance(size, dict) else [None]
        if sides[0] != sides[-1] or settings.get("resample", 3) != Image.Resampling.BICUBIC:
            raise ModelError(
                f"'{path}' is broken: InternVL needs square tiles and resample 3: get the model folder again"
            )
        self._side = _integer(path, "size", sides[0], MAX_TILE_SIDE)
        # InternVLProcessor always uses tiles, whatever crop_to_patches says; the default is 1 to 12
        self._max_tiles = _integer(path, "max_patches", settings.get("max_patches", 12), MAX_TILES)
        self._min_tiles = _integer(path, "min_patches", settings.get("min_patches", 1), self._max_tiles)
        self._tokens = _tokens_per_tile(config, self._side)
        stated = processor_config.get("image_seq_length", config.image_seq_length)
        if stated != self._tokens:
            raise ModelError(
                f"'{folder}': image_seq_length is {str(stated)[:40]!r}, but a tile of {self._side} pixels has "
                f"{self._tokens} tokens: get the model folder again"
            )
        self._tokenizer = load_part(AutoTokenizer, folder)
        self._image_tokens = self._find_image_tokens(folder, config.image_token_id)
        self._set_chat_template(folder, processor_config)

    def _find_image_tokens(self, folder: Path, image_token_id: int) -> tuple[str, str, str]:
        """Return the tokens before the image, of the image and after it."""
        names = {"start_image_token": IMAGE_START, "context_image_token": IMAGE_TOKEN, "end_image_token": IMAGE_END}
        start, image, end = (str(getattr(self._tokenizer, name, None) or default) for name, default in names.items())
        for token in (start, image, end):
            ids = self._tokenizer.encode(token, add_special_tokens=False)
            if len(ids) != 1 or (token == image and ids != [image_token_id]):
                raise ModelError(f"the tokenizer in '{folder}' lacks the token {token!r}: get the model folder again")
        return start, image, end

    def _set_chat_template(self, folder: Path, processor_config: dict[str, Any]) -> None:
        """Use the chat template of the processor; it has precedence over that of the tokenizer."""
        legacy = folder / "chat_template.json"
        template = processor_config.get("chat_template")
        template = template or (read_json(legacy).get("chat_template") if legacy.is_file() else None)
        self._tokenizer.chat_template = template or self._tokenizer.chat_template
        if not self._tokenizer.chat_template:
            raise missing_chat_template(folder)
        try:
            images = self._prompt("?").count(self._image_tokens[1])
        except Exception as error:  # a template is a program that may raise any error
            reason = " ".join(str(error).split())[:150] or type(error).__name__
            raise ModelError(f"the chat template of '{folder}' cannot be used ({reason})") from error
        if images != 1:
            raise ModelError(
                f"the chat template of '{folder}' has {images} placeholders for one image: get the model folder again"
            )

    def _prompt(self, question: str) -> str:
        content = [{"type": "image"}, {"type": "text", "text": question}]
        messages = [{"role": "user", "content": content}]
        return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def __call__(self, image: Image.Image, question: str) -> BatchFeature:
        """Make the inputs of ``generate``.

        Parameters
        ----------
        image : PIL.Image.Image
            RGB.
        question : str

        Returns
        -------
        BatchFeature
            ``pixel_values``, (tiles, 3, side, side) float32; ``input_ids`` and ``attention_mask``, (1, tokens).
        """
        tiles = cut_tiles(image, self._side, self._max_tiles, self._min_tiles)
        pixel_values = torch.stack([normalise(tile, self._mean, self._std) for tile in tiles])
        start, token, end = self._image_tokens
        prompt = self._prompt(question).replace(token, start + token * (self._tokens * len(tiles)) + end, 1)
        bos = self._tokenizer.bos_token
        # the chat template may already have added the BOS token
        add_special_tokens = not (bos and prompt.startswith(bos))
        encoded = self._tokenizer(prompt, return_tensors="pt", add_special_tokens=add_special_tokens)
        inputs = {name: encoded[name] for name in ("input_ids", "attention_mask")}
        return BatchFeature({**inputs, "pixel_values": pixel_values})

    def decode(self, ids: torch.Tensor) -> str:
        """Decode token ids without special tokens."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


def _integer(path: Path, name: str, value: object, most: int) -> int:
    if type(value) is not int or not 1 <= value <= most:
        raise ModelError(
            f"'{path}' is broken: {name} is {str(value)[:40]!r}, not an integer from 1 to {most}: get the model folder "
            "again"
        )
    return value


def _tokens_per_tile(config: Any, side: int) -> int:
    """Return the number of tokens of a tile after the pixel shuffle; 0 if the settings are invalid."""
    patch, ratio = config.vision_config.patch_size[0], config.downsample_ratio
    return int(side // patch * ratio) ** 2 if patch > 0 and 0 < ratio <= 1 else 0
