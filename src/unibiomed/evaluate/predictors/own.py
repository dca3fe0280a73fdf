"""Models of this package as predictors."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from unibiomed.findings import Finding
from unibiomed.images import from_array
from unibiomed.interpret import Interpreter, Result, load
from unibiomed.interpret.asking import EncodedImage
from unibiomed.interpret.box_masks import can_outline
from unibiomed.interpret.outlining import MAX_QUESTIONS
from unibiomed.tasks import NO_FINDINGS, TASKS, is_no_findings, read_class

from ..predictions import Prediction
from ..samples import Case, Sample
from .base import Presence

__all__ = ["OwnPredictor"]

MAX_NEW_TOKENS = 128
PRESENCE_SIDE = 512
"""Longest side, in pixels, of the masks that are only looked at for any pixel."""


class OwnPredictor:
    """A model of this package.

    Parameters
    ----------
    interpreter : Interpreter
    """

    worded = frozenset(name for name, task in TASKS.items() if task.in_words)

    def __init__(self, interpreter: Interpreter) -> None:
        self.interpreter = interpreter
        self.tasks = self.worded | ({"outline"} if can_outline(interpreter.model.config) else set())
        self.name = interpreter.name
        self.note = ""
        self.device = str(interpreter.model.device)
        self.vocabulary = tuple(interpreter.vocabulary.targets)
        self._last: tuple[np.ndarray, EncodedImage] | None = None

    @classmethod
    def load(cls, name: str, device: str | None = None) -> OwnPredictor:
        """Load a model by name or folder.

        Raises
        ------
        ModelError
            It is missing or broken.
        """
        return cls(load(name, device=device))

    def predict(self, case: Case, pixels: np.ndarray) -> list[Prediction]:
        """The image is looked at once, and once more for each box; not anew right after :meth:`presence_of`."""
        started = time.perf_counter()
        kept, self._last = self._last, None
        # of the suite that asks for every target first
        seen = kept[1] if kept is not None and kept[0] is pixels else self.interpreter.encode(pixels)
        out: list[Prediction] = []
        plain = [s for s in case.samples if s.task == "segment" and not s.paraphrase]
        if plain:
            # one batch for all targets of the image
            result = self.interpreter.interpret(
                seen, "segment", targets=[s.target for s in plain], modality=plain[0].modality
            )
            for sample, asked in zip(plain, result.details["targets"], strict=True):
                out.append(_segmented(sample, result, [result.findings[index] for index in asked["findings"]]))
        for sample in case.samples:
            if sample in plain:
                continue
            result = self.interpreter.interpret(
                seen,
                sample.task,
                targets=[sample.target] if sample.task == "segment" else (),
                box=sample.box,
                question=sample.question if sample.task == "ask" or sample.paraphrase else None,
                modality=sample.modality,
                max_new_tokens=MAX_NEW_TOKENS,
            )
            out.append(_prediction(sample, result))
        seconds = (time.perf_counter() - started) / max(len(out), 1)
        return [replace(prediction, seconds=seconds) for prediction in out]

    def presence_of(self, pixels: np.ndarray, targets: Sequence[str], modality: str | None) -> list[Presence]:
        """Whether each target is there; the image is looked at once, and many targets are asked in one batch.

        The model sees the whole image. Its masks are made no larger than `PRESENCE_SIDE`, which saves most of the time
        on large images.

        Parameters
        ----------
        pixels : numpy.ndarray
            (height, width, 3) uint8.
        targets : sequence of str
        modality : str or None
            The modality that the question names.
        """
        seen = self.interpreter.encode(pixels)
        self._last = pixels, seen
        small = Image.fromarray(pixels)
        small.thumbnail((PRESENCE_SIDE, PRESENCE_SIDE))
        seen = replace(seen, image=from_array(small))
        out: list[Presence] = []
        for start in range(0, len(targets), MAX_QUESTIONS):
            part = list(targets[start : start + MAX_QUESTIONS])
            result = self.interpreter.interpret(seen, "segment", targets=part, modality=modality, second_look=False)
            for asked in result.details["targets"]:
                findings = [result.findings[index] for index in asked["findings"]]
                scores = [finding.presence for finding in findings if finding.presence is not None]
                drawn = any(finding.mask is not None and bool(finding.mask.any()) for finding in findings)
                out.append(Presence(max(scores, default=None), drawn))
        return out


def _segmented(sample: Sample, result: Result, findings: Sequence[Finding]) -> Prediction:
    """One mask for a target: of several meanings all that are present, of one that was not searched an empty one."""
    masks = [finding.mask for finding in findings if finding.mask is not None]
    whole = np.any([np.zeros((result.height, result.width), bool), *masks], axis=0)
    scores = [finding.presence for finding in findings if finding.presence is not None]
    quality = [finding.mask_score for finding in findings if finding.mask_score is not None]
    return Prediction.of_masks(
        sample.id, "", [sample.target], [whole], [max(scores, default=None)], [max(quality, default=None)]
    )


def _prediction(sample: Sample, result: Result) -> Prediction:
    masked = [f for f in result.findings if f.mask is not None]
    masks = [f.mask for f in masked if f.mask is not None]
    labels = [f.label for f in masked]
    if sample.task == "classify":
        named = "names" in result.details
        words = result.text if named else result.raw_text
        return Prediction(sample.id, words, (read_class(words),))
    if sample.task == "recognize" and is_no_findings(result.raw_text):
        return Prediction(sample.id, result.raw_text, (NO_FINDINGS,))
    if sample.task == "segment":
        return replace(_segmented(sample, result, result.findings), text=result.raw_text)
    if sample.task == "ask":
        return Prediction(sample.id, result.raw_text)
    if sample.task == "describe":
        return Prediction(sample.id, result.text)
    if sample.task == "outline":
        # what is in the box has no name in the answer: it is scored as the target whose box was given
        labels = [sample.target]
    # of a report what a user reads: its measures are corrected
    words = result.text if sample.task == "report" else result.raw_text
    return Prediction.of_masks(
        sample.id, words, labels, masks, [f.presence for f in masked], [f.mask_score for f in masked]
    )
