"""Images with annotations in the COCO form: polygons, run lengths, boxes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as mask_utils

from unibiomed.data.adapters.common import (
    Place,
    Row,
    Tell,
    base_record,
    find_places,
    plain_path,
    refuse,
    without_ending,
)
from unibiomed.data.adapters.regions import Box, Folders, further_records, in_rounds, target_of, whole_box
from unibiomed.data.adapters.tables import asked_columns, only_asked, walk_file
from unibiomed.data.entries import DatasetEntry, Table, Target
from unibiomed.data.pixels import MAX_MASK_PIXELS
from unibiomed.data.records import Record, Region
from unibiomed.errors import DataError, InputError
from unibiomed.findings import check_rle, mask_box, rle_decode, rle_encode

Rle = dict[str, Any]
PARTS = ("images", "annotations", "categories")


class _Mark(NamedTuple):
    """An annotation in short: run lengths are some hundred bytes where the numbers of a polygon are thousands."""

    target: str
    number: object
    counts: str | None
    box: object
    crowd: bool


@dataclass(slots=True)
class _Image:
    """An image of a COCO file with its annotations."""

    row: Row
    file: str
    size: tuple[int, int]
    source: _Source
    marks: list[_Mark] | None = None
    broken: set[str] | None = None
    """Targets with an annotation that cannot be read, of which nothing is known therefore."""
    moved: bool = False
    """Whether it was found by the last part of its path alone."""

    @property
    def where(self) -> str:
        return f"{self.source.where}: image '{without_ending(self.file)}'"


@dataclass(slots=True)
class _Source:
    """What the images of one file share."""

    where: str
    split: str | None
    folder: str
    targets: Mapping[str, Target]


def read_coco(entry: DatasetEntry, tell: Tell = refuse) -> Iterator[Record]:
    """Records of the adapter ``coco``, see `unibiomed.data.entries`."""
    images: dict[str, _Image] = {}
    folders = Folders(entry.folder / entry.images)
    for table in entry.tables:
        _read_file(entry, table, images, folders, tell)
    places = find_places(
        entry,
        {name: image.row for name, image in images.items()},
        {name: image.source.split for name, image in images.items()},
    )
    for name in sorted(places):
        # What became a record is let go of.
        try:
            yield from _records(entry, name, images.pop(name), places.pop(name), folders)
        except DataError as error:
            tell(error)


def _read_file(entry: DatasetEntry, table: Table, images: dict[str, _Image], folders: Folders, tell: Tell) -> None:
    """Go through a file twice: annotations may stand before what they name, and are too many to wait."""
    file, where = table.file, f"{entry.name}/{table.file}"
    columns = asked_columns(entry)
    words: dict[str, str] = {}
    used: set[str] = set()
    by_id: dict[str, _Image] = {}
    targets: dict[str, Target] = {}
    source = _Source(where, table.split, table.folder, targets)
    for part, item in _items(entry, file):
        if part == "categories":
            words[str(item.get("id"))] = str(item.get("name"))
        elif part == "annotations":
            used.add(str(item.get("category_id")))
        else:
            try:
                _take_image(item, _image(item, source, columns, folders), images, by_id)
            except DataError as error:
                tell(error)
    annotated = {words.get(number) for number in used}
    named = {word for target in entry.targets for word in (target.categories or [target.name])}
    meant: dict[str, Target | None] = {}
    for number, word in words.items():
        # A category that nothing is annotated with may be a heading: where no target goes by it, it is passed over.
        if word in annotated | named:
            target = meant[number] = target_of(entry, word, where)
            if target is not None:
                targets[target.name] = target
    for part, item in _items(entry, file):
        if part == "annotations":
            owner, number = by_id.get(str(item.get("image_id"))), str(item.get("category_id"))
            if owner is None or number not in words:
                what = "image" if owner is None else "category"
                tell(DataError(f"{where}: annotation {item.get('id')} names an unknown {what}: correct it"))
            elif (target := meant[number]) is not None:
                try:
                    mark = _mark(item, target.name, owner)
                except DataError as error:
                    tell(error)
                    owner.broken = {*(owner.broken or ()), target.name}
                    continue
                owner.marks = owner.marks or []
                owner.marks.append(mark)


def _take_image(item: Row, image: _Image, images: dict[str, _Image], by_id: dict[str, _Image]) -> None:
    """Add an image of a file to those known; a name or id that another one has is an error."""
    where, name, number = image.source.where, without_ending(image.file), str(item.get("id"))
    if name in images:
        if images[name].moved or image.moved:
            # Either may be meant: which picture belongs to which row cannot be told by the last part of the path.
            first = images.pop(name)
            for key in [key for key, other in by_id.items() if other is first]:
                del by_id[key]
            raise DataError(f"{where}: several images end in '{image.file}', in different folders: restore the folders")
        raise DataError(f"{where}: image '{name}' is listed twice, here or in another table: leave one out")
    if number in by_id and item.get("id") is not None:
        raise DataError(f"{where}: image '{name}' has the id {number} of another image: correct it")
    images[name] = by_id[number] = image


def _items(entry: DatasetEntry, file: str) -> Iterator[tuple[str, Row]]:
    """Images, annotations and categories of a file as they come, each with the name of its list."""
    missing = set(PARTS)
    for key, part, value in walk_file(entry, file):
        if key in PARTS:
            if part is None and isinstance(value, list):
                missing.discard(key)
            elif part is not None and isinstance(value, dict):
                yield key, value
            else:
                break
    else:
        if not missing:
            return
    raise DataError(
        f"{entry.name}/{file}: is not in the COCO form, with lists of images, annotations and categories; mend it"
    )


def _image(item: Row, source: _Source, columns: Sequence[str], folders: Folders) -> _Image:
    name = without_ending(item.get("file_name") or "")
    height: Any = item.get("height")
    width: Any = item.get("width")
    sized = type(height) is int and type(width) is int and min(height, width) > 0
    if not name or not sized or height * width > MAX_MASK_PIXELS:
        raise DataError(
            f"{source.where}: image '{name}' has no name, or no size up to {MAX_MASK_PIXELS} pixels; mend it"
        )
    given, above = plain_path(item["file_name"]), f"{source.folder}/" if source.folder else ""
    last = given.rpartition("/")[2]
    # Tools write the paths of the machine on which they ran; the picture may lie here under its name alone.
    moved = last != given and folders.place(above + given) is None and folders.place(above + last) is not None
    return _Image(only_asked(item, columns), above + (last if moved else given), (height, width), source, moved=moved)


def _mark(item: Row, target: str, image: _Image) -> _Mark:
    outline = _outline(item, image)
    counts = None if outline is None else outline["counts"]
    return _Mark(target, item.get("id"), counts, item.get("bbox"), bool(item.get("iscrowd")))


def _records(entry: DatasetEntry, name: str, image: _Image, place: Place, folders: Folders) -> Iterator[Record]:
    path = folders.one(image.file)
    if path is None:
        raise DataError(f"{image.where} is missing from {entry.images}/; restore it")
    regions: list[Region] = []
    boxed: list[Region] = []
    for target in image.source.targets.values():
        if target.name in (image.broken or ()):
            continue
        found = [mark for mark in image.marks or () if mark.target == target.name]
        if not found:
            regions += [] if target.missing == "unknown" else [_region(target)]
            continue
        outlines = [_rle(mark, image) for mark in found]
        if all(outline is not None for outline in outlines):
            regions.append(
                _region(target, _union([outline for outline in outlines if outline is not None], image.where))
            )
        else:
            # One object without an outline, and the union of the others would not be all of the target.
            boxed += [_region(target, box=_box(mark, image)) for mark in found if not mark.crowd]
    rounds = in_rounds(boxed)
    first = Record(
        image=path,
        regions=(*regions, *(rounds[0] if rounds else ())),
        **base_record(entry, name, place, image.row),
    )
    yield first
    yield from further_records(first, rounds[1:])


def _rle(mark: _Mark, image: _Image) -> Rle | None:
    return None if mark.counts is None else {"size": [*image.size], "counts": mark.counts}


def _region(target: Target, mask: Rle | None = None, box: Box | None = None) -> Region:
    return Region(target.name, mask, abnormal=target.abnormal, attributes=dict(target.attributes), box=box)


def _outline(item: Row, image: _Image) -> Rle | None:
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
    found: Rle = {"size": [height, width], "counts": counts}
    try:
        check_rle(found)
    except InputError as error:
        raise _broken(where, error) from error
    return found


def _is_polygon(polygon: object, limit: int) -> bool:
    return (
        isinstance(polygon, list)
        and len(polygon) >= 6
        and len(polygon) % 2 == 0
        # compared first: a whole number may be too long for a float
        and all(isinstance(v, (int, float)) and abs(v) <= limit and math.isfinite(v) for v in polygon)
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
        raise _broken(where, error) from error


def _broken(where: str, error: Exception) -> DataError:
    return DataError(f"{where}: run lengths are broken ({error}); mend the file")


def _text(rle: Mapping[str, Any]) -> Rle:
    counts = rle["counts"]
    return {"size": [int(n) for n in rle["size"]], "counts": counts.decode() if isinstance(counts, bytes) else counts}


def _box(mark: _Mark, image: _Image) -> Box:
    where = f"{image.where}, annotation {mark.number}"
    box = mark.box
    if box is None and (outline := _rle(mark, image)) is not None:
        around = mask_box(_decode(outline, where))
        if around is not None:
            return around
    if not isinstance(box, list) or not all(isinstance(v, (int, float)) for v in box):
        raise DataError(f"{where}: has neither outline nor box; mend the file or leave it out")
    return whole_box(box, "xywh", where, image.size)
