"""Trivial predictors: the floors that every table shows. What does not beat them has learned nothing from the image."""

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
from ..samples import ELSEWHERE, Case, Sample, make_cases
from ..suite import Suite
from .base import FLOORS, Predictor
from .fingerprints import records_edition

__all__ = ["Commonest", "EmptyMask", "FilledBox", "MeanShape", "Nearest", "make_floor"]

SIDE = 64
LOOK = 16
EDITION = 3
"""Raised when a floor answers otherwise than before: kept answers are then asked for again."""
PER_DATASET = 150
"""Training images of each data set that the floors look at."""
Training = Callable[[], Sequence[Record]]


def make_floor(name: str, training: Training) -> Predictor:
    """A floor by its name.

    Raises
    ------
    InputError
        There is none of this name.
    """
    if name == "empty":
        return EmptyMask()
    if name == "filled-box":
        return FilledBox()
    made: dict[str, Callable[[Training], Predictor]] = {
        "mean-shape": MeanShape,
        "commonest": Commonest,
        "nearest": Nearest,
    }
    if name not in made:
        raise InputError(f"there is no floor '{name}': use one of {', '.join(FLOORS)}")
    return made[name](training)


class EmptyMask:
    """Finds nothing, ever."""

    name = "empty"
    tasks = frozenset({"segment", "recognize"})
    worded: frozenset[str] = frozenset()
    fingerprint = "floor:empty"
    note = "never finds anything"

    def predict(self, case: Case, pixels: np.ndarray) -> list[Prediction]:
        """An empty mask, or "No findings"."""
        empty = np.zeros(pixels.shape[:2], dtype=bool)
        return [
            Prediction(s.id, NO_FINDINGS, (NO_FINDINGS,))
            if s.task == "recognize"
            else Prediction.of_masks(s.id, "", [s.target], [empty], [0.0])
            for s in case.samples
        ]


class FilledBox:
    """Takes the whole box for the mask of what is in it."""

    name = "filled-box"
    tasks = frozenset({"outline"})
    worded: frozenset[str] = frozenset()
    fingerprint = "floor:filled-box"
    note = "the filled box as the mask"

    def predict(self, case: Case, pixels: np.ndarray) -> list[Prediction]:
        """All pixels of the box."""
        out = []
        for sample in case.samples:
            assert sample.box is not None, f"{sample.id} has no box"
            x0, y0, x1, y1 = sample.box
            mask = np.zeros(pixels.shape[:2], dtype=bool)
            mask[y0:y1, x0:x1] = True
            out.append(Prediction.of_masks(sample.id, "", [sample.target], [mask]))
        return out


def _thinned(training: Training) -> list[Record]:
    """At most `PER_DATASET` training images of each data set, the same on every machine."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in training():
        groups[record.dataset].append(record)
    chosen = []
    for name, group in sorted(groups.items()):
        chosen += random.Random(name).sample(group, min(PER_DATASET, len(group)))
    return chosen


class _Learned:
    """What the floors know of the training split: its questions with their answers."""

    def __init__(self, training: Training) -> None:
        self._training = training

    @cached_property
    def _records(self) -> list[Record]:
        return _thinned(self._training)

    @cached_property
    def edition(self) -> str:
        """Which images it learned from, and how."""
        return f"{EDITION}:{records_edition(self._records)}"

    @cached_property
    def _cases(self) -> list[Case]:
        # what cannot be read teaches nothing
        suite, unreadable = Suite("training", split="train", foreign=False), dict[str, str]()
        return [
            case
            for case in make_cases(suite, self._records, unreadable=unreadable)
            if case.record.key not in unreadable
        ]


class MeanShape(_Learned):
    """The mean of the training masks of a target, whatever the image shows."""

    name = "mean-shape"
    tasks = frozenset({"segment"})
    worded: frozenset[str] = frozenset()
    fingerprint = "floor:mean-shape"
    note = "the mean training mask of the target, whatever the image shows"

    @cached_property
    def _shapes(self) -> dict[str, tuple[np.ndarray, float]]:
        """Of each target its mean mask, (64, 64) in [0, 1], and how often it is there."""
        sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros((SIDE, SIDE)))
        there: Counter[str] = Counter()
        asked: Counter[str] = Counter()
        for record in self._records:
            outlined = [region for region in record.regions if region.box is None]
            try:
                size = record.load_image().shape[:2]
                masks = [region.load((size[0], size[1])) for region in outlined]
            except DataError:
                # the others teach a shape all the same
                continue
            for region, mask in zip(outlined, masks, strict=True):
                asked[region.target] += 1
                if mask.any():
                    there[region.target] += 1
                    sums[region.target] += _resized(mask.astype(np.float32), (SIDE, SIDE))
        return {name: (total / there[name], there[name] / asked[name]) for name, total in sums.items()}

    def predict(self, case: Case, pixels: np.ndarray) -> list[Prediction]:
        """The part of the mean that is above half of its highest value."""
        size = (pixels.shape[0], pixels.shape[1])
        out = []
        for sample in case.samples:
            mean, share = self._shapes.get(sample.target, (np.zeros((SIDE, SIDE)), 0.0))
            mask = _resized(mean.astype(np.float32), size) > max(mean.max() / 2, 1e-6)
            out.append(Prediction.of_masks(sample.id, "", [sample.target], [mask], [share]))
        return out


class Commonest(_Learned):
    """The commonest answer of the training split: of the modality, or to the question, whatever the image shows."""

    name = "commonest"
    tasks = frozenset({"recognize", "classify", "ask", "describe", "report"})
    worded = frozenset({"ask"})
    fingerprint = "floor:commonest"
    note = "the commonest training answer, whatever the image shows"

    @cached_property
    def _answers(self) -> dict[tuple[str, ...], Counter[tuple[str, tuple[str, ...]]]]:
        found: dict[tuple[str, ...], Counter[tuple[str, tuple[str, ...]]]] = defaultdict(Counter)
        for case in self._cases:
            for sample in case.samples:
                # one such box an image would make it the commonest answer wherever there are several names
                if sample.kind == ELSEWHERE:
                    continue
                for key in _keys(sample, case.record):
                    found[key][sample.answer, sample.labels] += 1
        return found

    def predict(self, case: Case, pixels: np.ndarray) -> list[Prediction]:
        """The answer to the most similar question that has any, in words alone: no mask is common to all images."""
        out = []
        for sample in case.samples:
            key = next((k for k in _keys(sample, case.record) if k in self._answers), None)
            if key is None:
                out.append(Prediction.failed(sample.id, "no such question in the training split"))
                continue
            (text, labels), _ = min(self._answers[key].items(), key=lambda item: (-item[1], item[0]))
            out.append(Prediction(sample.id, text, labels))
        return out


def _keys(sample: Sample, record: Record) -> list[tuple[str, ...]]:
    """What makes two questions alike, the most exact first."""
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


class Nearest(_Learned):
    """The answer that the most similar training image (or part of it in the box) has to the same kind of question."""

    name = "nearest"
    tasks = frozenset({"segment", "recognize", "classify", "describe", "report"})
    worded: frozenset[str] = frozenset()
    fingerprint = "floor:nearest"
    note = "copies the answer of the most similar training image"

    @cached_property
    def _index(self) -> dict[tuple[str, str], tuple[np.ndarray, list[tuple[Case, Sample]]]]:
        """(task, target) to looks (n, 768) and what they belong to."""
        found: dict[tuple[str, str], list[tuple[np.ndarray, Case, Sample]]] = defaultdict(list)
        for case in self._cases:
            try:
                pixels = case.pixels()
            except DataError:
                # an image without outlines was not opened before
                continue
            whole = _look(pixels)
            for sample in case.samples:
                look = whole if sample.box is None else _look(_part(pixels, sample))
                found[sample.task, sample.target].append((look, case, sample))
        return {k: (np.stack([i[0] for i in v]), [(i[1], i[2]) for i in v]) for k, v in found.items()}

    def predict(self, case: Case, pixels: np.ndarray) -> list[Prediction]:
        """Copies, with masks stretched to the size of the image."""
        size = (pixels.shape[0], pixels.shape[1])
        whole = _look(pixels)
        loaded: dict[str, tuple[tuple[int, int], dict[int, np.ndarray]]] = {}
        out = []
        for sample in case.samples:
            looks, known = self._index.get((sample.task, sample.target), (None, []))
            if looks is None:
                if sample.task == "segment":
                    out.append(Prediction.of_masks(sample.id, "", [sample.target], [np.zeros(size, dtype=bool)], [0.0]))
                    continue
                out.append(Prediction.failed(sample.id, "no such question in the training split"))
                continue
            look = whole if sample.box is None else _look(_part(pixels, sample))
            twin, answer = known[int(((looks - look) ** 2).sum(1).argmin())]
            masks: list[np.ndarray] = []
            if answer.regions:
                if twin.record.key not in loaded:
                    own = twin.record.load_image().shape
                    loaded[twin.record.key] = ((own[0], own[1]), twin.masks((own[0], own[1])))
                own_size, regions = loaded[twin.record.key]
                truths = twin.truths(answer, regions, own_size)
                masks = [_resized(mask.astype(np.float32), size) > 0.5 for mask in truths]
            labels = [sample.target] if sample.task == "segment" else list(answer.labels)
            if len(labels) != len(masks) and masks:
                labels = ["finding"] * len(masks)
            out.append(
                Prediction.of_masks(sample.id, answer.answer, labels, masks)
                if masks
                else Prediction(sample.id, answer.answer, tuple(labels))
            )
        return out


def _part(pixels: np.ndarray, sample: Sample) -> np.ndarray:
    if sample.box is None:
        raise DataError(f"{sample.id}: a question about a box without a box")
    x0, y0, x1, y1 = sample.box
    return pixels[y0:y1, x0:x1]


def _look(pixels: np.ndarray) -> np.ndarray:
    """(768,) float32: a 16 x 16 thumbnail in colour, without its mean and of length 1."""
    small = np.asarray(Image.fromarray(pixels).resize((LOOK, LOOK), Image.Resampling.BOX), dtype=np.float32).ravel()
    small = small - small.mean()
    return np.asarray(small / max(float(np.linalg.norm(small)), 1e-6), dtype=np.float32)


def _resized(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    image = Image.fromarray(values, mode="F")
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))
