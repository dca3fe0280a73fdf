"""The targets of a model's vocabulary, searched in an image once and kept."""

from __future__ import annotations

from collections.abc import Sequence

from unibiomed.tasks import make_question

from .asking import Asker, EncodedImage
from .naming import Outline, outline_targets

__all__ = ["MAX_QUESTIONS", "in_parts", "look_for"]

MAX_QUESTIONS = 64


def look_for(
    asker: Asker, encoded: EncodedImage, targets: Sequence[str], modality: str | None, *, least: float = 0.0
) -> dict[str, Outline | None]:
    """Where targets lie in an image, and how surely; of those that were looked for before, what was found then.

    Parameters
    ----------
    asker : Asker
        With trained scores.
    encoded : EncodedImage
        Without a box.
    targets : sequence of str
    modality : str or None
    least : float
        A target with a lower presence score needs no mask: it is left out where the model can tell the score without.

    Returns
    -------
    dict
        By target; None for one to which the model gave no prompt.
    """
    for part in in_parts([name for name in targets if (modality, name) not in encoded.outlines]):
        asked = asker.answer(encoded, [make_question("segment", target=name, modality=modality) for name in part])
        prompts = {name: a.prompts for name, a in zip(part, asked, strict=True) if a.prompts is not None}
        found = outline_targets(asker.model, encoded.features, prompts, least)
        encoded.outlines.update({(modality, name): found.get(name) for name in part})
    later = {
        name: outline.prompt[None]
        for name in targets
        if (outline := encoded.outlines[modality, name]) is not None
        and outline.mask is None
        and outline.prompt is not None
        and outline.presence >= least
    }
    for part in in_parts(list(later)):
        again = outline_targets(asker.model, encoded.features, {name: later[name] for name in part}, least)
        encoded.outlines.update({(modality, name): outline for name, outline in again.items()})
    return {name: encoded.outlines[modality, name] for name in targets}


def in_parts(names: Sequence[str]) -> list[Sequence[str]]:
    """As many at once as one batch may hold."""
    return [names[start : start + MAX_QUESTIONS] for start in range(0, len(names), MAX_QUESTIONS)]
