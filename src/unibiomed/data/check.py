"""Checking a data set: whether its files are whole and fit each other and the entry, and whether its splits leak."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from unibiomed.data.catalog import OWN_ENTRY, known_entries, load_catalog
from unibiomed.data.check_files import ERROR, WARNING, Picture, Problem, Seen, look_at_all, name_of
from unibiomed.data.check_records import (
    NOT_FITTING,
    never_found,
    read_or_tell,
    split_words,
    torn_groups,
    unused_masks,
)
from unibiomed.data.entries import DatasetEntry, read_entry
from unibiomed.data.index import file_sha256, replacing
from unibiomed.data.keys import read_toml
from unibiomed.data.pixels import voxel_files
from unibiomed.data.processes import in_processes
from unibiomed.data.published import load_published
from unibiomed.data.records import Record
from unibiomed.data.similar import NEAR_DUPLICATES, merge_groups, near_duplicates, write_near_duplicates
from unibiomed.errors import DataError

__all__ = ["CheckReport", "Problem", "check_dataset", "find_entries", "write_duplicates"]

SMALL = 200
"""Sets of fewer images are looked at in this process: starting others takes longer."""
AT_ONCE = 16
SHOWN_DETAILS = 5


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What is wrong with a data set.

    Parameters
    ----------
    dataset : str
        Its name.
    images, looked_at : int
        Image files and volumes (or shards) that there are, and how many of them were read.
    records : int
        Records that they make.
    problems : tuple of Problem
        One for each file, or group of files, that has it; errors first.
    near_duplicates : tuple of tuple of str
        Groups of identical and near-identical images that are in different groups of the data set, as
        ``near_duplicates.txt`` names them.
    unit : str
        What `images` counts.
    """

    dataset: str
    images: int
    looked_at: int
    records: int
    problems: tuple[Problem, ...]
    near_duplicates: tuple[tuple[str, ...], ...] = ()
    unit: str = "images"

    @property
    def errors(self) -> int:
        """How many problems are errors."""
        return sum(problem.severity == ERROR for problem in self.problems)

    def table(self, files: int = 3) -> str:
        """The problems as text, alike ones on one line.

        Parameters
        ----------
        files : int
            How many files of a line are named.

        Returns
        -------
        str
            Lines, without a line feed at the end.
        """
        warnings = len(self.problems) - self.errors
        seen = f"{self.looked_at:,} of {self.images:,} {self.unit} looked at, {self.records:,} records"
        lines = [f"{self.dataset}: {seen}; {_count(self.errors, 'error')}, {_count(warnings, 'warning')}"]
        rows = list(_rows(self.problems, files))
        widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
        for severity, kind, count, words in rows:
            lines.append(f"  {severity:<{widths[0]}}  {kind:<{widths[1]}}  {count:>{widths[2]}}  {words}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The whole report, ready for JSON: the fields, and ``errors`` and ``warnings`` as numbers."""
        numbers = {"errors": self.errors, "warnings": len(self.problems) - self.errors}
        return asdict(self) | numbers


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _rows(problems: Sequence[Problem], files: int) -> Iterator[tuple[str, str, str, str]]:
    for (severity, kind), members in groupby(problems, key=lambda problem: (problem.severity, problem.kind)):
        alike: dict[str, list[Problem]] = defaultdict(list)
        for problem in members:
            alike[problem.detail].append(problem)
        often = sorted(alike.items(), key=lambda item: -len(item[1]))
        for detail, same in often[:SHOWN_DETAILS]:
            names = [" = ".join(problem.files) for problem in same if problem.files]
            more = ", ..." if len(names) > files else ""
            named = f": {', '.join(names[:files])}{more}" if names else ""
            yield severity, kind, f"{len(same):,}", detail + named
        rest = sum(len(same) for _, same in often[SHOWN_DETAILS:])
        if rest:
            yield severity, kind, f"{rest:,}", "more of this kind; --json names them all"


def find_entries(folder: Path, datasets: Sequence[str] | None = None) -> list[DatasetEntry]:
    """Entries of a folder that is a data set, or that holds several.

    Parameters
    ----------
    folder : Path
        Folder of a data set with its own ``dataset.toml`` or of one that the package knows by its name; else the folder
        that holds such folders.
    datasets : sequence of str, optional
        Names of those wanted of a folder that holds several; all when left out.

    Returns
    -------
    list of DatasetEntry
        At least one.

    Raises
    ------
    DataError
        The folder is missing or holds no data set that is described, or one that is wanted is not there.
    """
    if not folder.is_dir():
        raise DataError(f"'{folder}' is not a folder; give the folder of a data set, or of several")
    home = folder.resolve()
    if (home / OWN_ENTRY).is_file():
        entry = read_entry(home / OWN_ENTRY, home.parent)
        if entry.name != home.name:
            raise DataError(f"{home.name}/{OWN_ENTRY}: name is '{entry.name}'; give it the name of its folder")
        found = [replace(entry, external=entry.external or load_published().is_external(entry.name))]
    else:
        found = [replace(entry, folder=home) for entry in known_entries() if entry.name == home.name]
    if not found:
        try:
            found = load_catalog(home)
        except DataError as error:
            if any(home.glob(f"*/{OWN_ENTRY}")):
                raise
            raise DataError(f"'{folder}' is not described yet; run: unibiomed data add {folder}") from error
    if datasets is None:
        return found
    named = {entry.name: entry for entry in found}
    for name in datasets:
        if name not in named:
            raise DataError(f"data set '{name}' is not under '{folder}'; there are {', '.join(sorted(named))}")
    return [named[name] for name in dict.fromkeys(datasets)]


def check_dataset(
    source: DatasetEntry | Iterable[Record],
    *,
    limit: int | None = None,
    workers: int = 2,
    progress: bool = False,
) -> CheckReport:
    """Check a data set: its entry, its files, and its splits.

    Parameters
    ----------
    source : DatasetEntry or iterable of Record
        From `find_entries`; or records of one data set, of which less can be said: not what is missing.
    limit : int, optional
        Read this many image files, spread evenly over the data set; all when left out.
    workers : int
        Processes that read images.
    progress : bool
        Show the number of images and the time left on stderr.

    Returns
    -------
    CheckReport
        What is wrong; a data set that cannot be read at all makes a report of that one problem.

    Raises
    ------
    DataError
        `limit` or `workers` is not positive, `source` has no records, or a worker was killed.
    """
    if workers < 1 or (limit is not None and limit < 1):
        raise DataError("limit and workers of a check are numbers from 1 on")
    entry = source if isinstance(source, DatasetEntry) else None
    problems: list[Problem] = []
    if isinstance(source, DatasetEntry):
        records, problems = read_or_tell(source)
    else:
        records = list(source)
        if not records:
            raise DataError("there are no records to check; give some")
    name = entry.name if entry is not None else records[0].dataset
    pictures = _pictures(records, entry.folder if entry is not None else None)
    chosen = pictures if limit is None else pictures[:: -(-len(pictures) // limit) or 1]
    seen = _look(chosen, workers, progress)
    problems += (problem for item in seen.values() for problem in item.problems)
    # The masks of what makes no record only seem to be unused.
    if entry is not None and records and not any(problem.kind == NOT_FITTING for problem in problems):
        problems += unused_masks(entry, records)
    problems += torn_groups(entry, records)
    problems += never_found(entry, records, list(seen.values()))
    by_name = {picture.name: picture for picture in chosen}
    copies = _copies(chosen)
    problems += _judge(copies, by_name, "duplicates", "identical files", inside=True)
    extra = {copy for group in copies for copy in group[1:]}
    looks = {item.name: item for item in seen.values() if item.thumbnail is not None and item.name not in extra}
    near = near_duplicates(
        {key: item.hash for key, item in looks.items()},
        thumbnails={key: item.thumbnail for key, item in looks.items() if item.thumbnail is not None},
    )
    problems += _judge(near, by_name, "near-duplicates", "near-identical images", inside=False)
    alike = sorted(tuple(sorted(group)) for group in merge_groups([*copies, *near]))
    apart = [group for group in alike if len(_groups(by_name[key] for key in group)) > 1]
    order = {kind: place for place, kind in enumerate(dict.fromkeys(problem.kind for problem in problems))}
    problems.sort(key=lambda p: (p.severity != ERROR, order[p.kind], p.files, p.detail))
    return CheckReport(
        name,
        len(pictures),
        len(chosen),
        len(records),
        tuple(problems),
        tuple(tuple(_listed(entry, by_name[key]) for key in group) for group in apart),
    )


def write_duplicates(entry: DatasetEntry, report: CheckReport, *, force: bool = False) -> Path:
    """Write the near-duplicates of a report into the folder of the data set.

    Parameters
    ----------
    entry : DatasetEntry
        The data set.
    report : CheckReport
        From `check_dataset` of the entry.
    force : bool
        Add to a list that is there.

    Returns
    -------
    Path
        The file: the one that the entry names, else ``near_duplicates.txt``, which the data set's own
        ``dataset.toml`` names from then on.

    Raises
    ------
    DataError
        The file is there and `force` is not set, or an image's name cannot be listed.
    OutputError
        The file cannot be written.
    """
    path = entry.folder / (entry.near_duplicates or NEAR_DUPLICATES)
    write_near_duplicates(path, report.near_duplicates, force=force)
    own = entry.folder / OWN_ENTRY
    if own.is_file() and "near_duplicates" not in read_toml(own):
        with replacing(own) as fresh:
            # before all tables, where TOML takes a key for one of the whole file
            fresh.write_text(f'near_duplicates = "{path.name}"\n{own.read_text(encoding="utf-8")}', encoding="utf-8")
    return path


def _pictures(records: Iterable[Record], folder: Path | None) -> list[Picture]:
    by_image: dict[Path | str, list[Record]] = defaultdict(list)
    for record in records:
        if record.image is not None:
            by_image[record.image if isinstance(record.image, Path) else record.key].append(record)
    names = {image: name_of(image, folder) if isinstance(image, Path) else image for image in by_image}
    if len(set(names.values())) < len(names):
        names = {image: str(image) for image in by_image}
    return [Picture(names[image], folder, tuple(members)) for image, members in by_image.items()]


def _look(pictures: Sequence[Picture], workers: int, progress: bool) -> dict[str, Seen]:
    chunks = [pictures[first : first + AT_ONCE] for first in range(0, len(pictures), AT_ONCE)]
    seen: dict[str, Seen] = {}
    try:
        with tqdm(total=len(pictures), desc="looking at images", unit="image", disable=not progress) as bar:
            for found in in_processes(look_at_all, chunks, workers if len(pictures) > SMALL else 1):
                seen |= {item.name: item for item in found}
                bar.update(len(found))
    except BrokenProcessPool as error:
        raise DataError("a worker was killed, perhaps for want of memory; check with fewer workers") from error
    return {picture.name: seen[picture.name] for picture in pictures}


def _groups(pictures: Iterable[Picture]) -> set[str]:
    return {record.group for picture in pictures for record in picture.records}


def _judge(
    groups: Iterable[Sequence[str]], pictures: dict[str, Picture], kind: str, what: str, *, inside: bool
) -> Iterator[Problem]:
    """Problems of images that are the same: a leak between splits; within one, those of different groups or all."""
    for names in groups:
        members = [pictures[name] for name in names]
        splits = {record.split for picture in members for record in picture.records}
        labels = {record.label for picture in members for record in picture.records}
        other = ", with different labels" if len(labels) > 1 else ""
        if len(splits) > 1 and len(_groups(members)) > 1:
            yield Problem("leak between splits", ERROR, tuple(names), f"{what} in {split_words(splits)}{other}")
        elif inside or len(_groups(members)) > 1:
            yield Problem(kind, WARNING, tuple(names), f"{what} in one split{other}")


def _copies(pictures: Iterable[Picture]) -> list[tuple[str, ...]]:
    """Pictures whose files hold the same bytes; only those of one size are read for it."""
    by_size: dict[int, list[Picture]] = defaultdict(list)
    for picture in pictures:
        image = picture.records[0].image
        try:
            size = len(image) if isinstance(image, bytes) else sum(f.stat().st_size for f in voxel_files(_path(image)))
            by_size[size].append(picture)
        except OSError:
            continue  # reported as unreadable
    same: dict[str, list[str]] = defaultdict(list)
    for alike in by_size.values():
        for picture in alike if len(alike) > 1 else ():
            image = picture.records[0].image
            try:
                if isinstance(image, bytes):
                    found = hashlib.sha256(image).hexdigest()
                else:
                    found = " ".join(map(file_sha256, voxel_files(_path(image))))
                same[found].append(picture.name)
            except OSError:
                continue
    return [tuple(sorted(names)) for names in same.values() if len(names) > 1]


def _path(image: Path | bytes | None) -> Path:
    assert isinstance(image, Path)
    return image


def _listed(entry: DatasetEntry | None, picture: Picture) -> str:
    """The name of an image as a list of near-duplicates gives it: its path below the fixed part of ``images``."""
    if entry is None:
        return picture.name
    fixed = []
    for part in PurePosixPath(entry.images).parts:
        if any(sign in part for sign in "*?["):
            break
        fixed.append(part)
    base = "/".join(fixed)
    return picture.name.removeprefix(f"{base}/") if base else picture.name
