"""Tables beside images: questions, captions, reports, and labels, patients and splits of images."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from unibiomed.data.adapters.common import Names, without_ending
from unibiomed.data.adapters.tables import MAX_HEAD, csv_delimiter, read_rows
from unibiomed.data.entries import DatasetEntry, Rule, Table
from unibiomed.data.layouts.forms import split_of_name
from unibiomed.data.layouts.names import label_map, rules_from_names, split_map
from unibiomed.data.layouts.proposal import Found
from unibiomed.data.layouts.survey import Survey, spread
from unibiomed.data.layouts.words import SPLIT_WORDS
from unibiomed.data.records import NO_FINDINGS
from unibiomed.errors import DataError

__all__ = ["TableFile", "label_rules", "read_tables", "text_form"]

QUESTION = ("question", "q", "query")
ANSWER = ("answer", "a", "response")
TEXTS = ("findings", "impression", "report", "caption", "captions", "text", "description", "report_text")
IMAGE = (
    *(
        "image",
        "image_name",
        "img_name",
        "image_id",
        "img_id",
        "imageid",
        "file_name",
        "filename",
        "file",
        "img",
        "path",
    ),
    *("isic_id", "image_path", "name", "id", "uid", "stem", "study_id", "case", "key"),
)
PATIENT = ("patient", "patient_id", "patientid", "subject", "subject_id", "subjectid", "case_id", "pid", "participant")
LABEL = ("label", "labels", "class", "diagnosis", "dx", "category", "finding", "type", "pathology", "target")
SPLIT = ("split", "set", "subset", "partition", "fold")
MAX_TABLES = 12
MAX_TABLE_BYTES = 200_000_000
"""Larger ones are not opened to find out what they are."""
MAX_LABELS = 50
ENOUGH = 0.9


@dataclass(frozen=True, slots=True)
class TableFile:
    """A table: its path, its rows, and where they stand in a JSON file that is not a list."""

    file: str
    rows: Sequence[Mapping[str, Any]]
    at: str | None

    def column(self, names: Iterable[str]) -> str | None:
        """The first column with one of some names, whatever its capitals."""
        own = {_folded(str(key)): str(key) for key in self.rows[0]}
        return next((own[name] for name in names if name in own), None)

    def values(self, column: str) -> list[str]:
        """What a column holds, as text."""
        return ["" if row.get(column) is None else str(row.get(column)).strip() for row in self.rows]


def read_tables(survey: Survey, contents: Mapping[str, Any]) -> list[TableFile]:
    """Tables of a folder; JSON is given as it was read before, and what is no table is left out."""
    tables = []
    for path, content in contents.items():
        found = _rows_in(content)
        if found is not None:
            tables.append(TableFile(path, found[1], found[0]))
    reader = DatasetEntry("tables", survey.folder, "images", "", Rule(value="CT"), Rule(value="-"))
    paths = survey.paths((".csv", ".jsonl", ".parquet"))
    for path in sorted(paths, key=lambda path: (path.count("/"), path))[:MAX_TABLES]:
        rows = _read(reader, path)
        if rows:
            tables.append(TableFile(path, rows, None))
    return tables


def _read(reader: DatasetEntry, path: str) -> Sequence[Mapping[str, Any]]:
    """Rows of a table that has a column without gaps that could name images or patients; none of all others."""
    file = reader.folder / path
    try:
        if file.stat().st_size > MAX_TABLE_BYTES:
            return []
        if path.lower().endswith(".parquet"):
            import pyarrow.parquet as pq  # type: ignore[import-untyped,unused-ignore]

            columns = list(pq.read_schema(file).names)
        else:
            with file.open(encoding="utf-8-sig", newline="") as text:
                line = text.readline(MAX_HEAD)
            if path.lower().endswith(".jsonl"):
                columns = list(json.loads(line))
            else:
                columns = next(csv.reader([line], delimiter=csv_delimiter(line)), [])
    except (ImportError, OSError, ValueError, TypeError, csv.Error):
        return []
    own = {_folded(column): column for column in columns if isinstance(column, str)}
    for name in (*IMAGE, *PATIENT):
        if name in own:
            with suppress(DataError):
                return read_rows(reader, Table(path, own[name]))
    return []


def _folded(column: str) -> str:
    return column.strip().lower().replace(" ", "_")


def _rows_in(content: Any) -> tuple[str | None, list[Mapping[str, Any]]] | None:
    if _is_table(content):
        return None, content
    if isinstance(content, dict) and not ("annotations" in content and "images" in content):
        listed = [(key, value) for key, value in content.items() if _is_table(value)]
        if len(listed) == 1:
            return str(listed[0][0]), listed[0][1]
    return None


def _is_table(content: object) -> bool:
    return isinstance(content, list) and bool(content) and all(isinstance(row, dict) and row for row in content)


def _image_column(table: TableFile, known: Names, columns: Iterable[str] = IMAGE) -> str | None:
    """The column that names images that are there."""
    for name in columns:
        column = table.column((name,))
        if column is not None:
            some = spread([value for value in table.values(column) if value], 200)
            if some and sum(bool(known.find(value)) for value in some) >= ENOUGH * len(some):
                return column
    return None


def _unique_column(table: TableFile) -> str | None:
    """The column that gives each row a name of its own."""
    columns = [column for name in (*IMAGE, *PATIENT) if (column := table.column((name,))) is not None]
    rows = len(table.rows)
    return next((column for column in columns if len(set(table.values(column)) - {""}) == rows), None)


def _table(table: TableFile, key: str, *, split: bool = False) -> dict[str, str]:
    told = split_of_name(table.file) if split else None
    described = {"file": table.file, "key": key}
    return described | ({"rows": table.at} if table.at else {}) | ({"split": told} if told else {})


def text_form(tables: Sequence[TableFile], images: str, names: Sequence[str]) -> Found | None:
    """Questions, captions or reports.

    Parameters
    ----------
    tables : sequence of TableFile
        From `read_tables`.
    images : str
        ``images`` of an entry for the pictures of the folder.
    names : sequence of str
        Names of the pictures; empty where there are none.
    """
    asked = [(t, q, a) for t in tables if (q := t.column(QUESTION)) and (a := t.column(ANSWER))]
    if asked and names:
        return _questions(asked, images, names)
    known = Names(names)
    for table in tables:
        texts = [column for name in TEXTS if (column := table.column((name,))) is not None]
        texts = [column for column in texts if _is_prose(table.values(column))]
        if not texts:
            continue
        key = _image_column(table, known) if names else _unique_column(table)
        if key is None:
            continue
        told = ", ".join(texts)
        if names:
            found = Found({"adapter": "captions", "images": images, "text": texts, "tables": [_table(table, key)]})
            found.reasons.append(f"{table.file} tells of each image in {told}; '{key}' names the image")
        else:
            found = Found({"adapter": "reports", "text": texts, "tables": [_table(table, key)]})
            found.reasons.append(f"{table.file} holds reports without images, in {told}; '{key}' names each")
        found.clues = [*table.values(texts[0])[:5]]
        _sides_and_patients([(table, key)], found.keys, found)
        if names:
            _rules_in_names(_images_told([(table, key)], known), found)
        return found
    return None


def _questions(asked: Sequence[tuple[TableFile, str, str]], images: str, names: Sequence[str]) -> Found | None:
    known = Names(names)
    keyed = [(table, q, a, key) for table, q, a in asked if (key := _image_column(table, known)) is not None]
    if not keyed:
        return None
    _, question, answer, _ = keyed[0]
    alike = [(table, key) for table, q, a, key in keyed if (q, a) == (question, answer)]
    found = Found({"adapter": "questions", "images": images})
    described = [_table(table, key, split=True) for table, key in alike]
    if not all("split" in table for table in described):
        for item in described:
            item.pop("split", None)
    found.keys["tables"] = described
    columns = {"question": question, "answer": answer}
    first = alike[0][0]
    for name, words in (("answer_type", ("answer_type", "answertype", "type")), ("qid", ("qid", "question_id"))):
        column = first.column(words)
        if column is not None:
            columns[name] = column
    columns = {name: column for name, column in columns.items() if name != column}
    if columns:
        found.keys["columns"] = columns
    kinds = columns.get("answer_type") or ("answer_type" if first.column(("answer_type",)) else "")
    # Other kinds than these are not read; a column that is not there lets them be told from the answers.
    if kinds and not {value.lower() for value in first.values(kinds)} <= {"open", "closed", ""}:
        found.keys.setdefault("columns", {})["answer_type"] = "-"
    listed = ", ".join(table.file for table, _ in alike)
    found.reasons.append(f"questions with answers in {listed}; '{alike[0][1]}' names the image")
    _sides_and_patients(alike, found.keys, found)
    _rules_in_names(_images_told(alike, known), found)
    return found


def _images_told(tables: Iterable[tuple[TableFile, str]], known: Names) -> list[str]:
    """The images that tables speak of, by the columns that name them."""
    return sorted({name for table, key in tables for value in table.values(key) for name in known.find(value)})


def _rules_in_names(names: Sequence[str], found: Found) -> None:
    """Add patients and split that the names of images tell, where no table tells them."""
    told = {"label", *found.keys}
    if any("split" in table for table in found.keys["tables"]):
        told.add("split")
    rules, reasons, questions = rules_from_names(names, told)
    found.keys |= rules
    found.reasons += reasons
    found.questions += questions


def _is_prose(values: Sequence[str]) -> bool:
    some = [value for value in spread(values, 200) if value]
    return bool(some) and sum(len(value.split()) >= 3 for value in some) >= 0.5 * len(some)


def label_rules(tables: Sequence[TableFile], names: Sequence[str], found: Found) -> None:
    """Add label, patient and split of images that a table gives; only columns that all images have are used.

    Parameters
    ----------
    tables : sequence of TableFile
        From `read_tables`.
    names : sequence of str
        Names of the images.
    found : Found
        Gets ``tables``, ``label``, ``group`` and ``split``, with reasons.
    """
    known = Names(names)
    for table in tables:
        key = _image_column(table, known)
        if key is None or table.column(QUESTION) is not None:
            continue
        told = _images_told([(table, key)], known)
        if len(told) < len(set(names)):
            found.questions.append(
                f"{table.file} tells of {len(told):,} of {len(set(names)):,} images and was left out"
            )
            continue
        keys: dict[str, Any] = {}
        label = table.column(LABEL)
        if label is not None and label != key and "label" not in found.keys:
            words = {value for value in table.values(label) if value}
            if 2 <= len(words) <= MAX_LABELS and not any(re.fullmatch(r"[\d.,-]+", word) for word in words):
                keys["label"] = {"column": label} | label_map(words)
                found.reasons.append(
                    f"the label of an image is '{label}' of {table.file}: {', '.join(sorted(words)[:6])}"
                )
                if NO_FINDINGS in keys["label"].get("map", {}).values():
                    keys["abnormal_known"] = True
        _sides_and_patients([(table, key)], keys, found)
        if keys:
            found.keys |= keys
            found.keys["tables"] = [*found.keys.get("tables", []), _table(table, key)]
            found.questions[:] = [text for text in found.questions if "group" not in keys or "group rule" not in text]
            return


def _sides_and_patients(tables: Sequence[tuple[TableFile, str]], keys: dict[str, Any], found: Found) -> None:
    """Add patients and split that one column of all tables tells to `keys`; a table stands with its images' column."""
    first = tables[0][0]
    listed = ", ".join(table.file for table, _ in tables)
    patient = first.column(PATIENT)
    if patient is not None and all(all(table.values(patient)) for table, _ in tables):
        keys["group"] = {"column": patient}
        found.reasons.append(f"patients are told by '{patient}' of {listed}")
    side = first.column(SPLIT)
    if side is None or any("split" in table for table in found.keys.get("tables", [])):
        return
    sides = {
        (without_ending(image), word)
        for table, key in tables
        for image, word in zip(table.values(key), table.values(side), strict=True)
    }
    words = {word for _, word in sides}
    if not all(word.lower() in SPLIT_WORDS for word in words):
        return
    if len({image for image, _ in sides}) < len(sides):
        found.questions.append(f"'{side}' of {listed} has some images in two splits, so all are split anew")
        return
    keys["split"] = {"column": side, "map": split_map(words)}
    found.reasons.append(f"the split is told by '{side}' of {listed}")
