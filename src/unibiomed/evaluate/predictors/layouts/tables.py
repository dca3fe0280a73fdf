"""Tables of answers as JSON: texts, and the masks of their phrases as COCO run-length encodings."""

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
from .base import MaskSource, Reader, image_name, normalise_name, remove_extension

__all__ = ["MASK_TASKS", "AnswerRow", "AnswerTables"]

MAX_BYTES = 200_000_000
MAX_MASKS = 1000
IMAGE_KEYS = ("image", "image_id", "image_path", "image_name", "file_name")
TEXT_KEYS = ("text", "caption", "answer", "response")
LABEL_KEYS = ("labels", "phrases")
MASK_KEYS = ("masks", "pred_masks", "segmentation")
QUESTION_KEYS = ("question", "prompt")
MASK_TASKS = frozenset({"segment", "outline"})
"""Tasks that are answered with the mask of one target."""
DESCRIPTION_TASKS = ("recognize", "report")
"""Tasks that a grounded description without a question answers."""


@dataclass(frozen=True)
class AnswerRow:
    """One answer of a table.

    Parameters
    ----------
    source : str
        File and line for messages.
    values : mapping
        Content; unknown keys are ignored.
    dataset : str or None
        Data set whose folder contains the table.
    stem : str
        Name of the file, which is that of the image if the row does not name one.
    """

    source: str
    values: Mapping[str, Any]
    dataset: str | None = None
    stem: str = ""

    def _get(self, keys: Iterable[str]) -> Any:
        return next((self.values[key] for key in keys if self.values.get(key) is not None), None)

    @cached_property
    def image(self) -> tuple[str, ...]:
        """Normalised parts of the path of the image, without extension; empty if the row does not name one."""
        value = self._get(IMAGE_KEYS)
        if type(value) is int:
            value = str(value)
        if not isinstance(value, str):
            value = self.stem
        parts = [normalise_name(part) for part in remove_extension(value.replace("\\", "/")).split("/")]
        return tuple(part for part in parts if part)

    @cached_property
    def text(self) -> str:
        """Text of the answer, in which MedPLIB's ``<SEG>`` is replaced by ``[SEG]``."""
        value = self._get(TEXT_KEYS)
        if value is not None and not isinstance(value, str):
            raise DataError(f"{self.source}: the text is not a string")
        return (value or "").replace("<SEG>", "[SEG]")

    @property
    def empty(self) -> bool:
        """Whether the row has neither text nor labels nor masks."""
        return self._get((*TEXT_KEYS, *LABEL_KEYS, *MASK_KEYS)) is None

    @cached_property
    def labels(self) -> list[str]:
        """Labels in order, from the row or from the phrases of the text."""
        value = self._get(LABEL_KEYS)
        return [str(v) for v in value] if isinstance(value, list) else [p.label for p in read_phrases(self.text)]

    @cached_property
    def masks(self) -> list[Any]:
        """Run-length encodings, not validated."""
        value = self._get(MASK_KEYS)
        value = [value] if isinstance(value, dict) else value
        if value is not None and not (isinstance(value, list) and len(value) <= MAX_MASKS):
            raise DataError(f"{self.source}: masks are not a list of at most {MAX_MASKS} COCO run-length encodings")
        return value or []

    def scores(self, count: int) -> list[float | None]:
        """Return the presence score of each of `count` masks."""
        value = self.values.get("scores")
        if value is None:
            value = [self.values.get("score")] * count
        if not isinstance(value, list) or len(value) != count:
            raise DataError(f"{self.source}: 'scores' is not a list of {count} numbers")
        self.check_scores()
        return value

    def check_scores(self) -> None:
        """Raise a `DataError` if a score is not a probability, even if the task does not use it."""
        several = self.values.get("scores")
        for score in [self.values.get("score"), *(several if isinstance(several, list) else [])]:
            if score is not None and not (type(score) in (int, float) and 0 <= score <= 1):
                raise DataError(f"score {score!r} is not in [0, 1]")

    @property
    def names_mask_task(self) -> bool:
        """Whether the row says that it answers one of `MASK_TASKS`."""
        sample = self.values.get("sample")
        task_of_sample = sample.partition("#")[2].partition("/")[0] if isinstance(sample, str) else ""
        return any(task in (task_of_sample, self.values.get("task")) for task in MASK_TASKS)

    @property
    def denies_target(self) -> bool:
        """Whether the answer to ``segment`` is that there is no target: an empty list of masks, or a text without."""
        return not self.masks and (
            isinstance(self._get(MASK_KEYS), list) or ("[SEG]" not in self.text and bool(self.text))
        )

    def answers(self, sample: Sample) -> bool:
        """Return whether a row about the image of a sample answers it: everything it states must agree."""
        values = self.values
        task, target, question = values.get("task"), values.get("target"), self._get(QUESTION_KEYS)
        if sample.task in ("classify", "describe", "ask") and question is None:
            return False
        if task is not None and task != sample.task:
            return False
        # questions about two boxes of an image have the same text
        if sample.box is not None and values.get("box") != list(sample.box):
            return False
        if question is not None:
            text = re.sub(r"<[^<>]*>", " ", str(question))
            if normalise_name(text) != normalise_name(sample.question):
                return False
        elif sample.paraphrase:
            return False
        if sample.task in MASK_TASKS:
            names = [target] if target is not None else self.labels
            return question is not None or any(
                normalise_name(str(name)) == normalise_name(sample.target) for name in names
            )
        description = sample.task in DESCRIPTION_TASKS and bool(self.masks or task)
        return target is None and (description or question is not None)

    def target_mask(self, sample: Sample) -> MaskSource | None:
        """Return the mask of the target of a sample: of all phrases that name it, or of the whole row."""
        if not self.masks:
            return None
        self._check_counts()
        target = normalise_name(sample.target)
        chosen = [m for label, m in zip(self.labels, self.masks, strict=False) if normalise_name(label) == target]
        return MaskSource(self.source, partial(self._union, chosen or self.masks))

    def label_mask(self, number: int) -> MaskSource | None:
        """Return the mask of the label with an index."""
        self._check_counts()
        return MaskSource(self.source, partial(self._union, [self.masks[number]])) if self.masks else None

    def _check_counts(self) -> None:
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


def _decode(rle: Any, size: tuple[int, int]) -> np.ndarray:
    given = rle.get("size") if isinstance(rle, dict) else None
    if not isinstance(given, list) or len(given) != 2 or any(type(n) is not int for n in given):
        raise InputError(
            "a mask is not a COCO run-length encoding with 'size' and 'counts' (polygons are not supported)"
        )
    if tuple(given) != size:
        raise InputError(f"mask is {given[1]} x {given[0]} pixels, its image {size[1]} x {size[0]}")
    counts = rle.get("counts")
    if isinstance(counts, list):
        area = size[0] * size[1]
        valid = len(counts) <= area + 1 and all(type(n) is int and 0 <= n <= area for n in counts)
        if not valid or sum(counts) != area:
            raise InputError("the run lengths of a mask do not add up to its size")
        inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(size, order="F")
        rle = rle_encode(inside)
    return rle_decode(rle)


class AnswerTables(Reader):
    """JSON and JSON-lines files with answers, in the folder of a model or in those of its data sets."""

    extensions = (".json", ".jsonl")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.rows: list[AnswerRow] = []
        self.broken: dict[str, str] = {}
        """Files and lines that cannot be read, and the reason."""
        self._broken_images: dict[tuple[str | None, str], str] = {}
        self._by_sample: dict[str, list[AnswerRow]] = defaultdict(list)
        self._by_image: dict[str, list[AnswerRow]] = defaultdict(list)

    def _add(self, path: Path, dataset: str | None, name: str) -> None:
        for source, values in self._read(path, (dataset, normalise_name(name))):
            identified = isinstance(values, dict) and any(key in values for key in (*IMAGE_KEYS, "sample", *MASK_KEYS))
            if not identified or not any(key in values for key in (*TEXT_KEYS, *MASK_KEYS, *LABEL_KEYS)):
                self.broken[source] = "not an answer with an image and a text or masks"
                continue
            row = AnswerRow(source, values, dataset, name)
            self.rows.append(row)
            if isinstance(values.get("sample"), str):
                self._by_sample[values["sample"]].append(row)
            elif row.image:
                self._by_image[row.image[-1]].append(row)

    def _read(self, path: Path, image: tuple[str | None, str]) -> Iterator[tuple[str, Any]]:
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

    def find(self, case: Case, sample: Sample) -> list[AnswerRow]:
        """Return the answers to a sample; there should be at most one.

        Raises
        ------
        DataError
            The file of its image is broken.
        """
        rows = list(self._by_sample.get(sample.id, []))
        rows += [row for row in self._rows_of_image(case) if row.answers(sample)]
        reason = self._broken_images.get((case.record.dataset, normalise_name(image_name(case))))
        if reason and not rows:
            raise DataError(reason)
        return rows

    def _rows_of_image(self, case: Case) -> Iterator[AnswerRow]:
        record = case.record
        dataset = normalise_name(record.dataset)
        name = tuple(normalise_name(part) for part in (record.dataset, *image_name(case).split("/")))
        path: tuple[str, ...] = ()
        if isinstance(record.image, Path) and case.perturbation is None:
            parts = remove_extension(record.image.as_posix()).split("/")
            path = _from_dataset(tuple(normalise_name(part) for part in parts if part), dataset)
        for key in {name[-1], *path[-1:]}:
            for row in self._by_image.get(key, []):
                stated = _from_dataset(row.image, dataset)
                if row.dataset is not None and row.dataset != record.dataset:
                    continue
                if row.dataset is None and stated[0] != dataset:
                    # two data sets may have images of the same name
                    continue
                # the file name alone is ambiguous if two folders have images of the same name
                unique = len(stated) >= len(name) - 1 and path[-len(stated) :] == stated
                if stated in (name, name[1:]) or (unique and row.values.get("slice") == record.slice_index):
                    yield row


def _from_dataset(parts: tuple[str, ...], dataset: str) -> tuple[str, ...]:
    """Return the parts of a path from the folder of the data set on, or all parts if it is not among them."""
    places = [i for i, part in enumerate(parts[:-1]) if part == dataset]
    return parts[places[-1] :] if places else parts
