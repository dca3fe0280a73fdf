"""Tables of false masks over all pairs of image and target, and of findings in normal images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..absence.pairs import ABSENT, IN_CONTEXT, KINDS, OUT_OF_CONTEXT, PRESENT
from .common import get_in, models_first
from .table import MISSING, Table, format_estimate, format_number

__all__ = ["absence_tables"]

MAX_TARGETS = 15
"""Number of targets listed per model."""
NOTE = (
    "Missed: present targets without any predicted pixel. Other columns: pairs of image and word with any predicted "
    "pixel. In context: the data set annotates the target, and it is absent. Out of context: the target cannot occur "
    "in this kind of image. Targets that may occur but are not annotated are left out."
)


def absence_tables(results: Mapping[str, Any]) -> list[Table]:
    """Make all tables of a suite with ``all_pairs``."""
    models = results["models"]
    in_vocabulary = (IN_CONTEXT, OUT_OF_CONTEXT)
    tables = [
        _overview(models),
        _auroc(models),
        _by_group(models, "modalities", "modality"),
        _by_group(models, "datasets", "data set"),
        _worst(models, in_vocabulary, "targets", "Targets with the most false masks", "target"),
        _worst(models, ABSENT[2:], "words", "Words outside of the vocabulary with the most false masks", "word"),
        _missed(models),
        _normal_images(models),
        _recognition(models),
        Table("unreadable", "Images that cannot be read", ("image", "reason"), results["unreadable"]),
    ]
    return [table for table in tables if table.rows]


def _overview(models: Mapping[str, Any]) -> Table:
    rows = []
    for name, table in models_first(models):
        row = [name, f"{len(table['vocabulary']):,}", f"{table['images']:,}", *_rates(table["kinds"])]
        row.append(format_estimate(get_in(table, "normals", "all"), percent=True))
        row.append(format_estimate(get_in(table, "recognition", "all"), percent=True))
        row += [f"{table['failures']:,}", format_number(table["seconds"], 2)]
        rows.append(row)
    columns: tuple[str, ...] = ("model", "targets", "images", "missed", *ABSENT, "normal images with a finding")
    columns += ("recognition accuracy", "failures", "seconds per image")
    return Table("overview", "False masks over all pairs", columns, rows, NOTE)


def _auroc(models: Mapping[str, Any]) -> Table:
    rows = [
        [name, *(format_estimate(table["auroc"].get(kind)) for kind in ABSENT)]
        for name, table in models_first(models)
        if table["auroc"]
    ]
    note = "AUROC of the presence score for present targets against each kind of absent target."
    return Table("presence", "Presence AUROC", ("model", *ABSENT), rows, note)


def _by_group(models: Mapping[str, Any], key: str, column: str) -> Table:
    rows = [
        [name, group, *_rates(kinds)]
        for name, table in models_first(models)
        for group, kinds in sorted(table[key].items())
    ]
    return Table(key, f"False masks by {column}", ("model", column, "missed", *ABSENT), rows, NOTE)


def _rates(kinds: Mapping[str, Any]) -> list[str]:
    return [format_estimate(kinds.get(kind), percent=True) for kind in KINDS]


def _worst(models: Mapping[str, Any], kinds: Sequence[str], file: str, title: str, column: str) -> Table:
    """Make a table of the targets with the highest rate of false masks over some kinds."""
    rows = []
    for name, table in models_first(models):
        rates = {target: _pooled_rate(part, kinds) for target, part in table["targets"].items()}
        wrong = [target for target in rates if rates[target] > 0]
        for target in sorted(wrong, key=lambda target: (-rates[target], target))[:MAX_TARGETS]:
            part = table["targets"][target]
            cells = [cell for kind in kinds for cell in (_rate(part, kind), _count(part, kind))]
            rows.append([name, target, *cells])
    columns = tuple(column for kind in kinds for column in (kind, f"{kind}, images"))
    note = f"At most {MAX_TARGETS} per model; those without false masks are left out."
    return Table(file, title, ("model", column, *columns), rows, note)


def _pooled_rate(part: Mapping[str, Any], kinds: Sequence[str]) -> float:
    counts = [(part[kind]["value"], part[kind]["count"]) for kind in kinds if kind in part]
    return sum(value * count for value, count in counts) / max(sum(count for _, count in counts), 1)


def _rate(part: Mapping[str, Any], kind: str) -> str:
    return format_estimate(part.get(kind), percent=True)


def _count(part: Mapping[str, Any], kind: str) -> str:
    return f"{part[kind]['count']:,}" if kind in part else MISSING


def _missed(models: Mapping[str, Any]) -> Table:
    rows = []
    for name, table in models_first(models):
        present = {target: kinds[PRESENT] for target, kinds in table["targets"].items() if PRESENT in kinds}
        missed = [target for target in present if present[target]["value"] > 0]
        for target in sorted(missed, key=lambda target: (-present[target]["value"], target))[:MAX_TARGETS]:
            cell = present[target]
            rows.append([name, target, f"{cell['count']:,}", format_estimate(cell, percent=True)])
    note = f"At most {MAX_TARGETS} per model; those that are never missed are left out."
    columns = ("model", "target", "images with target", "missed")
    return Table("missed", "Targets missed most often", columns, rows, note)


def _normal_images(models: Mapping[str, Any]) -> Table:
    rows = [
        [name, modality, f"{cell['count']:,}", f"{cell['subjects']:,}", format_estimate(cell, percent=True)]
        for name, table in models_first(models)
        for modality, cell in table["normals"].items()
    ]
    columns = ("model", "modality", "normal images", "subjects", "with a finding")
    return Table("normals", "Normal images with a finding", columns, rows, "Answers of the task recognize.")


def _recognition(models: Mapping[str, Any]) -> Table:
    rows = [
        [name, dataset, f"{cell['count']:,}", format_estimate(cell, percent=True)]
        for name, table in models_first(models)
        for dataset, cell in table["recognition"].items()
    ]
    note = "An answer is correct if it names all findings of the image and no others, or none if the image is normal."
    return Table("recognition", "Recognition by data set", ("model", "data set", "images", "accuracy"), rows, note)
