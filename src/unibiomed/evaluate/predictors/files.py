r"""Predictions of models that cannot be run here: folders of masks and tables of answers.

A file belongs to an image and a target by its name; letter case, ``+``, ``_``, ``-`` and folders between the parts do
not matter. ``NAME`` is the image's name in its data set, ``SAMPLE`` is a sample's ID without its data set. Under
``FOLDER/DATASET/`` there may be

- mask images of the image's own size, any non-zero pixel inside (JPEG: half as bright as the brightest pixel)::

    NAME/TARGET.png     NAME__TARGET.png     NAME_TARGET.png     NAME_MODALITY_SITE_TARGET.png   (BiomedParse)
    SAMPLE_mask_N.png   TARGET/NAME_mask_0.jpg   NAME_mask_N.jpg                                 (LISA)

  where N counts the ``[SEG]`` of the answer from 0. The last form does for an image with one answer that has masks.

- volumes (``.nii.gz``, ``.nii``, ``.npz``) on the voxels of the volume that the image is a slice of::

    VOLUME/TARGET.nii.gz     VOLUME_TARGET.npz     TARGET/VOLUME.nii.gz     seg_VOLUME/TARGET.nii.gz   (SAT)
    VOLUME.nii.gz     seg_VOLUME.nii.gz     with the meaning of their numbers in labels.json: {"1": "liver"}

  A file for a target goes before one with numbers. An identity affine, as SAT writes it, is taken as no position.

- tables of answers (``.json``, ``.jsonl``, also beside the data sets): an object for each image or question with its
  image (``image``, ``image_id``, ``file_name``), words (``text``, ``caption``, ``answer``), ``labels`` or ``phrases``,
  and COCO run lengths (``masks``, ``pred_masks``, ``segmentation``) as GLaMM writes them. ``sample``, or ``task``,
  ``target``, ``question``, ``box`` and ``slice``, tell what it answers; without them it is a grounded description: it
  answers ``recognize``, ``report`` and ``segment`` for the targets that its phrases name.

``FOLDER/answers.jsonl`` holds answers by ID, one JSON object a line: ``{"sample": ID, "text": "..."}``, with ``labels``
where the text does not name the findings as ``[SEG]. Label`` or ``<p> words </p> [SEG]``, ``masks`` as above, and
``score`` in [0, 1] where the model gives one for the presence of its target. Asked for a target, ``masks: []`` or a
text without ``[SEG]`` says that there is none: an empty mask. The mask of a target answers ``segment`` and, in suites
that ask it, ``outline``. A line that is broken is a failure of its sample, as far as it still names one. Boxes in a
text (``<box>``, MedRegA) stay text and make no mask. ``unibiomed evaluate SUITE --samples-only`` writes every sample
with its ID, image, question and box to ``samples.jsonl``.

A folder that ``unibiomed evaluate`` wrote (``predictions/MODEL``) is read as well.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from unibiomed.errors import DataError, InputError
from unibiomed.tasks import NO_FINDINGS, TASKS, is_no_findings, read_class

from ..predictions import MODEL, Prediction, PredictionStore
from ..samples import Case, Sample
from .base import samples_for
from .layouts.images import MaskImages, image_source
from .layouts.names import MaskSource
from .layouts.tables import MASK_TASKS, Row, Tables
from .layouts.volumes import LABELS, VolumeMasks

__all__ = ["Claims", "FilesPredictor"]

ANSWERS = "answers.jsonl"
SAMPLES = "samples.jsonl"
MAX_LINE = 1_000_000
STORED = re.compile(r"%23|-[0-9a-f]{16}\.json$")
"""In the names of files that this package wrote: the ID of a sample, or what is left of a long one."""
NAMED = re.compile(rb'"sample"\s*:\s*("(?:[^"\\]|\\.)*")')
"""The ID in a line that is cut off or otherwise no JSON."""
CHANGED = re.compile(r"@[a-z]+\d+$")
"""At the end of the ID of a sample: what was done to the pixels."""


@dataclass
class Claims:
    """The files and answers that belong to some cases."""

    files: set[Path] = field(default_factory=set)
    answers: set[str] = field(default_factory=set)

    def add(self, other: Claims) -> None:
        """Add those of other cases."""
        self.files |= other.files
        self.answers |= other.answers


class FilesPredictor:
    """Reads what another program predicted.

    Parameters
    ----------
    folder : Path
        See the top of this module.

    Raises
    ------
    InputError
        It is not a folder, or holds no prediction.
    DataError
        No line of ``answers.jsonl`` can be read.

    Attributes
    ----------
    claims : Claims
        Of the cases that were claimed.
    """

    tasks = frozenset(TASKS)
    worded = tasks

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InputError(f"'{folder}' is not a folder of predictions")
        self.folder = folder
        self.name = folder.resolve().name
        self.note = "read from files"
        self._images, self._volumes, self._tables = MaskImages(folder), VolumeMasks(folder), Tables(folder)
        self._kept: set[Path] = set()
        self._strangers: set[Path] = set()
        for path in sorted(folder.rglob("*")):
            parts = path.relative_to(folder).parts
            if path.name.startswith(".") or parts in ((ANSWERS,), (SAMPLES,), (MODEL,)) or path.name == LABELS:
                continue
            if len(parts) == 2 and path.suffix == ".json" and STORED.search(path.name):
                self._kept.add(path)
            elif not path.is_dir() and not self._taken(path):
                self._strangers.add(path)
        self._store = PredictionStore(folder) if self._kept else None
        self._broken: dict[str, str] = {}
        """What is wrong with lines of answers, by their sample, or by the line where none is named."""
        self._answers = self._read_answers()
        self._by_image: dict[str, list[str]] = defaultdict(list)
        for sample in self._answers:
            self._by_image[sample.partition("#")[0]].append(sample)
        self._set_tasks()
        self.claims = Claims()

    def _taken(self, path: Path) -> bool:
        inside = path.parent != self.folder
        return self._tables.add(path) or (inside and (self._images.add(path) or self._volumes.add(path)))

    def _set_tasks(self) -> None:
        rows = [*self._tables.rows, *(row for rows in self._answers.values() for row in rows)]
        masks = bool(len(self._images) or len(self._volumes) or any(map(_has_masks, rows)))
        if not (masks or self._store or rows):
            raise InputError(f"'{self.folder}' holds no masks, no {ANSWERS} and no predictions of this package")
        if not self._store and not rows:
            self.tasks = MASK_TASKS
        elif not self._store and not masks and not any(row.segments for row in rows):
            self.tasks = frozenset(TASKS) - MASK_TASKS
        if not self._store:
            # masks are named by their target, however it was asked for
            self.worded = self.tasks - MASK_TASKS

    def _read_answers(self) -> dict[str, list[Row]]:
        path = self.folder / ANSWERS
        found: dict[str, list[Row]] = defaultdict(list)
        if not path.exists():
            return found
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if not line.strip():
                        continue
                    source = f"{path.name}, line {number}"
                    try:
                        row = json.loads(line) if len(line) <= MAX_LINE else None
                    except (ValueError, RecursionError):
                        row = None
                    if isinstance(row, dict) and isinstance(row.get("sample"), str):
                        found[row["sample"]].append(Row(source, row))
                    else:
                        self._broken[_sample_of(line) or source] = f"{source}: not a JSON object with 'sample'"
        except OSError as error:
            raise InputError(f"'{path}' cannot be read ({error.strerror}); mend or remove it") from error
        if self._broken and not found:
            raise DataError(next(iter(self._broken.values())))
        return found

    def predict(self, case: Case, pixels: np.ndarray) -> list[Prediction]:
        """What the files say; a sample without any is a failure."""
        size = (pixels.shape[0], pixels.shape[1])
        out = []
        for sample in case.samples:
            try:
                out.append(self._one(case, sample, size))
            except DataError as error:
                out.append(Prediction.failed(sample.id, str(error)))
        return out

    def _one(self, case: Case, sample: Sample, size: tuple[int, int]) -> Prediction:
        if sample.id in self._broken:
            raise DataError(self._broken[sample.id])
        rows = [*self._answers.get(sample.id, []), *self._tables.find(case, sample)]
        where = [row.source.split(",")[0] for row in rows]
        if self._store is not None and (kept := self._store.path(sample.id)).exists():
            where += [path.name for path in self._images.find(case, sample, sample.target, 0) if sample.target]
            if where:
                raise DataError(f"{1 + len(where)} answers in {' and '.join(sorted({kept.name, *where}))}")
            return self._store.read(sample.id)
        if len(rows) > 1:
            raise DataError(f"{len(rows)} answers in {' and '.join(sorted(set(where)))}")
        row = rows[0] if rows else Row("", {})
        row.check_scores()
        if sample.task in MASK_TASKS:
            mask = self._mask(case, sample, row, sample.target, 0, size)
            if mask is None and row.refuses:
                mask = np.zeros(size, dtype=bool)
            if mask is None:
                raise DataError("no prediction")
            score = row.scores(1) if "scores" not in row.values or len(row.masks) == 1 else [None]
            return Prediction.of_masks(sample.id, row.text, [sample.target], [mask], score)
        if not rows:
            raise DataError("no prediction")
        if row.empty:
            raise DataError(f"{row.source}: neither 'text' nor 'labels' nor 'masks'")
        if sample.task == "classify":
            return Prediction(sample.id, row.text, (read_class(row.text),))
        if sample.task in ("ask", "describe"):
            return Prediction(sample.id, row.text)
        if (is_no_findings(row.text) and not row.masks) or row.labels == [NO_FINDINGS]:
            return Prediction(sample.id, row.text, (NO_FINDINGS,))
        if len(row.masks) > len(row.labels):
            raise DataError(f"{row.source}: {len(row.labels)} phrases, but {len(row.masks)} masks")
        empty = np.zeros(size, dtype=bool)
        masks = [self._mask(case, sample, row, label, number, size) for number, label in enumerate(row.labels)]
        known = [empty if mask is None else mask for mask in masks]
        scores = row.scores(len(known))
        if all(mask is None for mask in masks) and not row.masks:
            # a model that draws nothing is believed its words
            return Prediction(sample.id, row.text, tuple(row.labels), scores=tuple(scores))
        return Prediction.of_masks(sample.id, row.text, row.labels, known, scores)

    def _mask(
        self, case: Case, sample: Sample, row: Row, label: str, number: int, size: tuple[int, int]
    ) -> np.ndarray | None:
        found = self._sources(case, sample, row, label, number)
        if not found and (paths := self._images.numbered(case, number)):
            if self._owner(case) != sample.id:
                raise DataError(f"{paths[0].name} may answer several questions: name it SAMPLE_mask_{number}")
            found = [image_source(path) for path in paths]
        if len(found) > 1:
            raise DataError(f"two masks of one target: {found[0].name} and {found[1].name}")
        return found[0].load(size) if found else None

    def _sources(self, case: Case, sample: Sample, row: Row, label: str, number: int) -> list[MaskSource]:
        own = row.target_mask(sample) if sample.task in MASK_TASKS else row.label_mask(number)
        found = [image_source(path) for path in self._images.find(case, sample, label, number)]
        return [*found, *self._volumes.find(case, label), *([own] if own else [])]

    def _owner(self, case: Case) -> str | None:
        """The one question of an image that its ``NAME_mask_N`` can belong to, if it is one.

        That is the one answer in words with masks; else the one target without a mask of its own.
        """
        change = "" if case.change is None else f"@{case.change[0]}{case.change[1]}"
        heard = [
            name
            for name in self._by_image.get(case.record.key, [])
            if "".join(CHANGED.findall(name)) == change and any(map(_labels, self._answers[name]))
        ]
        if heard:
            return heard[0] if len(heard) == 1 else None
        left = [s.id for s in samples_for(self, case.samples) if s.task in MASK_TASKS and not self._has_mask(case, s)]
        return left[0] if len(left) == 1 else None

    def _has_mask(self, case: Case, sample: Sample) -> bool:
        if self._store is not None and self._store.path(sample.id).exists():
            return True
        try:
            rows = [*self._answers.get(sample.id, []), *self._tables.find(case, sample)]
            return any(self._sources(case, sample, row, sample.target, 0) for row in rows or [Row("", {})])
        except DataError:
            return True

    def claim(self, case: Case) -> None:
        """Remember which files and answers belong to a case; what no case claims is `unused`."""
        owner = self._owner(case)
        for sample in case.samples:
            if self._store is not None:
                self.claims.files.add(self._store.path(sample.id))
            rows = self._answers.get(sample.id, [])
            if rows or sample.id in self._broken:
                self.claims.answers.add(sample.id)
            try:
                found = self._tables.find(case, sample)
            except DataError:
                found = []
            self.claims.answers.update(row.source for row in found)
            labels = [(sample.target, 0)] if sample.target else []
            for row in (*rows, *found):
                labels += [] if sample.target else [(label, n) for n, label in enumerate(_labels(row))]
            for label, number in labels:
                self.claims.files.update(self._images.find(case, sample, label, number))
                for paths in self._volumes.files(case, label):
                    self.claims.files.update(paths)
                if sample.id == owner:
                    self.claims.files.update(self._images.numbered(case, number))

    def unused(self) -> list[str]:
        """Files and answers that belong to no case that was claimed, and files that cannot be read."""
        files = self._images.paths() | self._volumes.paths() | self._kept | self._strangers
        left = [str(path.relative_to(self.folder)) for path in sorted(files - self.claims.files)]
        left += [row.source for row in self._tables.rows if row.source not in self.claims.answers]
        left += [f"{source}: {reason}" for source, reason in self._tables.broken.items()]
        left += [self._broken[name] for name in sorted(self._broken.keys() - self.claims.answers)]
        return left + [f"{ANSWERS}: {sample}" for sample in sorted(self._answers.keys() - self.claims.answers)]


def _sample_of(line: bytes) -> str | None:
    """The ID that a broken line names, if it does."""
    named = NAMED.search(line[:MAX_LINE])
    try:
        return str(json.loads(named[1])) if named else None
    except ValueError:
        return None


def _has_masks(row: Row) -> bool:
    try:
        return bool(row.masks)
    except DataError:
        return False


def _labels(row: Row) -> list[str]:
    try:
        return row.labels
    except DataError:
        return []
