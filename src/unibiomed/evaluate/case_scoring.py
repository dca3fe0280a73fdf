"""Scoring of all samples of a case. Every sample gets a score; a failure gets the worst possible one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property

import numpy as np

from unibiomed.data.records import Record
from unibiomed.errors import DataError
from unibiomed.metrics.instances import aggregated_jaccard, panoptic
from unibiomed.metrics.segmentation import overlap

from .predictions import Prediction, PredictionStore
from .sample_scores import SampleScore, unscored_sample
from .samples import Case, Sample
from .task_scorers import SCORERS, ScorerInput, normalise_answer, union

__all__ = ["GroundTruth", "score_case", "score_case_or_fail"]


class GroundTruth:
    """Ground truth of an image, read on first use and shared by all predictors.

    Parameters
    ----------
    case : Case
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self._labels: dict[int, np.ndarray] = {}

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        height, width = self.case.record.load_image().shape[:2]
        return height, width

    @cached_property
    def masks(self) -> dict[int, np.ndarray]:
        """Masks by region index; see `Case.masks`."""
        return self.case.masks(self.size)

    def objects(self, sample: Sample) -> np.ndarray | None:
        """Return the instance labels of a target, or None if there are none or the image is perturbed."""
        regions = self.case.record.regions
        indices = [j for j in sample.regions if j is not None]
        if self.case.perturbation is not None or len(indices) != 1 or not regions[indices[0]].objects:
            return None
        if indices[0] not in self._labels:
            self._labels[indices[0]] = regions[indices[0]].load_labels(self.size)
        return self._labels[indices[0]]


def score_case(
    case: Case, samples: Iterable[Sample], store: PredictionStore, truth: GroundTruth | None = None
) -> Iterator[SampleScore]:
    """Score the samples of one case.

    Parameters
    ----------
    case : Case
    samples : iterable of Sample
        Samples of the case that the predictor supports.
    store : PredictionStore
        A sample without a stored prediction is a failure.
    truth : GroundTruth, optional
        Ground truth of the case, if several predictors are scored.

    Raises
    ------
    DataError
        The image or its ground truth cannot be read.
    """
    truth = truth or GroundTruth(case)
    originals: dict[str, tuple[SampleScore, np.ndarray]] = {}
    for sample in samples:
        score = unscored_sample(case, sample)
        truths = case.truths(sample, truth.masks, truth.size) if sample.regions else []
        try:
            prediction = store.read(sample.id)
            if prediction.error is not None:
                raise DataError(prediction.error)
            masks = prediction.decode(truth.size) if prediction.masks else []
        except DataError as error:
            score.failure = str(error).removeprefix(f"{sample.id}: ")
            prediction, masks = Prediction(sample.id), []
        SCORERS[sample.task](score, ScorerInput(sample, prediction, masks, truths, case.record.spacing))
        combined = union(masks, truths)
        if sample.task == "segment" and (labels := truth.objects(sample)) is not None:
            score.object_counts = _object_counts(combined, labels)
        if sample.paraphrase:
            score.agreement = _agreement(score, combined, *originals[sample.id.rpartition("~")[0]])
        else:
            originals[sample.id] = score, combined
        yield score


def _object_counts(mask: np.ndarray, labels: np.ndarray) -> list[float]:
    counts = panoptic(mask, labels)
    return [
        aggregated_jaccard(mask, labels),
        counts.matched,
        counts.false_positives,
        counts.false_negatives,
        counts.iou_sum,
    ]


def _agreement(score: SampleScore, mask: np.ndarray, original: SampleScore, original_mask: np.ndarray) -> float:
    if score.failure is not None or original.failure is not None:
        return 0.0
    if score.task == "segment":
        return overlap(mask, original_mask).dice
    if score.predicted_labels is not None:
        labels = [sorted(map(normalise_answer, one.predicted_labels or [])) for one in (score, original)]
        return float(labels[0] == labels[1])
    return float(normalise_answer(score.answer or "") == normalise_answer(original.answer or ""))


def score_case_or_fail(
    case: Case,
    samples: Sequence[Sample],
    store: PredictionStore,
    unreadable: dict[str, str] | None = None,
    truth: GroundTruth | None = None,
) -> list[SampleScore]:
    """Score the samples of one case; if the ground truth cannot be read, samples that need it are failures.

    Parameters
    ----------
    case : Case
    samples : sequence of Sample
        Samples of the case that the predictor supports.
    store : PredictionStore
    unreadable : dict of str to str, optional
        Receives the key of an image whose ground truth cannot be read, and the reason.
    truth : GroundTruth, optional
        As for `score_case`.
    """
    try:
        return list(score_case(case, samples, store, truth))
    except DataError as error:
        reason = str(error)
    if unreadable is not None:
        unreadable.setdefault(case.record.key, reason)
    without_truth = {s.id: s for s in score_case(case, [s for s in samples if not s.regions], store, truth)}
    return [without_truth.get(s.id) or _failure(case, s, reason) for s in samples]


def _failure(case: Case, sample: Sample, reason: str) -> SampleScore:
    """Return the worst score; the record of the data set says whether the target is present."""
    record = case.record
    score = unscored_sample(case, sample)
    score.failure = reason
    size = _image_size(record)
    truths = [np.full(size or (1, 1), j is not None and record.regions[j].mask is not None) for j in sample.regions]
    SCORERS[sample.task](score, ScorerInput(sample, Prediction(sample.id), [], truths, record.spacing))
    if size is None:
        # the worst distance is the diagonal of the image, whose size is unknown
        score.hd95 = None
    if sample.paraphrase:
        score.agreement = 0.0
    return score


def _image_size(record: Record) -> tuple[int, int] | None:
    """Return the height and width of the image or of one of its masks, or None if none can be read."""
    for load in (record.load_image, *(region.load for region in record.regions)):
        with suppress(DataError):
            height, width = load().shape[:2]
            return height, width
    return None
