"""Every prediction beside its truth: one row a sample, a failure scored 0, nothing left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from unibiomed.data.records import Record
from unibiomed.errors import DataError
from unibiomed.metrics.instances import aggregated_jaccard, panoptic
from unibiomed.metrics.segmentation import overlap

from .predictions import Prediction, PredictionStore
from .rows import Row, blank_row
from .samples import Case, Sample
from .scorers import SCORERS, Judged, plain, union

__all__ = ["score_case", "strangers"]


def score_case(case: Case, samples: Iterable[Sample], store: PredictionStore) -> Iterator[Row]:
    """Rows of one image.

    Parameters
    ----------
    case : Case
    samples : iterable of Sample
        Those of the case that the predictor can answer.
    store : PredictionStore
        A sample without a prediction there is a failure.
    """
    record = case.record
    masks: dict[int, np.ndarray] | None = None
    size: tuple[int, int] | None = None
    first: dict[str, tuple[Row, np.ndarray]] = {}
    for sample in samples:
        row = blank_row(case, sample)
        if sample.regions and masks is None:
            size = size or _size(record)
            masks = case.masks(size)
        truths = case.truths(sample, masks or {}, size) if sample.regions and size else []
        try:
            prediction = store.read(sample.id)
            if prediction.error is not None:
                raise DataError(prediction.error)
            if prediction.masks:
                size = size or _size(record)
            decoded = prediction.decode(size) if size else []
        except DataError as error:
            row.failure = str(error).removeprefix(f"{sample.id}: ")
            prediction, decoded = Prediction(sample.id), []
        SCORERS[sample.task](row, Judged(sample, prediction, decoded, truths, record.spacing))
        whole = union(decoded, truths)
        if sample.task == "segment" and size and (labels := _labels(case, sample, size)) is not None:
            row.objects = _objects(whole, labels)
        if sample.paraphrase:
            row.agreement = _agreement(row, whole, *first[sample.id.rpartition("~")[0]])
        else:
            first[sample.id] = row, whole
        yield row


def _size(record: Record) -> tuple[int, int]:
    height, width = record.load_image().shape[:2]
    return height, width


def _labels(case: Case, sample: Sample, size: tuple[int, int]) -> np.ndarray | None:
    """The objects of a target whose masks number them; None for all others, and for changed images."""
    regions = [case.record.regions[j] for j in sample.regions if j is not None]
    if case.change is not None or len(regions) != 1 or not regions[0].objects:
        return None
    return regions[0].load_labels(size)


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
