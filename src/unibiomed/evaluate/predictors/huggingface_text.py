"""Vision-language models of `transformers` (InternVL, LLaVA and others), which answer with text only."""

from __future__ import annotations

import os
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, BatchFeature
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as MODEL_TYPES

from unibiomed.errors import ModelError
from unibiomed.images.geometry import draw_box
from unibiomed.model.checkpoint import read_json
from unibiomed.model.weights import find_folder
from unibiomed.tasks import NO_FINDINGS, clean_text, is_no_findings, read_class, read_phrases

from ..predictions import Prediction
from ..samples import Case, Sample
from .huggingface_internvl import InternVLPreprocessor
from .loading import load_part, load_weights, missing_chat_template, select_device

__all__ = ["TextPredictor", "read_findings"]

MAX_NEW_TOKENS = 128
_DENIAL = re.compile(
    # "No, the lungs are clear", but not "No, there is a mass"
    r"(no|none|nothing)(,(?!.*\b(a|an)\b).*\b(clear|normal|unremarkable|healthy|no|not|nothing)\b.*)?$"
    # nothing is named before the denial, and "no other findings" implies a finding
    r"|((?!\b(a|an|shows)\b).)*\b(no|not|nothing|cannot|without|\w+n't)"
    r"( (?!normal|other|further|additional)\w+){0,4} (abnormal\w*|findings?)\b",
    re.IGNORECASE,
)
_IMAGE = re.compile(r"\ban? ([\w-]+ ){0,3}(image|scan|slice|radiograph|x-ray|picture|study|view)\b", re.IGNORECASE)
_CONTRAST = re.compile(r"\b(but|however|although|except)\b", re.IGNORECASE)


class TextPredictor:
    """Predictor of a model that answers each question separately by greedy decoding.

    Parameters
    ----------
    name : str
        Folder, or ``organisation/model`` on the Hugging Face hub, with safetensors and a chat template.
    device : str, optional
        Default: the best available.

    Raises
    ------
    InputError
        The device is not available.
    ModelError
        The model is missing, broken, not supported by `transformers`, or has no chat template.
    """

    tasks = frozenset({"recognize", "classify", "describe", "ask"})
    paraphrase_tasks = tasks
    note = "answers with text only"

    def __init__(self, name: str, device: str | None = None) -> None:
        folder = find_folder(name, ["*.jinja"])
        self.name = Path(os.path.abspath(name)).name
        self.device = select_device(device)
        kind = read_json(folder / "config.json").get("model_type")
        if str(kind) not in MODEL_TYPES:
            # such a release usually brings its own code, and there is another one for transformers
            raise ModelError(
                f"'{name}' is a model of type {str(kind)[:40]!r}, which transformers does not support without custom "
                "code: use a release for transformers (its name often ends in '-hf')"
            )
        self._processor = InternVLPreprocessor(folder) if kind == "internvl" else _Processor(folder)
        # half precision is slow or not supported on CPUs
        dtype = torch.float32 if self.device.type == "cpu" else "auto"
        self.model = load_weights(AutoModelForImageTextToText, folder, self.device, dtype)

    def predict(self, case: Case, pixels: np.ndarray) -> list[Prediction]:
        """Predict the samples of a case; a box is drawn in green with a width of 2 pixels."""
        predictions = []
        for sample in case.samples:
            started = time.perf_counter()
            shown = pixels if sample.box is None else draw_box(pixels, sample.box)
            prediction = _prediction(sample, self._answer(Image.fromarray(shown), sample.question))
            predictions.append(replace(prediction, seconds=time.perf_counter() - started))
        return predictions

    @torch.inference_mode()
    def _answer(self, image: Image.Image, question: str) -> str:
        inputs = self._processor(image, question).to(self.device, dtype=self.model.dtype)
        ids = self.model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False, num_beams=1)
        answer = ids[0, inputs["input_ids"].shape[1] :]
        return self._processor.decode(answer).strip()


class _Processor:
    """The processor of a model of `transformers` with its chat template."""

    def __init__(self, folder: Path) -> None:
        self.processor = load_part(AutoProcessor, folder)
        if not getattr(self.processor, "chat_template", None):
            raise missing_chat_template(folder)

    def __call__(self, image: Image.Image, question: str) -> BatchFeature:
        content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
        return self.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )

    def decode(self, ids: torch.Tensor) -> str:
        return str(self.processor.decode(ids, skip_special_tokens=True))


def _prediction(sample: Sample, text: str) -> Prediction:
    if sample.task == "recognize":
        return Prediction(sample.id, text, read_findings(text))
    if sample.task == "classify":
        return Prediction(sample.id, text, (read_class(text),))
    return Prediction(sample.id, text)


def read_findings(text: str) -> tuple[str, ...]:
    """Return the findings that an answer names: the phrases with ``[SEG]`` if there are any, else the whole text.

    An answer that says "No findings" or denies any abnormality in one sentence gives "No findings". An empty answer
    gives none.
    """
    if phrases := read_phrases(text):
        return tuple(phrase.label for phrase in phrases)
    plain = clean_text(text).rstrip(".!? ")
    sentences = re.split(r"[.!?]\s+", plain)
    denied = len(sentences) == 1 and _DENIAL.match(_IMAGE.sub("image", plain)) and not _CONTRAST.search(plain)
    if is_no_findings(text) or denied:
        return (NO_FINDINGS,)
    return (plain,) if plain else ()
