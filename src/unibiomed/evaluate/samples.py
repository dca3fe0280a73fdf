"""What is asked of a model: one sample is one question about one image, with everything that is known of the answer."""

from __future__ import annotations

import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from unibiomed.data import load_records
from unibiomed.data.catalog import load_catalog
from unibiomed.data.conversation import canonical_turns
from unibiomed.data.index import replacing, writing
from unibiomed.data.published import load_published
from unibiomed.data.records import NO_FINDINGS, Record
from unibiomed.data.scene import Scene
from unibiomed.errors import DataError
from unibiomed.tasks import SEG, image_words, make_question
from unibiomed.terminology import absent_targets

from .changes import STRENGTHS, change_image, change_mask
from .suite import EVERY_SPLIT, Suite

__all__ = [
    "ELSEWHERE",
    "Case",
    "Sample",
    "Share",
    "draw",
    "make_cases",
    "missing_datasets",
    "suite_records",
    "write_samples",
]

Box = tuple[int, int, int, int]
LONGEST_NAME = 180
NOT_HERE = "not there"
ELSEWHERE = "elsewhere"
"""Kind of a ``classify`` sample whose box is around no region: the right answer is "something else"."""
UNSEEN = {"segment", "ask"}
"""Tasks whose questions are known without a look at the image or its masks."""
STAND_IN = (64, 64)
"""Size in pixels of the masks that are made up for an image that cannot be read: a corner of it, one eighth wide."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One question about one image.

    Parameters
    ----------
    id : str
        ``dataset/name#task``, with the target, box or number of the question and the change of the image after it;
        unique in a suite and the same on every machine.
    task : str
        One of `unibiomed.tasks.TASKS`.
    question : str
        The words the model is asked.
    answer : str
        The reference answer, with ``[SEG]`` and ``<p>`` where it points at pixels.
    target : str
        What ``segment`` asks for, and what is in the box of ``outline``; empty for other tasks.
    labels : tuple of str
        What is there, in the words of the answer: for ``recognize`` the findings or "No findings", for ``classify``
        what is in the box.
    regions : tuple of int or None
        The region behind each ``[SEG]`` of the answer; None for a target of another body part, which is not there.
    box : tuple of int or None
        The box that is asked about, in pixels.
    modality : str or None
        The modality that the question names.
    kind : str
        ``open`` or ``closed`` for the experts' questions; ``own`` or ``foreign`` for ``segment``; `ELSEWHERE` for a
        ``classify`` box that is around no region; else empty.
    volume : str or None
        The volume that the image is a slice of.
    paraphrase : int
        0 for the question's own words, else which other words they are.
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
    """One image, changed or not, with all its samples: what a predictor sees at once.

    Parameters
    ----------
    record : Record
    samples : tuple of Sample
    change : tuple of (str, int) or None
        What was done to the pixels, and how strongly.
    number : int
        Place of the image among those of its data set, from 0, in the order of their names: the published protocol
        stops after some.
    """

    record: Record
    samples: tuple[Sample, ...]
    change: tuple[str, int] | None = None
    number: int = 0

    def pixels(self) -> np.ndarray:
        """The image as a model sees it: (height, width, 3) uint8."""
        pixels = self.record.load_image()
        if self.change is None:
            return pixels
        # noise of its own for each image, the same for every model
        return change_image(pixels, *self.change, seed=random.Random(self.record.key).getrandbits(31))

    def masks(self, size: tuple[int, int]) -> dict[int, np.ndarray]:
        """Truth of each region that has an outline or is known to be absent: number to (height, width) bool."""
        masks = {j: region.load(size) for j, region in enumerate(self.record.regions) if region.box is None}
        return masks if self.change is None else {j: change_mask(mask, *self.change) for j, mask in masks.items()}

    def truths(self, sample: Sample, masks: dict[int, np.ndarray], size: tuple[int, int]) -> list[np.ndarray]:
        """Truth behind each ``[SEG]`` of a sample's answer."""
        empty = np.zeros(size, dtype=bool)
        return [empty if j is None else masks[j] for j in sample.regions]


def write_samples(cases: Iterable[Case], root: Path, path: Path, *, unreadable: dict[str, str] | None = None) -> int:
    """Write every sample as a line of JSON, for programs that answer on their own; gives their number.

    An image that is no file, or that is changed, is written as PNG into ``samples/`` beside `path`, as a model sees it.

    Parameters
    ----------
    cases : iterable of Case
    root : Path
        Folder of the data sets; images below it are named from there, all others by their whole path.
    path : Path
    unreadable : dict of str to str, optional
        Gets the key of each image that cannot be read and the reason; its lines name no image.

    Raises
    ------
    DataError
        An image cannot be read, and `unreadable` was not given.
    OutputError
        It cannot be written.
    """
    count = 0
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as fresh, fresh.open("w", encoding="utf-8") as file:
        for case in cases:
            record, made = case.record, case.change is not None or not isinstance(case.record.image, Path)
            image: Path | None
            if made:
                try:
                    image = _write_image(case, path.resolve().parent / "samples")
                except DataError as error:
                    if unreadable is None:
                        raise
                    unreadable[record.key], image = str(error), None
            else:
                image = Path(str(record.image))
                if image.is_relative_to(root):
                    image = image.relative_to(root)
            for sample in case.samples:
                line = {
                    "sample": sample.id,
                    "image": None if image is None else str(image),
                    "slice": None if made else record.slice_index,
                    "channel": None if made else record.channel,
                    "change": case.change,
                    "task": sample.task,
                    "question": sample.question,
                    "target": sample.target or None,
                    "box": sample.box,
                }
                file.write(json.dumps({k: v for k, v in line.items() if v is not None}) + "\n")
                count += 1
    return count


def suite_records(suite: Suite, root: str | Path, split: str | None = None) -> list[Record]:
    """The records of a suite, all of them, or those of another split (for floors that learn from the training split).

    Raises
    ------
    DataError
        A data set that the suite names is not there or has no image in the split, or none has.
    """
    names = suite.datasets or None
    if suite.optional or suite.catalogue:
        names = _names_here(suite, root)[0] or None
        if names is None and (suite.datasets or suite.catalogue):
            raise DataError(f"suite '{suite.name}': none of its data sets is under '{root}'; see 'unibiomed data list'")
    wanted = split or suite.split
    records = [r for r in load_records(root, names) if wanted in (r.split, EVERY_SPLIT) and r.image is not None]
    if not records:
        raise DataError(f"suite '{suite.name}': no image in {_split_words(wanted)} under '{root}'")
    found = {record.dataset for record in records}
    lost = [name for name in suite.datasets if name not in found]
    if lost and not (suite.optional or suite.catalogue or split):
        raise DataError(f"suite '{suite.name}': no image in {_split_words(suite.split)} of {', '.join(lost)}")
    return records


def missing_datasets(suite: Suite, root: str | Path, records: Iterable[Record]) -> list[tuple[str, str]]:
    """Data sets that a suite asks for and that are not evaluated, each with the reason.

    Parameters
    ----------
    suite : Suite
    root : path
    records : iterable of Record
        From `suite_records`.
    """
    if not (suite.optional or suite.catalogue):
        return []
    here, missing = _names_here(suite, root)
    found = {record.dataset for record in records}
    return sorted(missing + [(n, f"no image in {_split_words(suite.split)}") for n in here if n not in found])


def _split_words(split: str) -> str:
    return "any split" if split == EVERY_SPLIT else f"the {split} split"


def _names_here(suite: Suite, root: str | Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Of a suite's data sets the names of those that are there, and the others with the reason."""
    here = {entry.name for entry in load_catalog(root)}
    if not suite.catalogue:
        return [n for n in suite.datasets if n in here], [(n, NOT_HERE) for n in suite.datasets if n not in here]
    # a data set, or the part of it that is shipped under a name of its own
    known = {item.name: [n for n in (item.name, item.shipped) if n] for item in load_published().datasets}
    every = list(dict.fromkeys(name for names in known.values() for name in names))
    if suite.datasets:
        names = [name for name in every if name in suite.datasets]
        missing = [
            (n, NOT_HERE if n in every else "not of the paper") for n in suite.datasets if n not in here & set(every)
        ]
        return [name for name in names if name in here], missing
    collections = {item.name for item in load_published().datasets if item.collection}
    lost = [name for name, names in known.items() if name not in collections and not here & set(names)]
    return [name for name in every if name in here], [(name, NOT_HERE) for name in lost]


def draw(records: Sequence[Record], limit: int, seed: int) -> list[Record]:
    """At most `limit` records of each data set (0: all), by name and seed alone, in the order of their names."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda r: r.key):
        groups[record.dataset].append(record)
    chosen: list[Record] = []
    for name, group in sorted(groups.items()):
        if limit and len(group) > limit:
            group = sorted(random.Random(f"{seed}/{name}").sample(group, limit), key=lambda r: r.key)
        chosen += group
    return chosen


def _write_image(case: Case, folder: Path) -> Path:
    """Write an image as a model sees it; gives the file."""
    dataset, name = case.record.dataset, case.record.key.removeprefix(f"{case.record.dataset}/")
    end = f"@{case.change[0]}{case.change[1]}" if case.change else ""
    # no two names may become one file
    path = folder / quote(dataset, safe="") / f"{quote(name, safe=' ()+,=~')}{end}.png"
    if len(path.name) > LONGEST_NAME:
        path = path.with_name(f"{hashlib.sha256(case.record.key.encode()).hexdigest()}{end}.png")
    pixels = case.pixels()
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as fresh:
        Image.fromarray(pixels).save(fresh, format="PNG")
    return path


@dataclass(frozen=True)
class Share:
    """Which part of the images a process takes: every `world`-th block of so many from `rank` on."""

    rank: int = 0
    world: int = 1
    block: int = 1

    def has(self, place: int) -> bool:
        """Whether the image at this place is in it."""
        return place // self.block % self.world == self.rank


def make_cases(
    suite: Suite,
    records: Sequence[Record],
    *,
    share: Share | None = None,
    unreadable: dict[str, str] | None = None,
) -> Iterator[Case]:
    """All images of a suite with their questions; masks are read, one image at a time.

    Parameters
    ----------
    suite : Suite
    records : sequence of Record
        From `suite_records`.
    share : Share, optional
        For several processes; no other image is opened.
    unreadable : dict of str to str, optional
        Gets the key of each image that cannot be read, or one of its masks, and the reason. Such an image comes with
        all its questions, as if each region with a mask were there: its samples are failures, none is left out.

    Yields
    ------
    Case
        Each image once as it is, then its changed forms.

    Raises
    ------
    DataError
        An image or mask cannot be read, and `unreadable` was not given.
    """
    drawn = draw(records, suite.limit, suite.seed)
    changed = set()
    if suite.changes:
        changed = {r.key for r in draw(drawn, suite.changes.limit, suite.seed)}
    places: dict[str, int] = defaultdict(int)
    for place, record in enumerate(drawn):
        number = places[record.dataset]
        places[record.dataset] += 1
        if share is not None and not share.has(place):
            continue
        try:
            samples = tuple(_samples(suite, record))
        except DataError as error:
            if unreadable is None:
                raise
            unreadable[record.key] = str(error)
            samples = tuple(_samples(suite, record, seen=False))
        case = Case(record, samples, None, number)
        if not case.samples:
            continue
        yield case
        if record.key in changed and suite.changes:
            asked = [s for s in case.samples if s.task in ("segment", "recognize") and not s.paraphrase]
            for name in suite.changes.names:
                for strength in STRENGTHS[: 1 if name == "flip" else None]:
                    samples = tuple(replace(s, id=f"{s.id}@{name}{strength}") for s in asked)
                    yield Case(record, samples, (name, strength), case.number)


def _samples(suite: Suite, record: Record, *, seen: bool = True) -> Iterator[Sample]:
    needs_masks = set(suite.tasks) - UNSEEN
    masks: dict[int, np.ndarray] = {}
    if not seen:
        corner = np.zeros(STAND_IN, dtype=bool)
        corner[: STAND_IN[0] // 8, : STAND_IN[1] // 8] = True
        masks = {j: corner & (r.mask is not None) for j, r in enumerate(record.regions) if r.box is None}
    elif needs_masks and record.regions:
        size = record.load_image().shape[:2]
        masks = {j: r.load(size) for j, r in enumerate(record.regions) if r.box is None}
    # what is asked of a box that is made up has to fail with the masks that it should have been made of
    behind = () if seen else tuple(j for j, mask in masks.items() if mask.any())
    scene = Scene(record, masks)
    # a few slices drawn from a volume are not the volume
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
        mark = f"/{number}" if turn.task in ("classify", "describe", "ask") else ""
        if turn.box is not None and turn.box_region is None:
            kind, mark = ELSEWHERE, f"/{ELSEWHERE}"
        labels: tuple[str, ...] = ()
        if turn.task == "recognize":
            labels = tuple(p.strip(" .") for p in turn.answer.replace("It is", "").split(SEG) if p.strip(" ."))
        elif turn.task == "classify":
            labels = (turn.answer,)
        sample = Sample(
            f"{record.key}#{turn.task}{mark}",
            turn.task,
            turn.question,
            turn.answer,
            labels=labels or ((NO_FINDINGS,) if turn.task == "recognize" else ()),
            regions=turn.masks or (() if turn.task in UNSEEN else behind),
            box=turn.box,
            kind=kind,
            **common,
        )
        yield sample
        if kind != ELSEWHERE:
            yield from _paraphrased(suite, sample, "")


def _volume_of(suite: Suite, record: Record) -> str | None:
    """The volume that an image is a slice of, as the suite tells it, or as the files do; None where it stands alone."""
    name = record.key.removeprefix(f"{record.dataset}/")
    if record.slice_index is None or record.dataset in suite.volumes:
        return suite.volume_of(record.dataset, name)
    return name.removesuffix(f"@{record.slice_index}")


def _segment(suite: Suite, record: Record, common: dict[str, Any]) -> Iterator[Sample]:
    asked: list[tuple[str, int | None]] = [(r.target, j) for j, r in enumerate(record.regions) if r.box is None]
    own = {region.target for region in record.regions}
    if suite.foreign and asked and (strangers := absent_targets(record.modality, record.site, own)):
        asked.append((random.Random(f"{suite.seed}/{record.key}").choice(sorted(strangers)), None))
    for target, region in asked:
        sample = Sample(
            f"{record.key}#segment/{target}",
            "segment",
            make_question("segment", target=target, modality=common["modality"]),
            f"It is {SEG}.",
            target=target,
            regions=(region,),
            kind="foreign" if region is None else "own",
            **common,
        )
        yield sample
        if region is not None:
            yield from _paraphrased(suite, sample, target)


def _outline(scene: Scene, common: dict[str, Any]) -> Iterator[Sample]:
    """Each region that is there, asked for with the tight box of its whole mask, as MedSAM is evaluated."""
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
            kind="own",
            **common,
        )


def _paraphrased(suite: Suite, sample: Sample, target: str) -> Iterator[Sample]:
    for number, words in enumerate(suite.paraphrases.get(sample.task, []), 1):
        question = words.format(target=target, image=image_words(sample.modality))
        yield replace(sample, id=f"{sample.id}~{number}", question=question, paraphrase=number)
