"""Every prediction beside its truth: one row a sample, a failure scored 0, nothing left out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from unibiomed.data.index import replacing, writing
from unibiomed.data.records import Record
from unibiomed.errors import DataError
from unibiomed.metrics.instances import aggregated_jaccard, detect, panoptic
from unibiomed.metrics.segmentation import overlap
from unibiomed.metrics.surface import hd95, surface_dice
from unibiomed.tasks import NO_FINDINGS, clean_text, read_class

from .predictions import Prediction, PredictionStore
from .samples import Case, Sample

__all__ = ["Row", "RowWriter", "blank_row", "read_rows", "score_case", "strangers"]

TOLERANCE_MM = 2.0
"""How far two surfaces may be apart for the normalised surface Dice."""
TOLERANCE_PIXELS = 2.0
"""The same where the size of a pixel is not known."""


@dataclass(slots=True)
class Row:
    """One sample with its score; what does not belong to its task is None.

    Parameters
    ----------
    id, task, dataset, modality, subject : str
        The sample, and the group (patient, case) that its image belongs to.
    number : int
        Place of the image in its data set.
    target, kind, volume, change, strength, paraphrase
        As in `Sample` and `Case`.
    failure : str or None
        Why there is no answer that could be scored; then every score is the worst.
    there : bool or None
        Whether the target (or any finding) is in the image.
    found : bool or None
        Whether the prediction has any pixel (or names any finding).
    false_parts : int or None
        Connected parts of the mask of ``segment`` that share no pixel with the truth.
    shared, predicted, true : int or None
        Pixels, from which Dice and IoU of images and volumes follow.
    surface_dice : float or None
        Normalised surface Dice in [0, 1].
    hd95 : float or None
        95 % Hausdorff distance, in mm where `measured`, else in pixels.
    measured : bool
        Whether the size of a pixel is known.
    objects : list or None
        For targets whose masks number their objects: AJI, and the counts of the panoptic quality.
    presence, mask_score : float or None
        The model's own scores.
    wanted, said : list of str or None
        Labels of ``recognize`` and ``classify``.
    exact, substring : bool or None
        Whether the answer is the reference, or (as published) holds it.
    answer, reference : str or None
        Words, without special tokens.
    agreement : float or None
        Of a question in other words with the question itself: Dice of both masks, or 1 where both name the same.
    """

    id: str
    task: str
    dataset: str
    modality: str
    subject: str
    number: int
    target: str = ""
    kind: str = ""
    volume: str | None = None
    change: str | None = None
    strength: int = 0
    paraphrase: int = 0
    failure: str | None = None
    there: bool | None = None
    found: bool | None = None
    shared: int | None = None
    predicted: int | None = None
    true: int | None = None
    surface_dice: float | None = None
    hd95: float | None = None
    measured: bool = False
    objects: list[float] | None = None
    presence: float | None = None
    mask_score: float | None = None
    wanted: list[str] | None = None
    said: list[str] | None = None
    exact: bool | None = None
    substring: bool | None = None
    answer: str | None = None
    reference: str | None = None
    agreement: float | None = None
    false_parts: int | None = None

    @property
    def detected(self) -> bool:
        """Whether prediction and truth share a pixel."""
        return self.failure is None and bool(self.shared)

    @property
    def sureness(self) -> float:
        """Of a mask, that the target is there and the mask fits; of none, that it is absent; a failure comes last."""
        if self.failure is not None:
            return -1.0
        presence = 1.0 if self.presence is None else self.presence
        if not self.found:
            return 1 - presence
        return presence * (1.0 if self.mask_score is None else self.mask_score)

    @property
    def dice(self) -> float:
        """Dice in [0, 1]; 1 where truth and prediction are empty, 0 for a failure."""
        if self.failure is not None or self.shared is None or self.predicted is None or self.true is None:
            return 0.0
        total = self.predicted + self.true
        return 2 * self.shared / total if total else 1.0

    @property
    def iou(self) -> float:
        """IoU in [0, 1]; 1 where truth and prediction are empty, 0 for a failure."""
        if self.failure is not None or self.shared is None or self.predicted is None or self.true is None:
            return 0.0
        union = self.predicted + self.true - self.shared
        return self.shared / union if union else 1.0


def blank_row(case: Case, sample: Sample) -> Row:
    """A row that says which question it is about, before it is scored."""
    record, (change, strength) = case.record, case.change or (None, 0)
    return Row(
        sample.id,
        sample.task,
        record.dataset,
        record.modality,
        f"{record.dataset}/{record.group}",
        case.number,
        sample.target,
        sample.kind,
        sample.volume,
        change,
        strength,
        sample.paraphrase,
    )


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
        SCORERS[sample.task](row, sample, prediction, decoded, truths, record.spacing)
        union = _union(decoded, truths)
        if sample.task == "segment" and size and (labels := _labels(case, sample, size)) is not None:
            row.objects = _objects(union, labels)
        if sample.paraphrase:
            row.agreement = _agreement(row, union, *first[sample.id.rpartition("~")[0]])
        else:
            first[sample.id] = row, union
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
        return float(sorted(map(_plain, row.said)) == sorted(map(_plain, own.said or [])))
    return float(_plain(row.answer or "") == _plain(own.answer or ""))


def _union(masks: list[np.ndarray], like: list[np.ndarray]) -> np.ndarray:
    if masks:
        return np.asarray(np.any(masks, axis=0))
    return np.zeros(like[0].shape if like else (1, 1), dtype=bool)


def _overlap(row: Row, guess: np.ndarray, truth: np.ndarray) -> None:
    counts = overlap(guess, truth)
    row.shared, row.predicted, row.true = counts.shared, counts.predicted, counts.true


def _segment(
    row: Row,
    sample: Sample,
    prediction: Prediction,
    masks: list[np.ndarray],
    truths: list[np.ndarray],
    spacing: tuple[float, float] | None,
) -> None:
    truth, guess = _union(truths, truths), _union(masks, truths)
    row.there = bool(truth.any())
    row.measured = spacing is not None
    if row.failure is not None:
        # a failure is as bad as can be: an empty mask where the target is, a false one where it is not
        row.found, row.surface_dice, row.false_parts = not row.there, 0.0, int(not row.there)
        row.hd95 = hd95(np.zeros_like(truth), np.ones_like(truth), spacing=spacing or 1.0)
        return
    row.found = bool(guess.any())
    _overlap(row, guess, truth)
    # the truth as one object: which of its parts is hit does not matter here
    row.false_parts = detect(guess, truth.astype(np.uint8)).false_masks
    tolerance = TOLERANCE_PIXELS if spacing is None else TOLERANCE_MM
    row.surface_dice = surface_dice(guess, truth, tolerance=tolerance, spacing=spacing or 1.0)
    row.hd95 = hd95(guess, truth, spacing=spacing or 1.0)
    row.presence = prediction.scores[0] if prediction.scores else None
    row.mask_score = prediction.mask_scores[0] if prediction.mask_scores else None


def _recognize(
    row: Row,
    sample: Sample,
    prediction: Prediction,
    masks: list[np.ndarray],
    truths: list[np.ndarray],
    spacing: tuple[float, float] | None,
) -> None:
    row.wanted = list(sample.labels)
    row.there = row.wanted != [NO_FINDINGS]
    said = [label for label in prediction.labels if label.strip()]
    row.said = said
    # of a failure nothing is found where a finding is, and one is made up where none is
    row.found = not row.there if row.failure is not None else said != [NO_FINDINGS]
    row.exact = row.failure is None and sorted(map(_plain, said)) == sorted(map(_plain, row.wanted))
    # as published: each label is somewhere in the answer
    row.substring = row.failure is None and all(_plain(w) in _plain(clean_text(prediction.text)) for w in row.wanted)
    row.answer, row.reference = clean_text(prediction.text), clean_text(sample.answer)
    known = [score for score in prediction.scores if score is not None]
    row.presence = max(known, default=None)
    if truths and row.failure is None:
        _overlap(row, _union(masks, truths), _union(truths, truths))
    elif row.failure is None:
        # the normal image: any pixel is a false one
        pixels = sum(int(np.count_nonzero(mask)) for mask in masks)
        row.shared, row.predicted, row.true = 0, pixels, 0


def _classify(
    row: Row,
    sample: Sample,
    prediction: Prediction,
    masks: list[np.ndarray],
    truths: list[np.ndarray],
    spacing: tuple[float, float] | None,
) -> None:
    wanted, text = read_class(sample.answer), clean_text(prediction.text)
    row.wanted, row.said = [wanted], [read_class(prediction.text)]
    row.exact = row.failure is None and _plain(row.said[0]) == _plain(wanted)
    row.substring = row.failure is None and _plain(wanted) in _plain(text)
    row.answer, row.reference = text, clean_text(sample.answer)


def _words(
    row: Row,
    sample: Sample,
    prediction: Prediction,
    masks: list[np.ndarray],
    truths: list[np.ndarray],
    spacing: tuple[float, float] | None,
) -> None:
    row.answer, row.reference = clean_text(prediction.text), clean_text(sample.answer)
    row.exact = row.failure is None and _plain(row.answer) == _plain(row.reference)
    row.substring = row.failure is None and _plain(row.reference) in _plain(row.answer)
    if truths:
        row.there = bool(_union(truths, truths).any())
        if row.failure is None:
            _overlap(row, _union(masks, truths), _union(truths, truths))


SCORERS = {
    "segment": _segment,
    "recognize": _recognize,
    "classify": _classify,
    "describe": _words,
    "report": _words,
    "ask": _words,
}


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).strip(" .")


FEW_WORDS = ("task", "dataset", "modality", "subject", "target", "kind")
_ALWAYS = object()
_DEFAULTS = {f.name: f.default for f in fields(Row) if f.default is not MISSING}


def strangers(store: PredictionStore, known: set[str]) -> list[str]:
    """Prediction files that belong to no sample of the suite: left over from another one, or misnamed."""
    # as text: a hundred thousand paths take hundreds of MB
    wanted = {str(store.path(sample)) for sample in known}
    return sorted(str(path.relative_to(store.folder)) for path in store.paths() if str(path) not in wanted)


class RowWriter(AbstractContextManager["RowWriter"]):
    """Writes rows as JSON lines; the file is there whole at the end, or not at all.

    Parameters
    ----------
    path : Path

    Raises
    ------
    OutputError
        It cannot be written.
    """

    def __init__(self, path: Path) -> None:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._stack = ExitStack()
        self._path = self._stack.enter_context(replacing(path))
        self._file = self._stack.enter_context(self._path.open("w", encoding="utf-8"))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool | None:
        return self._stack.__exit__(kind, error, trace)

    def add(self, row: Row) -> None:
        """Write one row; what has its default is left out."""
        plain = {k: v for k, v in asdict(row).items() if v != _DEFAULTS.get(k, _ALWAYS)}
        self._file.write(json.dumps(plain, allow_nan=False) + "\n")


def read_rows(path: Path) -> Iterator[Row]:
    """Read what `write_rows` wrote.

    Raises
    ------
    DataError
        It is missing or broken.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                fields = json.loads(line)
                # rows are held by the hundred thousand, and these words are few
                yield Row(**fields | {name: sys.intern(fields[name]) for name in FEW_WORDS if name in fields})
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"scores '{path.name}' cannot be read: delete the file and score again") from error
