"""Masks and boxes of targets: which files, whose words, and how several boxes of one target become records."""

from __future__ import annotations

import math
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from unibiomed.data.adapters.common import Item, Row, is_absent
from unibiomed.data.entries import DatasetEntry, Target
from unibiomed.data.records import Record, Region
from unibiomed.errors import DataError

Box = tuple[int, int, int, int]


class NamedFile(NamedTuple):
    """A file of a data set; folder and names are shared with the list of the folder, of which a `Path` makes copies."""

    folder: Path
    below: str
    name: str

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.folder / self.name


class Folders:
    """Names of the files in a data set's folders, each folder listed once: thousands of ``exists`` calls are slow."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[Path, Mapping[str, str] | None] = {}
        self._below: dict[str, tuple[str, Path]] = {}

    def find(self, relative: str, *, needed: bool = False) -> list[Path]:
        """Files of a path with ``*`` in the file name, sorted; a `needed` folder has to exist."""
        path = self._folder / relative
        parent = path.parent
        known = self._listed(parent)
        if known is None:
            if needed:
                name = f"{self._folder.name}/{parent.relative_to(self._folder)}"
                raise DataError(f"{name}: mask folder is missing; restore it or mend the catalogue entry")
            return []
        if "*" in path.name:
            return [parent / name for name in sorted(known) if fnmatchcase(name, path.name.replace("[", "[[]"))]
        return [path] if path.name in known else []

    def one(self, relative: str) -> Path | None:
        """The file of a path inside the folder, None where there is none."""
        found = self.place(relative)
        return None if found is None else found.path

    def place(self, relative: str) -> NamedFile | None:
        """The same in little memory and time, for millions of files."""
        if not relative or relative.startswith("/") or ".." in relative.split("/"):
            return None
        below, _, name = posixpath.normpath(relative).rpartition("/")
        if below not in self._below:
            self._below[below] = (below, self._folder / below)
        below, folder = self._below[below]
        known = (self._listed(folder) or {}).get(name)
        return None if known is None or "*" in name else NamedFile(folder, below, known)

    def _listed(self, folder: Path) -> Mapping[str, str] | None:
        """Names in a folder; None where there is no such folder."""
        if folder not in self._names:
            self._names[folder] = {i.name: i.name for i in folder.iterdir()} if folder.is_dir() else None
        return self._names[folder]


def find_masks(entry: DatasetEntry, item: Item, row: Row, folders: Folders) -> Iterator[tuple[Target, list[Path]]]:
    """Mask files of every target that something is known of; none where it is known to be absent.

    Parameters
    ----------
    entry : DatasetEntry
        The data set.
    item : Item
        The image.
    row : mapping
        What the tables say of the image.
    folders : Folders
        Lists of the files.

    Raises
    ------
    DataError
        There is no mask file of a target, and the entry does not say what that means.
    """
    for target in entry.targets:
        found: list[Path] = []
        for mask in target.masks:
            folder, _, _ = mask.rpartition("/")
            above = posixpath.dirname(item.parent)
            filled = mask.replace("{stem}", item.stem).replace("{parent}", item.parent).replace("{above}", above)
            found += folders.find(filled.lstrip("/"), needed="{" not in folder)
        if not found and target.without_mask is None:
            raise DataError(
                f"{entry.name}/{item.name}: no mask file of '{target.name}'; restore it, or let the entry say "
                'missing = "absent" or "unknown"'
            )
        if found or target.without_mask == "absent" or is_absent(entry, target, item.name, row):
            yield target, list(dict.fromkeys(found))


def mask_region(
    target: Target, masks: Sequence[Path], slice_index: int | None = None, ignored: Sequence[int] | None = None
) -> Region:
    """The region of a target with its mask files; `ignored` are the values of the files that belong to no target."""
    return Region(
        target=target.name,
        mask=masks[0] if masks else None,
        values=tuple(target.values) if target.values else None,
        abnormal=target.abnormal,
        attributes=dict(target.attributes),
        further_masks=tuple(masks[1:]),
        slice_index=slice_index if masks else None,
        objects=target.objects,
        ignored=tuple(ignored or ()),
    )


def target_of(entry: DatasetEntry, category: str, where: str) -> Target | None:
    """The target that a data set's own word means; None for words that the entry ignores.

    Raises
    ------
    DataError
        The entry has targets, and none goes by this word.
    """
    if category in entry.ignore:
        return None
    for target in entry.targets:
        if category in (target.categories or [target.name]):
            return target
    if entry.targets:
        raise DataError(f"{where}: label '{category}' belongs to no target; add it to a target's categories, or ignore")
    return Target(name=category)


def whole_box(numbers: Sequence[float], form: str, where: str, size: tuple[int, int] | None = None) -> Box:
    """Box in whole pixels around the one that a table gives, cut to the image where its (height, width) is known."""
    if len(numbers) != 4 or not all(abs(number) < 1e6 and math.isfinite(number) for number in numbers):
        raise DataError(f"{where}: a box is not four numbers in pixels; mend the table")
    x0, y0, x1, y1 = numbers
    if form == "xywh":
        x1, y1 = x0 + x1, y0 + y1
    height, width = size or (10**6, 10**6)
    box = (max(0, math.floor(x0)), max(0, math.floor(y0)), min(width, math.ceil(x1)), min(height, math.ceil(y1)))
    if box[0] >= box[2] or box[1] >= box[3]:
        raise DataError(f"{where}: box {tuple(numbers)} has no area inside the image; is the format '{form}'?")
    return box


def in_rounds(boxed: Iterable[Region]) -> list[tuple[Region, ...]]:
    """Share boxes of one target out among several records of an image: a record has one region a target."""
    rounds: list[dict[str, Region]] = []
    for region in boxed:
        free = next((taken for taken in rounds if region.target not in taken), None)
        if free is None:
            rounds.append(free := {})
        free[region.target] = region
    return [tuple(taken.values()) for taken in rounds]


def further_records(record: Record, rounds: Sequence[Sequence[Region]]) -> Iterator[Record]:
    """Records of the same image for further boxes, ``name#2`` and so on; nothing else is said twice."""
    for number, regions in enumerate(rounds, 2):
        yield Record(
            key=f"{record.key}#{number}",
            image=record.image,
            dataset=record.dataset,
            modality=record.modality,
            site=record.site,
            group=record.group,
            split=record.split,
            regions=tuple(regions),
            window=record.window,
            licence=record.licence,
            external=record.external,
            spacing=record.spacing,
        )
