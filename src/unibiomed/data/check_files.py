"""What is wrong with the files of one image: looked at pixel by pixel, in any process."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unibiomed.data.pixels import is_turned, mask_numbers
from unibiomed.data.records import Record, Region
from unibiomed.data.similar import difference_hash, thumbnail
from unibiomed.errors import DataError, InputError
from unibiomed.images import read_volume

__all__ = ["ERROR", "WARNING", "Picture", "Problem", "Seen", "look_at_all", "name_of"]

ERROR, WARNING = "error", "warning"
COUNTED = 2**20
"""Masks with numbers up to this one are counted in a table; sorting them takes ten times as long."""
Size = tuple[int, int]
Users = list[tuple[Record, Region]]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Parameters
    ----------
    kind : str
        In two or three words, such as ``"size mismatch"``.
    severity : {"error", "warning"}
        Errors make wrong training or wrong scores; warnings may be meant.
    files : tuple of str
        The files, under the folder of the data set.
    detail : str
        What is wrong, without the names of the files.
    """

    kind: str
    severity: str
    files: tuple[str, ...]
    detail: str

    def words(self) -> str:
        """What is wrong, after the names of the files."""
        return ": ".join(filter(None, (" = ".join(self.files), self.detail)))


@dataclass(frozen=True, slots=True)
class Picture:
    """An image file or volume with all records that show it, or its slices."""

    name: str
    folder: Path | None
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of a picture: its problems, the targets that it shows, and what it looks like."""

    name: str
    problems: tuple[Problem, ...] = ()
    present: frozenset[str] = frozenset()
    hash: int | None = None
    thumbnail: np.ndarray | None = None


def name_of(path: Path, folder: Path | None) -> str:
    """How a file is called in a report: by its path in the data set's folder, else by its name."""
    if folder is not None and path.is_relative_to(folder):
        return path.relative_to(folder).as_posix()
    return path.name


def look_at_all(pictures: Sequence[Picture]) -> list[Seen]:
    """Read pictures with their masks and say what is wrong with them."""
    return [_look_at(picture) for picture in pictures]


def _look_at(picture: Picture) -> Seen:
    problems: list[Problem] = []
    sizes: dict[int | None, Size] = {}
    seen: Seen | None = None
    middle = picture.records[len(picture.records) // 2]
    try:
        for record in picture.records:
            if record.slice_index not in sizes:
                pixels = record.load_image()
                sizes[record.slice_index] = pixels.shape[0], pixels.shape[1]
                if record.slice_index == middle.slice_index:
                    seen = Seen(picture.name, hash=difference_hash(pixels), thumbnail=thumbnail(pixels))
    except DataError as error:
        problems.append(Problem("unreadable image", ERROR, (picture.name,), _reason(error)))
    if isinstance(middle.image, Path) and any(r.regions for r in picture.records) and is_turned(middle.image):
        detail = "its EXIF tag turns it, but not its masks and boxes; save it without the tag"
        problems.append(Problem("turned image", WARNING, (picture.name,), detail))
    present: set[str] = set()
    by_file: dict[Path, Users] = defaultdict(list)
    for record in picture.records:
        for region in record.regions:
            if isinstance(region.mask, Path):
                for path in (region.mask, *region.further_masks):
                    by_file[path].append((record, region))
            elif not region.absent:
                found, there = _without_file(region, sizes.get(record.slice_index), picture.name)
                problems += found
                present |= there
    for path, users in by_file.items():
        found, there = _mask_file(path, name_of(path, picture.folder), users, sizes)
        problems += found
        present |= there
    seen = seen or Seen(picture.name)
    return Seen(picture.name, tuple(problems), frozenset(present), seen.hash, seen.thumbnail)


def _mask_file(
    path: Path, name: str, users: Users, sizes: dict[int | None, Size]
) -> tuple[list[Problem], frozenset[str]]:
    """Problems of a mask file, and the targets in it."""
    try:
        size, counts = _count_values(path, flat=users[0][1].slice_index is None)
    except (DataError, InputError) as error:
        return [Problem("unreadable mask", ERROR, (name,), _reason(error))], frozenset()
    problems: list[Problem] = []
    expected = sizes.get(users[0][0].slice_index)
    if expected is not None and size != expected:
        problems.append(_mismatch("mask", size, expected, name))
    if not any(counts[value] for value in counts if value != 0):
        return [*problems, Problem("empty mask", WARNING, (name,), "nothing is marked")], frozenset()
    present: set[str] = set()
    wanted = {region.target: region.values for _, region in users}
    for target, values in wanted.items():
        marked = sum(count for value, count in counts.items() if (value > 0 if values is None else value in values))
        if marked:
            present.add(target)
        if marked == sum(counts.values()):
            problems.append(_whole(target, name))
    if None not in wanted.values():
        described = {value for values in wanted.values() for value in values or ()}
        described |= {value for _, region in users for value in region.ignored}
        for value in sorted(set(counts) - described - {0}):
            detail = f"value {value} belongs to no target; add one to the entry, or take it out of the masks"
            problems.append(Problem("undescribed value", ERROR, (name,), detail))
    return problems, frozenset(present)


def _without_file(region: Region, size: Size | None, name: str) -> tuple[list[Problem], frozenset[str]]:
    """Problems of a run-length mask or a box, and its target if it is there."""
    there = frozenset([region.target])
    if region.box is not None:
        if size is None or (region.box[3] <= size[0] and region.box[2] <= size[1]):
            return [], there
        return [
            Problem("size mismatch", ERROR, (name,), f"the box of '{region.target}' reaches out of the image")
        ], there
    try:
        mask = region.load()
    except DataError as error:
        return [Problem("unreadable mask", ERROR, (name,), str(error))], frozenset()
    problems: list[Problem] = []
    if size is not None and mask.shape != size:
        problems.append(_mismatch("run-length mask", (mask.shape[0], mask.shape[1]), size, name))
    if not mask.any():
        problems.append(Problem("empty mask", WARNING, (name,), f"nothing is marked as '{region.target}'"))
        return problems, frozenset()
    return [*problems, _whole(region.target, name)] if mask.all() else problems, there


def _mismatch(what: str, size: Size, expected: Size, name: str) -> Problem:
    detail = f"{what} of {size[1]} x {size[0]} pixels, image of {expected[1]} x {expected[0]}"
    return Problem("size mismatch", ERROR, (name,), detail)


def _whole(target: str, name: str) -> Problem:
    return Problem("mask of everything", WARNING, (name,), f"'{target}' covers the whole image")


def _count_values(path: Path, *, flat: bool) -> tuple[Size, Counter[int]]:
    """Height and width of a mask file, and how many pixels each of its values has."""
    counts: Counter[int] = Counter()
    if flat:
        numbers = mask_numbers(path)
        counts.update(_counts(numbers))
        return (numbers.shape[0], numbers.shape[1]), counts
    volume = read_volume(path)
    for index in range(len(volume)):
        counts.update(_counts(volume.labels(index)))
    return (volume.grid.shape[1], volume.grid.shape[2]), counts


def _counts(numbers: np.ndarray) -> dict[int, int]:
    if numbers.dtype == bool:
        numbers = numbers.astype(np.uint8)
    if numbers.size and numbers.min() >= 0 and numbers.max() < COUNTED:
        found = np.bincount(numbers.ravel())
        values: Iterable[int] = np.flatnonzero(found)
        return {int(value): int(found[value]) for value in values}
    values, often = np.unique(numbers, return_counts=True)
    return {int(value): int(count) for value, count in zip(values, often, strict=True)}


def _reason(error: Exception) -> str:
    """A message without the name of the file before its colon, so that equal problems read alike."""
    name, colon, reason = str(error).partition(": ")
    return reason if colon and "." in name else str(error)
