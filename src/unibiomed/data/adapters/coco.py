"""Images with annotations in the COCO form: polygons, run lengths, boxes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pycocotools import mask as mask_utils

from unibiomed.data.adapters.common import Place, base_record, find_places, without_ending
from unibiomed.data.adapters.regions import Box, Folders, further_records, in_rounds, target_of, whole_box
from unibiomed.data.adapters.tables import read_json
from unibiomed.data.entries import DatasetEntry, Target
from unibiomed.data.pixels import MAX_MASK_PIXELS
from unibiomed.data.records import Record, Region
from unibiomed.errors import DataError, InputError
from unibiomed.findings import mask_box, rle_decode, rle_encode

Rle = dict[str, Any]


@dataclass(slots=True)
class _Image:
    """An image of a COCO file with its annotations by the name of their target."""

    row: Mapping[str, Any]
    file: str
    size: tuple[int, int]
    split: str | None
    looked_for: Mapping[str, Target]
    where: str
    found: dict[str, list[Mapping[str, Any]]] = field(default_factory=lambda: defaultdict(list))


def read_coco(entry: DatasetEntry) -> Iterator[Record]:
    """Records of the adapter ``coco``, see `unibiomed.data.entries`."""
    images: dict[str, _Image] = {}
    for table in entry.tables:
        _read_file(entry, table.file, table.split, images)
    folders = Folders(entry.folder / entry.images)
    official = {name: image.split for name, image in images.items()}
    places = find_places(entry, {name: image.row for name, image in images.items()}, official)
    for name, place in sorted(places.items()):
        yield from _records(entry, name, images[name], place, folders)


def _read_file(entry: DatasetEntry, file: str, split: str | None, images: dict[str, _Image]) -> None:
    where = f"{entry.name}/{file}"
    data = read_json(entry, file)
    parts = [data.get(key) if isinstance(data, dict) else None for key in ("images", "annotations", "categories")]
    if not all(isinstance(part, list) and all(isinstance(item, dict) for item in part) for part in parts):
        raise DataError(f"{where}: is not in the COCO form, with lists of images, annotations and categories; mend it")
    listed, annotations, categories = (part or [] for part in parts)
    words = {str(item.get("id")): str(item.get("name")) for item in categories}
    used = {words.get(str(item.get("category_id"))) for item in annotations}
    named = {word for target in entry.targets for word in (target.categories or [target.name])}
    # A category that nothing is annotated with may be a heading: where no target goes by it, it is passed over.
    targets = [target_of(entry, word, where) for word in words.values() if word in used | named]
    looked_for = {target.name: target for target in targets if target is not None}
    by_id: dict[str, _Image] = {}
    for row in listed:
        name = without_ending(row.get("file_name") or "")
        height, width = row.get("height"), row.get("width")
        sized = type(height) is int and type(width) is int and min(height, width) > 0
        if not name or not sized or height * width > MAX_MASK_PIXELS:
            raise DataError(f"{where}: image '{name}' has no name, or no size up to {MAX_MASK_PIXELS} pixels; mend it")
        if name in images:
            raise DataError(f"{where}: image '{name}' is listed twice, here or in another table; leave one out")
        images[name] = by_id[str(row.get("id"))] = _Image(
            row, str(row["file_name"]), (height, width), split, looked_for, f"{where}: image '{name}'"
        )
    for item in annotations:
        image, word = by_id.get(str(item.get("image_id"))), words.get(str(item.get("category_id")))
        if image is None or word is None:
            raise DataError(f"{where}: annotation {item.get('id')} names an unknown image or category; mend it")
        target = target_of(entry, word, where)
        if target is not None:
            image.found[target.name].append(item)


def _records(entry: DatasetEntry, name: str, image: _Image, place: Place, folders: Folders) -> Iterator[Record]:
    path = folders.one(image.file)
    if path is None:
        raise DataError(f"{image.where} is missing from {entry.images}/; restore it")
    regions: list[Region] = []
    boxed: list[Region] = []
    for target in image.looked_for.values():
        found = image.found.get(target.name, [])
        if not found:
            regions += [] if target.missing == "unknown" else [_region(target)]
            continue
        outlines = [_outline(item, image) for item in found]
        if all(outline is not None for outline in outlines):
            regions.append(
                _region(target, _union([outline for outline in outlines if outline is not None], image.where))
            )
        else:
            # One object without an outline, and the union of the others would not be all of the target.
            boxed += [_region(target, box=_box(item, image)) for item in found if not item.get("iscrowd")]
    rounds = in_rounds(boxed)
    first = Record(
        image=path,
        regions=(*regions, *(rounds[0] if rounds else ())),
        **base_record(entry, name, place, image.row),
    )
    yield first
    yield from further_records(first, rounds[1:])


def _region(target: Target, mask: Rle | None = None, box: Box | None = None) -> Region:
    return Region(target.name, mask, abnormal=target.abnormal, attributes=dict(target.attributes), box=box)


def _outline(item: Mapping[str, Any], image: _Image) -> Rle | None:
    """Run lengths of one annotation; None where it has a box alone."""
    where = f"{image.where}, annotation {item.get('id')}"
    outline = item.get("segmentation")
    height, width = image.size
    if not outline:
        return None
    if isinstance(outline, list):
        for polygon in outline:
            if not _is_polygon(polygon, 2 * max(height, width)):
                raise DataError(f"{where}: a polygon is not a list of three or more points near the image; mend it")
        return _text(mask_utils.merge(mask_utils.frPyObjects(outline, height, width)))
    if not isinstance(outline, dict) or list(outline.get("size") or ()) != [height, width]:
        raise DataError(f"{where}: the run lengths are not of the size of the image; mend the file")
    counts = outline.get("counts")
    if isinstance(counts, list):
        if not all(type(count) is int and count >= 0 for count in counts) or sum(counts) != height * width:
            raise DataError(f"{where}: the run lengths do not fill the image; mend the file")
        return _text(mask_utils.frPyObjects(outline, height, width))
    if not isinstance(counts, str):
        raise DataError(f"{where}: the run lengths are neither numbers nor text; mend the file")
    return {"size": [height, width], "counts": counts}


def _is_polygon(polygon: object, limit: int) -> bool:
    return (
        isinstance(polygon, list)
        and len(polygon) >= 6
        and len(polygon) % 2 == 0
        and all(isinstance(v, (int, float)) and math.isfinite(v) and abs(v) <= limit for v in polygon)
    )


def _union(outlines: Sequence[Rle], where: str) -> Rle:
    if len(outlines) == 1:
        return outlines[0]
    # Decoded one by one: the C code that could merge run lengths trusts what a file says.
    return rle_encode(np.logical_or.reduce([_decode(outline, where) for outline in outlines]))


def _decode(outline: Rle, where: str) -> np.ndarray:
    try:
        return rle_decode(outline)
    except (InputError, ValueError) as error:
        raise DataError(f"{where}: run lengths are broken ({error}); mend the file") from error


def _text(rle: Mapping[str, Any]) -> Rle:
    counts = rle["counts"]
    return {"size": [int(n) for n in rle["size"]], "counts": counts.decode() if isinstance(counts, bytes) else counts}


def _box(item: Mapping[str, Any], image: _Image) -> Box:
    where = f"{image.where}, annotation {item.get('id')}"
    box = item.get("bbox")
    if box is None and (outline := _outline(item, image)) is not None:
        around = mask_box(_decode(outline, where))
        if around is not None:
            return around
    if not isinstance(box, list) or not all(isinstance(v, (int, float)) for v in box):
        raise DataError(f"{where}: has neither outline nor box; mend the file or leave it out")
    return whole_box(box, "xywh", where, image.size)
