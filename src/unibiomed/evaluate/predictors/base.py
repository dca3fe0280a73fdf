"""The interface of predictors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

import numpy as np

from ..predictions import Prediction
from ..samples import Case, Sample

__all__ = [
    "BASELINES",
    "BOX_SUFFIX",
    "LITE_MEDSAM",
    "Predictor",
    "Presence",
    "add_box_suffix",
    "fingerprint_of",
    "samples_for",
    "source_digest_of",
    "uses_true_box",
]

BASELINES = ("empty", "mean-shape", "most-frequent", "nearest-neighbor", "filled-box")
"""Trivial predictors that are evaluated beside the models."""

BOX_SUFFIX = " (box)"
"""End of the names of predictors that are given the ground-truth box."""

LITE_MEDSAM = "LiteMedSAM"
"""Name of the model of ``medsam:``. It is defined here so that it can be used without importing torch."""


class SupportsTasks(Protocol):
    """Attributes that decide which samples a predictor gets; see `Predictor`."""

    @property
    def tasks(self) -> frozenset[str]:
        """Supported tasks."""
        ...

    @property
    def paraphrase_tasks(self) -> frozenset[str]:
        """Supported tasks in which the text of the question matters."""
        ...


class Presence(NamedTuple):
    """Presence of a target according to a predictor.

    Parameters
    ----------
    score : float or None
        Probability in [0, 1]. None if the predictor does not report it.
    has_mask : bool
        Whether its mask has any pixel.
    """

    score: float | None
    has_mask: bool


class Predictor(Protocol):
    """Interface of a predictor.

    Attributes
    ----------
    name : str
        Name in tables and folders.
    tasks : frozenset of str
        Supported tasks. Samples of other tasks are not evaluated.
    paraphrase_tasks : frozenset of str
        Supported tasks in which the text of the question matters. Paraphrases are evaluated for these tasks only:
        other answers cannot depend on the wording.
    note : str
        Note for readers of the tables, such as "is given the ground-truth box". May be empty.

    Notes
    -----
    There are three optional attributes. ``fingerprint`` (str) identifies the model: the evaluation stops if a folder
    holds predictions of a model with the same name and another fingerprint. ``source_digest`` (str) identifies the
    data that the answers are computed from, if it can be computed quickly: predictions with another digest are
    repeated. ``true_box`` (bool) says whether the predictor is given the ground-truth box: its presence is then not
    evaluated.

    Two more serve suites with ``all_pairs``, which otherwise use the task ``segment``: ``vocabulary``, the names of the
    targets that the predictor knows, and ``predict_presence(pixels, targets, modality)``, which returns a `Presence`
    for each target without computing masks at full size.
    """

    name: str
    tasks: frozenset[str]
    paraphrase_tasks: frozenset[str]
    note: str

    def predict(self, case: Case, pixels: np.ndarray) -> list[Prediction]:
        """Predict the samples of a case.

        Parameters
        ----------
        case : Case
            Only samples of supported tasks.
        pixels : numpy.ndarray
            (height, width, 3) uint8: the image, perturbed if the case is. Masks must have the same height and width.

        Returns
        -------
        list of Prediction
            One per sample. A missing prediction counts as a failure.
        """
        ...


def fingerprint_of(predictor: Predictor) -> str:
    """Return the fingerprint of a predictor, or an empty string."""
    return str(getattr(predictor, "fingerprint", ""))


def source_digest_of(predictor: Predictor) -> str:
    """Return the source digest of a predictor, or an empty string."""
    return str(getattr(predictor, "source_digest", ""))


def uses_true_box(predictor: Predictor) -> bool:
    """Return whether a predictor is given the ground-truth box."""
    return bool(getattr(predictor, "true_box", False))


def add_box_suffix(name: str) -> str:
    """Append `BOX_SUFFIX` to the name of a predictor; the seed of ``NAME#SEED`` stays at the end."""
    configuration, separator, seed = name.rpartition("#")
    if separator and configuration and seed:
        return f"{add_box_suffix(configuration)}#{seed}"
    return name if name.endswith(BOX_SUFFIX) else name + BOX_SUFFIX


def samples_for(predictor: SupportsTasks, samples: Iterable[Sample]) -> list[Sample]:
    """Return the samples that a predictor is evaluated on."""
    supported = (s for s in samples if s.task in predictor.tasks)
    return [s for s in supported if not s.paraphrase or s.task in predictor.paraphrase_tasks]
