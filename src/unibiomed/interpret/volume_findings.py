"""Which of the targets that were found in a volume are named by ``recognize`` and ``report``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from unibiomed.findings.volume import VolumeFinding
from unibiomed.images import MedicalImage
from unibiomed.tasks import NO_FINDINGS, make_question

from .asking import Asker
from .naming import word_logits
from .recognition import found_logit

__all__ = ["named_once", "weigh_with_words"]

SAME_REGION = 0.5
"""Intersection over union from which two findings are two names of one region."""
MAX_WEIGHED = 16
"""Findings that are weighed with words, the likeliest first."""


def named_once(findings: Sequence[VolumeFinding]) -> tuple[list[VolumeFinding], list[str]]:
    """Leave out findings that are less likely names of a region that has a name already.

    Parameters
    ----------
    findings : sequence of VolumeFinding
        With masks, the likeliest first.

    Returns
    -------
    list of VolumeFinding
        Those that are left, in the same order.
    list of str
        A note for each that was left out.
    """
    kept: list[VolumeFinding] = []
    notes: list[str] = []
    for finding in findings:
        same = next((one for one in kept if _same_region(one, finding)), None)
        if same is None:
            kept.append(finding)
        else:
            notes.append(
                f"the region of '{same.label}' was also found as '{finding.label}' (presence {finding.presence:.2f})"
            )
    return kept, notes


def weigh_with_words(
    asker: Asker,
    findings: Sequence[VolumeFinding],
    slice_of: Callable[[int], MedicalImage],
    modality: str | None,
) -> tuple[list[VolumeFinding], list[str]]:
    """Leave out findings that the model's words deny on their key slice, as for single images.

    The odds of "No findings" in the answer about the key slice and the odds of the presence in the volume are
    multiplied, see `unibiomed.interpret.recognition`.

    Parameters
    ----------
    asker : Asker
        With trained scores.
    findings : sequence of VolumeFinding
        The likeliest first.
    slice_of : callable
        Gives the picture of a slice.
    modality : str or None

    Returns
    -------
    list of VolumeFinding
    list of str
        A note for each that was left out.

    Raises
    ------
    ModelError
        If the model's values are not finite.
    """
    question = make_question("recognize", modality=modality)
    none_on: dict[int, float] = {}
    kept: list[VolumeFinding] = []
    notes: list[str] = []
    for finding in findings[:MAX_WEIGHED]:
        assert finding.key_slice is not None and finding.presence is not None
        if finding.key_slice not in none_on:
            encoded = asker.encode(slice_of(finding.key_slice))
            prompt = asker.processor.prompt_ids(question, encoded.tokens)
            (none,) = word_logits(asker.model, asker.processor, encoded.features, prompt, [NO_FINDINGS])
            asker.check_numbers(math.isfinite(none))
            none_on[finding.key_slice] = none
        logit = found_logit(none_on[finding.key_slice], finding.presence)
        if logit > asker.model.config.finding_threshold_in(modality):
            kept.append(finding)
        else:
            notes.append(
                f"'{finding.label}' (presence {finding.presence:.2f}) was left out: on its key slice "
                f"{finding.key_slice} the text says '{NO_FINDINGS}'"
            )
    return kept, notes


def _same_region(one: VolumeFinding, other: VolumeFinding) -> bool:
    assert one.mask is not None and other.mask is not None
    shared = sum(int(np.count_nonzero(a & b)) for a, b in zip(one.mask, other.mask, strict=True))
    return shared >= SAME_REGION * (one.voxels + other.voxels - shared)
