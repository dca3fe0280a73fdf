"""How an answer of each task is held against its truth; a failure gets the worst score there is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from unibiomed.metrics.classification import plain
from unibiomed.metrics.instances import detect
from unibiomed.metrics.segmentation import overlap
from unibiomed.metrics.surface import hd95, surface_dice
from unibiomed.tasks import NO_FINDINGS, clean_text, read_class

from .predictions import Prediction
from .rows import Row
from .samples import Sample

__all__ = ["SCORERS", "Judged", "union"]

TOLERANCE_MM = 2.0
"""How far two surfaces may be apart for the normalised surface Dice."""
TOLERANCE_PIXELS = 2.0
"""The same where the size of a pixel is not known."""


class Judged(NamedTuple):
    """An answer and what it is held against.

    Parameters
    ----------
    sample : Sample
    prediction : Prediction
        Without anything, where there is a failure.
    masks, truths : list of numpy.ndarray
        (height, width) bool, the answer's and the true ones.
    spacing : (float, float) or None
        Size of a pixel in mm, down and across; None where it is not known.
    """

    sample: Sample
    prediction: Prediction
    masks: list[np.ndarray]
    truths: list[np.ndarray]
    spacing: tuple[float, float] | None


def union(masks: list[np.ndarray], like: list[np.ndarray]) -> np.ndarray:
    """The pixels of any of some masks; of none, an empty mask of the size of the first of others."""
    if masks:
        return np.asarray(np.any(masks, axis=0))
    return np.zeros(like[0].shape if like else (1, 1), dtype=bool)


def _overlap(row: Row, guess: np.ndarray, truth: np.ndarray) -> None:
    counts = overlap(guess, truth)
    row.shared, row.predicted, row.true = counts.shared, counts.predicted, counts.true


def _segment(row: Row, judged: Judged) -> None:
    truth, guess = union(judged.truths, judged.truths), union(judged.masks, judged.truths)
    row.there = bool(truth.any())
    row.measured = judged.spacing is not None
    if row.failure is not None:
        # a failure is as bad as can be: an empty mask where the target is, a false one where it is not
        row.found, row.surface_dice, row.false_parts = not row.there, 0.0, int(not row.there)
        row.hd95 = hd95(np.zeros_like(truth), np.ones_like(truth), spacing=judged.spacing or 1.0)
        return
    row.found = bool(guess.any())
    _overlap(row, guess, truth)
    # the truth as one object: which of its parts is hit does not matter here
    row.false_parts = detect(guess, truth.astype(np.uint8)).false_masks
    tolerance = TOLERANCE_PIXELS if judged.spacing is None else TOLERANCE_MM
    row.surface_dice = surface_dice(guess, truth, tolerance=tolerance, spacing=judged.spacing or 1.0)
    row.hd95 = hd95(guess, truth, spacing=judged.spacing or 1.0)
    row.presence = judged.prediction.scores[0] if judged.prediction.scores else None
    row.mask_score = judged.prediction.mask_scores[0] if judged.prediction.mask_scores else None


def _shown(judged: Judged) -> list[str]:
    """What an answer finds: a name whose mask is empty is shown as not found, and counts as that."""
    named = judged.prediction.labels
    shown = [name for name, mask in zip(named, judged.masks, strict=True) if mask.any()] if judged.masks else named
    said = [name for name in shown if name.strip()]
    return said or ([NO_FINDINGS] if judged.masks else [])


def _recognize(row: Row, judged: Judged) -> None:
    row.wanted = list(judged.sample.labels)
    row.there = row.wanted != [NO_FINDINGS]
    said = _shown(judged)
    row.said = said
    # of a failure nothing is found where a finding is, and one is made up where none is
    row.found = not row.there if row.failure is not None else any(plain(s) != plain(NO_FINDINGS) for s in said)
    row.exact = row.failure is None and sorted(map(plain, said)) == sorted(map(plain, row.wanted))
    # as published: each label is somewhere in the answer
    text = clean_text(judged.prediction.text)
    row.substring = row.failure is None and all(plain(w) in plain(text) for w in row.wanted)
    row.answer, row.reference = text, clean_text(judged.sample.answer)
    known = [score for score in judged.prediction.scores if score is not None]
    row.presence = max(known, default=None)
    if judged.truths and row.failure is None:
        _overlap(row, union(judged.masks, judged.truths), union(judged.truths, judged.truths))
    elif row.failure is None:
        # the normal image: any pixel is a false one
        pixels = sum(int(np.count_nonzero(mask)) for mask in judged.masks)
        row.shared, row.predicted, row.true = 0, pixels, 0


def _classify(row: Row, judged: Judged) -> None:
    wanted, text = read_class(judged.sample.answer), clean_text(judged.prediction.text)
    row.wanted, row.said = [wanted], [read_class(judged.prediction.text)]
    row.exact = row.failure is None and plain(row.said[0]) == plain(wanted)
    row.substring = row.failure is None and plain(wanted) in plain(text)
    row.answer, row.reference = text, clean_text(judged.sample.answer)


def _words(row: Row, judged: Judged) -> None:
    row.answer, row.reference = clean_text(judged.prediction.text), clean_text(judged.sample.answer)
    row.exact = row.failure is None and plain(row.answer) == plain(row.reference)
    row.substring = row.failure is None and plain(row.reference) in plain(row.answer)
    if judged.truths:
        row.there = bool(union(judged.truths, judged.truths).any())
        if row.failure is None:
            _overlap(row, union(judged.masks, judged.truths), union(judged.truths, judged.truths))


SCORERS = {
    "segment": _segment,
    "outline": _segment,
    "recognize": _recognize,
    "classify": _classify,
    "describe": _words,
    "report": _words,
    "ask": _words,
}
