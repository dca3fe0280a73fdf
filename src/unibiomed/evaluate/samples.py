"""Samples of an evaluation: one sample is one question about one image with its ground truth."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from unibiomed.data.conversation import canonical_turns
from unibiomed.data.records import NO_FINDINGS, Record
from unibiomed.data.scene import Scene
from unibiomed.errors import DataError
from unibiomed.tasks import SEG, image_words, make_question
from unibiomed.terminology import absent_targets

from .perturbations import STRENGTHS, perturb_image, perturb_mask
from .record_selection import draw_records
from .suite import Suite

__all__ = ["BACKGROUND_BOX", "IN_CONTEXT", "OUT_OF_CONTEXT", "Case", "Partition", "Sample", "make_cases"]

Box = tuple[int, int, int, int]
IN_CONTEXT = "in_context"
"""Kind of a ``segment`` sample whose target the data set annotates for the image, present or absent."""
OUT_OF_CONTEXT = "out_of_context"
"""Kind of a ``segment`` sample whose target cannot occur in an image of this modality and body part."""
BACKGROUND_BOX = "background"
"""Kind of a ``classify`` sample whose box contains no region; the correct answer is "something else"."""
BACKGROUND_ID = "elsewhere"
"""End of the IDs of these samples. It is part of the names of stored predictions, so it must not change."""
TASKS_WITHOUT_MASKS = {"segment", "ask"}
"""Tasks whose questions can be made without reading the image or its masks."""
PLACEHOLDER_SIZE = (64, 64)
"""Size in pixels of the masks that replace those of an unreadable image: a corner of one eighth of each side."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One question about one image.

    Parameters
    ----------
    id : str
        ``dataset/name#task``, followed by the target, box or number of the question and by the perturbation. IDs are
        unique within a suite and the same on every machine.
    task : str
        One of `unibiomed.tasks.TASKS`.
    question : str
        Text of the question.
    answer : str
        Reference answer, with ``[SEG]`` and ``<p>`` where it refers to pixels.
    target : str
        Target of ``segment``, and the target in the box of ``outline``. Empty for other tasks.
    labels : tuple of str
        Reference labels: for ``recognize`` the findings or "No findings", for ``classify`` the class of the box.
    regions : tuple of int or None
        Index of the region of each ``[SEG]`` in the answer. None for an out-of-context target.
    box : tuple of int or None
        Box of the question in pixels: x0, y0, x1, y1, with x1 and y1 exclusive.
    modality : str or None
        Modality named in the question.
    kind : str
        ``open`` or ``closed`` for questions of experts, `IN_CONTEXT` or `OUT_OF_CONTEXT` for ``segment``,
        `BACKGROUND_BOX` for a ``classify`` box without a region, otherwise empty.
    volume : str or None
        Volume that the image is a slice of.
    paraphrase : int
        0 for the original question, otherwise the number of the paraphrase.
    """

    id: str
    task: str
    question: str
    answer: str
    target: str = ""
    labels: tuple[str, ...] = ()
    regions: tuple[int | None, ...] = ()
    box: Box | None = None
    modality: str | None = None
    kind: str = ""
    volume: str | None = None
    paraphrase: int = 0


@dataclass(frozen=True)
class Case:
    """One image, possibly perturbed, with all its samples.

    Parameters
    ----------
    record : Record
    samples : tuple of Sample
    perturbation : tuple of (str, int) or None
        Name and strength of the perturbation of the pixels.
    image_index : int
        Index of the image in its data set, sorted by key, from 0. The published protocol uses the first images only.
    """

    record: Record
    samples: tuple[Sample, ...]
    perturbation: tuple[str, int] | None = None
    image_index: int = 0

    @property
    def id_suffix(self) -> str:
        """End of sample IDs and file names that names the perturbation; empty for the original image."""
        return f"@{self.perturbation[0]}{self.perturbation[1]}" if self.perturbation else ""

    def pixels(self) -> np.ndarray:
        """Read the image as it is shown to a model: (height, width, 3) uint8."""
        pixels = self.record.load_image()
        if self.perturbation is None:
            return pixels
        # the noise depends on the image only, so that it is the same for every model
        return perturb_image(pixels, *self.perturbation, seed=random.Random(self.record.key).getrandbits(31))

    def masks(self, size: tuple[int, int]) -> dict[int, np.ndarray]:
        """Read the ground truth of each region with a known mask: region index to (height, width) bool."""
        masks = {j: region.load(size) for j, region in enumerate(self.record.regions) if region.box is None}
        if self.perturbation is None:
            return masks
        return {j: perturb_mask(mask, *self.perturbation) for j, mask in masks.items()}

    def truths(self, sample: Sample, masks: dict[int, np.ndarray], size: tuple[int, int]) -> list[np.ndarray]:
        """Return the ground truth of each ``[SEG]`` in the answer of a sample."""
        empty = np.zeros(size, dtype=bool)
        return [empty if j is None else masks[j] for j in sample.regions]


@dataclass(frozen=True)
class Partition:
    """Images that one of several processes evaluates: every `world_size`-th block of `block_size` images."""

    rank: int = 0
    world_size: int = 1
    block_size: int = 1

    def contains(self, index: int) -> bool:
        """Return whether the image with this index is in the partition."""
        return index // self.block_size % self.world_size == self.rank


def make_cases(
    suite: Suite,
    records: Sequence[Record],
    *,
    partition: Partition | None = None,
    unreadable: dict[str, str] | None = None,
) -> Iterator[Case]:
    """Make the cases of a suite. Masks are read one image at a time.

    Parameters
    ----------
    suite : Suite
    records : sequence of Record
        From `record_selection.suite_records`.
    partition : Partition, optional
        Restrict the cases to one process. No other image is opened.
    unreadable : dict of str to str, optional
        Receives the key of each image that cannot be read, or one of whose masks cannot be read, and the reason. Such
        an image still gets all its samples, as if every region with a mask were present, so that they count as
        failures.

    Yields
    ------
    Case
        Each original image, followed by its perturbed versions.

    Raises
    ------
    DataError
        An image or mask cannot be read and `unreadable` is None.
    """
    drawn = draw_records(records, suite.limit, suite.seed)
    perturbed = set()
    if suite.perturbations:
        perturbed = {r.key for r in draw_records(drawn, suite.perturbations.limit, suite.seed)}
    counts: dict[str, int] = defaultdict(int)
    for index, record in enumerate(drawn):
        image_index = counts[record.dataset]
        counts[record.dataset] += 1
        if partition is not None and not partition.contains(index):
            continue
        try:
            samples = tuple(_samples(suite, record))
        except DataError as error:
            if unreadable is None:
                raise
            unreadable[record.key] = str(error)
            samples = tuple(_samples(suite, record, readable=False))
        case = Case(record, samples, None, image_index)
        if not case.samples:
            continue
        yield case
        if record.key in perturbed and suite.perturbations:
            repeated = [s for s in case.samples if s.task in ("segment", "recognize") and not s.paraphrase]
            for name in suite.perturbations.names:
                for strength in STRENGTHS[: 1 if name == "flip" else None]:
                    samples = tuple(replace(s, id=f"{s.id}@{name}{strength}") for s in repeated)
                    yield Case(record, samples, (name, strength), case.image_index)


def _samples(suite: Suite, record: Record, *, readable: bool = True) -> Iterator[Sample]:
    needs_masks = set(suite.tasks) - TASKS_WITHOUT_MASKS
    masks: dict[int, np.ndarray] = {}
    if not readable:
        corner = np.zeros(PLACEHOLDER_SIZE, dtype=bool)
        corner[: PLACEHOLDER_SIZE[0] // 8, : PLACEHOLDER_SIZE[1] // 8] = True
        masks = {j: corner & (r.mask is not None) for j, r in enumerate(record.regions) if r.box is None}
    elif needs_masks and record.regions:
        size = record.load_image().shape[:2]
        masks = {j: r.load(size) for j, r in enumerate(record.regions) if r.box is None}
    # questions about placeholder masks must refer to the regions, so that scoring reads their masks and fails
    placeholder_regions = () if readable else tuple(j for j, mask in masks.items() if mask.any())
    scene = Scene(record, masks)
    # a random subset of the slices is not the volume
    volume = None if suite.limit else _volume_of(suite, record)
    common: dict[str, Any] = {"modality": scene.modality, "volume": volume}
    if "segment" in suite.tasks:
        yield from _segment(suite, record, common)
    if not needs_masks and "ask" not in suite.tasks:
        return
    if "outline" in suite.tasks:
        yield from _outline(scene, common)
    numbers: dict[str, int] = defaultdict(int)
    for turn in canonical_turns(record, masks):
        if turn.task == "segment" or turn.task not in suite.tasks:
            continue
        number = numbers[turn.task]
        numbers[turn.task] += 1
        kind = record.questions[number].kind if turn.task == "ask" else ""
        suffix = f"/{number}" if turn.task in ("classify", "describe", "ask") else ""
        if turn.box is not None and turn.box_region is None:
            kind, suffix = BACKGROUND_BOX, f"/{BACKGROUND_ID}"
        labels: tuple[str, ...] = ()
        if turn.task == "recognize":
            labels = tuple(p.strip(" .") for p in turn.answer.replace("It is", "").split(SEG) if p.strip(" ."))
        elif turn.task == "classify":
            labels = (turn.answer,)
        sample = Sample(
            f"{record.key}#{turn.task}{suffix}",
            turn.task,
            turn.question,
            turn.answer,
            labels=labels or ((NO_FINDINGS,) if turn.task == "recognize" else ()),
            regions=turn.masks or (() if turn.task in TASKS_WITHOUT_MASKS else placeholder_regions),
            box=turn.box,
            kind=kind,
            **common,
        )
        yield sample
        if kind != BACKGROUND_BOX:
            yield from _paraphrased(suite, sample, "")


def _volume_of(suite: Suite, record: Record) -> str | None:
    """Return the volume that an image is a slice of, from the suite or the file; None for a single image."""
    name = record.key.removeprefix(f"{record.dataset}/")
    if record.slice_index is None or record.dataset in suite.volumes:
        return suite.volume_of(record.dataset, name)
    return name.removesuffix(f"@{record.slice_index}")


def _segment(suite: Suite, record: Record, common: dict[str, Any]) -> Iterator[Sample]:
    targets: list[tuple[str, int | None]] = [(r.target, j) for j, r in enumerate(record.regions) if r.box is None]
    annotated = {region.target for region in record.regions}
    if suite.out_of_context and targets and (absent := absent_targets(record.modality, record.site, annotated)):
        targets.append((random.Random(f"{suite.seed}/{record.key}").choice(sorted(absent)), None))
    for target, region in targets:
        sample = Sample(
            f"{record.key}#segment/{target}",
            "segment",
            make_question("segment", target=target, modality=common["modality"]),
            f"It is {SEG}.",
            target=target,
            regions=(region,),
            kind=OUT_OF_CONTEXT if region is None else IN_CONTEXT,
            **common,
        )
        yield sample
        if region is not None:
            yield from _paraphrased(suite, sample, target)


def _outline(scene: Scene, common: dict[str, Any]) -> Iterator[Sample]:
    """Make a sample for each region from the tight box of its whole mask, as in the evaluation of MedSAM."""
    for j in scene.outlined:
        target = scene.record.regions[j].target
        yield Sample(
            f"{scene.record.key}#outline/{target}",
            "outline",
            make_question("outline"),
            SEG,
            target=target,
            regions=(j,),
            box=scene.box(j),
            kind=IN_CONTEXT,
            **common,
        )


def _paraphrased(suite: Suite, sample: Sample, target: str) -> Iterator[Sample]:
    for number, template in enumerate(suite.paraphrases.get(sample.task, []), 1):
        question = template.format(target=target, image=image_words(sample.modality))
        yield replace(sample, id=f"{sample.id}~{number}", question=question, paraphrase=number)
