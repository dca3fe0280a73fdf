"""Summary of answers: rates of false masks by kind, modality, data set and target, with intervals by subject."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from unibiomed.metrics.intervals import mean_estimate, proportion_estimate

from ..score_metrics import presence_auroc
from .answers import ImageAnswers, PairAnswer
from .pairs import ABSENT, PRESENT

__all__ = ["summarise_absence"]

ScoredPair = tuple[ImageAnswers, PairAnswer]


def summarise_absence(answers: Sequence[ImageAnswers]) -> dict[str, Any]:
    """Compute all results of one model.

    Parameters
    ----------
    answers : sequence of ImageAnswers

    Returns
    -------
    dict
        Rates in [0, 1] with intervals: for the kind "present" the proportion of missed targets, for all other kinds
        the proportion of pairs with a mask. ``kinds``, ``modalities``, ``datasets`` and ``targets`` contain rates by
        kind. ``auroc`` is the AUROC of the presence score of present targets against each kind of absent target.
        ``normals`` is the proportion of normal images with a finding by modality ("all" over all), ``recognition`` the
        proportion of exact answers by data set, ``failures`` the number of images with a failure, and ``seconds`` the
        mean time per image.
    """
    pairs = [(image, pair) for image in answers for pair in image.pairs]
    recognized = [image for image in answers if image.recognized is not None]
    normal = [image for image in recognized if image.recognized is not None and image.recognized.normal]
    return {
        "images": len(answers),
        "kinds": _rates(pairs),
        "auroc": {kind: table for kind in ABSENT if (table := _auroc(pairs, kind)) is not None},
        "modalities": _by(pairs, lambda item: item[0].modality),
        "datasets": _by(pairs, lambda item: item[0].dataset),
        "targets": _by(pairs, lambda item: item[1].target),
        "normals": _proportions(
            normal, lambda i: i.modality, lambda i: bool(i.recognized and i.recognized.has_finding)
        ),
        "recognition": _proportions(
            recognized, lambda i: i.dataset, lambda i: bool(i.recognized and i.recognized.exact_match)
        ),
        "failures": sum(image.failure is not None for image in answers),
        "seconds": mean_estimate([i.seconds for i in answers], [i.subject for i in answers]).to_dict(),
    }


def _rates(pairs: Iterable[ScoredPair]) -> dict[str, Any]:
    """Return the proportion of wrong answers of each kind."""
    kinds: dict[str, list[ScoredPair]] = defaultdict(list)
    for item in pairs:
        kinds[item[1].kind].append(item)
    return {
        kind: proportion_estimate(
            [pair.has_mask != (kind == PRESENT) for _, pair in kinds[kind]], [image.subject for image, _ in kinds[kind]]
        ).to_dict()
        for kind in (PRESENT, *ABSENT)
        if kind in kinds
    }


def _by(pairs: Iterable[ScoredPair], name: Callable[[ScoredPair], str]) -> dict[str, Any]:
    groups: dict[str, list[ScoredPair]] = defaultdict(list)
    for item in pairs:
        groups[name(item)].append(item)
    return {key: _rates(groups[key]) for key in sorted(groups)}


def _auroc(pairs: Iterable[ScoredPair], kind: str) -> dict[str, Any] | None:
    """Return the AUROC of present targets against a kind; None if either has no scores."""
    scored = [(i, p, p.score) for i, p in pairs if p.kind in (PRESENT, kind) and p.score is not None]
    present = [pair.kind == PRESENT for _, pair, _ in scored]
    if len(set(present)) < 2:
        return None
    return presence_auroc([score for _, _, score in scored], present, [image.subject for image, _, _ in scored])


def _proportions(
    answers: Sequence[ImageAnswers], name: Callable[[ImageAnswers], str], condition: Callable[[ImageAnswers], bool]
) -> dict[str, dict[str, float | int | None]]:
    groups: dict[str, list[ImageAnswers]] = {"all": list(answers)} if answers else {}
    for image in answers:
        groups.setdefault(name(image), []).append(image)
    return {
        key: proportion_estimate([condition(i) for i in group], [i.subject for i in group]).to_dict()
        for key, group in sorted(groups.items(), key=lambda item: (item[0] != "all", item[0]))
    }
