"""Vision-language models that `transformers` runs (InternVL, LLaVA and their like): they answer in words alone."""

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
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as KINDS

from unibiomed.errors import ModelError
from unibiomed.images.geometry import draw_box
from unibiomed.model.checkpoint import read_json
from unibiomed.model.weights import find_folder
from unibiomed.tasks import NO_FINDINGS, clean_text, is_no_findings, read_class, read_phrases

from ..predictions import Prediction
from ..samples import Case, Sample
from .huggingface_internvl import InternVLReader
from .loading import load_part, load_weights, no_chat_template, pick_device

__all__ = ["TextPredictor", "read_findings"]

MAX_NEW_TOKENS = 128
_DENIAL = re.compile(
    # "No, the lungs are clear", not "No, there is a mass"
    r"(no|none|nothing)(,(?!.*\b(a|an)\b).*\b(clear|normal|unremarkable|healthy|no|not|nothing)\b.*)?$"
    # what comes before it names nothing, and "no other findings" tells of one
    r"|((?!\b(a|an|shows)\b).)*\b(no|not|nothing|cannot|without|\w+n't)"
    r"( (?!normal|other|further|additional)\w+){0,4} (abnormal\w*|findings?)\b",
    re.IGNORECASE,
)
_PICTURE = re.compile(r"\ban? ([\w-]+ ){0,3}(image|scan|slice|radiograph|x-ray|picture|study|view)\b", re.IGNORECASE)
_TURN = re.compile(r"\b(but|however|although|except)\b", re.IGNORECASE)


class TextPredictor:
    """A model that writes: each question is put to it alone, with the image, and answered by greedy decoding.

    Parameters
    ----------
    name : str
        A folder, or ``organisation/model`` on the Hugging Face hub, with safetensors and a chat template.
    device : str, optional
        The best there is when left out.

    Raises
    ------
    InputError
        The device cannot be used.
    ModelError
        The model is missing, broken, none that `transformers` runs, or has no chat template.
    """

    tasks = frozenset({"recognize", "classify", "describe", "ask"})
    worded = tasks
    note = "answers in words alone"

    def __init__(self, name: str, device: str | None = None) -> None:
        folder = find_folder(name, ["*.jinja"])
        self.name = Path(os.path.abspath(name)).name
        self.device = pick_device(device)
        kind = read_json(folder / "config.json").get("model_type")
        if str(kind) not in KINDS:
            # nearly always a release that brings its own code, beside one in the form of transformers
            raise ModelError(
                f"'{name}' is a model of type {str(kind)[:40]!r}, which transformers does not run without code of its "
                "own; give a release in the form of transformers (such names often end in '-hf')"
            )
        self._reader = InternVLReader(folder) if kind == "internvl" else _Reader(folder)
        # half precision is slow on a CPU, or not to be had
        dtype = torch.float32 if self.device.type == "cpu" else "auto"
        self.model = load_weights(AutoModelForImageTextToText, folder, self.device, dtype)

    def predict(self, case: Case, pixels: np.ndarray) -> list[Prediction]:
        """One answer after the other; the box of a question is drawn in green, 2 pixels wide."""
        out = []
        for sample in case.samples:
            started = time.perf_counter()
            seen = pixels if sample.box is None else draw_box(pixels, sample.box)
            prediction = _prediction(sample, self._answer(Image.fromarray(seen), sample.question))
            out.append(replace(prediction, seconds=time.perf_counter() - started))
        return out

    @torch.inference_mode()
    def _answer(self, image: Image.Image, question: str) -> str:
        inputs = self._reader(image, question).to(self.device, dtype=self.model.dtype)
        ids = self.model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False, num_beams=1)
        answer = ids[0, inputs["input_ids"].shape[1] :]
        return self._reader.decode(answer).strip()


class _Reader:
    """What the processor of a model makes of an image and a question."""

    def __init__(self, folder: Path) -> None:
        self.processor = load_part(AutoProcessor, folder)
        if not getattr(self.processor, "chat_template", None):
            raise no_chat_template(folder)

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
    """The findings that an answer names: by its ``[SEG]`` if it has any, else all of it is one finding.

    "No findings" is what the answer says, in these words or in one sentence that denies any abnormality; an answer
    without words names nothing.
    """
    if phrases := read_phrases(text):
        return tuple(phrase.label for phrase in phrases)
    plain = clean_text(text).rstrip(".!? ")
    sentences = re.split(r"[.!?]\s+", plain)
    denied = len(sentences) == 1 and _DENIAL.match(_PICTURE.sub("image", plain)) and not _TURN.search(plain)
    if is_no_findings(text) or denied:
        return (NO_FINDINGS,)
    return (plain,) if plain else ()
