"""Answers summed up: rates of false masks by kind, modality, data set and target, with intervals by subject."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ..intervals import mean_of, share_of
from ..judged import presence_auroc
from .answers import Answer, Asked
from .pairs import ABSENT, PRESENT

__all__ = ["summarise_absence"]

Judged = tuple[Answer, Asked]


def summarise_absence(answers: Sequence[Answer]) -> dict[str, Any]:
    """All numbers of one model.

    Parameters
    ----------
    answers : sequence of Answer
        One an image.

    Returns
    -------
    dict
        Rates in [0, 1] with their intervals: of the kind "present" the share of targets that are missed, of all other
        kinds the share of pairs with any pixel drawn. ``kinds``, ``modalities``, ``datasets`` and ``targets`` hold
        these by kind. ``auroc`` holds, for each kind of absence, the AUROC of the scores of what is there over the
        scores of that kind. ``normals`` has by modality the share of normal images with any finding ("all" over all),
        ``recognition`` by data set the share of exact answers. ``failures`` counts images, ``seconds`` is the mean of
        an image.
    """
    pairs = [(answer, pair) for answer in answers for pair in answer.pairs]
    normal = [a for a in answers if a.recognized is not None and a.recognized.normal]
    judged = [a for a in answers if a.recognized is not None]
    return {
        "images": len(answers),
        "kinds": _rates(pairs),
        "auroc": {kind: table for kind in ABSENT if (table := _auroc(pairs, kind)) is not None},
        "modalities": _by(pairs, lambda item: item[0].modality),
        "datasets": _by(pairs, lambda item: item[0].dataset),
        "targets": _by(pairs, lambda item: item[1].target),
        "normals": _shares(normal, lambda a: a.modality, lambda a: a.recognized is not None and a.recognized.found),
        "recognition": _shares(judged, lambda a: a.dataset, lambda a: a.recognized is not None and a.recognized.exact),
        "failures": sum(answer.failure is not None for answer in answers),
        "seconds": mean_of([a.seconds for a in answers], [a.subject for a in answers]).to_dict(),
    }


def _rates(pairs: Iterable[Judged]) -> dict[str, Any]:
    """By kind the share of wrong answers."""
    kinds: dict[str, list[Judged]] = defaultdict(list)
    for item in pairs:
        kinds[item[1].kind].append(item)
    return {
        kind: share_of(
            [pair.drawn != (kind == PRESENT) for _, pair in kinds[kind]], [answer.subject for answer, _ in kinds[kind]]
        ).to_dict()
        for kind in (PRESENT, *ABSENT)
        if kind in kinds
    }


def _by(pairs: Iterable[Judged], name: Callable[[Judged], str]) -> dict[str, Any]:
    groups: dict[str, list[Judged]] = defaultdict(list)
    for item in pairs:
        groups[name(item)].append(item)
    return {key: _rates(groups[key]) for key in sorted(groups)}


def _auroc(pairs: Iterable[Judged], kind: str) -> dict[str, Any] | None:
    """None where one side has no scores."""
    scored = [(a, p, p.score) for a, p in pairs if p.kind in (PRESENT, kind) and p.score is not None]
    there = [pair.kind == PRESENT for _, pair, _ in scored]
    if len(set(there)) < 2:
        return None
    return presence_auroc([score for _, _, score in scored], there, [answer.subject for answer, _, _ in scored])


def _shares(
    answers: Sequence[Answer], name: Callable[[Answer], str], true: Callable[[Answer], bool]
) -> dict[str, dict[str, float | int | None]]:
    groups: dict[str, list[Answer]] = {"all": list(answers)} if answers else {}
    for answer in answers:
        groups.setdefault(name(answer), []).append(answer)
    return {
        key: share_of([true(a) for a in group], [a.subject for a in group]).to_dict()
        for key, group in sorted(groups.items(), key=lambda item: (item[0] != "all", item[0]))
    }
