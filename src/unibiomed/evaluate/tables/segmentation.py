"""Segmentation: overlap, false masks and volumes; each target and single objects; what the scores are worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..sheet import NONE, Sheet, number
from .common import DICE, PUBLISHED, THERE, alone, both_protocols, file_of, get_in, in_order, matrix

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
        f"{DICE} IoU, surface Dice and found: images that show the target. Surface Dice: within 2 mm, or 2 pixels "
        "where the size of a pixel is not known, both in one mean; 'Every target' says which. False masks: of images "
        "without the target, those with any pixel. False parts: pieces of masks that touch no truth."
    )
    sheets = [Sheet("segmentation", "Segmentation", columns, rows, note)]
    for part, title in (("targets", "Dice by target"), ("modalities", "Dice by modality"), ("datasets", "Dice by set")):
        file, paths = f"segmentation_{part}", [("segment", protocol, part) for protocol in ("strict", "published")]
        strict = matrix(models, paths[0], "dice", file, title, THERE)
        published = matrix(models, paths[1], "dice", f"{file}_published", f"{title}, published protocol", PUBLISHED)
        sheets += both_protocols(strict, published)
    strict = matrix(models, ("segment", "strict", "volumes"), None, "volumes", "Volume Dice, all slices the set has")
    title = "Volume Dice, published protocol (slices with the target alone)"
    published = matrix(models, ("segment", "published", "volumes"), None, "volumes_published", title)
    sheets += both_protocols(strict, published)
    for name, table in in_order(models):
        if get_in(table, "segment"):
            own = (_targets(name, table["segment"]), _scores(name, table["segment"]), _objects(name, table["segment"]))
            sheets += [replace(sheet, floor=bool(table.get("floor"))) for sheet in own]
    return sheets


def _objects(name: str, segment: Mapping[str, Any]) -> Sheet:
    objects = segment["strict"].get("objects") or {}
    rows = [[t, number(v["aji"]), *(number(v[k]) for k in ("pq", "sq", "rq"))] for t, v in objects.items()]
    note = alone(v["aji"] for v in objects.values())
    return Sheet(f"objects_{file_of(name)}", f"Single objects, {name}", ("target", "AJI", "PQ", "SQ", "RQ"), rows, note)


def _scores(name: str, segment: Mapping[str, Any]) -> Sheet:
    judged = segment.get("scores") or {}
    places = {
        "presence AUROC": ("presence", "auroc"),
        "presence calibration error": ("presence", "calibration_error"),
        "presence AUROC, own targets": ("presence_own", "auroc"),
        "presence calibration error, own targets": ("presence_own", "calibration_error"),
        "mask score calibration error": ("mask", "calibration_error"),
        "AURC": ("risk", "aurc"),
    }
    note = (
        "Own targets: of the image's own kind, without those of other body parts. AURC: area under the curve of risk "
        "(1 − Dice) against the share of images answered, the surest first, of all own targets; lower is better. How "
        "sure: presence score times mask score (of what has one alone, that one), for an empty mask 1 − presence. A "
        "failure counts as surely wrong, but not for the mask score's error: it has no such score."
    )
    rows = [[name, *(number(get_in(judged, *place)) for place in places.values())]] if judged else []
    return Sheet(f"scores_{file_of(name)}", f"The scores of {name}", ("model", *places), rows, note)


def _targets(name: str, segment: Mapping[str, Any]) -> Sheet:
    rows, targets = [], segment["strict"]["targets"]
    for target, table in targets.items():
        absent = table["false_masks"]
        rows.append(
            [
                target,
                str(table["dice"]["count"]),
                str(table["dice"]["subjects"]),
                number(table["dice"]),
                number(table["surface_dice"], interval=False),
                _tolerance(table),
                *(_distance(table.get(f"hd95_{unit}")) for unit in ("mm", "pixels")),
                f"{number(absent, percent=True, interval=False)} of {absent['count']}" if absent["count"] else NONE,
            ]
        )
    columns = (
        "target",
        "images with it",
        "subjects",
        "Dice",
        "surface Dice",
        "within",
        "HD95 (mm)",
        "HD95 (pixels)",
        "false masks without it",
    )
    lone = alone(table["dice"] for table in targets.values())
    note = (
        f"{THERE} HD95: in mm of images whose pixels have a known size, in pixels of the others; where the mask is "
        f"empty, or there is no answer, it is the diagonal of the image, and a few such make the mean large. {lone}"
    ).strip()
    return Sheet(f"targets_{file_of(name)}", f"Every target, {name}", columns, rows, note)


def _tolerance(table: Mapping[str, Any]) -> str:
    """How far apart surfaces may be for the surface Dice: in mm where pixels have a known size, as HD95 tells."""
    count, measured = table["dice"]["count"], get_in(table, "hd95_mm", "count") or 0
    if not count:
        return NONE
    return "2 pixels" if not measured else "2 mm" if measured == count else "2 mm or 2 pixels"


def _distance(table: Mapping[str, Any] | None) -> str:
    """The mean, and how many of the images it is not of: those that cannot be read, nor their size."""
    lost = get_in(table, "unmeasured") or 0
    more = f", {lost} of {lost + get_in(table, 'count')} unmeasured" if lost else ""
    return number(table, 1, interval=False) + more
