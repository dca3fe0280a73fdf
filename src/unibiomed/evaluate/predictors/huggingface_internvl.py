"""What InternVL reads: tiles of the image, and the prompt with a place for each of their tokens.

``InternVLProcessor`` makes the same of an image and a question. That one also reads videos, for which it needs
torchvision, which this package can do without.
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

from .loading import load_part, no_chat_template, pixel_constants, read_image_settings

__all__ = ["InternVLReader"]

LARGEST_TILE = 4096
MOST_TILES = 128


class InternVLReader:
    """Questions about an image, as an InternVL of `transformers` is asked them.

    Parameters
    ----------
    folder : Path
        Of the model: its tokenizer, its chat template, and the JSON files that tell the sizes.

    Raises
    ------
    ModelError
        A file or a setting is missing or does not fit the others.
    """

    def __init__(self, folder: Path) -> None:
        config = load_part(AutoConfig, folder)
        words = folder / "processor_config.json"
        own = read_json(words) if words.is_file() else {}
        path, given = read_image_settings(folder)
        self._mean, self._std = pixel_constants(path, given.get("image_mean"), given.get("image_std"))
        size = given.get("size")
        sides = [size.get("height"), size.get("width")] if isinstance(size, dict) else [None]
        if sides[0] != sides[-1] or given.get("resample", 3) != Image.Resampling.BICUBIC:
            raise ModelError(
                f"'{path}': InternVL's tiles are square and made by resample 3; get the model folder again"
            )
        self._side = _whole(path, "size", sides[0], LARGEST_TILE)
        # whatever crop_to_patches says: InternVLProcessor always cuts tiles, 1 to 12 where nothing is said
        self._most = _whole(path, "max_patches", given.get("max_patches", 12), MOST_TILES)
        self._least = _whole(path, "min_patches", given.get("min_patches", 1), self._most)
        self._tokens = _tokens_of(config, self._side)
        if (said := own.get("image_seq_length", config.image_seq_length)) != self._tokens:
            raise ModelError(
                f"'{folder}': image_seq_length is {str(said)[:40]!r}, but the vision tower makes {self._tokens} tokens "
                f"of a tile of {self._side} pixels; get the model folder again"
            )
        self._tokenizer = load_part(AutoTokenizer, folder)
        self._marks = self._image_marks(folder, config.image_token_id)
        self._learn_to_ask(folder, own)

    def _image_marks(self, folder: Path, place: int) -> tuple[str, str, str]:
        """What stands before the image, for a token of it, and after it."""
        names = {"start_image_token": IMAGE_START, "context_image_token": IMAGE_TOKEN, "end_image_token": IMAGE_END}
        start, image, end = (str(getattr(self._tokenizer, name, None) or usual) for name, usual in names.items())
        for mark in (start, image, end):
            ids = self._tokenizer.encode(mark, add_special_tokens=False)
            if len(ids) != 1 or (mark == image and ids != [place]):
                raise ModelError(
                    f"the tokenizer in '{folder}' has no token {mark!r} of its model; get the folder again"
                )
        return start, image, end

    def _learn_to_ask(self, folder: Path, own: dict[str, Any]) -> None:
        """Take the chat template that the model's processor would: of its own files, rather than the tokenizer's."""
        old = folder / "chat_template.json"
        template = own.get("chat_template") or (read_json(old).get("chat_template") if old.is_file() else None)
        self._tokenizer.chat_template = template or self._tokenizer.chat_template
        if not self._tokenizer.chat_template:
            raise no_chat_template(folder)
        try:
            places = self._prompt("?").count(self._marks[1])
        except Exception as error:  # a template is a program, and fails in more ways than can be named
            reason = " ".join(str(error).split())[:150] or type(error).__name__
            raise ModelError(f"the chat template of '{folder}' cannot be used ({reason})") from error
        if places != 1:
            raise ModelError(f"the chat template of '{folder}' has {places} places for one image; get the folder again")

    def _prompt(self, question: str) -> str:
        content = [{"type": "image"}, {"type": "text", "text": question}]
        messages = [{"role": "user", "content": content}]
        return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def __call__(self, image: Image.Image, question: str) -> BatchFeature:
        """What the model generates from.

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
        tiles = [normalise(t, self._mean, self._std) for t in cut_tiles(image, self._side, self._most, self._least)]
        start, mark, end = self._marks
        prompt = self._prompt(question).replace(mark, start + mark * (self._tokens * len(tiles)) + end, 1)
        first = self._tokenizer.bos_token
        # a template may have put it there already
        words = self._tokenizer(
            prompt, return_tensors="pt", add_special_tokens=not (first and prompt.startswith(first))
        )
        made = {name: words[name] for name in ("input_ids", "attention_mask")}
        return BatchFeature({**made, "pixel_values": torch.stack(tiles)})

    def decode(self, ids: torch.Tensor) -> str:
        """Text of token ids, special ones left out."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


def _whole(path: Path, name: str, value: object, most: int) -> int:
    if type(value) is not int or not 1 <= value <= most:
        raise ModelError(
            f"'{path}': {name} is {str(value)[:40]!r}, not a whole number from 1 to {most}; get the model folder again"
        )
    return value


def _tokens_of(config: Any, side: int) -> int:
    """Tokens that the vision tower and the pixel shuffle make of a tile; 0 where the settings make no sense."""
    patch, ratio = config.vision_config.patch_size[0], config.downsample_ratio
    return int(side // patch * ratio) ** 2 if patch > 0 and 0 < ratio <= 1 else 0
