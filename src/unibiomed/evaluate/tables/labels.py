"""Recognition and region classification: accuracy of each model, precision and recall of each label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..sheet import Sheet, number
from .common import file_of, get_in, in_order

__all__ = ["label_sheets"]


def label_sheets(models: Mapping[str, Any], task: str, title: str) -> list[Sheet]:
    """The accuracy of every model, then the single labels of each that is no floor."""
    rows = []
    elsewhere = any(get_in(table, task, "strict", "elsewhere") for _, table in in_order(models))
    for name, table in in_order(models):
        strict = get_in(table, task, "strict")
        if strict is None:
            continue
        row = [
            name,
            number(strict["accuracy"], percent=True),
            number(get_in(table, task, "published", "accuracy"), percent=True),
            number(strict["balanced_accuracy"], percent=True),
        ]
        if task == "recognize":
            row += [
                number(strict["false_findings"], percent=True),
                number(strict["missed"], percent=True),
                number(strict.get("presence_auroc")),
                number(strict["dice"]),
                number(strict.get("dice_labelled")),
            ]
        if elsewhere:
            row += [
                number(strict.get(key), percent=True)
                for key in ("elsewhere", "named_called_elsewhere", "accuracy_with_elsewhere")
            ]
        rows.append(row)
    columns: tuple[str, ...] = ("model", "accuracy (exact)", "accuracy (published: substring)", "balanced accuracy")
    note = ""
    if task == "recognize":
        columns += (
            "false findings on normal images",
            "nothing found on abnormal ones",
            "presence AUROC",
            "Dice",
            "Dice, label right",
        )
        note = (
            "Dice of all images: without a finding, an empty mask is 1 and any pixel 0. Label right: 0 where the label "
            "is wrong, a finding named in a normal image among them. Published: of the first 300 images of each data "
            "set that have a finding; normal ones are left out, so that it can be below the exact accuracy."
        )
    if elsewhere:
        columns += ("boxes around something else", "named boxes called something else", "accuracy of all boxes")
        note = (
            "Accuracy counts boxes around a region alone. Boxes around something else are moved away from every region "
            "of the image, one an image; the last column counts both."
        )
    sheets = [Sheet(task, title, columns, rows, note)]
    labelled = {name: get_in(table, task, "strict", "per_label") for name, table in in_order(models)}
    floors = {name: labels for name, labels in labelled.items() if labels and models[name].get("floor")}
    for name, labels in labelled.items():
        if not labels or name in floors:
            continue
        cells = [
            [
                label,
                str(v["count"]),
                *(number(v[k], percent=True) for k in ("precision", "recall")),
                number(v["f1"], percent=True),
                *(number(get_in(floor, label, "f1"), percent=True, interval=False) for floor in floors.values()),
            ]
            for label, v in labels.items()
        ]
        columns = (
            "label",
            "boxes" if task == "classify" else "images",
            "precision",
            "recall",
            "F1",
            *(f"F1, {floor}" for floor in floors),
        )
        sheets.append(Sheet(f"{task}_labels_{file_of(name)}", f"{title}, every label, {name}", columns, cells))
    return sheets
