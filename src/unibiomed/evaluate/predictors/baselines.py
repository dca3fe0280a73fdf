"""Trivial baselines. A model that is not better than these does not use the content of the image."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from PIL import Image

from unibiomed.data.records import NO_FINDINGS, Record
from unibiomed.errors import DataError, InputError

from ..predictions import Prediction
from ..samples import BACKGROUND_BOX, Case, Sample, make_cases
from ..suite import Suite
from .base import BASELINES, Predictor
from .fingerprints import records_digest

__all__ = ["EmptyMask", "FilledBox", "MeanShape", "MostFrequentAnswer", "NearestNeighbor", "make_baseline"]

MEAN_SHAPE_SIDE = 64
THUMBNAIL_SIDE = 16
VERSION = 3
"""Increase it if a baseline gives other answers than before, so that stored predictions are repeated."""
MAX_RECORDS = 150
"""Number of training images per data set that baselines are fitted to."""
TrainingRecords = Callable[[], Sequence[Record]]


def make_baseline(name: str, training_records: TrainingRecords) -> Predictor:
    """Create a baseline.

    Raises
    ------
    InputError
        There is no such baseline.
    """
    if name == "empty":
        return EmptyMask()
    if name == "filled-box":
        return FilledBox()
    fitted: dict[str, Callable[[TrainingRecords], Predictor]] = {
        "mean-shape": MeanShape,
        "most-frequent": MostFrequentAnswer,
        "nearest-neighbor": NearestNeighbor,
    }
    if name not in fitted:
        raise InputError(f"baseline '{name}' not found: use one of {', '.join(BASELINES)}")
    return fitted[name](training_records)


class EmptyMask:
    """Baseline that never finds anything."""

    name = "empty"
    tasks = frozenset({"segment", "recognize"})
    paraphrase_tasks: frozenset[str] = frozenset()
    fingerprint = "baseline:empty"
    note = "never finds anything"

    def predict(self, case: Case, pixels: np.ndarray) -> list[Prediction]:
        """Predict empty masks and "No findings"."""
        empty = np.zeros(pixels.shape[:2], dtype=bool)
        return [
            Prediction(s.id, NO_FINDINGS, (NO_FINDINGS,))
            if s.task == "recognize"
            else Prediction.from_masks(s.id, "", [s.target], [empty], [0.0])
            for s in case.samples
        ]


class FilledBox:
    """Baseline that predicts the whole box as the mask of ``outline``."""

    name = "filled-box"
    tasks = frozenset({"outline"})
    paraphrase_tasks: frozenset[str] = frozenset()
    fingerprint = "baseline:filled-box"
    note = "the filled box as the mask"

    def predict(self, case: Case, pixels: np.ndarray) -> list[Prediction]:
        """Predict all pixels of each box."""
        predictions = []
        for sample in case.samples:
            assert sample.box is not None, f"{sample.id} has no box"
            x0, y0, x1, y1 = sample.box
            mask = np.zeros(pixels.shape[:2], dtype=bool)
            mask[y0:y1, x0:x1] = True
            predictions.append(Prediction.from_masks(sample.id, "", [sample.target], [mask]))
        return predictions


def _subsample(records: Sequence[Record]) -> list[Record]:
    """Sample at most `MAX_RECORDS` records of each data set, the same ones on every machine."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.dataset].append(record)
    sampled = []
    for name, group in sorted(groups.items()):
        sampled += random.Random(name).sample(group, min(MAX_RECORDS, len(group)))
    return sampled


class _FittedBaseline:
    """Base class of baselines that use the training split."""

    def __init__(self, training_records: TrainingRecords) -> None:
        self._training_records = training_records

    @cached_property
    def _records(self) -> list[Record]:
        return _subsample(self._training_records())

    @cached_property
    def source_digest(self) -> str:
        """Digest of the training images and the version of the baselines."""
        return f"{VERSION}:{records_digest(self._records)}"

    @cached_property
    def _cases(self) -> list[Case]:
        suite, unreadable = Suite("training", split="train", out_of_context=False), dict[str, str]()
        cases = make_cases(suite, self._records, unreadable=unreadable)
        return [case for case in cases if case.record.key not in unreadable]


class MeanShape(_FittedBaseline):
    """Baseline that predicts the mean training mask of a target for every image."""

    name = "mean-shape"
    tasks = frozenset({"segment"})
    paraphrase_tasks: frozenset[str] = frozenset()
    fingerprint = "baseline:mean-shape"
    note = "the mean training mask of the target for every image"

    @cached_property
    def _shapes(self) -> dict[str, tuple[np.ndarray, float]]:
        """Mean mask, (64, 64) in [0, 1], and prevalence of each target."""
        sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros((MEAN_SHAPE_SIDE, MEAN_SHAPE_SIDE)))
        present: Counter[str] = Counter()
        total: Counter[str] = Counter()
        for record in self._records:
            outlined = [region for region in record.regions if region.box is None]
            try:
                size = record.load_image().shape[:2]
                masks = [region.load((size[0], size[1])) for region in outlined]
            except DataError:
                continue
            for region, mask in zip(outlined, masks, strict=True):
                total[region.target] += 1
                if mask.any():
                    present[region.target] += 1
                    sums[region.target] += _resize(mask.astype(np.float32), (MEAN_SHAPE_SIDE, MEAN_SHAPE_SIDE))
        return {name: (mask / present[name], present[name] / total[name]) for name, mask in sums.items()}

    def predict(self, case: Case, pixels: np.ndarray) -> list[Prediction]:
        """Predict the pixels where the mean mask exceeds half of its maximum."""
        size = (pixels.shape[0], pixels.shape[1])
        predictions = []
        for sample in case.samples:
            mean, prevalence = self._shapes.get(sample.target, (np.zeros((MEAN_SHAPE_SIDE, MEAN_SHAPE_SIDE)), 0.0))
            mask = _resize(mean.astype(np.float32), size) > max(mean.max() / 2, 1e-6)
            predictions.append(Prediction.from_masks(sample.id, "", [sample.target], [mask], [prevalence]))
        return predictions


class MostFrequentAnswer(_FittedBaseline):
    """Baseline that gives the most frequent training answer for the modality or question."""

    name = "most-frequent"
    tasks = frozenset({"recognize", "classify", "ask", "describe", "report"})
    paraphrase_tasks = frozenset({"ask"})
    fingerprint = "baseline:most-frequent"
    note = "the most frequent training answer for every image"

    @cached_property
    def _answers(self) -> dict[tuple[str, ...], Counter[tuple[str, tuple[str, ...]]]]:
        answers: dict[tuple[str, ...], Counter[tuple[str, tuple[str, ...]]]] = defaultdict(Counter)
        for case in self._cases:
            for sample in case.samples:
                # with one background box per image, "something else" would be the most frequent class
                if sample.kind == BACKGROUND_BOX:
                    continue
                for key in _question_keys(sample, case.record):
                    answers[key][sample.answer, sample.labels] += 1
        return answers

    def predict(self, case: Case, pixels: np.ndarray) -> list[Prediction]:
        """Predict the most frequent answer to the most similar kind of question, without masks."""
        predictions = []
        for sample in case.samples:
            key = next((k for k in _question_keys(sample, case.record) if k in self._answers), None)
            if key is None:
                predictions.append(Prediction.failed(sample.id, "no such question in the training split"))
                continue
            (text, labels), _ = min(self._answers[key].items(), key=lambda item: (-item[1], item[0]))
            predictions.append(Prediction(sample.id, text, labels))
        return predictions


def _question_keys(sample: Sample, record: Record) -> list[tuple[str, ...]]:
    """Return keys of decreasing specificity that similar questions share."""
    if sample.task == "ask":
        words = sample.question.lower().split()
        return [
            ("ask", " ".join(words)),
            ("ask", sample.kind, *words[:3]),
            ("ask", sample.kind, *words[:2]),
            ("ask", sample.kind, *words[:1]),
            ("ask", sample.kind),
        ]
    return [(sample.task, record.modality, record.site), (sample.task, record.modality), (sample.task,)]


class NearestNeighbor(_FittedBaseline):
    """Baseline that copies the answer of the most similar training image, or of the most similar box."""

    name = "nearest-neighbor"
    tasks = frozenset({"segment", "recognize", "classify", "describe", "report"})
    paraphrase_tasks: frozenset[str] = frozenset()
    fingerprint = "baseline:nearest-neighbor"
    note = "copies the answer of the most similar training image"

    @cached_property
    def _index(self) -> dict[tuple[str, str], tuple[np.ndarray, list[tuple[Case, Sample]]]]:
        """For each task and target the thumbnails, (n, 768), and the samples that they belong to."""
        entries: dict[tuple[str, str], list[tuple[np.ndarray, Case, Sample]]] = defaultdict(list)
        for case in self._cases:
            try:
                pixels = case.pixels()
            except DataError:
                # images without masks are opened here for the first time
                continue
            image = _thumbnail(pixels)
            for sample in case.samples:
                thumbnail = image if sample.box is None else _thumbnail(_crop(pixels, sample))
                entries[sample.task, sample.target].append((thumbnail, case, sample))
        return {k: (np.stack([i[0] for i in v]), [(i[1], i[2]) for i in v]) for k, v in entries.items()}

    def predict(self, case: Case, pixels: np.ndarray) -> list[Prediction]:
        """Predict copies, with masks resized to the image."""
        size = (pixels.shape[0], pixels.shape[1])
        image = _thumbnail(pixels)
        cache: dict[str, tuple[tuple[int, int], dict[int, np.ndarray]]] = {}
        predictions = []
        for sample in case.samples:
            thumbnails, entries = self._index.get((sample.task, sample.target), (None, []))
            if thumbnails is None:
                if sample.task == "segment":
                    empty = np.zeros(size, dtype=bool)
                    predictions.append(Prediction.from_masks(sample.id, "", [sample.target], [empty], [0.0]))
                else:
                    predictions.append(Prediction.failed(sample.id, "no such question in the training split"))
                continue
            thumbnail = image if sample.box is None else _thumbnail(_crop(pixels, sample))
            neighbor, source = entries[int(((thumbnails - thumbnail) ** 2).sum(1).argmin())]
            masks: list[np.ndarray] = []
            if source.regions:
                if neighbor.record.key not in cache:
                    height, width = neighbor.record.load_image().shape[:2]
                    cache[neighbor.record.key] = (height, width), neighbor.masks((height, width))
                neighbor_size, regions = cache[neighbor.record.key]
                truths = neighbor.truths(source, regions, neighbor_size)
                masks = [_resize(mask.astype(np.float32), size) > 0.5 for mask in truths]
            labels = [sample.target] if sample.task == "segment" else list(source.labels)
            if len(labels) != len(masks) and masks:
                labels = ["finding"] * len(masks)
            predictions.append(
                Prediction.from_masks(sample.id, source.answer, labels, masks)
                if masks
                else Prediction(sample.id, source.answer, tuple(labels))
            )
        return predictions


def _crop(pixels: np.ndarray, sample: Sample) -> np.ndarray:
    assert sample.box is not None, f"{sample.id} has no box"
    x0, y0, x1, y1 = sample.box
    return pixels[y0:y1, x0:x1]


def _thumbnail(pixels: np.ndarray) -> np.ndarray:
    """Return a colour thumbnail of 16 x 16 pixels with zero mean and unit norm, (768,) float32."""
    small = Image.fromarray(pixels).resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
    values = np.asarray(small, dtype=np.float32).ravel()
    values = values - values.mean()
    return np.asarray(values / max(float(np.linalg.norm(values)), 1e-6), dtype=np.float32)


def _resize(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    image = Image.fromarray(values, mode="F")
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))
