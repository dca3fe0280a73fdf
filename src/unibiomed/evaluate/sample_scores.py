"""Scores of single samples and the JSON-lines files that store them."""

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

from .deprecated import SAMPLE_KINDS, SAMPLE_SCORE_KEYS, rename_keys, warn_deprecated
from .samples import OUT_OF_CONTEXT, Case, Sample

__all__ = ["SampleScore", "SampleScoreWriter", "read_sample_scores", "unscored_sample"]


@dataclass(slots=True)
class SampleScore:
    """One sample and its scores. Fields that do not apply to the task are None.

    Parameters
    ----------
    id, task, dataset, modality, subject : str
        The sample, and the group (patient, case) that its image belongs to.
    image_index : int
        Index of the image in its data set.
    target, kind, volume, perturbation, strength, paraphrase
        As in `Sample` and `Case`.
    failure : str or None
        Reason why the answer could not be scored. The scores of a failure are the worst possible.
    target_present : bool or None
        Whether the target (or any finding) is in the image.
    predicted_present : bool or None
        Whether the prediction has any pixel (or names any finding).
    false_components : int or None
        Connected components of a ``segment`` mask that do not intersect the ground truth.
    intersection, predicted_area, true_area : int or None
        Areas in pixels, from which Dice and IoU of images and volumes are computed.
    surface_dice : float or None
        Normalised surface Dice in [0, 1].
    hd95 : float or None
        95 % Hausdorff distance in mm if `spacing_known`, else in pixels.
    spacing_known : bool
        Whether the pixel spacing is known.
    object_counts : list or None
        For targets with instance labels: AJI and the four counts of the panoptic quality.
    presence, mask_score : float or None
        Presence score and predicted IoU reported by the model.
    true_labels, predicted_labels : list of str or None
        Labels of ``recognize`` and ``classify``.
    exact_match, substring_match : bool or None
        Whether the answer equals the reference, or (published protocol) contains it.
    answer, reference : str or None
        Text without special tokens.
    true_box : bool
        Whether the predictor was given the ground-truth box. Presence is not evaluated for such a predictor, because
        the box reveals it.
    agreement : float or None
        Agreement of the answer to a paraphrase with the answer to the original question: Dice of the masks, or 1 if
        both answers are the same.
    """

    id: str
    task: str
    dataset: str
    modality: str
    subject: str
    image_index: int
    target: str = ""
    kind: str = ""
    volume: str | None = None
    perturbation: str | None = None
    strength: int = 0
    paraphrase: int = 0
    failure: str | None = None
    target_present: bool | None = None
    predicted_present: bool | None = None
    intersection: int | None = None
    predicted_area: int | None = None
    true_area: int | None = None
    surface_dice: float | None = None
    hd95: float | None = None
    spacing_known: bool = False
    object_counts: list[float] | None = None
    presence: float | None = None
    mask_score: float | None = None
    true_labels: list[str] | None = None
    predicted_labels: list[str] | None = None
    exact_match: bool | None = None
    substring_match: bool | None = None
    answer: str | None = None
    reference: str | None = None
    agreement: float | None = None
    false_components: int | None = None
    true_box: bool = False

    @property
    def original(self) -> bool:
        """Whether the image is unperturbed and the question is not a paraphrase."""
        return self.perturbation is None and not self.paraphrase

    @property
    def out_of_context(self) -> bool:
        """Whether the target cannot occur in an image of this kind."""
        return self.kind == OUT_OF_CONTEXT

    @property
    def detected(self) -> bool:
        """Whether prediction and ground truth intersect."""
        return self.failure is None and bool(self.intersection)

    @property
    def confidence(self) -> float:
        """Confidence in [0, 1] that a mask is right: presence × predicted IoU, or 1 − presence for an empty mask.

        It is -1 for a failure.
        """
        if self.failure is not None:
            return -1.0
        presence = 1.0 if self.presence is None else self.presence
        if not self.predicted_present:
            return 1 - presence
        return presence * (1.0 if self.mask_score is None else self.mask_score)

    @property
    def dice(self) -> float:
        """Dice in [0, 1]; 1 if ground truth and prediction are empty, 0 for a failure."""
        if (areas := self._areas()) is None:
            return 0.0
        intersection, total = areas
        return 2 * intersection / total if total else 1.0

    @property
    def iou(self) -> float:
        """IoU in [0, 1]; 1 if ground truth and prediction are empty, 0 for a failure."""
        if (areas := self._areas()) is None:
            return 0.0
        intersection, total = areas
        return intersection / (total - intersection) if total else 1.0

    def _areas(self) -> tuple[float, float] | None:
        """Return the intersection and the sum of both areas in pixels; None for a failure or a task without masks."""
        if self.failure is not None:
            return None
        if self.intersection is None or self.predicted_area is None or self.true_area is None:
            return None
        return self.intersection, self.predicted_area + self.true_area


def unscored_sample(case: Case, sample: Sample) -> SampleScore:
    """Return the entry of a sample before it is scored."""
    record, (perturbation, strength) = case.record, case.perturbation or (None, 0)
    return SampleScore(
        sample.id,
        sample.task,
        record.dataset,
        record.modality,
        f"{record.dataset}/{record.group}",
        case.image_index,
        sample.target,
        sample.kind,
        sample.volume,
        perturbation,
        strength,
        sample.paraphrase,
    )


INTERNED = ("task", "dataset", "modality", "subject", "target", "kind")
_NO_DEFAULT = object()
_DEFAULTS = {f.name: f.default for f in fields(SampleScore) if f.default is not MISSING}


class SampleScoreWriter(AbstractContextManager["SampleScoreWriter"]):
    """Writes sample scores as JSON lines. The file is replaced atomically on exit.

    Parameters
    ----------
    path : Path

    Raises
    ------
    OutputError
        The file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._stack = ExitStack()
        temporary = self._stack.enter_context(replacing(path))
        self._file = self._stack.enter_context(temporary.open("w", encoding="utf-8"))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> bool | None:
        return self._stack.__exit__(kind, error, trace)

    def add(self, score: SampleScore) -> None:
        """Write one line, without fields that have their default."""
        values = {k: v for k, v in asdict(score).items() if v != _DEFAULTS.get(k, _NO_DEFAULT)}
        self._file.write(json.dumps(values, allow_nan=False) + "\n")


def read_sample_scores(path: Path) -> Iterator[SampleScore]:
    """Read a file that `SampleScoreWriter` wrote.

    Raises
    ------
    DataError
        The file is missing or invalid.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                values = json.loads(line)
                if "number" in values:
                    warn_deprecated(f"the format of '{path.name}'", "'unibiomed evaluate' to write it again")
                    values = rename_keys(values, SAMPLE_SCORE_KEYS)
                    values["kind"] = SAMPLE_KINDS.get(values.get("kind", ""), values.get("kind", ""))
                # there may be hundreds of thousands of lines with few distinct values of these fields
                yield SampleScore(**values | {name: sys.intern(values[name]) for name in INTERNED if name in values})
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"sample scores '{path.name}' cannot be read: delete the file and evaluate again") from error
