"""Every prediction beside its truth: one row a sample, a failure scored 0, nothing left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np

from unibiomed.errors import DataError
from unibiomed.metrics.classification import plain
from unibiomed.metrics.instances import aggregated_jaccard, panoptic
from unibiomed.metrics.segmentation import overlap

from .predictions import Prediction, PredictionStore
from .rows import Row, blank_row
from .samples import Case, Sample
from .scorers import SCORERS, Judged, union

__all__ = ["Truth", "score_case", "strangers"]


class Truth:
    """What an image is known to show, read when first asked for and once for all predictors.

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
        """See `Case.masks`."""
        return self.case.masks(self.size)

    def objects(self, sample: Sample) -> np.ndarray | None:
        """The objects of a target whose masks number them; None for all others, and for changed images."""
        regions = self.case.record.regions
        known = [j for j in sample.regions if j is not None]
        if self.case.change is not None or len(known) != 1 or not regions[known[0]].objects:
            return None
        if known[0] not in self._labels:
            self._labels[known[0]] = regions[known[0]].load_labels(self.size)
        return self._labels[known[0]]


def score_case(
    case: Case, samples: Iterable[Sample], store: PredictionStore, truth: Truth | None = None
) -> Iterator[Row]:
    """Rows of one image.

    Parameters
    ----------
    case : Case
    samples : iterable of Sample
        Those of the case that the predictor can answer.
    store : PredictionStore
        A sample without a prediction there is a failure.
    truth : Truth, optional
        Of the case, where several predictors are scored.
    """
    truth = truth or Truth(case)
    first: dict[str, tuple[Row, np.ndarray]] = {}
    for sample in samples:
        row = blank_row(case, sample)
        truths = case.truths(sample, truth.masks, truth.size) if sample.regions else []
        try:
            prediction = store.read(sample.id)
            if prediction.error is not None:
                raise DataError(prediction.error)
            decoded = prediction.decode(truth.size) if prediction.masks else []
        except DataError as error:
            row.failure = str(error).removeprefix(f"{sample.id}: ")
            prediction, decoded = Prediction(sample.id), []
        SCORERS[sample.task](row, Judged(sample, prediction, decoded, truths, case.record.spacing))
        whole = union(decoded, truths)
        if sample.task == "segment" and (labels := truth.objects(sample)) is not None:
            row.objects = _objects(whole, labels)
        if sample.paraphrase:
            row.agreement = _agreement(row, whole, *first[sample.id.rpartition("~")[0]])
        else:
            first[sample.id] = row, whole
        yield row


def _objects(guess: np.ndarray, labels: np.ndarray) -> list[float]:
    # of a failure the guess is empty: all its objects are missed
    counts = panoptic(guess, labels)
    return [
        aggregated_jaccard(guess, labels),
        counts.matched,
        counts.false_positives,
        counts.false_negatives,
        counts.iou_sum,
    ]


def _agreement(row: Row, mask: np.ndarray, own: Row, own_mask: np.ndarray) -> float:
    if row.failure is not None or own.failure is not None:
        return 0.0
    if row.task == "segment":
        return overlap(mask, own_mask).dice
    if row.said is not None:
        return float(sorted(map(plain, row.said)) == sorted(map(plain, own.said or [])))
    return float(plain(row.answer or "") == plain(own.answer or ""))


def strangers(store: PredictionStore, known: set[str]) -> list[str]:
    """Prediction files that belong to no sample of the suite: left over from another one, or misnamed."""
    # as text: a hundred thousand paths take hundreds of MB
    wanted = {str(store.path(sample)) for sample in known}
    return sorted(str(path.relative_to(store.folder)) for path in store.paths() if str(path) not in wanted)
