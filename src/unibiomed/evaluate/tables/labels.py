"""Tables of recognition and region classification: accuracy, and precision and recall of each label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..predictions import safe_name
from .common import get_in, models_first
from .table import Table, format_estimate

__all__ = ["label_tables"]


def label_tables(models: Mapping[str, Any], task: str, title: str) -> list[Table]:
    """Make the accuracy table of all models, and a table of labels for each model that is not a baseline."""
    rows = []
    background = any(get_in(table, task, "strict", "background_accuracy") for _, table in models_first(models))
    for name, table in models_first(models):
        strict = get_in(table, task, "strict")
        if strict is None:
            continue
        row = [
            name,
            format_estimate(strict["accuracy"], percent=True),
            format_estimate(get_in(table, task, "published", "accuracy"), percent=True),
            format_estimate(strict["balanced_accuracy"], percent=True),
        ]
        if task == "recognize":
            row += [
                format_estimate(strict["false_findings"], percent=True),
                format_estimate(strict["missed"], percent=True),
                format_estimate(strict.get("presence_auroc")),
                format_estimate(strict["dice"]),
                format_estimate(strict.get("dice_correct_label")),
            ]
        if background:
            row += [
                format_estimate(strict.get(key), percent=True)
                for key in ("background_accuracy", "called_background", "accuracy_with_background")
            ]
        rows.append(row)
    columns: tuple[str, ...] = ("model", "accuracy (exact)", "accuracy (published: substring)", "balanced accuracy")
    note = ""
    if task == "recognize":
        columns += (
            "normal images with a finding",
            "abnormal images without a finding",
            "presence AUROC",
            "Dice",
            "Dice, correct label",
        )
        note = (
            "Dice of all images: without a finding, an empty mask scores 1 and any pixel 0. Dice, correct label: 0 if "
            "the label is wrong or a normal image has a finding. Published: the first 300 images of each data set that "
            "have a finding. Normal images are left out, so this accuracy can be lower than the exact one."
        )
    if background:
        columns += ("background boxes, accuracy", "regions called something else", "accuracy incl. background boxes")
        note = (
            "Accuracy: boxes of regions. A background box contains no region of the image, and its correct class is "
            "'something else'; there is at most one per image. The last column includes both kinds of boxes."
        )
    tables = [Table(task, title, columns, rows, note)]
    labelled = {name: get_in(table, task, "strict", "per_label") for name, table in models_first(models)}
    baselines = {name: labels for name, labels in labelled.items() if labels and models[name].get("baseline")}
    for name, labels in labelled.items():
        if not labels or name in baselines:
            continue
        cells = [
            [
                label,
                str(v["count"]),
                *(format_estimate(v[key], percent=True) for key in ("precision", "recall", "f1")),
                *(format_estimate(get_in(b, label, "f1"), percent=True, interval=False) for b in baselines.values()),
            ]
            for label, v in labels.items()
        ]
        columns = (
            "label",
            "boxes" if task == "classify" else "images",
            "precision",
            "recall",
            "F1",
            *(f"F1, {baseline}" for baseline in baselines),
        )
        tables.append(Table(f"{task}_labels_{safe_name(name)}", f"{title} by label, {name}", columns, cells))
    return tables
