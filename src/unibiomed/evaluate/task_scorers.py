"""Scoring of one answer per task. A failure gets the worst possible scores."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from unibiomed.metrics.instances import detect
from unibiomed.metrics.segmentation import overlap
from unibiomed.metrics.surface import hd95, surface_dice
from unibiomed.tasks import NO_FINDINGS, clean_text, read_class

from .predictions import Prediction
from .sample_scores import SampleScore
from .samples import Sample

__all__ = ["SCORERS", "ScorerInput", "normalise_answer", "union"]

TOLERANCE_MM = 2.0
"""Tolerance of the normalised surface Dice."""
TOLERANCE_PIXELS = 2.0
"""Tolerance of the normalised surface Dice if the pixel spacing is unknown."""


class ScorerInput(NamedTuple):
    """An answer and its ground truth.

    Parameters
    ----------
    sample : Sample
    prediction : Prediction
        Empty for a failure.
    masks, truths : list of numpy.ndarray
        Predicted and ground-truth masks, (height, width) bool each.
    spacing : (float, float) or None
        Pixel spacing in mm (rows, columns). None if it is unknown.
    """

    sample: Sample
    prediction: Prediction
    masks: list[np.ndarray]
    truths: list[np.ndarray]
    spacing: tuple[float, float] | None


def normalise_answer(text: str) -> str:
    """Return an answer in lower case with single blanks, without blanks and full stops at its ends."""
    return " ".join(text.lower().split()).strip(" .")


def union(masks: list[np.ndarray], like: list[np.ndarray]) -> np.ndarray:
    """Return the union of masks; without masks an empty mask with the size of the first mask of `like`."""
    if masks:
        return np.asarray(np.any(masks, axis=0))
    return np.zeros(like[0].shape if like else (1, 1), dtype=bool)


def _score_overlap(score: SampleScore, prediction: np.ndarray, truth: np.ndarray) -> None:
    counts = overlap(prediction, truth)
    score.intersection, score.predicted_area, score.true_area = counts.intersection, counts.predicted, counts.true


def _score_segment(score: SampleScore, inputs: ScorerInput) -> None:
    truth, mask = union(inputs.truths, inputs.truths), union(inputs.masks, inputs.truths)
    score.target_present = bool(truth.any())
    score.spacing_known = inputs.spacing is not None
    spacing = inputs.spacing or 1.0
    if score.failure is not None:
        # an empty mask if the target is present, a false mask if it is absent
        score.predicted_present = not score.target_present
        score.surface_dice, score.false_components = 0.0, int(not score.target_present)
        score.hd95 = hd95(np.zeros_like(truth), np.ones_like(truth), spacing=spacing)
        return
    score.predicted_present = bool(mask.any())
    _score_overlap(score, mask, truth)
    # the ground truth counts as one object: it does not matter which of its components is hit
    score.false_components = detect(mask, truth.astype(np.uint8)).false_masks
    tolerance = TOLERANCE_PIXELS if inputs.spacing is None else TOLERANCE_MM
    score.surface_dice = surface_dice(mask, truth, tolerance=tolerance, spacing=spacing)
    score.hd95 = hd95(mask, truth, spacing=spacing)
    score.presence = inputs.prediction.scores[0] if inputs.prediction.scores else None
    score.mask_score = inputs.prediction.mask_scores[0] if inputs.prediction.mask_scores else None


def _predicted_findings(inputs: ScorerInput) -> list[str]:
    """Return the findings of an answer. A finding with an empty mask is reported to users as not found."""
    labels = inputs.prediction.labels
    if inputs.masks:
        labels = tuple(name for name, mask in zip(labels, inputs.masks, strict=True) if mask.any())
    named = [name for name in labels if name.strip()]
    return named or ([NO_FINDINGS] if inputs.masks else [])


def _score_recognize(score: SampleScore, inputs: ScorerInput) -> None:
    true_labels, predicted = list(inputs.sample.labels), _predicted_findings(inputs)
    score.true_labels, score.predicted_labels = true_labels, predicted
    score.target_present = true_labels != [NO_FINDINGS]
    failed = score.failure is not None
    normalised = sorted(map(normalise_answer, predicted))
    # a failure misses the finding of an abnormal image and reports one in a normal image
    score.predicted_present = (
        not score.target_present if failed else any(name != normalise_answer(NO_FINDINGS) for name in normalised)
    )
    score.exact_match = not failed and normalised == sorted(map(normalise_answer, true_labels))
    # published protocol: each label occurs somewhere in the answer
    text = clean_text(inputs.prediction.text)
    score.substring_match = not failed and all(normalise_answer(t) in normalise_answer(text) for t in true_labels)
    score.answer, score.reference = text, clean_text(inputs.sample.answer)
    score.presence = max((s for s in inputs.prediction.scores if s is not None), default=None)
    if inputs.truths and not failed:
        _score_overlap(score, union(inputs.masks, inputs.truths), union(inputs.truths, inputs.truths))
    elif not failed:
        # in a normal image every predicted pixel is a false positive
        pixels = sum(int(np.count_nonzero(mask)) for mask in inputs.masks)
        score.intersection, score.predicted_area, score.true_area = 0, pixels, 0


def _score_classify(score: SampleScore, inputs: ScorerInput) -> None:
    true_label, text = read_class(inputs.sample.answer), clean_text(inputs.prediction.text)
    predicted = read_class(inputs.prediction.text)
    score.true_labels, score.predicted_labels = [true_label], [predicted]
    score.exact_match = score.failure is None and normalise_answer(predicted) == normalise_answer(true_label)
    score.substring_match = score.failure is None and normalise_answer(true_label) in normalise_answer(text)
    score.answer, score.reference = text, clean_text(inputs.sample.answer)


def _score_text(score: SampleScore, inputs: ScorerInput) -> None:
    score.answer, score.reference = clean_text(inputs.prediction.text), clean_text(inputs.sample.answer)
    answer, reference = normalise_answer(score.answer), normalise_answer(score.reference)
    score.exact_match = score.failure is None and answer == reference
    score.substring_match = score.failure is None and reference in answer
    if inputs.truths:
        truth = union(inputs.truths, inputs.truths)
        score.target_present = bool(truth.any())
        if score.failure is None:
            _score_overlap(score, union(inputs.masks, inputs.truths), truth)


SCORERS = {
    "segment": _score_segment,
    "outline": _score_segment,
    "recognize": _score_recognize,
    "classify": _score_classify,
    "describe": _score_text,
    "report": _score_text,
    "ask": _score_text,
}
