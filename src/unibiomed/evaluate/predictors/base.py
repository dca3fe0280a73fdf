"""The one small protocol that everything that is judged follows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

import numpy as np

from ..predictions import Prediction
from ..samples import Case, Sample

__all__ = [
    "FLOORS",
    "LITE_MEDSAM",
    "Predictor",
    "Presence",
    "edition_of",
    "fingerprint_of",
    "is_boxed",
    "mark_boxed",
    "samples_for",
]

FLOORS = ("empty", "mean-shape", "commonest", "nearest", "filled-box")
"""Trivial predictors that every table shows: what has to be beaten."""

BOXED = " (box)"

LITE_MEDSAM = "LiteMedSAM"
"""Name of the model that ``medsam:`` means; here, so that it is known without loading torch."""


class Asked(Protocol):
    """What decides which samples are asked; see `Predictor`."""

    @property
    def tasks(self) -> frozenset[str]:
        """What it can answer."""
        ...

    @property
    def worded(self) -> frozenset[str]:
        """Those of its tasks in which it reads the words of the question."""
        ...


class Presence(NamedTuple):
    """Whether a target is there, as a predictor says.

    Parameters
    ----------
    score : float or None
        Probability in [0, 1]; None where it gives none.
    drawn : bool
        Whether its mask has any pixel.
    """

    score: float | None
    drawn: bool


class Predictor(Protocol):
    """Something that answers the questions about an image.

    Attributes
    ----------
    name : str
        In tables and folder names.
    tasks : frozenset of str
        What it can answer; samples of other tasks are left out of its tables, not counted as failures.
    worded : frozenset of str
        Those of its tasks in which it reads the words of the question. In the others it is not asked in other words:
        that it then answers the same says nothing.
    note : str
        What a reader of the tables has to know of it, such as "is given the box of the truth"; may be empty.

    Notes
    -----
    Three more attributes may be left out. ``fingerprint``, a short text, says which model it is: where a folder holds
    answers under the same name and another fingerprint, nothing is asked. ``edition``, another, says what its answers
    are taken from, where that is read quickly: answers of another edition are asked for again. ``boxed`` says whether
    it is given the box of the truth: then it is not judged on whether the target is there.

    Two more serve the suite that asks for every target in every image, which otherwise asks the task ``segment``:
    ``vocabulary``, the names of the targets that the predictor knows, and ``presence_of(pixels, targets, modality)``,
    which gives a `Presence` for each of some targets without whole masks.
    """

    name: str
    tasks: frozenset[str]
    worded: frozenset[str]
    note: str

    def predict(self, case: Case, pixels: np.ndarray) -> list[Prediction]:
        """Answer the samples of a case.

        Parameters
        ----------
        case : Case
            Only samples of the predictor's tasks.
        pixels : numpy.ndarray
            (height, width, 3) uint8: the image as it is to be seen. Masks have this height and width.

        Returns
        -------
        list of Prediction
            One for each sample; one that is missing counts as a failure.
        """
        ...


def fingerprint_of(predictor: Predictor) -> str:
    """Which model it is; empty where it does not say."""
    return str(getattr(predictor, "fingerprint", ""))


def edition_of(predictor: Predictor) -> str:
    """What its answers are taken from; empty where it does not say."""
    return str(getattr(predictor, "edition", ""))


def is_boxed(predictor: Predictor) -> bool:
    """Whether it is given the box of the truth."""
    return bool(getattr(predictor, "boxed", False))


def mark_boxed(name: str) -> str:
    """The name of a predictor that is given the box of the truth, which says so; the number of a run stays last."""
    kind, sign, run = name.rpartition("#")
    if sign and kind and run:
        return f"{mark_boxed(kind)}#{run}"
    return name if name.endswith(BOXED) else name + BOXED


def samples_for(predictor: Asked, samples: Iterable[Sample]) -> list[Sample]:
    """Those of some samples that a predictor is asked and judged on."""
    mine = (s for s in samples if s.task in predictor.tasks)
    return [s for s in mine if not s.paraphrase or s.task in predictor.worded]
