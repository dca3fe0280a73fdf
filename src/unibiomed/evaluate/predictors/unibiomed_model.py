"""Predictor of the models of this package."""

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

__all__ = ["UniBiomedPredictor"]

MAX_NEW_TOKENS = 128
PRESENCE_SIDE = 512
"""Longest side in pixels of the masks that are only used to decide whether they are empty."""


class UniBiomedPredictor:
    """Predictor of a model of this package.

    Parameters
    ----------
    interpreter : Interpreter
    """

    paraphrase_tasks = frozenset(name for name, task in TASKS.items() if task.in_words)

    def __init__(self, interpreter: Interpreter) -> None:
        self.interpreter = interpreter
        self.tasks = self.paraphrase_tasks | ({"outline"} if can_outline(interpreter.model.config) else set())
        self.name = interpreter.name
        self.note = ""
        self.device = str(interpreter.model.device)
        self.vocabulary = tuple(interpreter.vocabulary.targets)
        self._last: tuple[np.ndarray, EncodedImage] | None = None

    @classmethod
    def load(cls, name: str, device: str | None = None) -> UniBiomedPredictor:
        """Load a model by name or folder.

        Raises
        ------
        ModelError
            The model is missing or broken.
        """
        return cls(load(name, device=device))

    def predict(self, case: Case, pixels: np.ndarray) -> list[Prediction]:
        """Predict the samples of a case; the image is encoded once, and once more for each box.

        The encoding of a preceding call of :meth:`predict_presence` for the same image is used.
        """
        started = time.perf_counter()
        last, self._last = self._last, None
        encoded = last[1] if last is not None and last[0] is pixels else self.interpreter.encode(pixels)
        predictions: list[Prediction] = []
        plain = [s for s in case.samples if s.task == "segment" and not s.paraphrase]
        if plain:
            # all targets of the image in one batch
            result = self.interpreter.interpret(
                encoded, "segment", targets=[s.target for s in plain], modality=plain[0].modality
            )
            for sample, target in zip(plain, result.details["targets"], strict=True):
                findings = [result.findings[index] for index in target["findings"]]
                predictions.append(_segment_prediction(sample, result, findings))
        for sample in case.samples:
            if sample in plain:
                continue
            result = self.interpreter.interpret(
                encoded,
                sample.task,
                targets=[sample.target] if sample.task == "segment" else (),
                box=sample.box,
                question=sample.question if sample.task == "ask" or sample.paraphrase else None,
                modality=sample.modality,
                max_new_tokens=MAX_NEW_TOKENS,
            )
            predictions.append(_prediction(sample, result))
        seconds = (time.perf_counter() - started) / max(len(predictions), 1)
        return [replace(prediction, seconds=seconds) for prediction in predictions]

    def predict_presence(self, pixels: np.ndarray, targets: Sequence[str], modality: str | None) -> list[Presence]:
        """Predict the presence of each target; the image is encoded once and targets are processed in batches.

        The model gets the whole image. Masks are computed at a size of at most `PRESENCE_SIDE`, which is much faster
        for large images.

        Parameters
        ----------
        pixels : numpy.ndarray
            (height, width, 3) uint8.
        targets : sequence of str
        modality : str or None
            Modality named in the question.
        """
        encoded = self.interpreter.encode(pixels)
        self._last = pixels, encoded
        small = Image.fromarray(pixels)
        small.thumbnail((PRESENCE_SIDE, PRESENCE_SIDE))
        encoded = replace(encoded, image=from_array(small))
        predictions: list[Presence] = []
        for start in range(0, len(targets), MAX_QUESTIONS):
            batch = list(targets[start : start + MAX_QUESTIONS])
            result = self.interpreter.interpret(encoded, "segment", targets=batch, modality=modality, second_look=False)
            for target in result.details["targets"]:
                findings = [result.findings[index] for index in target["findings"]]
                scores = [finding.presence for finding in findings if finding.presence is not None]
                has_mask = any(finding.mask is not None and bool(finding.mask.any()) for finding in findings)
                predictions.append(Presence(max(scores, default=None), has_mask))
        return predictions


def _segment_prediction(sample: Sample, result: Result, findings: Sequence[Finding]) -> Prediction:
    """Return one mask for a target: the union over its meanings, empty if the target was not searched."""
    masks = [finding.mask for finding in findings if finding.mask is not None]
    union = np.any([np.zeros((result.height, result.width), bool), *masks], axis=0)
    presence = max((finding.presence for finding in findings if finding.presence is not None), default=None)
    mask_score = max((finding.mask_score for finding in findings if finding.mask_score is not None), default=None)
    return Prediction.from_masks(sample.id, "", [sample.target], [union], [presence], [mask_score])


def _prediction(sample: Sample, result: Result) -> Prediction:
    findings = [f for f in result.findings if f.mask is not None]
    masks = [f.mask for f in findings if f.mask is not None]
    labels = [f.label for f in findings]
    if sample.task == "classify":
        text = result.text if "names" in result.details else result.raw_text
        return Prediction(sample.id, text, (read_class(text),))
    if sample.task == "recognize" and is_no_findings(result.raw_text):
        return Prediction(sample.id, result.raw_text, (NO_FINDINGS,))
    if sample.task == "segment":
        return replace(_segment_prediction(sample, result, result.findings), text=result.raw_text)
    if sample.task == "ask":
        return Prediction(sample.id, result.raw_text)
    if sample.task == "describe":
        return Prediction(sample.id, result.text)
    if sample.task == "outline":
        # the answer does not name the content of the box
        labels = [sample.target]
    # a report is evaluated as users read it, with corrected measurements
    text = result.text if sample.task == "report" else result.raw_text
    scores, mask_scores = [f.presence for f in findings], [f.mask_score for f in findings]
    return Prediction.from_masks(sample.id, text, labels, masks, scores, mask_scores)
