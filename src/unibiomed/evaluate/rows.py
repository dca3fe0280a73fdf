"""What is known of one sample after its answer is scored, and the files that keep it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from unibiomed.data.index import replacing, writing
from unibiomed.errors import DataError

from .samples import Case, Sample

__all__ = ["Row", "RowWriter", "blank_row", "read_rows"]


@dataclass(slots=True)
class Row:
    """One sample with its score; what does not belong to its task is None.

    Parameters
    ----------
    id, task, dataset, modality, subject : str
        The sample, and the group (patient, case) that its image belongs to.
    number : int
        Place of the image in its data set.
    target, kind, volume, change, strength, paraphrase
        As in `Sample` and `Case`.
    failure : str or None
        Why there is no answer that could be scored; then every score is the worst.
    there : bool or None
        Whether the target (or any finding) is in the image.
    found : bool or None
        Whether the prediction has any pixel (or names any finding).
    false_parts : int or None
        Connected parts of the mask of ``segment`` that share no pixel with the truth.
    shared, predicted, true : int or None
        Pixels, from which Dice and IoU of images and volumes follow.
    surface_dice : float or None
        Normalised surface Dice in [0, 1].
    hd95 : float or None
        95 % Hausdorff distance, in mm where `measured`, else in pixels.
    measured : bool
        Whether the size of a pixel is known.
    objects : list or None
        For targets whose masks number their objects: AJI, and the counts of the panoptic quality.
    presence, mask_score : float or None
        The model's own scores.
    wanted, said : list of str or None
        Labels of ``recognize`` and ``classify``.
    exact, substring : bool or None
        Whether the answer is the reference, or (as published) holds it.
    answer, reference : str or None
        Words, without special tokens.
    boxed : bool
        Whether the predictor was given the box of the truth: it cannot be wrong on whether the target is there, and is
        not judged on it.
    agreement : float or None
        Of a question in other words with the question itself: Dice of both masks, or 1 where both name the same.
    """

    id: str
    task: str
    dataset: str
    modality: str
    subject: str
    number: int
    target: str = ""
    kind: str = ""
    volume: str | None = None
    change: str | None = None
    strength: int = 0
    paraphrase: int = 0
    failure: str | None = None
    there: bool | None = None
    found: bool | None = None
    shared: int | None = None
    predicted: int | None = None
    true: int | None = None
    surface_dice: float | None = None
    hd95: float | None = None
    measured: bool = False
    objects: list[float] | None = None
    presence: float | None = None
    mask_score: float | None = None
    wanted: list[str] | None = None
    said: list[str] | None = None
    exact: bool | None = None
    substring: bool | None = None
    answer: str | None = None
    reference: str | None = None
    agreement: float | None = None
    false_parts: int | None = None
    boxed: bool = False

    @property
    def detected(self) -> bool:
        """Whether prediction and truth share a pixel."""
        return self.failure is None and bool(self.shared)

    @property
    def sureness(self) -> float:
        """Of a mask, that the target is there and the mask fits; of none, that it is absent; a failure comes last."""
        if self.failure is not None:
            return -1.0
        presence = 1.0 if self.presence is None else self.presence
        if not self.found:
            return 1 - presence
        return presence * (1.0 if self.mask_score is None else self.mask_score)

    @property
    def dice(self) -> float:
        """Dice in [0, 1]; 1 where truth and prediction are empty, 0 for a failure."""
        if self.failure is not None or self.shared is None or self.predicted is None or self.true is None:
            return 0.0
        total = self.predicted + self.true
        return 2 * self.shared / total if total else 1.0

    @property
    def iou(self) -> float:
        """IoU in [0, 1]; 1 where truth and prediction are empty, 0 for a failure."""
        if self.failure is not None or self.shared is None or self.predicted is None or self.true is None:
            return 0.0
        union = self.predicted + self.true - self.shared
        return self.shared / union if union else 1.0


def blank_row(case: Case, sample: Sample) -> Row:
    """A row that says which question it is about, before it is scored."""
    record, (change, strength) = case.record, case.change or (None, 0)
    return Row(
        sample.id,
        sample.task,
        record.dataset,
        record.modality,
        f"{record.dataset}/{record.group}",
        case.number,
        sample.target,
        sample.kind,
        sample.volume,
        change,
        strength,
        sample.paraphrase,
    )


FEW_WORDS = ("task", "dataset", "modality", "subject", "target", "kind")
_ALWAYS = object()
_DEFAULTS = {f.name: f.default for f in fields(Row) if f.default is not MISSING}


class RowWriter(AbstractContextManager["RowWriter"]):
    """Writes rows as JSON lines; the file is there whole at the end, or not at all.

    Parameters
    ----------
    path : Path

    Raises
    ------
    OutputError
        It cannot be written.
    """

    def __init__(self, path: Path) -> None:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._stack = ExitStack()
        self._path = self._stack.enter_context(replacing(path))
        self._file = self._stack.enter_context(self._path.open("w", encoding="utf-8"))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool | None:
        return self._stack.__exit__(kind, error, trace)

    def add(self, row: Row) -> None:
        """Write one row; what has its default is left out."""
        plain = {k: v for k, v in asdict(row).items() if v != _DEFAULTS.get(k, _ALWAYS)}
        self._file.write(json.dumps(plain, allow_nan=False) + "\n")


def read_rows(path: Path) -> Iterator[Row]:
    """Read what `RowWriter` wrote.

    Raises
    ------
    DataError
        It is missing or broken.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                fields = json.loads(line)
                # rows are held by the hundred thousand, and these words are few
                yield Row(**fields | {name: sys.intern(fields[name]) for name in FEW_WORDS if name in fields})
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"scores '{path.name}' cannot be read: delete the file and score again") from error
