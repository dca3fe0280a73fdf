"""Samples to look at: the worst, the middling and the best of each target, painted on their images."""

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
from .leftovers import remove_leftovers
from .predictions import Prediction, PredictionStore
from .rows import Row
from .samples import Case, Sample
from .texts import likeness

__all__ = ["Example", "Painting", "draw_examples", "keys_of", "paint", "pick_examples", "pick_samples", "row_score"]

TEXTS = ("describe", "report")
LARGEST_OVERLAY = 1024
"""Pixels of the longer side: larger images are shrunk first."""


@dataclass(frozen=True, slots=True)
class Example:
    """A sample that stands for its target.

    Parameters
    ----------
    rank : str
        ``worst``, ``median`` or ``best``.
    row : Row
    of : int
        How many images show the target.
    """

    rank: str
    row: Row
    of: int


def row_score(row: Row) -> float | None:
    """What samples are ranked by: Dice where there are masks, ROUGE-L of texts, else 1 for a right answer.

    None where nothing of it is known; a failure has 0.
    """
    if row.failure is not None:
        return 0.0
    if row.shared is not None:
        return row.dice
    if row.task in TEXTS or row.kind == "open":
        # no two texts are the same: by right and wrong all would be the worst
        return likeness(row)
    return None if row.exact is None else float(row.exact)


def pick_examples(rows: Iterable[Row]) -> list[Example]:
    """The worst, median and best segmentation of each target that is there; equal Dice goes by id.

    Parameters
    ----------
    rows : iterable of Row
        Of one model; changed images and questions in other words are passed over.

    Returns
    -------
    list of Example
        By target, worst first. A target with one image has only a worst one, with two a worst and a best.
    """
    targets: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.task == "segment" and row.there and row.kind != "foreign" and row.change is None and not row.paraphrase:
            targets[row.target].append(row)
    out = []
    for _, part in sorted(targets.items()):
        part.sort(key=lambda row: (row.dice, row.id))
        last = len(part) - 1
        places = {last: "best", last // 2: "median", 0: "worst"}
        out += [Example(rank, part[place], len(part)) for place, rank in sorted(places.items())]
    return out


def pick_samples(rows: Sequence[Row], limit: int, seed: int) -> list[Row]:
    """Rows whose images are worth showing: of each task its share of `limit`, half of it the worst, others by chance.

    Parameters
    ----------
    rows : sequence of Row
        Of one model and data set.
    limit : int
        0 for none.
    seed : int
        The same rows give the same choice, in whatever order they come.

    Returns
    -------
    list of Row
        The worst of every task first: scores of two tasks do not compare, so that their ranks do.
    """
    tasks: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        tasks[row.task].append(row)
    ranked: list[tuple[float, str, Row]] = []
    left = limit
    # what the rare tasks leave over goes to the others
    for place, (task, part) in enumerate(sorted(tasks.items(), key=lambda item: (len(item[1]), item[0]))):
        chosen = _worst_and_others(part, min(len(part), left // (len(tasks) - place)), seed)
        left -= len(chosen)
        ranked += [(rank / len(chosen), task, row) for rank, row in enumerate(chosen)]
    return [row for _, _, row in sorted(ranked, key=lambda item: item[:2])]


def _worst_and_others(rows: Sequence[Row], limit: int, seed: int) -> list[Row]:
    """So many rows of one task, the worst first."""
    scores = {row.id: row_score(row) for row in rows}

    def rank(row: Row) -> tuple[float, str]:
        score = scores[row.id]
        return (2.0 if score is None else score), row.id

    ordered = sorted(rows, key=rank)
    worst, others = ordered[: (limit + 1) // 2], ordered[(limit + 1) // 2 :]
    return sorted(worst + random.Random(seed).sample(others, limit - len(worst)), key=rank)


def keys_of(rows: Iterable[Row]) -> set[str]:
    """Keys of the records that the rows may belong to: a superset, as both names and targets may hold a ``#``."""
    return {row.id[:i] for row in rows for i, sign in enumerate(row.id) if sign == "#"}


@dataclass(frozen=True)
class Painting:
    """A sample as pictures of equal size, (height, width, 3) uint8 each.

    Parameters
    ----------
    image, truth, prediction : numpy.ndarray
        As it is; with the true masks or the box that is asked about; with the predicted masks.
    labels : tuple of str
        What the colours of `unibiomed.export.overlay.PALETTE` mean, in their order.
    """

    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    labels: tuple[str, ...]


def paint(case: Case, sample: Sample, store: PredictionStore, side: int) -> Painting:
    """Paint one sample; the prediction of a failure is the bare image.

    Parameters
    ----------
    case : Case
    sample : Sample
        One of the case.
    store : PredictionStore
    side : int
        Longest side of the pictures, in pixels; smaller images stay small.

    Raises
    ------
    DataError
        The image or its masks cannot be read.
    """
    pixels, truths, guesses = _load(case, sample, store)
    labels = tuple(dict.fromkeys([*truths, *guesses]))
    image = _shrink(pixels, side)
    size = image.shape[0], image.shape[1]
    boxes = {}
    if sample.box is not None:
        # a box is asked about, so it stands on the side of the truth
        x0, y0, x1, y1 = sample.box
        sx, sy = size[1] / pixels.shape[1], size[0] / pixels.shape[0]
        left, top = min(int(x0 * sx), size[1] - 1), min(int(y0 * sy), size[0] - 1)
        boxes["box"] = (
            left,
            top,
            max(left + 1, min(round(x1 * sx), size[1])),
            max(top + 1, min(round(y1 * sy), size[0])),
        )
        labels = (*labels, "box")

    def findings(masks: Mapping[str, np.ndarray]) -> tuple[Finding, ...]:
        # one for each label, there or not, so that colours mean the same on both sides
        empty = np.zeros(size, dtype=bool)
        return tuple(
            Finding(label, label, box=boxes[label])
            if label in boxes and masks is truths
            else Finding.from_mask(label, _shrink_mask(masks[label], size) if label in masks else empty)
            for label in labels
        )

    return Painting(image, paint_findings(image, findings(truths)), paint_findings(image, findings(guesses)), labels)


def draw_examples(
    cases: Iterable[Case], examples: Sequence[Example], store: PredictionStore, folder: Path, *, model: str = ""
) -> list[Path]:
    """Draw examples: the outlines of truth and prediction on the image, with Dice in the title; earlier ones go.

    Parameters
    ----------
    cases : iterable of Case
        Cases without an example in them are passed over unread; see `keys_of` for leaving them out before.
    examples : sequence of Example
        From `pick_examples`.
    store : PredictionStore
        Of the model.
    folder : Path
        Made if need be.
    model : str
        Its name, for the small print.

    Returns
    -------
    list of Path
        ``TARGET-RANK.png``, in the order of the examples; those whose case never came are missing.

    Raises
    ------
    DataError
        An image cannot be read.
    OutputError
        A file cannot be written.
    """
    wanted: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        wanted[example.row.id].append(example)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    drawn = set()
    for case in cases:
        for sample in case.samples:
            for example in wanted.get(sample.id, ()):
                with replacing(_path(folder, example)) as fresh:
                    _overlay(case, sample, store, example, model).save(fresh, format="PNG")
                drawn.add(_path(folder, example))
    remove_leftovers(folder, drawn)
    return [path for example in examples if (path := _path(folder, example)) in drawn]


def _path(folder: Path, example: Example) -> Path:
    return folder / f"{file_name(example.row.target)}-{example.rank}.png"


def _overlay(case: Case, sample: Sample, store: PredictionStore, example: Example, model: str) -> Image.Image:
    pixels, truths, guesses = _load(case, sample, store)
    image, row = _shrink(pixels, LARGEST_OVERLAY), example.row
    size = image.shape[0], image.shape[1]

    def finding(name: str, masks: Mapping[str, np.ndarray], score: float | None = None) -> Finding:
        whole = np.any(list(masks.values()), axis=0) if masks else np.zeros(pixels.shape[:2], dtype=bool)
        return Finding.from_mask(name, _shrink_mask(whole, size), presence=score)

    interpretation = Interpretation(
        task=sample.task,
        question=f"{example.rank} of {example.of}, {row.modality}, {row.dataset}",
        text="" if row.failure is None else f"Failure: {row.failure}",
        raw_text="",
        findings=(finding("truth", truths), finding("prediction", guesses, row.presence)),
        height=size[0],
        width=size[1],
        image=case.record.key,
        model=model,
    )
    return draw_overlay(image, interpretation, title=f"{row.target}: Dice {row.dice:.3f}")


def _load(
    case: Case, sample: Sample, store: PredictionStore
) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The image, and by label the true and the predicted masks."""
    pixels = case.pixels()
    size = pixels.shape[0], pixels.shape[1]
    known = case.masks(size) if sample.regions else {}
    names = [sample.target if j is None else case.record.regions[j].target for j in sample.regions]
    truths = _joined(names, case.truths(sample, known, size))
    try:
        prediction = store.read(sample.id)
        masks = prediction.decode(size)
    except DataError:
        # scored as a failure, so there is nothing to paint
        prediction, masks = Prediction(sample.id), []
    spelled = {name.lower(): name for name in truths}
    said = [sample.target or label for label in prediction.labels]
    guesses = _joined([spelled.get(label.lower().strip(" ."), label) for label in said], masks)
    return pixels, truths, guesses


def _joined(labels: Sequence[str], masks: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    out: dict[str, np.ndarray] = {}
    # of a box's class there is a label, but no mask
    for label, mask in zip(labels, masks, strict=False):
        out[label] = out[label] | mask if label in out else mask
    return out


def _shrink(pixels: np.ndarray, side: int) -> np.ndarray:
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return pixels
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))


def _shrink_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A pixel is inside if any part of it was: no small lesion vanishes from the picture."""
    if mask.shape == size:
        return mask
    grey = Image.fromarray(mask.astype(np.float32) * 255).resize((size[1], size[0]), Image.Resampling.BOX)
    return np.asarray(grey) > 0
