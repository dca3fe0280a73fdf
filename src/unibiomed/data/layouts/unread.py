"""Annotations in forms that are recognised, and not read: the message names them, and what to convert them to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from unibiomed.data.layouts.survey import Survey, spread

__all__ = ["CURE", "unread_form"]

CURE = "convert the annotations to COCO JSON or to mask files"
LOOKED_AT = 12
MAX_BYTES = 100_000
_YOLO_LINE = re.compile(r"\s*\d+(\s+[\d.eE+-]+){4,}\s*")


def unread_form(survey: Survey, described: Mapping[str, Any]) -> str | None:
    """Name the form of annotations that cannot be read; None where none is recognised.

    Parameters
    ----------
    survey : Survey
        The folder.
    described : mapping
        Contents of JSON files by path.

    Returns
    -------
    str or None
        Such as ``"LabelMe (a.json)"``, with an example file.
    """
    for path, content in described.items():
        form = _json_form(content)
        if form is not None:
            return f"{form} ({path})"
    for ending, form in ((".qpproj", "QuPath"), (".qpdata", "QuPath"), (".geojson", "QuPath or another GeoJSON tool")):
        if paths := survey.paths((ending,)):
            return f"{form} ({paths[0]})"
    return _yolo(survey) or _xml(survey)


def _json_form(content: Any) -> str | None:
    if isinstance(content, list):
        features = [item for item in content[:LOOKED_AT] if isinstance(item, dict) and item.get("type") == "Feature"]
        return "QuPath or another GeoJSON tool" if features else None
    if not isinstance(content, dict):
        return None
    if isinstance(content.get("shapes"), list) and "imagePath" in content:
        return "LabelMe"
    if "_via_img_metadata" in content or _is_via(content):
        return "VGG Image Annotator (VIA)"
    if isinstance(content.get("objects"), list) and isinstance(content.get("size"), dict):
        return "Supervisely"
    if isinstance(content.get("classes"), list) and ("tags" in content or "projectType" in content):
        return "Supervisely"
    if content.get("type") == "FeatureCollection":
        return "QuPath or another GeoJSON tool"
    return None


def _is_via(content: Mapping[str, Any]) -> bool:
    """Whether each member is a picture with its regions, as the annotations that VIA exports."""
    some = list(content.values())[:LOOKED_AT]
    return bool(some) and all(isinstance(item, dict) and {"filename", "regions"} <= set(item) for item in some)


def _yolo(survey: Survey) -> str | None:
    """YOLO's text files: on each line a class and numbers from 0 to 1, in a file named after its picture."""
    for path in spread(survey.paths((".txt",)), LOOKED_AT):
        text = _start(survey, path)
        lines = [line for line in text.splitlines() if line.strip()][:LOOKED_AT]
        if lines and all(_YOLO_LINE.fullmatch(line) for line in lines):
            numbers = [float(number) for line in lines for number in line.split()[1:] if _is_number(number)]
            if numbers and all(0 <= number <= 1 for number in numbers):
                return f"YOLO ({path})"
    return None


def _xml(survey: Survey) -> str | None:
    for path in spread(survey.paths((".xml",)), LOOKED_AT):
        text = _start(survey, path)
        if "<annotation" in text and "<bndbox>" in text:
            return f"Pascal VOC ({path})"
        if "<annotations>" in text and "<image " in text:
            return f"CVAT ({path})"
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _start(survey: Survey, path: str) -> str:
    try:
        with (survey.folder / path).open("rb") as file:
            return file.read(MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""  # what cannot be opened tells nothing
