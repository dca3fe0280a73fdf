"""Look at an image and put questions to a model: what every task is made of."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from unibiomed.errors import InputError, ModelError
from unibiomed.findings import Box
from unibiomed.images import MedicalImage, check_box, draw_box, from_array, read_image, read_volume
from unibiomed.images.study import is_volume_only
from unibiomed.model.generation import MAX_NEW_TOKENS, Answer, generate
from unibiomed.model.modeling import ImageFeatures, UniBiomedModel
from unibiomed.model.processing import UniBiomedProcessor

from .naming import Outline
from .vocabulary import ModelVocabulary

__all__ = ["Asker", "EncodedImage", "ImageLike", "as_image"]

ImageLike = str | os.PathLike[str] | np.ndarray | Image.Image | MedicalImage


@dataclass
class EncodedImage:
    """An image the model has looked at: ask as often as you like.

    Attributes
    ----------
    image : MedicalImage
    features : ImageFeatures
        Of the image, with the box where one was drawn on it.
    tokens : int
        Language-model tokens of the image.
    box : tuple of int or None
        What was drawn on it.
    outlines : dict
        By modality and name, targets that were looked for to weigh words with masks; None for those to which
        the model gave no prompt.
    unboxed : EncodedImage or None
        The same image without the box, once it was looked at.
    recognized : tuple of (str or None, float) or None
        The modality that the model recognized and its probability, once it was asked.
    """

    image: MedicalImage
    features: ImageFeatures
    tokens: int
    box: Box | None = None
    outlines: dict[tuple[str | None, str], Outline | None] = field(default_factory=dict)
    unboxed: EncodedImage | None = None
    recognized: tuple[str | None, float] | None = None


class Asker:
    """A loaded model that looks at images and answers in its own words.

    Parameters
    ----------
    model : UniBiomedModel
    processor : UniBiomedProcessor
    name : str
        Shown in messages.
    vocabulary : ModelVocabulary
        The names that it was trained with.
    """

    def __init__(
        self, model: UniBiomedModel, processor: UniBiomedProcessor, name: str, vocabulary: ModelVocabulary
    ) -> None:
        self.model = model.eval()
        self.processor = processor
        self.name = name
        self.vocabulary = vocabulary

    @torch.inference_mode()
    def encode(self, image: ImageLike, *, box: Box | None = None, **reading: Any) -> EncodedImage:
        """Look at an image once; the result may be given to ``Interpreter.interpret`` in its place.

        Parameters
        ----------
        image : path, array, PIL image or MedicalImage
        box : tuple of int, optional
            Drawn on the image, as the region questions of the paper have it.
        **reading
            ``slice_index`` and ``window`` of :func:`unibiomed.images.read_image`.
        """
        medical = as_image(image, **reading)
        pixels = medical.pixels if box is None else self._draw(medical.pixels, box)
        inputs = self.processor.image(pixels)
        device = self.model.device
        tiles = inputs.tile_pixels
        features = self.model.encode_image(
            inputs.grounding_pixels.to(device),
            None if tiles is None else tiles.to(device),
            None if tiles is None else [len(tiles)],
        )
        return EncodedImage(medical, features, inputs.tokens, box)

    def _draw(self, pixels: np.ndarray, box: Box) -> np.ndarray:
        height, width = pixels.shape[:2]
        x0, y0, x1, y1 = check_box(box, height, width)
        if self.processor.settings.tile_size:
            return draw_box(pixels, (x0, y0, x1, y1))
        # a model that sees everything at one small size learned the outline at that size
        side = self.processor.settings.grounding_size
        small = np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC))
        left, top = x0 * side // width, y0 * side // height
        right, bottom = max(-(-x1 * side // width), left + 1), max(-(-y1 * side // height), top + 1)
        return draw_box(small, (left, top, right, bottom))

    def answer(
        self,
        encoded: EncodedImage,
        questions: Sequence[str],
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        begin: str = "",
    ) -> list[Answer]:
        """The model's raw answers to questions about one image, made in one batch.

        Parameters
        ----------
        encoded : EncodedImage
        questions : sequence of str
        max_new_tokens : int
            Longest answer.
        begin : str
            First words of every answer, which the model goes on from: they are in its text, but not the model's choice,
            so that they have no tokens and no probabilities.

        Raises
        ------
        InputError
            If a question is longer than the model can read.
        """
        # a zero character marks the image's place while a prompt is made
        first = self.processor.encode(begin) if begin else []
        prompts = [[*self.processor.prompt_ids(q.replace("\0", " "), encoded.tokens), *first] for q in questions]
        longest = self.model.config.mllm_config.text_config.max_position_embeddings
        if max(map(len, prompts), default=0) + max_new_tokens > longest:
            raise InputError(
                f"the image, the question and an answer of {max_new_tokens} tokens need more than the {longest} tokens "
                "this model can hold: shorten the question"
            )
        answers = generate(self.model, self.processor, encoded.features, prompts, max_new_tokens=max_new_tokens)
        return [replace(answer, text=begin + answer.text) for answer in answers]

    def check_numbers(self, finite: bool) -> None:
        """Refuse values that are not numbers.

        Raises
        ------
        ModelError
            They are not finite.
        """
        if not finite:
            kind = str(self.model.dtype).removeprefix("torch.")
            cure = "get the model again" if kind == "float32" else "use float32"
            raise ModelError(f"the values of the model '{self.name}' are not numbers in {kind}: {cure}")


def as_image(image: ImageLike, **reading: Any) -> MedicalImage:
    """Read an image that is not read yet; of `reading`, what is None is left out.

    Raises
    ------
    InputError
        It cannot be read, or cannot be read so.
    """
    reading = {name: value for name, value in reading.items() if value is not None}
    if isinstance(image, MedicalImage):
        if reading:
            raise InputError("a window or slice can only be chosen while an image file is read")
        return image
    if isinstance(image, str | os.PathLike):
        if not is_volume_only(image):
            return read_image(image, **reading)
        volume = read_volume(image)
        if "slice_index" not in reading:
            raise InputError(f"{volume.source}: this is a volume: choose one of its slices, 0 to {len(volume) - 1}")
        return volume.slice_image(reading["slice_index"], reading.get("window"))
    if "slice_index" in reading:
        raise InputError("an array has no slices to choose from: give the slice itself")
    return from_array(image, **reading)
