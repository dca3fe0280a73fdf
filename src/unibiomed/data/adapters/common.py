"""What the adapters share: names of images, values by rule, groups, splits and labels."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from unibiomed.data.entries import DatasetEntry, Rule, Target
from unibiomed.data.records import SPLITS
from unibiomed.data.splits import assign_splits, join_groups
from unibiomed.errors import DataError, InputError
from unibiomed.images import parse_window

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".gif", ".webp", ".jp2")
DICOM_ENDINGS = (".dcm",)
"""Of DICOM files with one picture each, such as radiographs; a series of slices is a folder."""
VOLUME_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
_WILD = re.compile(r"[*?\[]")
Row = Mapping[str, Any]
Tell = Callable[[DataError], None]
"""Hears of a file or row that does not fit; if it returns, the rest is read without that one."""


@dataclass(frozen=True, slots=True)
class Item:
    """An image or volume of a data set: its name, its file, and what ``{stem}`` and ``{parent}`` stand for."""

    name: str
    path: Path
    stem: str
    parent: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record belongs, and the label of its image."""

    group: str
    split: str
    label: str | None


def refuse(error: DataError) -> None:
    """Read nothing more: what has to be whole ends at the first file or row that does not fit."""
    raise error


def check_window(entry: DatasetEntry) -> None:
    """Refuse a window that is none, before the first slice is read."""
    if entry.window is not None:
        try:
            parse_window(entry.window)
        except InputError as error:
            raise DataError(f"{entry.name}: {error}") from error


def list_images(
    entry: DatasetEntry,
    endings: Sequence[str] = (*IMAGE_ENDINGS, *DICOM_ENDINGS),
    *,
    folders: bool = False,
    tell: Tell = refuse,
) -> dict[str, Item]:
    """The images of a data set by name, sorted by file; with `folders`, those that hold files count as images."""
    parts = PurePosixPath(entry.images).parts
    fixed = next((i for i, part in enumerate(parts) if _WILD.search(part)), len(parts))
    base = entry.folder.joinpath(*parts[:fixed])
    if not base.is_dir():
        raise DataError(f"{entry.name}/{entry.images}: image folder is missing; restore it or mend the catalogue entry")
    found = base.glob("/".join(parts[fixed:])) if fixed < len(parts) else base.iterdir()
    images: dict[str, Item] = {}
    for path in sorted(found):
        relative = path.relative_to(base)
        if not _is_text(str(relative)):
            shown = str(relative).encode("utf-8", "replace").decode()
            tell(DataError(f"{entry.name}/{entry.images}/{shown}: its name is not UTF-8; rename it"))
            continue
        ending = next((ending for ending in endings if path.name.lower().endswith(ending)), None)
        if any(part.startswith(".") for part in relative.parts) or (ending is None and not (folders and _holds(path))):
            continue
        cut = path.name[: len(path.name) - len(ending or "")]
        parent = "" if len(relative.parts) == 1 else relative.parent.as_posix()
        name = f"{parent}/{cut}" if parent else cut
        if entry.exclude is not None and re.search(entry.exclude, name):
            continue
        if name in images:
            tell(DataError(f"{entry.name}/{entry.images}/{relative}: two images are named '{name}'; rename one"))
            continue
        images[name] = Item(name, path, _stem(entry, cut), parent)
    return images


def _is_text(name: str) -> bool:
    # old archives hold names in other encodings, which no table, key or shard can name
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _holds(path: Path) -> bool:
    return path.is_dir() and any(item.is_file() and not item.name.startswith(".") for item in path.iterdir())


def _stem(entry: DatasetEntry, cut: str) -> str:
    if entry.stem is None:
        return cut
    match = re.search(entry.stem, cut)
    if match is None or match.group(1) is None:
        raise DataError(f"{entry.name}/{cut}: file name does not fit stem '{entry.stem}'; rename it or mend the entry")
    return match.group(1)


def plain_path(name: object) -> str:
    """A path that a table gives, with slashes in place of the backslashes of Windows."""
    return str(name).strip().replace("\\", "/").removeprefix("./")


def without_ending(name: object) -> str:
    """Name of an image without its ending; other dots belong to the name."""
    text = plain_path(name)
    for ending in (*IMAGE_ENDINGS, *DICOM_ENDINGS, *VOLUME_ENDINGS):
        if text.lower().endswith(ending):
            return text[: -len(ending)]
    return text


def file_stem(name: object) -> str:
    """The same without folders."""
    return without_ending(name).rsplit("/", 1)[-1]


class Names:
    """Finds the images that a table speaks of.

    A table may give a name with or without folders and ending. With `match`, it gives the part of the name that this
    expression finds.

    Attributes
    ----------
    other : str or None
        Another name by which the image that was found last was found before: one of the two images is not there, and
        the other has the same name in another folder.
    """

    def __init__(self, names: Iterable[str], match: str | None = None) -> None:
        names = list(names)
        self.other: str | None = None
        self._matched = match is not None
        self._asked: dict[str, str] = {}
        self._found: dict[str, list[str]] = defaultdict(list)
        if match is not None:
            for name in names:
                hit = re.search(match, name)
                if hit is not None:
                    self._found[hit.group(1) if hit.re.groups else hit.group(0)].append(name)
            return
        for name in names:
            self._found[name.rsplit("/", 1)[-1]].append(name)
        self._found.update({name: [name] for name in names})

    def find(self, text: object) -> list[str]:
        """Names of the images that may be meant, none where there is no such image."""
        self.other = None
        for name in (without_ending(text), file_stem(text), str(text).strip()):
            if name in self._found:
                found = self._found[name]
                if not self._matched and len(found) == 1:
                    asked = without_ending(text)
                    first = self._asked.setdefault(found[0], asked)
                    # with and without folders is the same image, in two folders it is not
                    short, long = sorted((first, asked), key=len)
                    self.other = None if "/" not in short or f"/{long}".endswith(f"/{short}") else first
                return found
        return []


def find_value(entry: DatasetEntry, rule: Rule | None, name: str, row: Row) -> str | None:
    """Value of a rule for one image; None without a rule, or where the column is empty."""
    if rule is None or (rule.unless and re.search(rule.unless, name)):
        return None
    if rule.value is not None:
        return rule.value
    if rule.pattern is not None:
        match = re.search(rule.pattern, name)
        if match is None:
            raise DataError(
                f"{entry.name}/{name}: file name does not fit '{rule.pattern}'; rename it or mend the entry"
            )
        raw = match.group(1)
    else:
        cells = [cell_text(_cell(entry, name, row, column)) for column in rule.columns or [str(rule.column)]]
        raw = ", ".join(cells) if any(cells) else ""
    if not raw:
        return None
    if rule.map and raw not in rule.map:
        raise DataError(f"{entry.name}/{name}: value '{raw}' is not one of {', '.join(rule.map)}; add it to the entry")
    return rule.map.get(raw, raw)


def is_absent(entry: DatasetEntry, target: Target, name: str, row: Row) -> bool:
    """Whether the columns of ``absent_if`` say that a target is absent from an image.

    Raises
    ------
    DataError
        The image has no row with one of these columns.
    """
    found = [cell_text(_cell(entry, name, row, column)) in values for column, values in target.absent_if.items()]
    return bool(found) and all(found)


def cell_text(cell: object) -> str:
    """What a cell of a table says; the number 0 is not an empty one."""
    return "" if cell is None else str(cell).strip()


def _cell(entry: DatasetEntry, name: str, row: Row, column: str) -> Any:
    if column not in row:
        raise DataError(f"{entry.name}/{name}: no table row with a column '{column}'; add the row or mend the entry")
    return row[column]


def find_places(
    entry: DatasetEntry,
    rows: Mapping[str, Row],
    official: Mapping[str, str | None] | None = None,
    groups: Mapping[str, str] | None = None,
) -> dict[str, Place]:
    """Group, split and label of every image.

    Parameters
    ----------
    entry : DatasetEntry
        The data set.
    rows : mapping of str to mapping
        What tables say of each image, by name; every image is named here.
    official : mapping of str to str or None, optional
        Split that the files themselves give to images; else the split rule of the entry is asked.
    groups : mapping of str to str, optional
        Groups that the files themselves give where the entry has no rule; else each image is its own.

    Returns
    -------
    dict of str to Place
        By name; images that are left out because of their near-duplicates are missing.

    Raises
    ------
    DataError
        A rule does not fit a name or row, a split is unknown or given to some images only, or a group is on two sides
        of the official split and the entry does not say to mend it.
    """
    labels = {name: find_value(entry, entry.label, name, row) for name, row in rows.items()}
    own = {name: _group(entry, name, row, labels[name], groups or {}) for name, row in rows.items()}
    sides = _official(entry, rows, official)
    if sides and not entry.mend_split:
        _check_sides(entry, own, sides)
    linked = _near_duplicates(entry, rows)
    if entry.drop_mixed_labels:
        mixed = {name for twins in linked if len({labels.get(name) for name in twins}) > 1 for name in twins}
        own = {name: group for name, group in own.items() if name not in mixed}
    joined = join_groups(own, linked)
    # There may be millions of images: what is not asked again is let go of.
    del own, official, groups
    splits = _splits(entry, joined, sides)
    leaking = _leaking(entry, joined, splits)
    return {name: Place(group, splits[name], labels[name]) for name, group in joined.items() if group not in leaking}


def _splits(entry: DatasetEntry, groups: Mapping[str, str], sides: Mapping[str, str]) -> dict[str, str]:
    """Split of each image: that of the rule or table where there is one, else by hash of the group."""
    if entry.external:
        return assign_splits(entry.split_name, groups, external=True)
    if sides and any(name not in sides for name in groups):
        # the rule excludes some images: their groups are split by hash, unless an image of them has a side
        given = {group: sides[name] for name, group in groups.items() if name in sides}
        open_groups = {name: group for name, group in groups.items() if group not in given}
        sides = {name: sides.get(name, given[group]) for name, group in groups.items() if group in given}
        decided = assign_splits(entry.split_name, {name: groups[name] for name in sides}, sides)
        return decided | assign_splits(entry.split_name, open_groups)
    kept = {name: sides[name] for name in groups} if len(sides) > len(groups) else sides
    return assign_splits(entry.split_name, groups, kept, ranked=entry.split_with is None)


def _leaking(entry: DatasetEntry, groups: Mapping[str, str], splits: Mapping[str, str]) -> set[str]:
    """Groups with an image that has a twin in a split nearer to training."""
    known = Names(groups)
    leaking = set()
    for listed in entry.twins:
        images = [name for text in listed for name in known.find(text)]
        nearest = min((SPLITS.index(splits[name]) for name in images), default=0)
        leaking |= {groups[name] for name in images if SPLITS.index(splits[name]) > nearest}
    return leaking


def _official(entry: DatasetEntry, rows: Mapping[str, Row], given: Mapping[str, str | None] | None) -> dict[str, str]:
    """Official split of each image. Images that `unless` excludes are left out; empty without an official split."""
    if entry.split is not None:
        given = {name: find_value(entry, entry.split, name, row) for name, row in rows.items()}
    elif given is None or not any(given.get(name) for name in rows):
        return {}
    sides: dict[str, str] = {}
    for name in rows:
        split = given.get(name)
        if split is None and entry.split is not None and entry.split.unless and re.search(entry.split.unless, name):
            continue
        if split is None:
            raise DataError(f"{entry.name}/{name}: no official split is given, though other images have one; add it")
        if split not in SPLITS:
            raise DataError(f"{entry.name}/{name}: split '{split}' is not one of {', '.join(SPLITS)}; mend the entry")
        sides[name] = split
    return sides


def _check_sides(entry: DatasetEntry, groups: Mapping[str, str], sides: Mapping[str, str]) -> None:
    if entry.external:
        return
    first: dict[str, str] = {}
    for name, group in groups.items():
        if name not in sides:
            continue
        other = first.setdefault(group, name)
        if sides[other] != sides[name]:
            raise DataError(
                f"{entry.name}/{name}: is in the official {sides[name]} split, but '{other}' of the same group in "
                f"{sides[other]}; mend the group rule, or set mend_split = true"
            )


def _group(entry: DatasetEntry, name: str, row: Row, label: str | None, groups: Mapping[str, str]) -> str:
    rule = entry.group
    if rule is None:
        return groups.get(name, name)
    if rule.block is None:
        return find_value(entry, rule, name, row) or name
    if not name.isdecimal():
        raise DataError(f"{entry.name}/{name}: file name is not a number, but groups are blocks of numbers; rename it")
    # A block never crosses from one label to another: such neighbours are different patients.
    return f"block {int(name) // rule.block}, {label}"


def _near_duplicates(entry: DatasetEntry, names: Iterable[str]) -> list[list[str]]:
    if entry.near_duplicates is None:
        return []
    path = entry.folder / entry.near_duplicates
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        name = f"{entry.name}/{entry.near_duplicates}"
        raise DataError(f"{name}: list of near-identical images cannot be read; restore it") from error
    known = Names(names)
    listed = [line for line in lines if line.strip() and not line.startswith("#")]
    return [[name for text in line.split() for name in known.find(text)] for line in listed]


def base_record(entry: DatasetEntry, name: str, place: Place, row: Row) -> dict[str, Any]:
    """What every adapter says of a record, as arguments of `Record`."""
    return {
        "key": f"{entry.name}/{name}",
        "dataset": entry.name,
        "modality": find_value(entry, entry.modality, name, row) or "",
        "site": find_value(entry, entry.site, name, row) or "",
        "group": place.group,
        "split": place.split,
        "label": place.label,
        "label_needs_finding": bool(entry.label and entry.label.needs_finding),
        "abnormal_known": entry.abnormal_known,
        "licence": entry.licence,
        "external": entry.external,
        "attributes": _attributes(entry, row),
        "window": entry.window,
    }


def _attributes(entry: DatasetEntry, row: Row) -> dict[str, str]:
    found = {name: row.get(column) for name, column in entry.attributes.items()}
    return {name: tidy(str(value)) for name, value in found.items() if value is not None and str(value).strip()}


def tidy(words: str) -> str:
    """Words with single spaces."""
    return " ".join(words.split())
