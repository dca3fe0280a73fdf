"""Tables of segmentation from ground-truth boxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .common import comparison_table, get_in, models_first
from .table import Table, format_estimate

__all__ = ["outline_tables"]

NOTE = (
    "Each region is segmented from the tight box of its whole mask, without jitter, as in the evaluation of MedSAM. "
    "Mean over targets. The baseline is the filled box."
)


def outline_tables(models: Mapping[str, Any]) -> list[Table]:
    """Make a table of all models, and tables by target, modality and data set."""
    rows = [
        [name, *(format_estimate(strict[key]) for key in ("dice", "iou", "surface_dice"))]
        for name, table in models_first(models)
        if (strict := get_in(table, "outline", "strict"))
    ]
    title = "Segmentation from a ground-truth box"
    tables = [Table("outline", title, ("model", "Dice", "IoU", "surface Dice"), rows, NOTE)]
    for part, name in (("targets", "target"), ("modalities", "modality"), ("datasets", "data set")):
        title = f"Dice from a ground-truth box by {name}"
        tables.append(comparison_table(models, ("outline", "strict", part), "dice", f"outline_{part}", title))
    return tables
