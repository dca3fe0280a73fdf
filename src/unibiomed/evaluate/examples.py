"""Selection of samples that are shown with images, and the drawing of their ground truth and prediction."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from unibiomed.data.index import replacing, writing
from unibiomed.errors import DataError
from unibiomed.export.overlay import draw_overlay, paint_findings
from unibiomed.findings import Finding, Interpretation

from .figures.style import file_name
from .predictions import Prediction, PredictionStore
from .sample_scores import SampleScore
from .samples import Case, Sample
from .stale_files import remove_stale_files
from .text_metrics import sample_rouge_l

__all__ = [
    "Example",
    "SampleImages",
    "draw_examples",
    "paint_sample",
    "ranking_score",
    "record_keys",
    "select_examples",
    "select_samples",
]

TEXT_TASKS = ("describe", "report")
MAX_OVERLAY_SIDE = 1024
"""Longest side of example images in pixels. Larger images are scaled down."""


@dataclass(frozen=True, slots=True)
class Example:
    """A sample that is shown for its target.

    Parameters
    ----------
    rank : str
        ``worst``, ``median`` or ``best``.
    score : SampleScore
    count : int
        Number of images that show the target.
    """

    rank: str
    score: SampleScore
    count: int


def ranking_score(score: SampleScore) -> float | None:
    """Return the value by which samples are ranked: Dice if there are masks, ROUGE-L of texts, else exact match.

    It is 0 for a failure and None if none of these is known.
    """
    if score.failure is not None:
        return 0.0
    if score.intersection is not None:
        return score.dice
    if score.task in TEXT_TASKS or score.kind == "open":
        # long texts never match exactly
        return sample_rouge_l(score)
    return None if score.exact_match is None else float(score.exact_match)


def select_examples(samples: Iterable[SampleScore]) -> list[Example]:
    """Select the worst, median and best segmentation of each present target; ties are broken by ID.

    Parameters
    ----------
    samples : iterable of SampleScore
        Samples of one model. Perturbed images and paraphrases are ignored.

    Returns
    -------
    list of Example
        Sorted by target, worst first. A target with one image has only a worst example, with two a worst and a best.
    """
    targets: dict[str, list[SampleScore]] = defaultdict(list)
    for score in samples:
        if score.task == "segment" and score.target_present and not score.out_of_context and score.original:
            targets[score.target].append(score)
    examples = []
    for _, part in sorted(targets.items()):
        part.sort(key=lambda s: (s.dice, s.id))
        last = len(part) - 1
        ranks = {last: "best", last // 2: "median", 0: "worst"}
        examples += [Example(rank, part[index], len(part)) for index, rank in sorted(ranks.items())]
    return examples


def select_samples(samples: Sequence[SampleScore], limit: int, seed: int) -> list[SampleScore]:
    """Select samples to show with images: an equal share for each task, half of it the worst, the others at random.

    Parameters
    ----------
    samples : sequence of SampleScore
        Samples of one model and data set.
    limit : int
        Maximum number of samples.
    seed : int
        The choice depends on samples and seed only, not on the order of the samples.

    Returns
    -------
    list of SampleScore
        Sorted by their rank within the task, because scores of different tasks cannot be compared.
    """
    tasks: dict[str, list[SampleScore]] = defaultdict(list)
    for score in samples:
        tasks[score.task].append(score)
    ranked: list[tuple[float, str, SampleScore]] = []
    remaining = limit
    # tasks with few samples come first, so that the others can use what they leave
    for place, (task, part) in enumerate(sorted(tasks.items(), key=lambda item: (len(item[1]), item[0]))):
        chosen = _worst_and_random(part, min(len(part), remaining // (len(tasks) - place)), seed)
        remaining -= len(chosen)
        ranked += [(rank / len(chosen), task, score) for rank, score in enumerate(chosen)]
    return [score for _, _, score in sorted(ranked, key=lambda item: item[:2])]


def _worst_and_random(samples: Sequence[SampleScore], limit: int, seed: int) -> list[SampleScore]:
    """Select samples of one task, worst first."""
    values = {score.id: ranking_score(score) for score in samples}

    def rank(score: SampleScore) -> tuple[float, str]:
        value = values[score.id]
        return (2.0 if value is None else value), score.id

    ordered = sorted(samples, key=rank)
    worst, others = ordered[: (limit + 1) // 2], ordered[(limit + 1) // 2 :]
    return sorted(worst + random.Random(seed).sample(others, limit - len(worst)), key=rank)


def record_keys(samples: Iterable[SampleScore]) -> set[str]:
    """Return a superset of the keys of the samples' records, because both names and targets may contain ``#``."""
    return {score.id[:i] for score in samples for i, character in enumerate(score.id) if character == "#"}


@dataclass(frozen=True)
class SampleImages:
    """Images of one sample, of equal size, (height, width, 3) uint8 each.

    Parameters
    ----------
    image : numpy.ndarray
        The image alone.
    truth : numpy.ndarray
        With the ground-truth masks, or the box of the question.
    prediction : numpy.ndarray
        With the predicted masks.
    labels : tuple of str
        Labels of the colours of `unibiomed.export.overlay.PALETTE`, in their order.
    """

    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    labels: tuple[str, ...]


def paint_sample(case: Case, sample: Sample, store: PredictionStore, side: int) -> SampleImages:
    """Paint the masks of one sample on its image; a failure has no predicted mask.

    Parameters
    ----------
    case : Case
    sample : Sample
        A sample of the case.
    store : PredictionStore
    side : int
        Longest side of the images in pixels. Smaller images are not enlarged.

    Raises
    ------
    DataError
        The image or its masks cannot be read.
    """
    pixels, truths, predictions = _read(case, sample, store)
    labels = tuple(dict.fromkeys([*truths, *predictions]))
    image = _scale_down(pixels, side)
    size = image.shape[0], image.shape[1]
    boxes = {}
    if sample.box is not None:
        x0, y0, x1, y1 = sample.box
        sx, sy = size[1] / pixels.shape[1], size[0] / pixels.shape[0]
        left, top = min(int(x0 * sx), size[1] - 1), min(int(y0 * sy), size[0] - 1)
        right, bottom = max(left + 1, min(round(x1 * sx), size[1])), max(top + 1, min(round(y1 * sy), size[0]))
        boxes["box"] = left, top, right, bottom
        labels = (*labels, "box")

    def findings(masks: Mapping[str, np.ndarray]) -> tuple[Finding, ...]:
        # one finding for each label, so that both images use the same colours
        empty = np.zeros(size, dtype=bool)
        return tuple(
            Finding(label, label, box=boxes[label])
            if label in boxes and masks is truths
            else Finding.from_mask(label, _scale_mask(masks[label], size) if label in masks else empty)
            for label in labels
        )

    painted = [paint_findings(image, findings(masks)) for masks in (truths, predictions)]
    return SampleImages(image, painted[0], painted[1], labels)


def draw_examples(
    cases: Iterable[Case], examples: Sequence[Example], store: PredictionStore, folder: Path, *, model: str = ""
) -> list[Path]:
    """Draw the outlines of ground truth and prediction of examples. Files of an earlier run are removed.

    Parameters
    ----------
    cases : iterable of Case
        Cases without an example are skipped without reading their image; see `record_keys`.
    examples : sequence of Example
        From `select_examples`.
    store : PredictionStore
        Predictions of the model.
    folder : Path
        Output folder.
    model : str
        Name of the model.

    Returns
    -------
    list of Path
        ``TARGET-RANK.png`` in the order of the examples, without those that have no case.

    Raises
    ------
    DataError
        An image cannot be read.
    OutputError
        A file cannot be written.
    """
    by_sample: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_sample[example.score.id].append(example)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    drawn = set()
    for case in cases:
        for sample in case.samples:
            for example in by_sample.get(sample.id, ()):
                with replacing(_path(folder, example)) as temporary:
                    _overlay(case, sample, store, example, model).save(temporary, format="PNG")
                drawn.add(_path(folder, example))
    remove_stale_files(folder, drawn)
    return [path for example in examples if (path := _path(folder, example)) in drawn]


def _path(folder: Path, example: Example) -> Path:
    return folder / f"{file_name(example.score.target)}-{example.rank}.png"


def _overlay(case: Case, sample: Sample, store: PredictionStore, example: Example, model: str) -> Image.Image:
    pixels, truths, predictions = _read(case, sample, store)
    image, score = _scale_down(pixels, MAX_OVERLAY_SIDE), example.score
    size = image.shape[0], image.shape[1]

    def finding(name: str, masks: Mapping[str, np.ndarray], presence: float | None = None) -> Finding:
        union = np.any(list(masks.values()), axis=0) if masks else np.zeros(pixels.shape[:2], dtype=bool)
        return Finding.from_mask(name, _scale_mask(union, size), presence=presence)

    interpretation = Interpretation(
        task=sample.task,
        question=f"{example.rank} of {example.count}, {score.modality}, {score.dataset}",
        text="" if score.failure is None else f"Failure: {score.failure}",
        raw_text="",
        findings=(finding("ground truth", truths), finding("prediction", predictions, score.presence)),
        height=size[0],
        width=size[1],
        image=case.record.key,
        model=model,
    )
    return draw_overlay(image, interpretation, title=f"{score.target}: Dice {score.dice:.3f}")


def _read(
    case: Case, sample: Sample, store: PredictionStore
) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the image, and the ground-truth and predicted masks by label."""
    pixels = case.pixels()
    size = pixels.shape[0], pixels.shape[1]
    masks = case.masks(size) if sample.regions else {}
    names = [sample.target if j is None else case.record.regions[j].target for j in sample.regions]
    truths = _union_by_label(names, case.truths(sample, masks, size))
    try:
        prediction = store.read(sample.id)
        predicted = prediction.decode(size)
    except DataError:
        # scored as a failure
        prediction, predicted = Prediction(sample.id), []
    spelling = {name.lower(): name for name in truths}
    labels = [sample.target or label for label in prediction.labels]
    return pixels, truths, _union_by_label([spelling.get(x.lower().strip(" ."), x) for x in labels], predicted)


def _union_by_label(labels: Sequence[str], masks: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    out: dict[str, np.ndarray] = {}
    # the class of a box is a label without a mask
    for label, mask in zip(labels, masks, strict=False):
        out[label] = out[label] | mask if label in out else mask
    return out


def _scale_down(pixels: np.ndarray, side: int) -> np.ndarray:
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return pixels
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))


def _scale_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale a mask down; a pixel is inside if any part of it was, so that small lesions stay visible."""
    if mask.shape == size:
        return mask
    coverage = Image.fromarray(mask.astype(np.float32) * 255).resize((size[1], size[0]), Image.Resampling.BOX)
    return np.asarray(coverage) > 0
