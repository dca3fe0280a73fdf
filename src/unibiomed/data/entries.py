r"""The description of one data set, read from a TOML file and checked: data, not code.

Keys of the file (only ``name``, ``modality``, ``site``, ``adapter`` and ``licence`` are always needed)::

    name = "my_set"                    # folder under the data root
    title, licence, citation, note     # words for the data card
    adapter = "images"                 # images | questions | reports
    modality = "MRI"                   # or a rule: { column = "modality", map = { MR_T1 = "MRI" } }
    site = "brain"                     # or a rule, as above
    external = true                    # kept for testing alone, as the paper's external sets
    abnormal_known = true              # is it known of every image whether it shows something abnormal?
    near_duplicates = "near_duplicates.txt"
    drop_mixed_labels = true           # leave out near-identical images with different labels
    group = { pattern = '^(P\d+)_' }   # or { column = "patient" }, { columns = ["case", "age"] }, or, for numbered
                                       # files, { block = 40 }; without a rule each image is its own group
    split = { pattern = '^(train|test)' }   # the authors' own split; else by hash of the group
    label = { value = "Glioma" }       # or { column, map }; needs_finding = true where empty masks mean no disease
    spacing = { column = "spacing", unless = '^bad_' }
    attributes = { "TI-RADS" = "tirads" }   # name of the attribute = column of a table

    [[tables]]                         # joined to the images by file name
    file = "labels.csv"                # .csv or .jsonl
    key = "id"

    [[targets]]
    name = "liver"
    masks = ["masks/{stem}.png"]       # the first that exists and all others are united; this is the default
    values = [3]                       # else every non-zero value
    abnormal = false
    missing = "absent"                 # or "unknown": without a mask file nothing is said about this target

``questions`` reads ``tables`` of rows with ``question``, ``answer``, ``answer_type`` and ``qid``; there a table has a
``split``, and ``keep = { phrase_type = ["freeform"] }`` picks rows. ``modality_words`` maps regular expressions to
modalities: where the questions about an image name one of these, it goes before ``modality``. ``reports`` joins the
columns named in ``text``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from unibiomed.errors import DataError

__all__ = ["DatasetEntry", "Rule", "Table", "Target", "read_entry"]

ADAPTERS = ("images", "questions", "reports")
MAX_ENTRY_BYTES = 1_000_000
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rule:
    """How a value is found for one image: a fixed one, a part of its name, or a column of a table.

    Parameters
    ----------
    value : str or None
        The same for every image.
    pattern : str or None
        Regular expression searched in the file name without ending; its first group is the value.
    column : str or None
        Column of a joined table.
    columns : list of str or None
        Several columns, joined by commas.
    map : dict of str to str
        Changes raw values; a raw value that is not in a non-empty map is an error.
    unless : str or None
        Regular expression: images whose name it finds have no value.
    block : int or None
        Numbered files: this many numbers in a row share a value.
    needs_finding : bool
        Labels only: see `unibiomed.data.records.Record`.
    """

    value: str | None = None
    pattern: str | None = None
    column: str | None = None
    columns: list[str] | None = None
    map: dict[str, str] = field(default_factory=dict)
    unless: str | None = None
    block: int | None = None
    needs_finding: bool = False

    def __post_init__(self) -> None:
        if sum(way is not None for way in (self.value, self.pattern, self.column, self.columns, self.block)) != 1:
            raise DataError("a rule needs exactly one of value, pattern, column, columns, block")
        if self.block is not None and self.block < 1:
            raise DataError("block is not positive")
        for expression, groups in ((self.pattern, 1), (self.unless, 0)):
            if expression is not None:
                try:
                    enough = re.compile(expression).groups >= groups
                except re.error as error:
                    raise DataError(f"'{expression}' is not a regular expression ({error})") from error
                if not enough:
                    raise DataError(f"'{expression}' has no group in brackets")


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the data set: a ``.csv``, ``.json`` or ``.jsonl`` file, and its column with the image's file name."""

    file: str
    key: str
    split: str | None = None
    keep: dict[str, list[str]] = field(default_factory=dict)
    """Rows are kept where each of these columns has one of these values."""

    def __post_init__(self) -> None:
        _inside(self.file)


@dataclass(frozen=True, slots=True)
class Target:
    """A target that the data set annotates; see the module's text for the keys."""

    name: str
    masks: list[str] = field(default_factory=lambda: ["masks/{stem}.png"])
    values: list[int] | None = None
    abnormal: bool = False
    missing: str = "absent"
    attributes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.missing not in ("absent", "unknown"):
            raise DataError(f"missing = '{self.missing}' of target '{self.name}' is neither 'absent' nor 'unknown'")
        if not self.masks or not all(mask.count("{stem}") == 1 for mask in self.masks):
            raise DataError(f"masks of target '{self.name}' do not hold {{stem}} once each")
        for mask in self.masks:
            _inside(mask)


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """One data set of the catalogue; the keys are explained at the top of this module.

    Parameters
    ----------
    folder : Path
        Where the data set lies.
    """

    name: str
    folder: Path
    adapter: str
    licence: str
    modality: Rule
    site: Rule
    title: str = ""
    citation: str = ""
    note: str = ""
    images: str = "images"
    abnormal_known: bool = False
    external: bool = False
    near_duplicates: str | None = None
    drop_mixed_labels: bool = False
    group: Rule | None = None
    split: Rule | None = None
    label: Rule | None = None
    spacing: Rule | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    targets: tuple[Target, ...] = ()
    modality_words: dict[str, str] = field(default_factory=dict)
    text: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise DataError(f"name '{self.name}' holds other signs than letters, digits, '_', '-', '.'")
        if self.adapter not in ADAPTERS:
            raise DataError(f"adapter '{self.adapter}' is unknown; use one of {', '.join(ADAPTERS)}")
        if self.adapter != "images" and not self.tables:
            raise DataError(f"adapter '{self.adapter}' needs [[tables]]")
        for path in (self.images, self.near_duplicates):
            if path is not None:
                _inside(path)

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of all targets, in the order of the catalogue."""
        return tuple(target.name for target in self.targets)


def read_entry(path: Path, root: Path) -> DatasetEntry:
    """Read and check one TOML file of the catalogue.

    Parameters
    ----------
    path : Path
        The file.
    root : Path
        Folder that holds the data set's folder.

    Returns
    -------
    DatasetEntry
        The entry; its folder need not exist.

    Raises
    ------
    DataError
        The file is missing, too large, not TOML, or a key is unknown, missing or of the wrong type.
    """
    try:
        if path.stat().st_size > MAX_ENTRY_BYTES:
            raise DataError(f"{path.name}: catalogue entry is too large; it describes a data set, it does not hold one")
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path.name}: cannot be read as TOML ({str(error).splitlines()[0]}); mend the file") from error
    try:
        for name in ("modality", "site", "group", "split", "label", "spacing"):
            if name in values:
                values[name] = _rule(values[name], name)
        values["tables"] = tuple(_build(Table, item, "tables") for item in _listed(values, "tables"))
        values["targets"] = tuple(_build(Target, item, "targets") for item in _listed(values, "targets"))
        values["folder"] = root / str(values.get("name", ""))
        return _build(DatasetEntry, values, "the file")
    except DataError as error:
        raise DataError(f"{path.name}: {error}; mend the catalogue entry") from error


def _rule(value: object, name: str) -> Rule:
    if isinstance(value, str):
        return Rule(value=value)
    return _build(Rule, value, name)


def _listed(values: Mapping[str, Any], name: str) -> list[Any]:
    items = values.get(name, [])
    if not isinstance(items, list):
        raise DataError(f"{name} is not a list; write [[{name}]]")
    return items


# Types as `from __future__ import annotations` leaves them: strings, looked up by name.
_CHECKS: dict[str, Any] = {
    "str": lambda v: isinstance(v, str),
    "str | None": lambda v: isinstance(v, str),
    "bool": lambda v: isinstance(v, bool),
    "int | None": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "list[str] | None": lambda v: isinstance(v, list) and bool(v) and all(isinstance(i, str) for i in v),
    "list[str]": lambda v: isinstance(v, list) and all(isinstance(i, str) for i in v),
    "list[int] | None": lambda v: isinstance(v, list) and bool(v) and all(type(i) is int and i > 0 for i in v),
    "dict[str, str]": lambda v: isinstance(v, dict) and all(isinstance(i, str) for i in v.values()),
    "dict[str, list[str]]": lambda v: isinstance(v, dict) and all(isinstance(i, list) for i in v.values()),
}


def _build(kind: type[T], values: object, where: str) -> T:
    if not isinstance(values, dict):
        raise DataError(f"{where} is not a table of keys and values")
    known = {f.name: str(f.type) for f in fields(kind)}  # type: ignore[arg-type]
    for name, value in values.items():
        if name not in known:
            raise DataError(f"key '{name}' of {where} is unknown; use {', '.join(sorted(known))}")
        check = _CHECKS.get(known[name])
        if check is not None and not check(value):
            raise DataError(f"key '{name}' of {where} has the wrong type; it should be {known[name]}")
    try:
        return kind(**values)
    except TypeError as error:
        raise DataError(f"{where} lacks a key ({str(error).split(': ')[-1]})") from error


def _inside(path: str) -> None:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\\" in path:
        raise DataError(f"path '{path}' leaves the data set's folder")
