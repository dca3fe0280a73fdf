"""From a data set's files to records. A few readers serve all data sets; what differs is data in the catalogue.

Names and tables are read first, then records are made one by one. No image and no mask is opened, but for the headers
of volumes and, where empty slices are to be left out, the label volumes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from unibiomed.data.adapters.boxes import read_boxes
from unibiomed.data.adapters.coco import read_coco
from unibiomed.data.adapters.common import Tell, check_window, refuse
from unibiomed.data.adapters.images import read_images
from unibiomed.data.adapters.published import read_published
from unibiomed.data.adapters.texts import read_captions, read_questions, read_reports
from unibiomed.data.adapters.volumes import read_volumes
from unibiomed.data.entries import DatasetEntry
from unibiomed.data.records import Record
from unibiomed.errors import DataError

__all__ = ["iter_records", "read_records"]

_READERS: dict[str, Callable[[DatasetEntry, Tell], Iterator[Record]]] = {
    "images": read_images,
    "volumes": read_volumes,
    "coco": read_coco,
    "published": read_published,
    "questions": read_questions,
    "captions": read_captions,
    "boxes": read_boxes,
    "reports": read_reports,
}


def iter_records(entry: DatasetEntry, tell: Tell = refuse) -> Iterator[Record]:
    """Read one data set, record by record.

    Parameters
    ----------
    entry : DatasetEntry
        From `unibiomed.data.load_catalog`.
    tell : callable
        Is given the error of each file or row that does not fit; if it returns, the others are read. Left out, the
        first error is raised.

    Yields
    ------
    Record
        Sorted by name; the slices of a volume from the first to the last.

    Raises
    ------
    DataError
        A file is missing or does not fit the entry (the message names it), or there is no record at all.
    """
    check_window(entry)
    record = None
    for record in _READERS[entry.adapter](entry, tell):
        yield record
    if record is None:
        raise DataError(
            f"{entry.name}: no records found: check that its images, '{entry.images}' in dataset.toml, are files that "
            f"the adapter '{entry.adapter}' reads"
        )


def read_records(entry: DatasetEntry, tell: Tell = refuse) -> list[Record]:
    """Read one data set at once.

    Parameters
    ----------
    entry, tell
        As for `iter_records`.

    Returns
    -------
    list of Record
        As `iter_records` yields them.

    Raises
    ------
    DataError
        A file is missing or does not fit the entry; the message names it.
    """
    return list(iter_records(entry, tell))
