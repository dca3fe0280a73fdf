"""From a data set's files to records. Three readers serve all data sets; what differs is data in the catalogue.

``images``: images with mask files, joined with tables. ``questions``: images with tables of questions and answers.
``reports``: a table of report texts without images.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unibiomed.data.entries import DatasetEntry, Rule, Table, Target
from unibiomed.data.records import QuestionAnswer, Record, Region
from unibiomed.data.splits import assign_splits, join_groups
from unibiomed.errors import DataError

__all__ = ["read_records"]

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")
MAX_TABLE_BYTES = 200_000_000
HIDDEN_WORD = "XXXX"
# "Is this an MRI?" names a modality that the image need not be.
ASKS_WHAT_IMAGE = re.compile(r"(is|was|are|were) (this|these|the (image|study|scan|film))\b", re.IGNORECASE)
Row = Mapping[str, Any]


def read_records(entry: DatasetEntry) -> list[Record]:
    """Read one data set.

    Parameters
    ----------
    entry : DatasetEntry
        From `unibiomed.data.load_catalog`.

    Returns
    -------
    list of Record
        Sorted by file name. No image and no mask is opened.

    Raises
    ------
    DataError
        A file is missing or does not fit the entry; the message names it.
    """
    readers = {"images": _images, "questions": _questions, "reports": _reports}
    records = readers[entry.adapter](entry)
    if not records:
        raise DataError(f"{entry.name}: no records found; check the folder against the data set's SOURCE.md")
    return records


def _images(entry: DatasetEntry) -> list[Record]:
    images = _list_images(entry)
    rows = _joined(entry)
    empty: Row = {}
    labels = {stem: _find(entry, entry.label, stem, rows.get(stem, empty)) for stem in images}
    groups = {stem: _group(entry, stem, rows.get(stem, empty), labels[stem]) for stem in images}
    linked = _near_duplicates(entry)
    if entry.drop_mixed_labels:
        mixed = {stem for twins in linked if len({labels.get(stem) for stem in twins}) > 1 for stem in twins}
        groups = {stem: group for stem, group in groups.items() if stem not in mixed}
    groups = join_groups(groups, linked)
    official = {stem: str(_find(entry, entry.split, stem, rows.get(stem, empty))) for stem in groups}
    splits = assign_splits(entry.name, groups, official if entry.split else None, external=entry.external)
    masks = _Folders(entry.folder)
    return [
        Record(
            key=f"{entry.name}/{stem}",
            image=images[stem],
            dataset=entry.name,
            modality=_find(entry, entry.modality, stem, rows.get(stem, empty)) or "",
            site=_find(entry, entry.site, stem, rows.get(stem, empty)) or "",
            group=group,
            split=splits[stem],
            regions=tuple(_regions(entry.targets, stem, masks)),
            label=labels[stem],
            label_needs_finding=bool(entry.label and entry.label.needs_finding),
            abnormal_known=entry.abnormal_known,
            licence=entry.licence,
            external=entry.external,
            attributes=_attributes(entry, rows.get(stem, empty)),
            spacing=_spacing(entry, stem, rows.get(stem, empty)),
        )
        for stem, group in sorted(groups.items())
    ]


def _questions(entry: DatasetEntry) -> list[Record]:
    images = _list_images(entry)
    asked: dict[tuple[str, str], list[Row]] = defaultdict(list)
    words: dict[str, list[str]] = defaultdict(list)
    for table in entry.tables:
        for row in _rows(entry, table):
            stem = _stem(row[table.key])
            if stem not in images:
                raise DataError(
                    f"{entry.name}/{table.file}: image '{stem}' is missing from {entry.images}/; restore it"
                )
            if not ASKS_WHAT_IMAGE.match(_tidy(str(row["question"]))):
                words[stem].append(str(row["question"]))
            if all(str(row.get(column)) in kept for column, kept in table.keep.items()):
                asked[stem, "test" if entry.external else table.split or "train"].append(row)
    records = []
    for (stem, split), rows in sorted(asked.items(), key=lambda item: item[0]):
        told = _modality_in_words(entry, words[stem])
        records.append(
            Record(
                # The authors' own split shares images between train and test, so the split is part of the key.
                key=f"{entry.name}/{stem}.{split}",
                image=images[stem],
                dataset=entry.name,
                modality=told or _find(entry, entry.modality, stem, rows[0]) or "",
                site=_find(entry, entry.site, stem, rows[0]) or "",
                group=stem,
                split=split,
                licence=entry.licence,
                external=entry.external,
                attributes={"modality source": "words of the questions" if told else "usual for the organ"},
                questions=tuple(_question(row) for row in rows),
            )
        )
    return records


def _question(row: Row) -> QuestionAnswer:
    kind = str(row.get("answer_type", "")).strip().lower()
    return QuestionAnswer(_tidy(str(row["question"])), _tidy(str(row["answer"])), kind, str(row["qid"]))


def _modality_in_words(entry: DatasetEntry, questions: Sequence[str]) -> str | None:
    """The one modality that an image's questions name; None where they name none or disagree."""
    named = {
        modality
        for words, modality in entry.modality_words.items()
        if any(re.search(words, question, re.IGNORECASE) for question in questions)
    }
    return named.pop() if len(named) == 1 else None


def _reports(entry: DatasetEntry) -> list[Record]:
    reports: dict[str, tuple[Row, str]] = {}
    for table in entry.tables:
        for row in _rows(entry, table):
            parts = [(name, _readable(str(row.get(name) or ""))) for name in entry.text]
            text = " ".join(f"{name.capitalize()}: {words}" for name, words in parts if words)
            if text:
                reports[_stem(row[table.key])] = (row, text)
    splits = assign_splits(entry.name, {stem: stem for stem in reports}, external=entry.external)
    return [
        Record(
            key=f"{entry.name}/{stem}",
            image=None,
            dataset=entry.name,
            modality=_find(entry, entry.modality, stem, row) or "",
            site=_find(entry, entry.site, stem, row) or "",
            group=stem,
            split=splits[stem],
            label=_find(entry, entry.label, stem, row),
            abnormal_known=entry.abnormal_known,
            licence=entry.licence,
            external=entry.external,
            attributes=_attributes(entry, row),
            text=text,
        )
        for stem, (row, text) in sorted(reports.items())
    ]


class _Folders:
    """Names of the files in a data set's folders, each folder listed once: thousands of ``exists`` calls are slow."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[Path, set[str]] = {}

    def find(self, relative: str) -> Path | None:
        path = self._folder / relative
        if path.parent not in self._names:
            if not path.parent.is_dir():
                name = f"{self._folder.name}/{path.parent.relative_to(self._folder)}"
                raise DataError(f"{name}: mask folder is missing; restore it or mend the catalogue entry")
            self._names[path.parent] = {item.name for item in path.parent.iterdir()}
        return path if path.name in self._names[path.parent] else None


def _regions(targets: Sequence[Target], stem: str, folders: _Folders) -> Iterator[Region]:
    for target in targets:
        found = [path for mask in target.masks if (path := folders.find(mask.replace("{stem}", stem))) is not None]
        if not found and target.missing == "unknown":
            continue
        yield Region(
            target=target.name,
            mask=found[0] if found else None,
            values=tuple(target.values) if target.values else None,
            abnormal=target.abnormal,
            attributes=dict(target.attributes),
            further_masks=tuple(found[1:]),
        )


def _list_images(entry: DatasetEntry) -> dict[str, Path]:
    folder = entry.folder / entry.images
    if not folder.is_dir():
        raise DataError(f"{entry.name}/{entry.images}: image folder is missing; restore it or mend the catalogue entry")
    images: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_ENDINGS and not path.name.startswith("."):
            if path.stem in images:
                raise DataError(
                    f"{entry.name}/{entry.images}/{path.name}: two images are named '{path.stem}'; rename one"
                )
            images[path.stem] = path
    return images


def _joined(entry: DatasetEntry) -> dict[str, dict[str, Any]]:
    joined: dict[str, dict[str, Any]] = defaultdict(dict)
    for table in entry.tables:
        for row in _rows(entry, table):
            joined[_stem(row[table.key])].update(row)
    return joined


def _rows(entry: DatasetEntry, table: Table) -> list[Row]:
    path = entry.folder / table.file
    where = f"{entry.name}/{table.file}"
    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise DataError(f"{where}: table is larger than {MAX_TABLE_BYTES // 1_000_000} MB; split it")
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".csv":
            rows: Any = list(csv.DictReader(io.StringIO(text, newline="")))
        elif path.suffix == ".jsonl":
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
        else:
            rows = json.loads(text)
    except FileNotFoundError as error:
        raise DataError(f"{where}: table is missing; restore it or mend the catalogue entry") from error
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        raise DataError(f"{where}: table cannot be read; it should be CSV, JSON or JSON lines in UTF-8") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{where}: table is not a list of rows with named columns; mend the file")
    needed = [table.key, *(("question", "answer", "qid") if entry.adapter == "questions" else ())]
    for column in needed:
        if not all(row.get(column) not in (None, "") for row in rows):
            raise DataError(f"{where}: column '{column}' is missing or empty in a row; mend the table")
    return rows


def _find(entry: DatasetEntry, rule: Rule | None, stem: str, row: Row) -> str | None:
    """Value of a rule for one image; None without a rule, or where the column is empty."""
    if rule is None or (rule.unless and re.search(rule.unless, stem)):
        return None
    if rule.value is not None:
        return rule.value
    if rule.pattern is not None:
        match = re.search(rule.pattern, stem)
        if match is None:
            raise DataError(
                f"{entry.name}/{stem}: file name does not fit '{rule.pattern}'; rename it or mend the entry"
            )
        raw = match.group(1)
    else:
        cells = [str(_cell(entry, stem, row, column) or "").strip() for column in rule.columns or [str(rule.column)]]
        raw = ", ".join(cells) if any(cells) else ""
    if not raw:
        return None
    if rule.map and raw not in rule.map:
        raise DataError(f"{entry.name}/{stem}: value '{raw}' is not one of {', '.join(rule.map)}; add it to the entry")
    return rule.map.get(raw, raw)


def _cell(entry: DatasetEntry, stem: str, row: Row, column: str) -> Any:
    if column not in row:
        raise DataError(f"{entry.name}/{stem}: no table row with a column '{column}'; add the row or mend the entry")
    return row[column]


def _group(entry: DatasetEntry, stem: str, row: Row, label: str | None) -> str:
    rule = entry.group
    if rule is None:
        return stem
    if rule.block is None:
        return _find(entry, rule, stem, row) or stem
    if not stem.isdecimal():
        raise DataError(f"{entry.name}/{stem}: file name is not a number, but groups are blocks of numbers; rename it")
    # A block never crosses from one label to another: such neighbours are different patients.
    return f"block {int(stem) // rule.block}, {label}"


def _near_duplicates(entry: DatasetEntry) -> list[list[str]]:
    if entry.near_duplicates is None:
        return []
    path = entry.folder / entry.near_duplicates
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        name = f"{entry.name}/{entry.near_duplicates}"
        raise DataError(f"{name}: list of near-identical images cannot be read; restore it") from error
    return [[_stem(name) for name in line.split()] for line in lines if line.strip() and not line.startswith("#")]


def _attributes(entry: DatasetEntry, row: Row) -> dict[str, str]:
    found = {name: row.get(column) for name, column in entry.attributes.items()}
    return {name: _tidy(str(value)) for name, value in found.items() if value is not None and str(value).strip()}


def _spacing(entry: DatasetEntry, stem: str, row: Row) -> tuple[float, float] | None:
    rule = entry.spacing
    if rule is None or rule.column is None or (rule.unless and re.search(rule.unless, stem)):
        return None
    values = _cell(entry, stem, row, rule.column)
    if not isinstance(values, list) or len(values) < 2 or not all(isinstance(value, (int, float)) for value in values):
        raise DataError(f"{entry.name}/{stem}: pixel spacing is not a list of two or three numbers; mend the table")
    # Tables give x, y, z as volumes do; an image has rows (y) first.
    return float(values[1]), float(values[0])


def _stem(name: object) -> str:
    """File name without folders and image ending; other dots belong to the name."""
    stem = str(name).strip().rsplit("/", 1)[-1]
    for ending in IMAGE_ENDINGS:
        if stem.lower().endswith(ending):
            return stem[: -len(ending)]
    return stem


def _tidy(words: str) -> str:
    return " ".join(words.split())


def _readable(words: str) -> str:
    """Report text without the sentences in which de-identification has blotted out a word."""
    sentences = re.split(r"(?<=[.!?])\s+", _tidy(words))
    return " ".join(sentence for sentence in sentences if HIDDEN_WORD not in sentence).replace("..", ".")
