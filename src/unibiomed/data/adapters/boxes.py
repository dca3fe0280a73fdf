"""Images with tables of boxes and what they hold, as DeepLesion and MedTrinity have them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from unibiomed.data.adapters.common import (
    Item,
    Place,
    Row,
    Tell,
    base_record,
    find_places,
    find_value,
    is_absent,
    list_images,
    refuse,
    tidy,
)
from unibiomed.data.adapters.regions import further_records, in_rounds, target_of, whole_box
from unibiomed.data.adapters.tables import rows_by_image
from unibiomed.data.adapters.texts import image_text
from unibiomed.data.entries import Boxes, DatasetEntry, Table
from unibiomed.data.records import REGION_TEXT, Record, Region
from unibiomed.errors import DataError


def read_boxes(entry: DatasetEntry, tell: Tell = refuse) -> Iterator[Record]:
    """Records of the adapter ``boxes``, see `unibiomed.data.entries`."""
    items = list_images(entry, tell=tell)
    found, official = rows_by_image(entry, items, tell=tell)
    rows = {name: _image_row(entry, told) for name, told in found.items()}
    for name, place in sorted(find_places(entry, rows, official).items()):
        try:
            yield from _records(entry, items[name], place, found[name], rows[name])
        except DataError as error:
            tell(error)


def _image_row(entry: DatasetEntry, rows: Sequence[tuple[Table, Row]]) -> Row:
    """What the tables say of the image as a whole: without ``table``, the first row of a box."""
    assert entry.boxes is not None, "checked when the entry was read"
    if entry.boxes.table is None:
        return rows[0][1]
    return {key: value for table, row in rows if table.file != entry.boxes.table for key, value in row.items()}


def _records(
    entry: DatasetEntry, item: Item, place: Place, rows: Sequence[tuple[Table, Row]], image_row: Row
) -> Iterator[Record]:
    assert entry.boxes is not None, "checked when the entry was read"
    regions = [
        region
        for table, row in rows
        if entry.boxes.table in (None, table.file)
        and (region := _region(entry, entry.boxes, item.name, row, f"{entry.name}/{table.file}: image '{item.name}'"))
    ]
    boxed = {region.target for region in regions}
    regions += [
        Region(target.name, None, abnormal=target.abnormal, attributes=dict(target.attributes))
        for target in entry.targets
        if target.name not in boxed and is_absent(entry, target, item.name, image_row)
    ]
    rounds = in_rounds(regions)
    first = Record(
        image=item.path,
        regions=rounds[0] if rounds else (),
        text=image_text(entry, [row for _, row in rows]) or None,
        **base_record(entry, item.name, place, image_row),
    )
    yield first
    yield from further_records(first, rounds[1:])


def _region(entry: DatasetEntry, boxes: Boxes, name: str, row: Row, where: str) -> Region | None:
    numbers = _numbers(boxes, row, where)
    if numbers is None:
        return None
    word = find_value(entry, boxes.target, name, row)
    if word is None:
        raise DataError(f"{where} has a box without a label; fill it in or leave the row out")
    target = target_of(entry, tidy(word), where)
    if target is None:
        return None
    words = tidy(str(row.get(boxes.text) or "")) if boxes.text else ""
    return Region(
        target=target.name,
        mask=None,
        abnormal=target.abnormal or boxes.abnormal,
        attributes=dict(target.attributes) | ({REGION_TEXT: words} if words else {}),
        box=whole_box(numbers, boxes.format, where),
    )


def _numbers(boxes: Boxes, row: Row, where: str) -> list[float] | None:
    """The four numbers of a row's box; None where its cells are empty."""
    for column in boxes.columns:
        if column not in row:
            raise DataError(f"{where}: the table has no column '{column}'; mend the entry")
    cells = [row[column] for column in boxes.columns]
    if len(cells) == 1:
        # A list, or text such as "226.2, 90.0, 241.3, 112.0" or "[1 2 3 4]".
        cells = cells[0] if isinstance(cells[0], list) else re.split(r"[\s,;]+", str(cells[0] or "").strip("[]() "))
    if all(cell in (None, "") for cell in cells):
        return None
    try:
        return [float(cell) for cell in cells]
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where}: a box is not four numbers in pixels; mend the table") from error
