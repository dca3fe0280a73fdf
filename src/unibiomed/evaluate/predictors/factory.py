"""Creation of predictors from their specification on the command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unibiomed.data.records import Record
from unibiomed.errors import InputError

from ..deprecated import BASELINE_NAMES, warn_deprecated
from .base import LITE_MEDSAM, Predictor, add_box_suffix
from .fingerprints import files_digest, folder_fingerprint

__all__ = ["KINDS", "PredictorContext", "make_predictor", "needs_device", "predictor_name"]

BOX_PROMPT_KINDS = ("sam", "medsam")
"""Kinds of predictors that are given the ground-truth box."""


@dataclass(frozen=True)
class PredictorContext:
    """Inputs of a predictor besides its specification.

    Parameters
    ----------
    training_records : callable
        Returns the records of the suite's training split; called when they are needed.
    device : str, optional
        Device of models. Default: the best available.
    """

    training_records: Callable[[], Sequence[Record]]
    device: str | None = None


def make_predictor(spec: str, context: PredictorContext) -> Predictor:
    """Create a predictor.

    Parameters
    ----------
    spec : str
        Name or folder of a model of this package; ``baseline:NAME``; ``files:FOLDER``; ``specialists:FOLDER``;
        ``sam:NAME`` or ``text:NAME`` for models of `transformers`; ``medsam:lite`` for LiteMedSAM from the extra
        ``medsam``, or ``medsam:FILE`` for its file of weights. ``TITLE=SPEC`` sets the name in the tables. The names of
        predictors that are given the ground-truth box (``sam:``, ``medsam:``) end in ``(box)``.
    context : PredictorContext

    Raises
    ------
    InputError
        The specification is invalid.
    ModelError
        The model is missing or broken.
    """
    title, kind, name = _parse(spec)
    predictor = KINDS[kind](name, context)
    if title:
        predictor.name = add_box_suffix(title) if kind in BOX_PROMPT_KINDS else title
    return predictor


def predictor_name(spec: str) -> str:
    """Return the name of the predictor of a specification without loading it.

    Raises
    ------
    InputError
        The specification is invalid.
    """
    title, kind, name = _parse(spec)
    if not title and kind == "baseline":
        return name
    # a folder of files is named after the folder that a link points to
    folder = Path(name).resolve() if kind in ("files", "specialists") else Path(os.path.abspath(name))
    plain = title or (LITE_MEDSAM if kind == "medsam" else folder.name)
    return add_box_suffix(plain) if kind in BOX_PROMPT_KINDS else plain


def needs_device(spec: str) -> bool:
    """Return whether a specification means a model that runs on a device."""
    return _parse(spec)[1] not in ("files", "baseline")


def _parse(spec: str) -> tuple[str, str, str]:
    """Return title (may be empty), kind and name."""
    title, separator, rest = spec.partition("=")
    if not separator or "/" in title or ":" in title:
        title, rest = "", spec
    kind, separator, name = rest.partition(":")
    if separator and kind == "floor":
        kind, new = "baseline", BASELINE_NAMES.get(name, name)
        warn_deprecated(f"'floor:{name}'", f"'baseline:{new}'")
        name = new
    if not separator or kind not in KINDS:
        if separator and not Path(rest).exists():
            kinds = ", ".join(f"{one}:NAME" for one in KINDS)
            raise InputError(f"model '{rest}' not found: give a folder, a hub name, or one of {kinds}")
        kind, name = "unibiomed", rest
    return title, kind, name


def _weights_fingerprint(name: str) -> str:
    from unibiomed.model.weights import find_folder

    return folder_fingerprint(find_folder(name))


def _with_fingerprint(predictor: Any, fingerprint: str, source_digest: str = "") -> Predictor:
    predictor.fingerprint, predictor.source_digest = fingerprint, source_digest
    result: Predictor = predictor
    return result


def _unibiomed(name: str, context: PredictorContext) -> Predictor:
    from unibiomed.interpret.interpreter import NANO

    from .unibiomed_model import UniBiomedPredictor

    # the model is loaded first, because it has the best error messages for a broken folder
    predictor = UniBiomedPredictor.load(name, context.device)
    fingerprint = folder_fingerprint(NANO) if name == NANO.name else _weights_fingerprint(name)
    return _with_fingerprint(predictor, fingerprint)


def _baseline(name: str, context: PredictorContext) -> Predictor:
    from .baselines import make_baseline

    return make_baseline(name, context.training_records)


def _files(name: str, context: PredictorContext) -> Predictor:
    from .files import FilesPredictor

    return _with_fingerprint(FilesPredictor(Path(name)), "files", files_digest(Path(name)))


def _sam(name: str, context: PredictorContext) -> Predictor:
    from .huggingface_masks import SamPredictor

    return _with_fingerprint(SamPredictor(name, context.device), _weights_fingerprint(name))


def _medsam(name: str, context: PredictorContext) -> Predictor:
    from .lite_medsam import LiteMedSamPredictor

    return LiteMedSamPredictor(name, context.device)


def _text(name: str, context: PredictorContext) -> Predictor:
    from .huggingface_text import TextPredictor

    return _with_fingerprint(TextPredictor(name, context.device), _weights_fingerprint(name))


def _specialists(name: str, context: PredictorContext) -> Predictor:
    from .specialists import SpecialistsPredictor

    return _with_fingerprint(SpecialistsPredictor(Path(name), context.device), folder_fingerprint(Path(name)))


KINDS: dict[str, Callable[[str, PredictorContext], Predictor]] = {
    "unibiomed": _unibiomed,
    "baseline": _baseline,
    "files": _files,
    "specialists": _specialists,
    "sam": _sam,
    "medsam": _medsam,
    "text": _text,
}
