"""Answers of the model read as findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from unibiomed.export.formatting import absent_text
from unibiomed.findings import Box, Finding
from unibiomed.images import MedicalImage
from unibiomed.model.generation import Answer
from unibiomed.tasks import NO_FINDINGS, clean_text, is_no_findings, read_class, read_phrases

from .drawing import DrawnMask
from .requests import Request
from .scores import text_score
from .vocabulary import ModelVocabulary

__all__ = ["answer_text", "read_findings", "segment_findings"]

CUT = "the answer was cut at its longest length"


def segment_findings(
    requests: Sequence[Request],
    answers: Mapping[str, Answer],
    drawn: Sequence[DrawnMask],
    image: MedicalImage,
    threshold: float,
) -> tuple[list[Finding], list[str], list[dict[str, object]]]:
    """Findings of the task ``segment``.

    Parameters
    ----------
    requests : sequence of Request
    answers : mapping of str to Answer
        By the names of the requests.
    drawn : sequence of DrawnMask
        The masks of all answers, in order.
    image : MedicalImage
    threshold : float
        Presence score below which a mask is emptied, in [0, 1].

    Returns
    -------
    list of Finding
        One for each request; of one with several meanings, one for each meaning that is present if there are any.
    list of str
        Notes.
    list of dict
        For each request, ``asked``, the names that were ``searched``, and the indices of its ``findings``.
    """
    masks = iter(drawn)
    by_name = {name: _named(name, answer, masks, image, threshold) for name, answer in answers.items()}
    notes = [] if all(answer.finished for answer in answers.values()) else [CUT]
    findings: list[Finding] = []
    table: list[dict[str, object]] = []
    for request in requests:
        own = _requested(request, [by_name[name] for name in request.names], image)
        indices = list(range(len(findings), len(findings) + len(own)))
        table.append({"asked": request.words, "searched": list(request.names), "findings": indices})
        findings += own
        notes += request.notes
    return findings, list(dict.fromkeys(notes)), table


def _requested(request: Request, found: Sequence[Finding], image: MedicalImage) -> list[Finding]:
    if not found:
        if request.score is None:
            return [Finding(request.words, request.words, present=False, searched=False)]
        # such an image cannot show it: that is known, and an all-zero mask is right
        return [_empty(request.words, image, presence=request.score, searched=False)]
    if len(found) == 1:
        return [replace(found[0], label=request.words)]
    present = sorted((one for one in found if one.present), key=lambda one: -(one.presence or 0.0))
    scores = [one.presence for one in found if one.presence is not None]
    return present or [_empty(request.words, image, presence=max(scores, default=None))]


def _named(name: str, answer: Answer, masks: Iterator[DrawnMask], image: MedicalImage, threshold: float) -> Finding:
    """One finding for one target, however often the answer points at it: all of its pixels, the highest scores."""
    phrases = read_phrases(answer.text, name)
    own = [next(masks) for _ in phrases]
    if not own:
        return _empty(name, image)
    qualities = [one.quality for one in own if one.quality is not None]
    return Finding.from_mask(
        name,
        np.any([one.mask & (one.presence >= threshold) for one in own], axis=0),
        phrase="; ".join(dict.fromkeys(phrase.phrase for phrase in phrases)),
        presence=max(one.presence for one in own),
        mask_score=max(qualities, default=None),
        spacing=image.spacing,
    )


def _empty(label: str, image: MedicalImage, *, presence: float | None = None, searched: bool = True) -> Finding:
    mask = np.zeros((image.height, image.width), bool)
    return Finding.from_mask(label, mask, presence=presence, spacing=image.spacing, searched=searched)


def read_findings(
    task: str,
    answer: Answer,
    drawn: Sequence[DrawnMask],
    image: MedicalImage,
    *,
    box: Box | None,
    modality: str | None,
    vocabulary: ModelVocabulary,
    threshold: float,
) -> tuple[list[Finding], list[str]]:
    """Findings of all tasks but ``segment``.

    Parameters
    ----------
    task : str
    answer : Answer
    drawn : sequence of DrawnMask
        The masks of the answer.
    image : MedicalImage
    box : tuple of int or None
        The box that the question is about.
    modality : str or None
    vocabulary : ModelVocabulary
        Findings of ``recognize`` that it excludes count as not found.
    threshold : float
        Presence score below which a mask is emptied, in [0, 1].

    Returns
    -------
    list of Finding
    list of str
        Notes.
    """
    notes = [] if answer.finished else [CUT]
    findings: list[Finding] = []
    phrases = read_phrases(answer.text)
    for phrase, one in zip(phrases, drawn, strict=True):
        mask, score = one.mask, one.presence
        if task == "recognize" and not vocabulary.finds(phrase.label, modality):
            mask, score = np.zeros_like(mask), 0.0
            notes.append(
                f"the answer names '{phrase.label}', which this model was not trained to find in {modality} images: "
                "it counts as not found"
            )
        elif score < threshold:
            mask = np.zeros_like(mask)
            notes.append(
                f"the answer names '{phrase.label}', but its presence score is below {threshold:.2g}, so that its "
                "mask was emptied"
            )
        findings.append(
            Finding.from_mask(
                phrase.label,
                mask,
                phrase=phrase.phrase,
                presence=score,
                mask_score=one.quality,
                spacing=image.spacing,
            )
        )
    if phrases:
        return findings, notes
    if is_no_findings(answer.text) and task in ("recognize", "report"):
        findings.append(_empty(NO_FINDINGS, image))
    elif box is not None:
        label = read_class(answer.text) if task == "classify" else "region"
        sure = text_score(answer.probabilities) if task == "classify" else None
        findings.append(Finding(label or "region", clean_text(answer.text) or label, confidence=sure, box=box))
    return findings, notes


def answer_text(task: str, answers: Sequence[Answer], findings: Sequence[Finding]) -> str:
    """The answer for people: the model's words, or for ``segment`` what was found, not found and not searched."""
    words = " ".join(filter(None, (clean_text(a.text) for a in answers)))
    if task != "segment" and words:
        return words
    parts = [f"{f.label}: {'found' if f.present else absent_text(f)}" for f in findings]
    return "; ".join(parts) if parts else words
