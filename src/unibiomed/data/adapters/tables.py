"""Tables beside the images: CSV, JSON, JSON lines and Parquet become rows with named columns."""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unibiomed.data.adapters.common import Names, Row, Tell, cell_text, refuse
from unibiomed.data.adapters.streaming import Piece, walk_json
from unibiomed.data.entries import DatasetEntry, Table
from unibiomed.errors import DataError

MAX_TABLE_BYTES = 500_000_000
"""Rows are read one by one, but those of all images are held together; unpacked, Parquet may be four times as large."""
FORMS = "CSV, JSON or JSON lines in UTF-8, or Parquet"
ROWS_AT_ONCE = 4096
MAX_HEAD = 100_000
"""So many signs of a table's first line are looked at to tell what stands between its columns."""
QUESTION_COLUMNS = ("question", "answer", "answer_type", "qid")
"""Columns of a table of questions, where the entry gives them no other names."""


def walk_file(entry: DatasetEntry, file: str, objects: Collection[str] = ()) -> Iterator[Piece]:
    """Read a JSON file of the data set piece by piece, see `walk_json`; it may be of any size.

    Raises
    ------
    DataError
        It is missing or not JSON.
    """
    return walk_json(_checked(entry, file), f"{entry.name}/{file}", objects)


def read_rows(entry: DatasetEntry, table: Table, needed: Iterable[str] = ()) -> list[Row]:
    """All rows of a table, see `iter_rows`."""
    return list(iter_rows(entry, table, needed))


def iter_rows(entry: DatasetEntry, table: Table, needed: Iterable[str] = (), tell: Tell = refuse) -> Iterator[Row]:
    """Rows that a table's `keep` picks, one by one; the columns `needed` and that of the image's name have a value.

    Raises
    ------
    DataError
        The table is missing, larger than `MAX_TABLE_BYTES` or none, or, when its turn comes, a row is broken.
    """
    where = f"{entry.name}/{table.file}"
    path = _checked(entry, table.file, MAX_TABLE_BYTES)
    if table.file.endswith(".parquet"):
        rows = _parquet(entry, table.file, path)
    elif table.file.endswith((".csv", ".jsonl")):
        rows = _lines(entry, table.file, path)
    else:
        rows = _json(table, path, where)
    filled = (table.key, *needed)
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise _no_rows(where)
        if any(str(row.get(column)) not in values for column, values in table.keep.items()):
            continue
        empty = next((column for column in filled if row.get(column) in (None, "")), None)
        if empty is None:
            yield row
        else:
            tell(DataError(f"{where}, row {number}: column '{empty}' is missing or empty; mend the table"))


def _no_rows(where: str) -> DataError:
    return DataError(
        f"{where}: table is not a list of rows with named columns; mend the file, or name the list in 'rows'"
    )


def _json(table: Table, path: Path, where: str) -> Iterator[Any]:
    """Members of the outermost list, or of the one that 'rows' names."""
    home: str | None = None
    listed = False
    for key, part, value in walk_json(path, where):
        if key is None and part is None and isinstance(value, dict):
            home = table.rows
        elif key == home and part is None:
            if not isinstance(value, list):
                raise _no_rows(where)
            listed = True
        elif key == home and listed:
            yield value
    if not listed:
        raise _no_rows(where)


def _lines(entry: DatasetEntry, file: str, path: Path) -> Iterator[Any]:
    try:
        if file.endswith(".csv"):
            with path.open(encoding="utf-8-sig", newline="") as text:
                sign = csv_delimiter(text.readline(MAX_HEAD))
                text.seek(0)
                yield from csv.DictReader(text, delimiter=sign)
        else:
            # Only the line feed ends a line: a text may hold other signs that Python takes for an end.
            with path.open(encoding="utf-8-sig", newline="\n") as text:
                yield from (json.loads(line) for line in text if line.strip())
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        raise _unreadable(entry, file) from error


def csv_delimiter(head: str) -> str:
    """What stands between the columns of a CSV file by its first line: a comma, a semicolon or a tab."""
    return max(",;\t", key=head.count)


def asked_columns(entry: DatasetEntry) -> tuple[str, ...]:
    """The columns that an entry speaks of: all that is held of a row."""
    rules = [entry.modality, entry.site, entry.group, entry.split, entry.label, entry.spacing]
    columns = [*entry.attributes.values(), *entry.text, *entry.columns.values(), *QUESTION_COLUMNS]
    if entry.boxes is not None:
        rules.append(entry.boxes.target)
        columns += [*entry.boxes.columns, *([entry.boxes.text] if entry.boxes.text else [])]
    for rule in rules:
        if rule is not None:
            columns += [*(rule.columns or []), *([rule.column] if rule.column is not None else [])]
    for target in entry.targets:
        columns += target.absent_if
    for table in entry.tables:
        columns += [table.key, *table.keep]
    return tuple(dict.fromkeys(columns))


def only_asked(row: Row, columns: Iterable[str]) -> dict[str, Any]:
    """A row without the columns that nobody asks for; the names of the others are held once for all rows."""
    return {column: row[column] for column in columns if column in row}


def note_split(official: dict[str, str], entry: DatasetEntry, table: Table, name: str, tell: Tell = refuse) -> None:
    """Add the split that a table gives to an image; not where its questions have splits of their own.

    `tell` hears of an image that another table has put into another split; it stays there.
    """
    if table.split is None or entry.shared_images:
        return
    if official.setdefault(name, table.split) != table.split:
        otherwise = ", or set shared_images = true" if entry.adapter == "questions" else ""
        tell(DataError(f"{entry.name}/{name}: is in tables of two splits; leave it out of one{otherwise}"))


def _note_row(told: dict[str, str], entry: DatasetEntry, table: Table, row: Row, name: str, tell: Tell) -> None:
    """Hold the split that a row gives an image against that of the rows before; `tell` hears of another one."""
    column = None if entry.split is None else entry.split.column
    if column is None or column not in row:
        return
    split = cell_text(row[column])
    # of a row that says nothing, others tell
    if split and told.setdefault(name, split) != split:
        why = f"its rows say '{told[name]}' and '{split}' in column '{column}'; give it one split"
        tell(DataError(f"{entry.name}/{table.file}: image '{name}': {why}"))


def join_rows(entry: DatasetEntry, names: Iterable[str], tell: Tell = refuse) -> tuple[dict[str, Row], dict[str, str]]:
    """What all tables say of each image, an empty row where they say nothing, and their splits; both by name.

    Raises
    ------
    DataError
        A row speaks of several images, or an image is in tables or rows of two splits.
    """
    official: dict[str, str] = {}
    told: dict[str, str] = {}
    joined: dict[str, dict[str, Any]] = {name: {} for name in names}
    columns = asked_columns(entry)
    for table in entry.tables:
        known = Names(joined, table.match)
        for row in iter_rows(entry, table, tell=tell):
            found = known.find(row[table.key])
            if (table.match is None and len(found) > 1) or known.other:
                tell(_ambiguous(entry, table, row, found, known.other))
                continue
            for name in found:
                note_split(official, entry, table, name, tell)
                _note_row(told, entry, table, row, name, tell)
                joined[name].update(only_asked(row, columns))
    return dict(joined), official


def rows_by_image(
    entry: DatasetEntry, names: Iterable[str], needed: Iterable[str] = (), tell: Tell = refuse
) -> tuple[Mapping[str, list[tuple[Table, Row]]], dict[str, str]]:
    """Rows of all tables by the image that they speak of, and the splits that tables give to images.

    Raises
    ------
    DataError
        A row speaks of an image that is not there, or of several, or an image is in tables or rows of two splits.
    """
    official: dict[str, str] = {}
    told: dict[str, str] = {}
    found: dict[str, list[tuple[Table, Row]]] = defaultdict(list)
    names = list(names)
    columns = asked_columns(entry)
    for table in entry.tables:
        known = Names(names, table.match)
        for row in iter_rows(entry, table, needed, tell):
            images = known.find(row[table.key])
            if len(images) != 1 or known.other:
                where = f"{entry.name}/{table.file}: image '{row[table.key]}'"
                missing = DataError(f"{where} is missing from {entry.images}/; restore it")
                tell(_ambiguous(entry, table, row, images, known.other) if images else missing)
                continue
            note_split(official, entry, table, images[0], tell)
            _note_row(told, entry, table, row, images[0], tell)
            found[images[0]].append((table, only_asked(row, columns)))
    return found, official


def _ambiguous(
    entry: DatasetEntry, table: Table, row: Row, images: Sequence[str], other: str | None = None
) -> DataError:
    where = f"{entry.name}/{table.file}: image '{row[table.key]}'"
    if other:
        return DataError(f"{where} and '{other}' would both be '{images[0]}'; restore the one that is missing")
    return DataError(f"{where} may be '{images[0]}' or '{images[1]}'; give its folder in the table")


def _checked(entry: DatasetEntry, file: str, most: float = math.inf) -> Path:
    path = entry.folder / file
    where = f"{entry.name}/{file}"
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise DataError(f"{where}: table is missing; restore it or mend the catalogue entry") from error
    except OSError as error:
        raise _unreadable(entry, file) from error
    if size > most:
        raise DataError(f"{where}: table is larger than {most // 1_000_000} MB; split it")
    return path


def _parquet(entry: DatasetEntry, file: str, path: Path) -> Iterator[Row]:
    where = f"{entry.name}/{file}"
    try:
        import pyarrow as pa  # type: ignore[import-untyped]
        import pyarrow.parquet as pq  # type: ignore[import-untyped]
    except ImportError as error:
        raise DataError(f"{where}: reading Parquet needs pyarrow; pip install 'unibiomed[train]'") from error
    try:
        with pq.ParquetFile(path) as parquet:
            groups = (parquet.metadata.row_group(i) for i in range(parquet.metadata.num_row_groups))
            if sum(group.total_byte_size for group in groups) > 4 * MAX_TABLE_BYTES:
                raise DataError(f"{where}: table unpacks to more than {4 * MAX_TABLE_BYTES // 1_000_000} MB; split it")
            # Pictures inside a table are not read; their columns are structures or bytes.
            plain = [
                field.name
                for field in parquet.schema_arrow
                if not (pa.types.is_struct(field.type) or pa.types.is_binary(field.type))
            ]
            for batch in parquet.iter_batches(ROWS_AT_ONCE, columns=plain):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(entry, file) from error


def _unreadable(entry: DatasetEntry, file: str) -> DataError:
    return DataError(f"{entry.name}/{file}: table cannot be read; it should be {FORMS}")
