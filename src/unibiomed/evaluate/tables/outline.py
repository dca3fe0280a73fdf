"""Segmentation from the box of the truth: every model that takes a box, beside the filled box."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..sheet import Sheet, number
from .common import get_in, in_order, matrix

__all__ = ["outline_sheets"]

NOTE = (
    "Every region that is there is asked for with the tight box of its whole mask, without jitter, as MedSAM is "
    "evaluated. Mean over targets; the filled box has to be beaten."
)


def outline_sheets(models: Mapping[str, Any]) -> list[Sheet]:
    """All models side by side, then by target, modality and data set."""
    rows = [
        [name, *(number(strict[key]) for key in ("dice", "iou", "surface_dice"))]
        for name, table in in_order(models)
        if (strict := get_in(table, "outline", "strict"))
    ]
    sheets = [Sheet("outline", "Segmentation from a true box", ("model", "Dice", "IoU", "surface Dice"), rows, NOTE)]
    for part, title in (("targets", "target"), ("modalities", "modality"), ("datasets", "set")):
        title = f"Dice from a true box, by {title}"
        sheets.append(matrix(models, ("outline", "strict", part), "dice", f"outline_{part}", title))
    return sheets
