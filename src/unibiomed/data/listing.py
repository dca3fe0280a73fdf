"""What data sets there are and what is known of each, for people: read from the catalogues alone, so it is quick."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from unibiomed.data.catalog import OWN_ENTRY, known_entries
from unibiomed.data.entries import DatasetEntry
from unibiomed.data.published import PublishedDataset, TotalCheck, check_totals, fold_name, load_published
from unibiomed.errors import DataError

__all__ = ["dataset_facts", "list_datasets", "list_facts", "show_dataset"]

HERE, UNDESCRIBED, ABSENT = "yes", "undescribed", "no"
EMPTY: tuple[Any, ...] = ("", [], {}, None, False)
Pair = tuple[PublishedDataset | None, DatasetEntry | None]
MANY = 3
"""A set of more modalities than this is listed with their number alone."""


def list_facts(root: Path | None = None) -> dict[str, Any]:
    """Every known data set in short, and the paper's totals; ready for JSON.

    Parameters
    ----------
    root : Path, optional
        Folder that holds one folder a data set; its own entries are listed too.

    Returns
    -------
    dict
        ``datasets``: a list of ``name``, ``modality``, ``triplets`` (of the paper; None where it gives none),
        ``external``, ``here`` (``"yes"``, ``"no"``, ``"undescribed"`` for a folder without an entry, None without
        `root`), ``tasks`` and ``from`` (``"paper"``, ``"entry"`` or both). ``totals``: a list of ``name``, ``stated``,
        ``found``, ``difference`` and ``note``.

    Raises
    ------
    DataError
        `root` is not a folder, or an entry in it is broken.
    """
    pairs, there = _paired(root), _folders(root)
    listed = [_short(dataset, entry, there) for dataset, entry in pairs]
    return {"datasets": listed, "totals": [_total(total) for total in check_totals()]}


def list_datasets(root: Path | None = None) -> str:
    """Every known data set as a table, and where the paper's tables disagree.

    Parameters
    ----------
    root : Path, optional
        Folder that holds one folder a data set; without it, nothing is said about what is there.

    Returns
    -------
    str
        Lines, without a line feed at the end.

    Raises
    ------
    DataError
        `root` is not a folder, or an entry in it is broken.
    """
    facts = list_facts(root)
    rows = [["name", "modality", "triplets", "split", *(["here"] if root else []), "tasks"]]
    for row in facts["datasets"]:
        modality = row["modality"]
        rows.append(
            [
                row["name"],
                ", ".join(modality) if len(modality) <= MANY else f"{len(modality)} modalities",
                "-" if row["triplets"] is None else f"{row['triplets']:,}",
                "external" if row["external"] else "internal",
                *([row["here"]] if root else []),
                ", ".join(row["tasks"]),
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.rjust(width) if i == 2 else cell.ljust(width) for i, (cell, width) in enumerate(pairs)).rstrip()
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    lines += ["", "External sets are kept for testing alone. Triplets: the paper's table A4."]
    if root:
        lines += [f"Undescribed: the folder is there, but no entry says how to read it; put a {OWN_ENTRY} into it."]
    lines += ["", "Where the paper's numbers disagree:"]
    for total in facts["totals"]:
        if total["difference"]:
            lines.append(f"  {total['name']}: {total['stated']:,} stated, {total['found']:,} found. {total['note']}")
    return "\n".join(lines)


def dataset_facts(name: str, root: Path | None = None) -> dict[str, Any]:
    """Everything known of one data set; ready for JSON.

    Parameters
    ----------
    name : str
        Its name in the catalogue or in the paper; capitals and signs between the words do not matter.
    root : Path, optional
        Folder that holds one folder a data set.

    Returns
    -------
    dict
        Keys with something to say: those of `list_facts`, then those of `PublishedDataset` and of the entry.

    Raises
    ------
    DataError
        No data set, or more than one, has this name; or `root` cannot be read.
    """
    catalog = load_published()
    pairs = _paired(root)
    found = [pair for pair in pairs if name in (thing.name for thing in pair if thing is not None)]
    if not found:
        named = catalog.named(name)
        folded = fold_name(name)
        found = [
            (dataset, entry)
            for dataset, entry in pairs
            if dataset in named or (entry is not None and fold_name(entry.name) == folded)
        ]
    if not found:
        raise DataError(f"data set '{name}' is unknown; {_near(name, pairs)}")
    if len(found) > 1:
        names = ", ".join(_short(dataset, entry)["name"] for dataset, entry in found)
        raise DataError(f"'{name}' is the name of {names}; name one of them")
    dataset, entry = found[0]
    title = dataset.title if dataset is not None else entry.title if entry is not None else ""
    facts = {"name": "", "title": title} | _short(dataset, entry, _folders(root))
    if dataset is not None:
        facts |= {f.name: getattr(dataset, f.name) for f in fields(dataset) if f.name not in facts}
        facts["abnormalities"] = catalog.abnormal_in(dataset.name)
    if entry is not None:
        facts["entry"] = _entry_facts(entry)
    return {key: value for key, value in facts.items() if value not in EMPTY or key == "external"}


def show_dataset(name: str, root: Path | None = None) -> str:
    """Everything known of one data set, a line a fact.

    Parameters
    ----------
    name : str
        As for `dataset_facts`.
    root : Path, optional
        Folder that holds one folder a data set.

    Returns
    -------
    str
        Lines, without a line feed at the end.

    Raises
    ------
    DataError
        As for `dataset_facts`.
    """
    return "\n".join(_lines(dataset_facts(name, root)))


def _paired(root: Path | None) -> list[Pair]:
    """Every data set of the paper with the entry that reads it, where there is one; then the other entries."""
    catalog = load_published()
    readers: dict[str, DatasetEntry] = {}
    others: list[Pair] = []
    for entry in known_entries(root):
        # a name that several sets of the paper share ("MSD") does not tell which of them it is
        named = catalog.named(entry.name)
        if len(named) == 1 and named[0].name not in readers:
            readers[named[0].name] = entry
        else:
            others.append((None, entry))
    return [*((dataset, readers.get(dataset.name)) for dataset in catalog.datasets), *others]


def _folders(root: Path | None) -> set[str] | None:
    """Names of the paper's data sets that have a folder of one of their names, described or not."""
    if root is None:
        return None
    try:
        named = [load_published().named(path.name) for path in root.iterdir() if path.is_dir()]
    except OSError as error:
        raise DataError(f"data root '{root}' cannot be read ({error.strerror}); mend its permissions") from error
    return {datasets[0].name for datasets in named if len(datasets) == 1}


def _short(
    dataset: PublishedDataset | None, entry: DatasetEntry | None, there: set[str] | None = None
) -> dict[str, Any]:
    known = dataset or entry
    assert known is not None
    here: str | None = None
    if there is not None:
        here = UNDESCRIBED if known.name in there else ABSENT
        if entry is not None:
            here = HERE if entry.folder.is_dir() else ABSENT
    return {
        "name": known.name,
        "modality": dataset.modality if dataset is not None else _modalities(entry),
        "triplets": dataset.triplets if dataset is not None else None,
        "external": any(thing is not None and thing.external for thing in (dataset, entry)),
        "here": here,
        "tasks": dataset.tasks if dataset is not None else _tasks(entry),
        "from": ", ".join(word for word, thing in (("paper", dataset), ("entry", entry)) if thing is not None),
    }


def _modalities(entry: DatasetEntry | None) -> list[str]:
    if entry is None:
        return []
    rule = entry.modality
    if rule is None:  # told by the files
        return []
    return list(dict.fromkeys([rule.value] if rule.value is not None else rule.map.values()))


def _tasks(entry: DatasetEntry | None) -> list[str]:
    if entry is None:
        return []
    outlined = any(target.masks for target in entry.targets) or entry.adapter in ("coco", "published")
    can = {
        "segment": outlined and entry.adapter != "boxes",
        "classify": outlined or entry.adapter == "boxes",
        "recognize": entry.abnormal_known and entry.adapter != "reports",
        "report": entry.adapter in ("captions", "reports"),
        "describe": entry.boxes is not None and entry.boxes.text is not None,
        "ask": entry.adapter == "questions",
    }
    return [task for task, able in can.items() if able]


def _entry_facts(entry: DatasetEntry) -> dict[str, Any]:
    """What an entry says beyond its defaults; of its tables and targets, their names."""
    left_out = ("folder", "tables", "targets")
    said = [f.name for f in fields(entry) if f.name not in left_out and getattr(entry, f.name) != f.default]
    facts = {name: _plain(getattr(entry, name)) for name in said}
    facts |= {"tables": [table.file for table in entry.tables], "targets": list(entry.target_names)}
    return {key: value for key, value in facts.items() if value not in EMPTY}


def _plain(value: Any) -> Any:
    """A value as JSON knows it; of a rule, what is set."""
    if is_dataclass(value):
        said = {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
        return {key: item for key, item in said.items() if item not in EMPTY}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, dict, type(None))) else str(value)


def _near(name: str, pairs: list[Pair]) -> str:
    known: dict[str, str] = {}
    for dataset, entry in pairs:
        if entry is not None:
            known[fold_name(entry.name)] = entry.name
        if dataset is not None:
            known |= dict.fromkeys(sorted(dataset.names), dataset.name)
    near = list(dict.fromkeys(known[match] for match in get_close_matches(fold_name(name), known, n=3, cutoff=0.6)))
    return f"did you mean {' or '.join(near)}?" if near else "'unibiomed data list' lists them all"


def _total(total: TotalCheck) -> dict[str, Any]:
    return {
        "name": total.name,
        "stated": total.stated,
        "found": total.found,
        "difference": total.difference,
        "note": _words(total.note),
    }


def _lines(facts: dict[str, Any], indent: str = "") -> Iterator[str]:
    for key, value in facts.items():
        if isinstance(value, dict):
            yield f"{indent}{key}:"
            yield from _lines(value, indent + "  ")
        elif isinstance(value, list):
            yield f"{indent}{key}: {', '.join(str(item) for item in value)}"
        elif isinstance(value, bool):
            yield f"{indent}{key}: {'yes' if value else 'no'}"
        else:
            yield f"{indent}{key}: {f'{value:,}' if key == 'triplets' else _words(str(value))}"


def _words(text: str) -> str:
    return " ".join(text.split())
