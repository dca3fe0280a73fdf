"""Segmentation: overlap, false masks and volumes; each target and single objects; what the scores are worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..sheet import NONE, Sheet, number, simple
from .common import DICE, PUBLISHED, THERE, file_of, get_in, in_order, matrix

__all__ = ["segment_sheets"]


def segment_sheets(models: Mapping[str, Any]) -> list[Sheet]:
    """All models side by side, by target, modality and data set; then each model by itself."""
    rows = []
    for name, table in in_order(models):
        strict, published = get_in(table, "segment", "strict"), get_in(table, "segment", "published")
        if strict is None:
            continue
        rows.append(
            [
                name,
                number(strict["dice"]),
                number(published["dice"]),
                number(strict["dice_with_absent"]),
                number(strict.get("iou")),
                number(strict["surface_dice"]),
                number(strict["detected"], percent=True),
                number(strict["false_masks"], percent=True),
                number(strict["false_masks_foreign"], percent=True),
                number(strict.get("false_parts"), 2),
            ]
        )
    columns = (
        "model",
        "Dice",
        "Dice, published protocol",
        "Dice, absent counted",
        "IoU",
        "surface Dice",
        "found",
        "false masks",
        "of another body part",
        "false parts an image",
    )
    note = (
        f"{DICE} IoU, surface Dice (at 2 mm, or 2 pixels where the size of a pixel is not known) and found: images "
        "that show the target. False masks: of images without the target, those with any pixel. False parts: pieces of "
        "masks that touch no truth."
    )
    sheets = [Sheet("segmentation", "Segmentation", columns, rows, note)]
    for part, title in (("targets", "Dice by target"), ("modalities", "Dice by modality"), ("datasets", "Dice by set")):
        path, file = ("segment", "strict", part), f"segmentation_{part}"
        sheets.append(matrix(models, path, "dice", file, title, THERE))
        path, title = ("segment", "published", part), f"{title}, published protocol"
        sheets.append(matrix(models, path, "dice", f"{file}_published", title, PUBLISHED))
    sheets.append(matrix(models, ("segment", "strict", "volumes"), None, "volumes", "Volume Dice, all slices"))
    sheets.append(
        matrix(
            models,
            ("segment", "published", "volumes"),
            None,
            "volumes_published",
            "Volume Dice, published protocol (slices with the target alone)",
        )
    )
    for name, table in in_order(models):
        if not get_in(table, "segment"):
            continue
        sheets.append(_targets(name, table["segment"]["strict"]["targets"]))
        sheets.append(_scores(name, table["segment"].get("scores") or {}))
        objects = table["segment"]["strict"].get("objects") or {}
        rows = [[t, number(v["aji"]), *(simple(v[k]) for k in ("pq", "sq", "rq"))] for t, v in objects.items()]
        sheets.append(
            Sheet(f"objects_{file_of(name)}", f"Single objects, {name}", ("target", "AJI", "PQ", "SQ", "RQ"), rows)
        )
    return sheets


def _scores(name: str, judged: Mapping[str, Any]) -> Sheet:
    places = {
        "presence AUROC": ("presence", "auroc"),
        "presence calibration error": ("presence", "calibration_error"),
        "presence AUROC, own targets": ("presence_own", "auroc"),
        "presence calibration error, own targets": ("presence_own", "calibration_error"),
        "mask score calibration error": ("mask", "calibration_error"),
        "AURC": ("mask", "aurc"),
    }
    note = (
        "Own targets: of the image's own kind, without those of other body parts. AURC: area under the curve of risk "
        "against coverage of the mask score, lower is better."
    )
    rows = [[name, *(simple(get_in(judged, *place)) for place in places.values())]] if judged else []
    return Sheet(f"scores_{file_of(name)}", f"The scores of {name}", ("model", *places), rows, note)


def _targets(name: str, targets: Mapping[str, Any]) -> Sheet:
    rows = []
    for target, table in targets.items():
        absent = table["false_masks"]
        rows.append(
            [
                target,
                str(table["dice"]["count"]),
                str(table["dice"]["subjects"]),
                number(table["dice"]),
                number(table["surface_dice"], interval=False),
                number(table.get("hd95_mm"), 1, interval=False),
                f"{number(absent, percent=True, interval=False)} of {absent['count']}" if absent["count"] else NONE,
            ]
        )
    columns = ("target", "images with it", "subjects", "Dice", "surface Dice", "HD95 (mm)", "false masks without it")
    return Sheet(f"targets_{file_of(name)}", f"Every target, {name}", columns, rows, THERE)
