r"""Predictor that reads the masks and answers of other programs from a folder.

Files are assigned to an image and a target by their names. Case and the characters ``+``, ``_``, ``-`` and ``/``
between words are ignored. ``NAME`` is the name of the image in its data set, ``SAMPLE`` the ID of a sample without its
data set. ``FOLDER/DATASET/`` may contain

- mask images of the size of the image, with non-zero pixels inside (JPEG: above half of the maximum)::

    NAME/TARGET.png     NAME__TARGET.png     NAME_TARGET.png     NAME_MODALITY_SITE_TARGET.png   (BiomedParse)
    SAMPLE_mask_N.png   TARGET/NAME_mask_0.jpg   NAME_mask_N.jpg                                 (LISA)

  where N is the index of the ``[SEG]`` in the answer, from 0. The last form is used if only one answer of the image can
  have masks.

- volumes (``.nii.gz``, ``.nii``, ``.npz``) with the voxels of the volume that the image is a slice of::

    VOLUME/TARGET.nii.gz     VOLUME_TARGET.npz     TARGET/VOLUME.nii.gz     seg_VOLUME/TARGET.nii.gz   (SAT)
    VOLUME.nii.gz     seg_VOLUME.nii.gz     label maps, with the names of their values in labels.json: {"1": "liver"}

  The file of a target has precedence over a label map. An identity affine, as SAT writes it, means that the position is
  unknown.

- tables of answers (``.json``, ``.jsonl``, also beside the folders of the data sets): one object per image or question
  with its image (``image``, ``image_id``, ``file_name``), text (``text``, ``caption``, ``answer``), ``labels`` or
  ``phrases``, and COCO run-length encodings (``masks``, ``pred_masks``, ``segmentation``) as GLaMM writes them.
  ``sample``, or ``task``, ``target``, ``question``, ``box`` and ``slice``, state which question it answers. Without
  them it is a grounded description, which answers ``recognize``, ``report``, and ``segment`` for the targets that its
  phrases name.

``FOLDER/answers.jsonl`` has answers by sample ID, one JSON object per line: ``{"sample": ID, "text": "..."}``, with
``labels`` if the text does not name the findings as ``[SEG]. Label`` or ``<p> words </p> [SEG]``, ``masks`` as above,
and the presence ``score`` in [0, 1] if there is one. For ``segment``, ``masks: []`` or a text without ``[SEG]`` means
that the target is absent. The mask of a target answers ``segment`` and ``outline``. An invalid line is a failure of its
sample if it names one. Boxes in a text (``<box>``, MedRegA) are not converted to masks.
``unibiomed evaluate SUITE --samples-only`` writes every sample with its ID, image, question and box to
``samples.jsonl``.

Folders that ``unibiomed evaluate`` wrote (``predictions/MODEL``) are supported as well.
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

from ..predictions import MODEL_FILE, Prediction, PredictionStore
from ..samples import Case, Sample
from .base import samples_for
from .layouts.base import MaskSource
from .layouts.images import MaskImages, image_source
from .layouts.tables import MASK_TASKS, AnswerRow, AnswerTables
from .layouts.volumes import LABELS_FILE, VolumeMasks

__all__ = ["FilesPredictor", "MatchedFiles"]

ANSWERS_FILE = "answers.jsonl"
SAMPLES_FILE = "samples.jsonl"
MAX_LINE_LENGTH = 1_000_000
STORED_NAME = re.compile(r"%23|-[0-9a-f]{16}\.json$")
"""Part of the names of files of a `PredictionStore`: an escaped ``#``, or the digest of a long ID."""
SAMPLE_KEY = re.compile(rb'"sample"\s*:\s*("(?:[^"\\]|\\.)*")')
"""Sample ID in a line that is not valid JSON."""
PERTURBATION_SUFFIX = re.compile(r"@[a-z]+\d+$")
"""Perturbation at the end of a sample ID."""


@dataclass
class MatchedFiles:
    """Files and answers that belong to samples."""

    files: set[Path] = field(default_factory=set)
    answers: set[str] = field(default_factory=set)

    def add(self, other: MatchedFiles) -> None:
        """Add the files and answers of other samples."""
        self.files |= other.files
        self.answers |= other.answers


class FilesPredictor:
    """Predictor that reads the predictions of another program.

    Parameters
    ----------
    folder : Path
        See the module docstring.

    Raises
    ------
    InputError
        It is not a folder, or contains no predictions.
    DataError
        No line of ``answers.jsonl`` is valid.

    Attributes
    ----------
    matched : MatchedFiles
        Files of the cases that were passed to `match`.
    """

    tasks = frozenset(TASKS)
    paraphrase_tasks = tasks

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InputError(f"'{folder}' is not a folder: give the folder of the predictions")
        self.folder = folder
        self.name = folder.resolve().name
        self.note = "read from files"
        self._images, self._volumes, self._tables = MaskImages(folder), VolumeMasks(folder), AnswerTables(folder)
        self._stored: set[Path] = set()
        self._unknown: set[Path] = set()
        for path in sorted(folder.rglob("*")):
            parts = path.relative_to(folder).parts
            ignored = parts in ((ANSWERS_FILE,), (SAMPLES_FILE,), (MODEL_FILE,)) or path.name == LABELS_FILE
            if path.name.startswith(".") or ignored:
                continue
            if len(parts) == 2 and path.suffix == ".json" and STORED_NAME.search(path.name):
                self._stored.add(path)
            elif not path.is_dir() and not self._add(path):
                self._unknown.add(path)
        self._store = PredictionStore(folder) if self._stored else None
        self._broken: dict[str, str] = {}
        """Errors in ``answers.jsonl`` by sample ID, or by line if the line names none."""
        self._answers = self._read_answers()
        self._by_image: dict[str, list[str]] = defaultdict(list)
        for sample in self._answers:
            self._by_image[sample.partition("#")[0]].append(sample)
        self._set_tasks()
        self.matched = MatchedFiles()

    def _add(self, path: Path) -> bool:
        inside = path.parent != self.folder
        return self._tables.add(path) or (inside and (self._images.add(path) or self._volumes.add(path)))

    def _set_tasks(self) -> None:
        rows = [*self._tables.rows, *(row for rows in self._answers.values() for row in rows)]
        masks = bool(len(self._images) or len(self._volumes) or any(map(_has_masks, rows)))
        if not (masks or self._store or rows):
            raise InputError(f"'{self.folder}' contains no predictions: add masks, tables of answers or {ANSWERS_FILE}")
        if not self._store and not rows:
            self.tasks = MASK_TASKS
        elif not self._store and not masks and not any(row.names_mask_task for row in rows):
            self.tasks = frozenset(TASKS) - MASK_TASKS
        if not self._store:
            # masks are named after their target, whatever the question was
            self.paraphrase_tasks = self.tasks - MASK_TASKS

    def _read_answers(self) -> dict[str, list[AnswerRow]]:
        path = self.folder / ANSWERS_FILE
        answers: dict[str, list[AnswerRow]] = defaultdict(list)
        if not path.exists():
            return answers
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if not line.strip():
                        continue
                    source = f"{path.name}, line {number}"
                    try:
                        values = json.loads(line) if len(line) <= MAX_LINE_LENGTH else None
                    except (ValueError, RecursionError):
                        values = None
                    if isinstance(values, dict) and isinstance(values.get("sample"), str):
                        answers[values["sample"]].append(AnswerRow(source, values))
                    else:
                        self._broken[_sample_of(line) or source] = f"{source}: not a JSON object with 'sample'"
        except OSError as error:
            raise InputError(f"'{path}' cannot be read ({error.strerror}): check or remove the file") from error
        if self._broken and not answers:
            raise DataError(next(iter(self._broken.values())))
        return answers

    def predict(self, case: Case, pixels: np.ndarray) -> list[Prediction]:
        """Return the predictions from the files; a sample without one is a failure."""
        size = (pixels.shape[0], pixels.shape[1])
        predictions = []
        for sample in case.samples:
            try:
                predictions.append(self._predict(case, sample, size))
            except DataError as error:
                predictions.append(Prediction.failed(sample.id, str(error)))
        return predictions

    def _predict(self, case: Case, sample: Sample, size: tuple[int, int]) -> Prediction:
        if sample.id in self._broken:
            raise DataError(self._broken[sample.id])
        rows = [*self._answers.get(sample.id, []), *self._tables.find(case, sample)]
        sources = [row.source.split(",")[0] for row in rows]
        if self._store is not None and (stored := self._store.path(sample.id)).exists():
            sources += [path.name for path in self._images.find(case, sample, sample.target, 0) if sample.target]
            if sources:
                raise DataError(f"{1 + len(sources)} answers in {' and '.join(sorted({stored.name, *sources}))}")
            return self._store.read(sample.id)
        if len(rows) > 1:
            raise DataError(f"{len(rows)} answers in {' and '.join(sorted(set(sources)))}")
        row = rows[0] if rows else AnswerRow("", {})
        row.check_scores()
        if sample.task in MASK_TASKS:
            mask = self._mask(case, sample, row, sample.target, 0, size)
            if mask is None and row.denies_target:
                mask = np.zeros(size, dtype=bool)
            if mask is None:
                raise DataError("no prediction")
            score = row.scores(1) if "scores" not in row.values or len(row.masks) == 1 else [None]
            return Prediction.from_masks(sample.id, row.text, [sample.target], [mask], score)
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
        scores = row.scores(len(masks))
        if all(mask is None for mask in masks) and not row.masks:
            # the answer is text only
            return Prediction(sample.id, row.text, tuple(row.labels), scores=tuple(scores))
        filled = [empty if mask is None else mask for mask in masks]
        return Prediction.from_masks(sample.id, row.text, row.labels, filled, scores)

    def _mask(
        self, case: Case, sample: Sample, row: AnswerRow, label: str, number: int, size: tuple[int, int]
    ) -> np.ndarray | None:
        sources = self._sources(case, sample, row, label, number)
        if not sources and (paths := self._images.numbered(case, number)):
            if self._owner_of_numbered_masks(case) != sample.id:
                raise DataError(f"{paths[0].name} could belong to several questions: rename it to SAMPLE_mask_{number}")
            sources = [image_source(path) for path in paths]
        if len(sources) > 1:
            raise DataError(f"two masks for one target: {sources[0].name} and {sources[1].name}")
        return sources[0].load(size) if sources else None

    def _sources(self, case: Case, sample: Sample, row: AnswerRow, label: str, number: int) -> list[MaskSource]:
        in_row = row.target_mask(sample) if sample.task in MASK_TASKS else row.label_mask(number)
        images = [image_source(path) for path in self._images.find(case, sample, label, number)]
        return [*images, *self._volumes.find(case, label), *([in_row] if in_row else [])]

    def _owner_of_numbered_masks(self, case: Case) -> str | None:
        """Return the sample that ``NAME_mask_N`` of an image belongs to, or None if it is ambiguous.

        It is the only textual answer with labels, or else the only target without another mask.
        """
        with_labels = [
            name
            for name in self._by_image.get(case.record.key, [])
            if "".join(PERTURBATION_SUFFIX.findall(name)) == case.id_suffix and any(map(_labels, self._answers[name]))
        ]
        if with_labels:
            return with_labels[0] if len(with_labels) == 1 else None
        without_mask = [
            s.id for s in samples_for(self, case.samples) if s.task in MASK_TASKS and not self._has_mask(case, s)
        ]
        return without_mask[0] if len(without_mask) == 1 else None

    def _has_mask(self, case: Case, sample: Sample) -> bool:
        if self._store is not None and self._store.path(sample.id).exists():
            return True
        try:
            rows = [*self._answers.get(sample.id, []), *self._tables.find(case, sample)]
            return any(self._sources(case, sample, row, sample.target, 0) for row in rows or [AnswerRow("", {})])
        except DataError:
            return True

    def match(self, case: Case) -> None:
        """Record which files and answers belong to a case; `unmatched` returns the others."""
        owner = self._owner_of_numbered_masks(case)
        for sample in case.samples:
            if self._store is not None:
                self.matched.files.add(self._store.path(sample.id))
            answers = self._answers.get(sample.id, [])
            if answers or sample.id in self._broken:
                self.matched.answers.add(sample.id)
            try:
                rows = self._tables.find(case, sample)
            except DataError:
                rows = []
            self.matched.answers.update(row.source for row in rows)
            labels = [(sample.target, 0)] if sample.target else []
            for row in (*answers, *rows):
                labels += [] if sample.target else [(label, n) for n, label in enumerate(_labels(row))]
            for label, number in labels:
                self.matched.files.update(self._images.find(case, sample, label, number))
                for paths in self._volumes.files(case, label):
                    self.matched.files.update(paths)
                if sample.id == owner:
                    self.matched.files.update(self._images.numbered(case, number))

    def unmatched(self) -> list[str]:
        """Return the files and answers that belong to no case passed to `match`, and files that cannot be read."""
        files = self._images.paths() | self._volumes.paths() | self._stored | self._unknown
        names = [str(path.relative_to(self.folder)) for path in sorted(files - self.matched.files)]
        names += [row.source for row in self._tables.rows if row.source not in self.matched.answers]
        names += [f"{source}: {reason}" for source, reason in self._tables.broken.items()]
        names += [self._broken[name] for name in sorted(self._broken.keys() - self.matched.answers)]
        return names + [f"{ANSWERS_FILE}: {sample}" for sample in sorted(self._answers.keys() - self.matched.answers)]


def _sample_of(line: bytes) -> str | None:
    """Return the sample ID that an invalid line names, if any."""
    match = SAMPLE_KEY.search(line[:MAX_LINE_LENGTH])
    try:
        return str(json.loads(match[1])) if match else None
    except ValueError:
        return None


def _has_masks(row: AnswerRow) -> bool:
    try:
        return bool(row.masks)
    except DataError:
        return False


def _labels(row: AnswerRow) -> list[str]:
    try:
        return row.labels
    except DataError:
        return []
