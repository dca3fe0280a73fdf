"""How a name on the command line becomes a predictor."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unibiomed.data.records import Record
from unibiomed.errors import InputError

from .base import LITE_MEDSAM, Predictor, mark_boxed
from .fingerprints import files_edition, folder_fingerprint

__all__ = ["KINDS", "Context", "make_predictor", "needs_device", "predictor_name"]

BOXED_KINDS = ("sam", "medsam")
"""Kinds of predictors that are given the box of the truth."""


@dataclass(frozen=True)
class Context:
    """What a predictor may need besides its name.

    Parameters
    ----------
    training : callable
        The records of the suite's training split, read when first asked for.
    device : str, optional
        Of models; the best there is when left out.
    """

    training: Callable[[], Sequence[Record]]
    device: str | None = None


def make_predictor(spec: str, context: Context) -> Predictor:
    """The predictor that a name on the command line means.

    Parameters
    ----------
    spec : str
        A model of this package by name or folder; ``floor:NAME``; ``files:FOLDER``; ``specialists:FOLDER``;
        ``sam:NAME`` or ``text:NAME`` for models of `transformers`; ``medsam:lite`` for LiteMedSAM as the extra
        ``medsam`` installs it, or ``medsam:FILE`` for its file of weights. ``TITLE=SPEC`` sets the name in the tables.
        What is given the box of the truth (``sam:``, ``medsam:``) has ``(box)`` after its name.
    context : Context

    Raises
    ------
    InputError
        There is no such kind.
    ModelError
        The model is missing or broken.
    """
    title, kind, name = _parts(spec)
    predictor = KINDS[kind](name, context)
    if title:
        predictor.name = mark_boxed(title) if kind in BOXED_KINDS else title
    return predictor


def predictor_name(spec: str) -> str:
    """The name that `make_predictor` gives; nothing is loaded.

    Raises
    ------
    InputError
        There is no such kind.
    """
    title, kind, name = _parts(spec)
    if not title and kind == "floor":
        return name
    # a folder that is read keeps its own name behind a link
    folder = Path(name).resolve() if kind in ("files", "specialists") else Path(os.path.abspath(name))
    plain = title or (LITE_MEDSAM if kind == "medsam" else folder.name)
    return mark_boxed(plain) if kind in BOXED_KINDS else plain


def needs_device(spec: str) -> bool:
    """Whether a name means a model that is run, not files that are read or a floor."""
    return _parts(spec)[1] not in ("files", "floor")


def _parts(spec: str) -> tuple[str, str, str]:
    """Title (may be empty), kind and name."""
    title, found, rest = spec.partition("=")
    if not found or "/" in title or ":" in title:
        title, rest = "", spec
    kind, found, name = rest.partition(":")
    if not found or kind not in KINDS:
        if found and not Path(rest).exists():
            raise InputError(f"'{rest}' is no model: give a folder or name, or one of {', '.join(KINDS)} with ':NAME'")
        kind, name = "unibiomed", rest
    return title, kind, name


def _weights(name: str) -> str:
    from unibiomed.model.weights import find_folder

    return folder_fingerprint(find_folder(name))


def _marked(predictor: Any, fingerprint: str, edition: str = "") -> Predictor:
    predictor.fingerprint, predictor.edition = fingerprint, edition
    made: Predictor = predictor
    return made


def _own(name: str, context: Context) -> Predictor:
    from unibiomed.interpret.interpreter import NANO

    from .own import OwnPredictor

    # the model first: it says best what is wrong with its folder
    predictor = OwnPredictor.load(name, context.device)
    return _marked(predictor, folder_fingerprint(NANO) if name == NANO.name else _weights(name))


def _floor(name: str, context: Context) -> Predictor:
    from .floors import make_floor

    return make_floor(name, context.training)


def _files(name: str, context: Context) -> Predictor:
    from .files import FilesPredictor

    return _marked(FilesPredictor(Path(name)), "files", files_edition(Path(name)))


def _sam(name: str, context: Context) -> Predictor:
    from .huggingface_masks import SamPredictor

    return _marked(SamPredictor(name, context.device), _weights(name))


def _medsam(name: str, context: Context) -> Predictor:
    from .lite_medsam import LiteMedSamPredictor

    return LiteMedSamPredictor(name, context.device)


def _text(name: str, context: Context) -> Predictor:
    from .huggingface_text import TextPredictor

    return _marked(TextPredictor(name, context.device), _weights(name))


def _specialists(name: str, context: Context) -> Predictor:
    from .specialists import SpecialistsPredictor

    return _marked(SpecialistsPredictor(Path(name), context.device), folder_fingerprint(Path(name)))


KINDS: dict[str, Callable[[str, Context], Predictor]] = {
    "unibiomed": _own,
    "floor": _floor,
    "files": _files,
    "specialists": _specialists,
    "sam": _sam,
    "medsam": _medsam,
    "text": _text,
}
