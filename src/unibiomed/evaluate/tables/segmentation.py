"""Tables of segmentation: overlap, false masks, volumes, targets, objects and the scores reported by models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..predictions import safe_name
from .common import (
    DICE,
    DICE_PRESENT,
    PUBLISHED,
    both_protocols,
    comparison_table,
    get_in,
    models_first,
    note_on_missing_intervals,
)
from .table import MISSING, Table, format_estimate

__all__ = ["segmentation_tables"]


def segmentation_tables(models: Mapping[str, Any]) -> list[Table]:
    """Make tables of all models, also by target, modality and data set, and tables of each model."""
    rows = []
    for name, table in models_first(models):
        strict, published = get_in(table, "segment", "strict"), get_in(table, "segment", "published")
        if strict is None:
            continue
        rows.append(
            [
                name,
                format_estimate(strict["dice"]),
                format_estimate(published["dice"]),
                format_estimate(strict["dice_with_absent"]),
                format_estimate(strict.get("iou")),
                format_estimate(strict["surface_dice"]),
                format_estimate(strict["detected"], percent=True),
                format_estimate(strict["false_masks"], percent=True),
                format_estimate(strict["false_masks_out_of_context"], percent=True),
                format_estimate(strict.get("false_components"), 2),
            ]
        )
    columns = (
        "model",
        "Dice",
        "Dice, published protocol",
        "Dice incl. absent targets",
        "IoU",
        "surface Dice",
        "detected",
        "false masks",
        "false masks, out of context",
        "false components per image",
    )
    note = (
        f"{DICE} IoU, surface Dice and detected: images that show the target. Surface Dice: tolerance of 2 mm, or of 2 "
        "pixels if the pixel spacing is unknown, in one mean; the tables by target show which. False masks: images "
        "without the target whose mask has any pixel. Out of context: the target cannot occur in this kind of image. "
        "False components: connected components that do not intersect the ground truth."
    )
    tables = [Table("segmentation", "Segmentation", columns, rows, note)]
    for part, name in (("targets", "target"), ("modalities", "modality"), ("datasets", "data set")):
        file, title = f"segmentation_{part}", f"Dice by {name}"
        strict = comparison_table(models, ("segment", "strict", part), "dice", file, title, DICE_PRESENT)
        file, title = f"{file}_published", f"{title}, published protocol"
        published = comparison_table(models, ("segment", "published", part), "dice", file, title, PUBLISHED)
        tables += both_protocols(strict, published)
    title = "Dice of volumes, all slices of the data set"
    strict = comparison_table(models, ("segment", "strict", "volumes"), None, "volumes", title)
    title = "Dice of volumes, published protocol (slices with the target only)"
    published = comparison_table(models, ("segment", "published", "volumes"), None, "volumes_published", title)
    tables += both_protocols(strict, published)
    for name, table in models_first(models):
        if segment := get_in(table, "segment"):
            single = (_targets(name, segment), _scores(name, segment), _objects(name, segment))
            tables += [replace(one, baseline=bool(table.get("baseline"))) for one in single]
    return tables


def _objects(name: str, segment: Mapping[str, Any]) -> Table:
    objects = segment["strict"].get("objects") or {}
    rows = [[target, *(format_estimate(v[key]) for key in ("aji", "pq", "sq", "rq"))] for target, v in objects.items()]
    note = note_on_missing_intervals(v["aji"] for v in objects.values())
    columns = ("target", "AJI", "PQ", "SQ", "RQ")
    return Table(f"objects_{safe_name(name)}", f"Instance segmentation, {name}", columns, rows, note)


def _scores(name: str, segment: Mapping[str, Any]) -> Table:
    scores = segment.get("scores") or {}
    paths = {
        "presence AUROC": ("presence", "auroc"),
        "presence calibration error": ("presence", "calibration_error"),
        "presence AUROC, in context": ("presence_in_context", "auroc"),
        "presence calibration error, in context": ("presence_in_context", "calibration_error"),
        "mask score calibration error": ("mask", "calibration_error"),
        "AURC": ("risk", "aurc"),
    }
    note = (
        "In context: without targets that cannot occur in this kind of image. Mask score: predicted IoU. AURC: area "
        "under the curve of risk (1 − Dice) against coverage over all in-context samples, most confident first; lower "
        "is better. Confidence: presence score times mask score (or the only one of them), 1 − presence for an empty "
        "mask. A failure counts as confidently wrong, except in the calibration error of the mask score."
    )
    rows = [[name, *(format_estimate(get_in(scores, *path)) for path in paths.values())]] if scores else []
    return Table(f"scores_{safe_name(name)}", f"Reported scores, {name}", ("model", *paths), rows, note)


def _targets(name: str, segment: Mapping[str, Any]) -> Table:
    rows, targets = [], segment["strict"]["targets"]
    for target, table in targets.items():
        absent = table["false_masks"]
        false_masks = f"{format_estimate(absent, percent=True, interval=False)} of {absent['count']}"
        rows.append(
            [
                target,
                str(table["dice"]["count"]),
                str(table["dice"]["subjects"]),
                format_estimate(table["dice"]),
                format_estimate(table["surface_dice"], interval=False),
                _tolerance(table),
                *(_distance(table.get(f"hd95_{unit}")) for unit in ("mm", "pixels")),
                false_masks if absent["count"] else MISSING,
            ]
        )
    columns = (
        "target",
        "images with target",
        "subjects",
        "Dice",
        "surface Dice",
        "tolerance",
        "HD95 (mm)",
        "HD95 (pixels)",
        "false masks",
    )
    missing = note_on_missing_intervals(table["dice"] for table in targets.values())
    note = (
        f"{DICE_PRESENT} HD95: in mm for images with known pixel spacing, in pixels for the others. If the mask is "
        "empty or there is no answer, it is the diagonal of the image, so that a few such images increase the mean "
        f"considerably. False masks: images without the target whose mask has any pixel. {missing}"
    ).strip()
    return Table(f"targets_{safe_name(name)}", f"Segmentation by target, {name}", columns, rows, note)


def _tolerance(table: Mapping[str, Any]) -> str:
    """Return the tolerance of the surface Dice, which depends on whether the pixel spacing is known."""
    count, in_mm = table["dice"]["count"], get_in(table, "hd95_mm", "count") or 0
    if not count:
        return MISSING
    return "2 pixels" if not in_mm else "2 mm" if in_mm == count else "2 mm or 2 pixels"


def _distance(table: Mapping[str, Any] | None) -> str:
    """Format a mean distance; images whose size cannot be read are reported as unmeasured."""
    unmeasured = get_in(table, "unmeasured") or 0
    note = f", {unmeasured} of {unmeasured + get_in(table, 'count')} unmeasured" if unmeasured else ""
    return format_estimate(table, 1, interval=False) + note
