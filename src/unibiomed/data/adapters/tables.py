"""Tables beside the images: CSV, JSON, JSON lines and Parquet become rows with named columns."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unibiomed.data.adapters.common import Names, Row
from unibiomed.data.entries import DatasetEntry, Table
from unibiomed.errors import DataError

MAX_TABLE_BYTES = 500_000_000
"""Tables are read whole; unpacked, a Parquet file may be four times as large."""
FORMS = "CSV, JSON or JSON lines in UTF-8, or Parquet"


def read_json(entry: DatasetEntry, file: str) -> Any:
    """Read a JSON file of the data set.

    Raises
    ------
    DataError
        It is missing, larger than `MAX_TABLE_BYTES`, or not JSON.
    """
    try:
        return json.loads(_bytes(entry, file))
    except (ValueError, RecursionError) as error:
        raise _unreadable(entry, file) from error


def read_rows(entry: DatasetEntry, table: Table, needed: Iterable[str] = ()) -> list[Row]:
    """Rows of a table; the columns `needed` and that of the image's name have a value in every row."""
    rows: Any
    try:
        if table.file.endswith(".parquet"):
            rows = _parquet(entry, table.file)
        elif table.file.endswith(".csv"):
            text = _bytes(entry, table.file).decode("utf-8-sig")
            rows = list(csv.DictReader(io.StringIO(text, newline="")))
        elif table.file.endswith(".jsonl"):
            text = _bytes(entry, table.file).decode("utf-8-sig")
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
        else:
            rows = json.loads(_bytes(entry, table.file))
    except (ValueError, csv.Error, RecursionError) as error:
        raise _unreadable(entry, table.file) from error
    where = f"{entry.name}/{table.file}"
    if table.rows is not None and isinstance(rows, dict):
        rows = rows.get(table.rows)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(
            f"{where}: table is not a list of rows with named columns; mend the file, or name the list in 'rows'"
        )
    for column in (table.key, *needed):
        if not all(row.get(column) not in (None, "") for row in rows):
            raise DataError(f"{where}: column '{column}' is missing or empty in a row; mend the table")
    return rows


def join_rows(entry: DatasetEntry, names: Iterable[str]) -> dict[str, Row]:
    """What all tables say of each image, by name; an empty row where they say nothing."""
    joined: dict[str, dict[str, Any]] = {name: {} for name in names}
    for table in entry.tables:
        known = Names(joined, table.match)
        for row in read_rows(entry, table):
            found = known.find(row[table.key])
            if table.match is None and len(found) > 1:
                raise _ambiguous(entry, table, row, found)
            for name in found:
                joined[name].update(row)
    return dict(joined)


def rows_by_image(
    entry: DatasetEntry, names: Iterable[str], needed: Iterable[str] = ()
) -> Mapping[str, list[tuple[Table, Row]]]:
    """Rows of all tables by the image that they speak of.

    Raises
    ------
    DataError
        A row speaks of an image that is not there, or of several.
    """
    found: dict[str, list[tuple[Table, Row]]] = defaultdict(list)
    names = list(names)
    for table in entry.tables:
        known = Names(names, table.match)
        for row in read_rows(entry, table, needed):
            images = known.find(row[table.key])
            if not images:
                where = f"{entry.name}/{table.file}: image '{row[table.key]}'"
                raise DataError(f"{where} is missing from {entry.images}/; restore it")
            if len(images) > 1:
                raise _ambiguous(entry, table, row, images)
            found[images[0]].append((table, row))
    return found


def _ambiguous(entry: DatasetEntry, table: Table, row: Row, images: Sequence[str]) -> DataError:
    where = f"{entry.name}/{table.file}: image '{row[table.key]}'"
    return DataError(f"{where} may be '{images[0]}' or '{images[1]}'; give its folder in the table")


def _bytes(entry: DatasetEntry, file: str) -> bytes:
    path = _checked(entry, file)
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(entry, file) from error


def _checked(entry: DatasetEntry, file: str) -> Path:
    path = entry.folder / file
    where = f"{entry.name}/{file}"
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise DataError(f"{where}: table is missing; restore it or mend the catalogue entry") from error
    except OSError as error:
        raise _unreadable(entry, file) from error
    if size > MAX_TABLE_BYTES:
        raise DataError(f"{where}: table is larger than {MAX_TABLE_BYTES // 1_000_000} MB; split it")
    return path


def _parquet(entry: DatasetEntry, file: str) -> list[Row]:
    path = _checked(entry, file)
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
            rows: list[Row] = parquet.read(columns=plain).to_pylist()
            return rows
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(entry, file) from error


def _unreadable(entry: DatasetEntry, file: str) -> DataError:
    return DataError(f"{entry.name}/{file}: table cannot be read; it should be {FORMS}")
