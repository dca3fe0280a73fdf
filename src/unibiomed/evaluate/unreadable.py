"""Images and masks that cannot be read: their samples are failures that are counted, and the run goes on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from unibiomed.data.records import Record
from unibiomed.errors import DataError

from .predictions import Prediction, PredictionStore
from .rows import Row, blank_row
from .samples import Case, Sample
from .score import Truth, score_case
from .scorers import SCORERS, Judged

__all__ = ["rows_of"]


def rows_of(
    case: Case,
    samples: Sequence[Sample],
    store: PredictionStore,
    unreadable: dict[str, str] | None = None,
    truth: Truth | None = None,
) -> list[Row]:
    """As `score_case`; where the truth cannot be read, every sample that needs it is a failure.

    Parameters
    ----------
    case : Case
    samples : sequence of Sample
        Those of the case that the predictor can answer.
    store : PredictionStore
    unreadable : dict of str to str, optional
        Gets the key of the image and the reason.
    truth : Truth, optional
        As for `score_case`.
    """
    try:
        return list(score_case(case, samples, store, truth))
    except DataError as error:
        reason = str(error)
    if unreadable is not None:
        unreadable.setdefault(case.record.key, reason)
    plain = {row.id: row for row in score_case(case, [s for s in samples if not s.regions], store, truth)}
    return [plain[s.id] if s.id in plain else _failure(case, s, reason) for s in samples]


def _failure(case: Case, sample: Sample, reason: str) -> Row:
    """The worst score; whether a target is there is what the data set says of it."""
    record = case.record
    row = blank_row(case, sample)
    row.failure = reason
    size = _size(record)
    truths = [np.full(size or (1, 1), j is not None and record.regions[j].mask is not None) for j in sample.regions]
    SCORERS[sample.task](row, Judged(sample, Prediction(sample.id), [], truths, record.spacing))
    if size is None:
        # the farthest is the diagonal of an image whose size is not known
        row.hd95 = None
    if sample.paraphrase:
        row.agreement = 0.0
    return row


def _size(record: Record) -> tuple[int, int] | None:
    """Height and width, of the image or of a mask of it; None where none can be read."""
    for load in (record.load_image, *(region.load for region in record.regions)):
        with suppress(DataError):
            height, width = load().shape[:2]
            return height, width
    return None
