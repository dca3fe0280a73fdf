"""Images with mask files, joined with tables."""

from __future__ import annotations

import re
from collections.abc import Iterator

from unibiomed.data.adapters.common import Row, Tell, base_record, find_places, list_images, refuse
from unibiomed.data.adapters.regions import Folders, find_masks, mask_region
from unibiomed.data.adapters.tables import join_rows
from unibiomed.data.entries import DatasetEntry
from unibiomed.data.records import Record
from unibiomed.errors import DataError


def read_images(entry: DatasetEntry, tell: Tell = refuse) -> Iterator[Record]:
    """Records of the adapter ``images``, see `unibiomed.data.entries`."""
    items = list_images(entry, tell=tell)
    rows, official = join_rows(entry, items, tell)
    folders = Folders(entry.folder)
    for name, place in sorted(find_places(entry, rows, official).items()):
        try:
            yield Record(
                image=items[name].path,
                regions=tuple(
                    mask_region(target, found, ignored=entry.ignore_values)
                    for target, found in find_masks(entry, items[name], rows[name], folders)
                ),
                spacing=_spacing(entry, name, rows[name]),
                **base_record(entry, name, place, rows[name]),
            )
        except DataError as error:
            tell(error)


def _spacing(entry: DatasetEntry, name: str, row: Row) -> tuple[float, float] | None:
    rule = entry.spacing
    if rule is None or rule.column is None or (rule.unless and re.search(rule.unless, name)):
        return None
    if rule.column not in row:
        raise DataError(f"{entry.name}/{name}: no table row with a column '{rule.column}'; add the row")
    values = row[rule.column]
    if not isinstance(values, list) or len(values) < 2 or not all(isinstance(value, (int, float)) for value in values):
        raise DataError(f"{entry.name}/{name}: pixel spacing is not a list of two or three numbers; mend the table")
    # Tables give x, y, z as volumes do; an image has rows (y) first.
    return float(values[1]), float(values[0])
