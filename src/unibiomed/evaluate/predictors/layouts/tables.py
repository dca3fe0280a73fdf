"""Answers as JSON: texts, with the masks of their phrases as COCO run lengths where there are any."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from unibiomed.errors import DataError, InputError
from unibiomed.findings import rle_decode, rle_encode
from unibiomed.tasks import read_phrases

from ...samples import Case, Sample
from .base import Reader
from .names import MaskSource, image_name, plain, without_ending

__all__ = ["Row", "Tables", "text_of"]

MAX_BYTES = 200_000_000
MAX_MASKS = 1000
IMAGES = ("image", "image_id", "image_path", "image_name", "file_name")
TEXTS = ("text", "caption", "answer", "response")
LABELS = ("labels", "phrases")
MASKS = ("masks", "pred_masks", "segmentation")
QUESTIONS = ("question", "prompt")
MASK_TASKS = frozenset({"segment", "outline"})
"""Tasks that are answered with the mask of one target."""
WHOLE = ("recognize", "report")
"""Tasks that a grounded description answers, if it does not say what it was asked."""


@dataclass(frozen=True)
class Row:
    """One answer of a table.

    Parameters
    ----------
    source : str
        Where it is written, for messages.
    values : mapping
        As read; unknown keys do not matter.
    dataset : str or None
        The folder of a data set that the table is in.
    stem : str
        The image's name where the row has none: that of its file.
    """

    source: str
    values: Mapping[str, Any]
    dataset: str | None = None
    stem: str = ""

    def _get(self, keys: Iterable[str]) -> Any:
        return next((self.values[key] for key in keys if self.values.get(key) is not None), None)

    @cached_property
    def image(self) -> tuple[str, ...]:
        """The words of the parts of the image's path, from its data set on; empty where it names none."""
        given = self._get(IMAGES)
        if type(given) is int:
            given = str(given)
        if not isinstance(given, str):
            given = self.stem
        parts = [plain(part) for part in without_ending(given.replace("\\", "/")).split("/")]
        return tuple(part for part in parts if part)

    @cached_property
    def text(self) -> str:
        """The words of the answer."""
        given = self._get(TEXTS)
        if given is not None and not isinstance(given, str):
            raise DataError(f"{self.source}: its text is no text")
        return text_of(given or "")

    @property
    def empty(self) -> bool:
        """Whether it says nothing at all."""
        return self._get((*TEXTS, *LABELS, *MASKS)) is None

    @cached_property
    def labels(self) -> list[str]:
        """What is found, in order."""
        given = self._get(LABELS)
        return [str(v) for v in given] if isinstance(given, list) else [p.label for p in read_phrases(self.text)]

    @cached_property
    def masks(self) -> list[Any]:
        """The run lengths, not looked into."""
        given = self._get(MASKS)
        given = [given] if isinstance(given, dict) else given
        if given is not None and not (isinstance(given, list) and len(given) <= MAX_MASKS):
            raise DataError(f"{self.source}: its masks are no list of at most {MAX_MASKS} COCO run lengths")
        return given or []

    def scores(self, count: int) -> list[float | None]:
        """A probability of each of some masks, or None."""
        given = self.values.get("scores")
        if given is None:
            given = [self.values.get("score")] * count
        if not isinstance(given, list) or len(given) != count:
            raise DataError(f"{self.source}: 'scores' is not a list of {count} numbers")
        self.check_scores()
        return given

    def check_scores(self) -> None:
        """Refuse scores that are no probabilities, also where the task has no use for them."""
        several = self.values.get("scores")
        for score in [self.values.get("score"), *(several if isinstance(several, list) else [])]:
            if score is not None and not (type(score) in (int, float) and 0 <= score <= 1):
                raise DataError(f"score {score!r} is not in [0, 1]")

    @property
    def segments(self) -> bool:
        """Whether it says that it answers one of `MASK_TASKS`."""
        sample = self.values.get("sample")
        asked = sample.partition("#")[2].partition("/")[0] if isinstance(sample, str) else ""
        return any(task in (asked, self.values.get("task")) for task in MASK_TASKS)

    @property
    def refuses(self) -> bool:
        """Whether, asked for a target, it answers that there is none: with no mask, or words that point at none."""
        return not self.masks and (isinstance(self._get(MASKS), list) or ("[SEG]" not in self.text and bool(self.text)))

    def fits(self, sample: Sample) -> bool:
        """Whether a row about the sample's image answers it: all that it says of the question has to agree."""
        values = self.values
        task, target, question = values.get("task"), values.get("target"), self._get(QUESTIONS)
        if sample.task in ("classify", "describe", "ask") and question is None:
            return False
        if task is not None and task != sample.task:
            return False
        # two boxes of an image are asked about in the same words
        if sample.box is not None and values.get("box") != list(sample.box):
            return False
        if question is not None and plain(re.sub(r"<[^<>]*>", " ", str(question))) != plain(sample.question):
            return False
        if question is None and sample.paraphrase:
            return False
        if sample.task in MASK_TASKS:
            named = [target] if target is not None else self.labels
            return question is not None or any(plain(str(name)) == plain(sample.target) for name in named)
        return target is None and ((sample.task in WHOLE and bool(self.masks or task)) or question is not None)

    def target_mask(self, sample: Sample) -> MaskSource | None:
        """The mask of a target that was asked for: of all phrases that name it, else of the whole row."""
        if not self.masks:
            return None
        self._same_count()
        chosen = [m for label, m in zip(self.labels, self.masks, strict=False) if plain(label) == plain(sample.target)]
        return MaskSource(self.source, partial(self._union, chosen or self.masks))

    def label_mask(self, number: int) -> MaskSource | None:
        """The mask of one of the labels."""
        self._same_count()
        return MaskSource(self.source, partial(self._union, [self.masks[number]])) if self.masks else None

    def _same_count(self) -> None:
        if self.masks and self.labels and len(self.masks) != len(self.labels):
            raise DataError(f"{self.source}: {len(self.labels)} phrases, but {len(self.masks)} masks")

    def _union(self, masks: list[Any], size: tuple[int, int]) -> np.ndarray:
        union = np.zeros(size, dtype=bool)
        for mask in masks:
            try:
                union |= _decode(mask, size)
            except InputError as error:
                raise DataError(f"{self.source}: {error}") from error
        return union


def text_of(raw: str) -> str:
    """A text with this package's mark of a mask where MedPLIB writes its own."""
    return raw.replace("<SEG>", "[SEG]")


def _decode(rle: Any, size: tuple[int, int]) -> np.ndarray:
    given = rle.get("size") if isinstance(rle, dict) else None
    if not isinstance(given, list) or len(given) != 2 or any(type(n) is not int for n in given):
        raise InputError("a mask is not COCO run lengths with 'size' and 'counts' (polygons are not read)")
    if tuple(given) != size:
        raise InputError(f"mask is {given[1]} x {given[0]} pixels, its image {size[1]} x {size[0]}")
    counts = rle.get("counts")
    if isinstance(counts, list):
        area = size[0] * size[1]
        fine = len(counts) <= area + 1 and all(type(n) is int and 0 <= n <= area for n in counts)
        if not fine or sum(counts) != area:
            raise InputError("a mask's run lengths do not fill its size")
        inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(size, order="F")
        rle = rle_encode(inside)
    return rle_decode(rle)


class Tables(Reader):
    """JSON and JSON-lines files with answers, in the folder of a model or in those of the data sets."""

    endings = (".json", ".jsonl")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.rows: list[Row] = []
        self.broken: dict[str, str] = {}
        """Files and lines that could not be read, and why."""
        self._broken_images: dict[tuple[str | None, str], str] = {}
        self._by_sample: dict[str, list[Row]] = defaultdict(list)
        self._by_image: dict[str, list[Row]] = defaultdict(list)

    def _take(self, path: Path, dataset: str | None, name: str) -> None:
        for source, values in self._objects(path, (dataset, plain(name))):
            known = isinstance(values, dict) and any(key in values for key in (*IMAGES, "sample", *MASKS))
            if not known or not any(key in values for key in (*TEXTS, *MASKS, *LABELS)):
                self.broken[source] = "no answer with an image and a text or masks"
                continue
            row = Row(source, values, dataset, name)
            self.rows.append(row)
            if isinstance(values.get("sample"), str):
                self._by_sample[values["sample"]].append(row)
            elif row.image:
                self._by_image[row.image[-1]].append(row)

    def _objects(self, path: Path, image: tuple[str | None, str]) -> Iterator[tuple[str, Any]]:
        name = path.relative_to(self.folder).as_posix()
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ValueError
            text = path.read_text(encoding="utf-8-sig")
            if path.suffix.lower() == ".json":
                values = json.loads(text)
                if isinstance(values, list):
                    yield from ((f"{name}, entry {number}", value) for number, value in enumerate(values, 1))
                else:
                    yield name, values
                return
        except (OSError, ValueError, RecursionError):
            self.broken[name] = f"not JSON in UTF-8 of at most {MAX_BYTES // 1_000_000} MB"
            self._broken_images[image] = f"{name}: {self.broken[name]}"
            return
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                try:
                    yield f"{name}, line {number}", json.loads(line)
                except (ValueError, RecursionError):
                    self.broken[f"{name}, line {number}"] = "not JSON"

    def find(self, case: Case, sample: Sample) -> list[Row]:
        """The answers to a sample; there should be one at most.

        Raises
        ------
        DataError
            The file of its image is broken.
        """
        rows = list(self._by_sample.get(sample.id, []))
        rows += [row for row in self._of_image(case) if row.fits(sample)]
        record = case.record
        reason = self._broken_images.get((record.dataset, plain(image_name(case))))
        if reason and not rows:
            raise DataError(reason)
        return rows

    def _of_image(self, case: Case) -> Iterator[Row]:
        record = case.record
        dataset = plain(record.dataset)
        name = tuple(plain(part) for part in (record.dataset, *image_name(case).split("/")))
        path: tuple[str, ...] = ()
        if isinstance(record.image, Path) and case.change is None:
            path = tuple(plain(part) for part in without_ending(record.image.as_posix()).split("/") if part)
            path = _from_dataset(path, dataset)
        for key in {name[-1], *path[-1:]}:
            for row in self._by_image.get(key, []):
                asked = _from_dataset(row.image, dataset)
                if row.dataset is not None and row.dataset != record.dataset:
                    continue
                if row.dataset is None and asked[0] != dataset:
                    # the same name may be in two data sets
                    continue
                # a bare name does not tell apart images of the same name in two folders
                told = len(asked) >= len(name) - 1 and path[-len(asked) :] == asked
                if asked in (name, name[1:]) or (told and row.values.get("slice") == record.slice_index):
                    yield row


def _from_dataset(parts: tuple[str, ...], dataset: str) -> tuple[str, ...]:
    """The parts of a path from the folder of its data set on, all where that is not in it."""
    places = [i for i, part in enumerate(parts[:-1]) if part == dataset]
    return parts[places[-1] :] if places else parts
