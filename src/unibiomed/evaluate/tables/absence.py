"""False masks over all pairs of image and target, and findings in normal images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..absence.pairs import ABSENT, IN_CONTEXT, KINDS, OUT_OF_CONTEXT, PRESENT
from ..sheet import Sheet, number, simple
from .common import get_in, in_order

__all__ = ["absence_sheets"]

WORST = 15
"""Targets of a table."""
NOTE = (
    "Missed: of targets that are there, the share without any pixel. All others: the share of pairs of image and word "
    "with any pixel drawn. In context: annotated for the image and not there. Out of context: an image of this kind "
    "cannot show it. What an image may show and is not annotated is not asked."
)


def absence_sheets(results: Mapping[str, Any]) -> list[Sheet]:
    """All tables of a suite that asks for every target in every image."""
    models = results["models"]
    sheets = [
        _overview(models),
        _auroc(models),
        _grouped(models, "modalities", "modality"),
        _grouped(models, "datasets", "data set"),
        _worst(models, (IN_CONTEXT, OUT_OF_CONTEXT), "targets", "Targets with the most false masks", "target"),
        _worst(models, ABSENT[2:], "words", "Words outside the vocabulary with the most false masks", "word"),
        _missed(models),
        _normals(models),
        _recognition(models),
        Sheet("unreadable", "Images that cannot be read", ("image", "reason"), results["unreadable"]),
    ]
    return [sheet for sheet in sheets if sheet.rows]


def _overview(models: Mapping[str, Any]) -> Sheet:
    rows = []
    for name, table in in_order(models):
        row = [name, f"{len(table['vocabulary']):,}", f"{table['images']:,}"]
        row += [number(table["kinds"].get(kind), percent=True) for kind in KINDS]
        row.append(number(get_in(table, "normals", "all"), percent=True))
        row.append(number(get_in(table, "recognition", "all"), percent=True))
        row += [f"{table['failures']:,}", simple(table["seconds"], 2)]
        rows.append(row)
    columns = ("model", "targets", "images", "missed", *ABSENT, "findings in normal images", "recognition, exact")
    return Sheet("overview", "False masks over all pairs", (*columns, "failures", "seconds an image"), rows, NOTE)


def _auroc(models: Mapping[str, Any]) -> Sheet:
    rows = [
        [name, *(number(table["auroc"].get(kind)) for kind in ABSENT)]
        for name, table in in_order(models)
        if table["auroc"]
    ]
    note = "Of the scores of what is there over the scores of each kind of absence."
    return Sheet("presence", "Presence AUROC", ("model", *ABSENT), rows, note)


def _grouped(models: Mapping[str, Any], key: str, first: str) -> Sheet:
    rows = [
        [name, group, *_rates(kinds)] for name, table in in_order(models) for group, kinds in sorted(table[key].items())
    ]
    return Sheet(key, f"False masks by {first}", ("model", first, "missed", *ABSENT), rows, NOTE)


def _rates(kinds: Mapping[str, Any]) -> list[str]:
    return [number(kinds.get(kind), percent=True) for kind in KINDS]


def _worst(models: Mapping[str, Any], kinds: Sequence[str], file: str, title: str, first: str) -> Sheet:
    """The targets with the highest rate over all pairs of some kinds."""
    rows = []
    for name, table in in_order(models):
        rates = {target: _pooled(found, kinds) for target, found in table["targets"].items()}
        wrong = [target for target in rates if rates[target] > 0]
        for target in sorted(wrong, key=lambda target: (-rates[target], target))[:WORST]:
            found = table["targets"][target]
            cells = [cell for kind in kinds for cell in (number(found.get(kind), percent=True), _count(found, kind))]
            rows.append([name, target, *cells])
    columns = tuple(column for kind in kinds for column in (kind, f"{kind}, images"))
    note = f"At most {WORST} for each model; those that are never drawn wrongly are left out."
    return Sheet(file, title, ("model", first, *columns), rows, note)


def _pooled(found: Mapping[str, Any], kinds: Sequence[str]) -> float:
    counts = [(found[kind]["value"], found[kind]["count"]) for kind in kinds if kind in found]
    return sum(value * count for value, count in counts) / max(sum(count for _, count in counts), 1)


def _missed(models: Mapping[str, Any]) -> Sheet:
    rows = []
    for name, table in in_order(models):
        found = {target: kinds[PRESENT] for target, kinds in table["targets"].items() if PRESENT in kinds}
        worst = [target for target in found if found[target]["value"] > 0]
        for target in sorted(worst, key=lambda target: (-found[target]["value"], target))[:WORST]:
            rows.append([name, target, f"{found[target]['count']:,}", number(found[target], percent=True)])
    note = f"At most {WORST} for each model; those that are never missed are left out."
    return Sheet("missed", "Targets missed most often", ("model", "target", "images with it", "missed"), rows, note)


def _count(found: Mapping[str, Any], kind: str) -> str:
    return f"{found[kind]['count']:,}" if kind in found else "–"


def _normals(models: Mapping[str, Any]) -> Sheet:
    rows = [
        [name, modality, f"{share['count']:,}", f"{share['subjects']:,}", number(share, percent=True)]
        for name, table in in_order(models)
        for modality, share in table["normals"].items()
    ]
    columns = ("model", "modality", "normal images", "subjects", "with any finding")
    return Sheet("normals", "False findings on normal images", columns, rows, "Asked what is abnormal (recognize).")


def _recognition(models: Mapping[str, Any]) -> Sheet:
    rows = [
        [name, dataset, f"{share['count']:,}", number(share, percent=True)]
        for name, table in in_order(models)
        for dataset, share in table["recognition"].items()
    ]
    note = "Exact: all findings of an image are named and no others, or none where it is normal."
    return Sheet("recognition", "Recognition by data set", ("model", "data set", "images", "exact"), rows, note)
