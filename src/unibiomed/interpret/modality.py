"""The modality of an image: given, read from the file, or recognized by the model."""

from __future__ import annotations

from dataclasses import dataclass

from unibiomed.errors import InputError
from unibiomed.images import check_modality
from unibiomed.tasks import clean_text, make_question

from .asking import Asker, EncodedImage
from .scores import text_score

__all__ = ["MIN_PROBABILITY", "QUESTION", "Modality", "find_modality", "known_modality"]

QUESTION = "Which imaging modality is this?"
"""As in training (``ask.modality`` of ``data/phrasing.toml``); the answer is one of the ten names."""
MIN_PROBABILITY = 0.9
"""Probability of the answer from which a recognized modality is used."""
MIN_LIKENESS = 0.5
"""Probability of the answer below which an image looks like none of the modalities, such as a photograph of a cat."""
MAX_ANSWER = 12
UNRELIABLE = "findings and targets are unreliable without it, give it with --modality"


@dataclass(frozen=True, slots=True)
class Modality:
    """The modality of an image and where it is from.

    Attributes
    ----------
    name : str or None
        One of `unibiomed.images.MODALITIES`; None where it is not known.
    source : str or None
        ``"given"``, ``"file"`` or ``"recognized"``; None where it is not known.
    note : str or None
        What the user should know.
    unlike : bool
        The image looks like none of the modalities.
    """

    name: str | None
    source: str | None
    note: str | None = None
    unlike: bool = False


def known_modality(given: str | None, in_file: str | None) -> Modality:
    """The modality without asking the model: the given one before that of the file."""
    if given is not None:
        return Modality(given, "given")
    return Modality(in_file, "file" if in_file is not None else None)


def find_modality(asker: Asker, encoded: EncodedImage) -> Modality:
    """Ask the model for the modality of an image; once for each encoded image.

    Parameters
    ----------
    asker : Asker
    encoded : EncodedImage
        Without a box.

    Returns
    -------
    Modality
        Named only where the answer is one of the ten modalities with a probability of at least `MIN_PROBABILITY`.
    """
    if encoded.recognized is None:
        question = make_question("ask", text=QUESTION)
        (answer,) = asker.answer(encoded, [question], max_new_tokens=MAX_ANSWER)
        try:
            named: str | None = check_modality(clean_text(answer.text).strip(" ."))
        except InputError:
            named = None
        encoded.recognized = named, text_score(answer.probabilities)
    name, probability = encoded.recognized
    unlike = not probability >= MIN_LIKENESS
    if name is None:
        return Modality(None, None, f"modality not given and not recognized: {UNRELIABLE}", unlike)
    if not probability >= MIN_PROBABILITY:
        told = f"modality not given; recognized as {name} with a low probability (p = {probability:.2f}), not used"
        return Modality(None, None, f"{told}: {UNRELIABLE}", unlike)
    return Modality(name, "recognized", f"modality not given; recognized as {name} (p = {probability:.2f})")
