r"""Predictions of models that cannot be run here: folders of masks and a table of answers.

``FOLDER/DATASET/`` holds masks as one-channel images of the image's own size, any non-zero pixel inside. What a mask
belongs to is told by its name, in whatever way models of the field write it; letter case, ``+``, ``_``, ``-`` and
folders between the parts do not matter::

    NAME/TARGET.png     NAME__TARGET.png     NAME_TARGET.png     NAME_MODALITY_SITE_TARGET.png   (BiomedParse)

``FOLDER/answers.jsonl`` holds texts, one JSON object a line: ``{"sample": ID, "text": "..."}``, with ``"labels"`` (a
list) where the text does not name the findings as ``[SEG]. Label`` or ``<p> words </p> [SEG]``, and ``"score"`` in
[0, 1] where the model gives one for the presence of its target. ``unibiomed evaluate SUITE --samples-only`` writes
every sample with its ID, image and question to ``samples.jsonl``.

A folder that ``unibiomed evaluate`` wrote (``predictions/MODEL``) is read as well.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from unibiomed.data.pixels import load_mask
from unibiomed.errors import DataError, InputError
from unibiomed.tasks import NO_FINDINGS, TASKS, is_no_findings, read_class, read_phrases

from ..predictions import Prediction, PredictionStore
from ..samples import Case, Sample

__all__ = ["FilesPredictor"]

MASK_ENDINGS = {".png", ".bmp", ".tif", ".tiff"}
ANSWERS = "answers.jsonl"
MAX_LINE = 1_000_000


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
        ``answers.jsonl`` is broken.
    """

    tasks = frozenset(TASKS)
    worded = tasks

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InputError(f"'{folder}' is not a folder of predictions")
        self.folder = folder
        self.name = folder.resolve().name
        self.note = "read from files"
        self._masks: dict[tuple[str, str], list[Path]] = defaultdict(list)
        kept = False
        for path in sorted(folder.rglob("*")):
            parts = path.relative_to(folder).parts
            if len(parts) < 2 or path.name.startswith("."):
                continue
            if path.suffix.lower() in MASK_ENDINGS:
                name = "/".join([*parts[1:-1], path.stem])
                self._masks[parts[0], _plain(name)].append(path)
            kept |= path.suffix == ".json" and len(parts) == 2
        self._store = PredictionStore(folder) if kept else None
        self._answers = self._read_answers()
        if not (self._masks or self._store or self._answers):
            raise InputError(f"'{folder}' holds no masks, no {ANSWERS} and no predictions of this package")
        if not self._store and not self._answers:
            self.tasks = frozenset({"segment"})
        elif not self._store and not self._masks:
            self.tasks = frozenset(TASKS) - {"segment"}
        if not self._store:
            # masks are named by their target, however it was asked for
            self.worded = self.tasks - {"segment"}
        self._used: set[Path] = set()
        self._heard: set[str] = set()

    def _read_answers(self) -> dict[str, list[dict[str, Any]]]:
        path = self.folder / ANSWERS
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        if not path.exists():
            return found
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line) if len(line) <= MAX_LINE else None
                except (ValueError, RecursionError):
                    row = None
                good = isinstance(row, dict) and isinstance(row.get("sample"), str)
                if not (good and isinstance(row, dict) and isinstance(row.get("text", ""), str)):
                    raise DataError(f"{path.name}, line {number}: not a JSON object with 'sample' and 'text'")
                found[row["sample"]].append(row)
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
        if self._store is not None and self._store.path(sample.id).exists():
            return self._store.read(sample.id)
        rows = self._answers.get(sample.id, [])
        if len(rows) > 1:
            raise DataError(f"{len(rows)} answers in {ANSWERS}")
        row: dict[str, Any] = rows[0] if rows else {}
        text = row.get("text", "")
        score = row.get("score")
        if score is not None and not (type(score) in (int, float) and 0 <= score <= 1):
            raise DataError(f"score {score!r} is not in [0, 1]")
        if sample.task == "segment":
            mask = self._mask(case, sample.target, size)
            if mask is None:
                raise DataError("no prediction")
            return Prediction.of_masks(sample.id, text, [sample.target], [mask], [score])
        if not rows:
            raise DataError("no prediction")
        if sample.task == "classify":
            return Prediction(sample.id, text, (read_class(text),))
        if sample.task in ("ask", "describe"):
            return Prediction(sample.id, text)
        labels = _labels(row)
        if is_no_findings(text) or labels == [NO_FINDINGS]:
            return Prediction(sample.id, text, (NO_FINDINGS,))
        empty = np.zeros(size, dtype=bool)
        masks = [self._mask(case, label, size) for label in labels]
        known = [empty if mask is None else mask for mask in masks]
        return Prediction.of_masks(sample.id, text, labels, known, [score] * len(known))

    def _mask(self, case: Case, target: str, size: tuple[int, int]) -> np.ndarray | None:
        paths = self._paths(case, target)
        if len(paths) > 1:
            raise DataError(f"two masks of one target: {paths[0].name} and {paths[1].name}")
        return load_mask(paths[0], size, None, None) if paths else None

    def _paths(self, case: Case, target: str) -> list[Path]:
        record = case.record
        name = record.key.removeprefix(f"{record.dataset}/")
        if case.change is not None:
            name = f"{name}@{case.change[0]}{case.change[1]}"
        keys = {_plain(f"{name} {target}"), _plain(f"{name} {record.modality} {record.site} {target}")}
        return [path for key in sorted(keys) for path in self._masks.get((record.dataset, key), [])]

    def claim(self, case: Case) -> None:
        """Remember which files and answers belong to a case; what no case claims is `unused`."""
        for sample in case.samples:
            labels = [sample.target] if sample.target else []
            for row in self._answers.get(sample.id, []):
                self._heard.add(sample.id)
                labels += _labels(row)
            for label in labels:
                self._used.update(self._paths(case, label))
            if self._store is not None:
                self._used.add(self._store.path(sample.id))

    def unused(self) -> list[str]:
        """Files and answers that belong to no case that was claimed."""
        files = {path for paths in self._masks.values() for path in paths}
        if self._store is not None:
            files |= set(self._store.paths())
        left = [str(path.relative_to(self.folder)) for path in sorted(files - self._used)]
        return left + [f"{ANSWERS}: {sample}" for sample in sorted(self._answers.keys() - self._heard)]


def _labels(row: dict[str, Any]) -> list[str]:
    given = row.get("labels")
    return [str(v) for v in given] if isinstance(given, list) else [p.label for p in read_phrases(row.get("text", ""))]


def _plain(name: str) -> str:
    return " ".join(re.split(r"[\W_]+", name.lower())).strip()
