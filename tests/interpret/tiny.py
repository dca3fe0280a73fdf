"""A tiny model with random weights, and a way to make it answer what a test wants."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from unibiomed.interpret import Interpreter
from unibiomed.interpret.asking import EncodedImage
from unibiomed.model.configuration import nano_config
from unibiomed.model.generation import Answer
from unibiomed.model.modeling import MaskPrediction, UniBiomedModel
from unibiomed.model.processing import END, IMAGE_TOKEN, ProcessorSettings, UniBiomedProcessor
from unibiomed.train.tokenizer import train_tokenizer

SIDE, WIDTH = 64, 32
TEXTS = ["Please segment the liver in the CT image.", "It is [SEG].", "No findings.", "a mass in the left lung"] * 2


def build(folder: Path, *, fine_masks: bool = False) -> Path:
    """Write a model folder like the one that ships, a hundredth of its size."""
    tokenizer = train_tokenizer(TEXTS, 300)
    torch.manual_seed(0)
    model = UniBiomedModel(
        nano_config(
            len(tokenizer),
            tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
            tokenizer.convert_tokens_to_ids("[SEG]"),
            tokenizer.eos_token_id,
            image_size=SIDE,
            width=WIDTH,
            hidden_size=64,
            layers=1,
            fine_masks=fine_masks,
        )
    )
    model.save_pretrained(folder)
    settings = ProcessorSettings(
        grounding_size=SIDE, tile_size=0, max_tiles=1, tokens_per_tile=(SIDE // 32) ** 2, bfloat16_constants=False
    )
    UniBiomedProcessor(tokenizer, settings).save_pretrained(folder)
    return folder


class Script:
    """What the model says: it stands in for `Interpreter.answer` and for the mask decoder.

    Attributes
    ----------
    says : list of str or callable
        The answers to the next call, one a question; or what gives the answer to a question.
    presence : list of float
        Presence logits of the masks, in turn; the first one again for those that are left.
    logits : callable
        Makes the (side, side) mask logits of the k-th ``[SEG]``; a box in the upper left by default.
    questions, decoded, boxes : list
        All that was asked, how many masks each call of the decoder made, and the boxes that it was given.
    """

    def __init__(self) -> None:
        self.says: list[str] | Callable[[str], str] = ["No findings."]
        self.presence = [8.0]
        self.logits: Callable[[int], torch.Tensor] = upper_left
        self.questions: list[str] = []
        self.decoded: list[int] = []
        self.boxes: list[list[float]] = []
        self.probability = 0.9
        self.finished = True

    def install(self, monkeypatch: pytest.MonkeyPatch) -> Script:
        script = self

        def answer(self: Interpreter, encoded: EncodedImage, questions: list[str], **_: object) -> list[Answer]:
            script.questions += questions
            says = [script.says(q) for q in questions] if callable(script.says) else script.says
            assert len(says) == len(questions)
            return [script.answer(self, text) for text in says]

        def decode_masks(
            self: UniBiomedModel,
            maps: object,
            prompts: torch.Tensor | None = None,
            image_index: torch.Tensor | None = None,
            *,
            boxes: torch.Tensor | None = None,
        ) -> MaskPrediction:
            asked = prompts if boxes is None else boxes
            assert asked is not None
            n = len(asked)
            script.boxes += [] if boxes is None else boxes.tolist()
            script.decoded.append(n)
            presence = [script.presence[k] if k < len(script.presence) else script.presence[0] for k in range(n)]
            return MaskPrediction(
                logits=torch.stack([script.logits(k) for k in range(n)])[:, None],
                predicted_iou=torch.full((n, 1), 0.75),
                presence_logits=torch.tensor(presence),
            )

        monkeypatch.setattr(Interpreter, "answer", answer)
        monkeypatch.setattr(UniBiomedModel, "decode_masks", decode_masks)
        return self

    def answer(self, interpreter: Interpreter, text: str) -> Answer:
        ids = interpreter.processor.encode(text + END)
        segments = text.count("[SEG]")
        probabilities = [self.probability] * len(ids)
        return Answer(ids, text + END, probabilities, torch.zeros(segments, WIDTH), finished=self.finished)


def upper_left(k: int) -> torch.Tensor:
    """Logits of a mask that fills the upper left quarter."""
    logits = torch.full((SIDE // 4, SIDE // 4), -9.0)
    logits[: SIDE // 8, : SIDE // 8] = 9.0
    return logits
