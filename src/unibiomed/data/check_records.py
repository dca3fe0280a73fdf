"""What is wrong with a data set that its entry, its tables and the names of its files tell: no image is opened."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from unibiomed.data.adapters import read_records
from unibiomed.data.check_files import ERROR, WARNING, Problem, Seen, name_of
from unibiomed.data.entries import DatasetEntry
from unibiomed.data.records import SPLITS, Record
from unibiomed.errors import DataError

__all__ = ["NOT_FITTING", "never_found", "read_or_tell", "record_name", "split_words", "torn_groups", "unused_masks"]

NOT_FITTING = "does not fit"
"""The kind of problem of a file or row that makes no record."""
WITH_MASK_FILES = ("images", "volumes")
MASK_ENDINGS = (".png", ".bmp", ".tif", ".tiff", ".gif", ".jpg", ".jpeg", ".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")


def read_or_tell(entry: DatasetEntry) -> tuple[list[Record], list[Problem]]:
    """Records of an entry; where a file, a row or a rule does not fit, those without it, with all that do not."""
    try:
        return read_records(entry), []
    except DataError as error:
        first = Problem("entry does not fit", ERROR, (), str(error))
    label = entry.label
    free = replace(entry, mend_split=True, label=replace(label, map={}) if label is not None else None)
    if entry.adapter in WITH_MASK_FILES:
        free = replace(free, targets=tuple(replace(t, missing=t.without_mask or "absent") for t in entry.targets))
    left_out: list[DataError] = []
    try:
        records = read_records(free, left_out.append)
        problems = _not_fitting(entry, left_out)
        if label is not None and label.map:
            for record in records:
                if record.label is not None and record.label not in label.map:
                    detail = f"label '{record.label}' is not one of {', '.join(label.map)}; add it to the map"
                    problems.append(Problem("label outside the map", ERROR, (record_name(record, entry),), detail))
        problems += _missing_masks(entry, records)
        if _has_own_split(entry) and not entry.mend_split:
            # The groups without the lists that join them, on the sides that the authors gave.
            alone = replace(free, near_duplicates=None, twins=[])
            groups = {record_name(r, entry): r.group for r in read_records(alone, left_out.append)}
            sides = read_records(replace(alone, group=None), left_out.append)
            detail = "of the authors' split; mend the group rule, or set mend_split = true"
            named = [(record_name(r, entry), r.split) for r in sides]
            problems += _torn([(groups[name], split, name) for name, split in named], detail)
    except DataError as error:
        return [], [*_not_fitting(entry, left_out), Problem("entry does not fit", ERROR, (), str(error))]
    return records, problems or [first]


def _not_fitting(entry: DatasetEntry, errors: Iterable[DataError]) -> list[Problem]:
    """Problems of files and rows that were left out, by the words in which the reader refused them."""
    problems = []
    for words in dict.fromkeys(str(error) for error in errors):
        file, _, reason = words.removeprefix(f"{entry.name}/").partition(": ")
        problems.append(Problem(NOT_FITTING, ERROR, (file,), reason))
    return problems


def _has_own_split(entry: DatasetEntry) -> bool:
    """Whether the authors of a data set gave a split; else groups are what makes ours, and none can be torn."""
    told_by_folders = entry.adapter == "published" and not entry.tables
    return told_by_folders or entry.split is not None or any(table.split is not None for table in entry.tables)


def record_name(record: Record, entry: DatasetEntry | None) -> str:
    """How the image of a record is called in a report; a record without an image file by its key."""
    if isinstance(record.image, Path):
        return name_of(record.image, entry.folder if entry is not None else None)
    return record.key


def _missing_masks(entry: DatasetEntry, records: Iterable[Record]) -> Iterator[Problem]:
    """Of targets of which the entry does not say what it means, images without a mask file."""
    expected = {target.name for target in entry.targets if target.without_mask is None}
    if entry.adapter not in WITH_MASK_FILES:
        return
    told: set[tuple[str, str]] = set()
    for record in records:
        for region in record.regions:
            found = record_name(record, entry), region.target
            if region.absent and region.target in expected and found not in told:
                told.add(found)
                detail = f"no mask file of '{region.target}'; restore it, or let the entry say missing = \"absent\""
                yield Problem("missing mask", ERROR, found[:1], detail)


def unused_masks(entry: DatasetEntry, records: Iterable[Record]) -> Iterator[Problem]:
    """Files in the folders of the masks that belong to no image and target."""
    if entry.adapter not in WITH_MASK_FILES or entry.drop_mixed_labels:
        return
    folders = {mask.rpartition("/")[0] for target in entry.targets for mask in target.masks}
    used: set[object] = set()
    for record in records:
        for region in record.regions:
            if isinstance(region.mask, Path):
                used |= {region.mask, *region.further_masks}
    for folder in sorted(folder for folder in folders if "{" not in folder):
        if folder in ("", ".") or entry.images.startswith(folder):
            continue
        for path in sorted((entry.folder / folder).iterdir()):
            if path not in used and path.name.lower().endswith(MASK_ENDINGS) and not path.name.startswith("."):
                yield Problem("unused mask", WARNING, (f"{folder}/{path.name}",), "belongs to no image and no target")


def torn_groups(entry: DatasetEntry | None, records: Iterable[Record]) -> list[Problem]:
    """Groups on several sides of the split that the records are in."""
    return _torn([(record.group, record.split, record_name(record, entry)) for record in records], "of the split")


def _torn(places: Iterable[tuple[str, str, str]], where: str) -> list[Problem]:
    """Groups on several sides, with the first file on each; a group's name may be a patient's number."""
    first: dict[str, dict[str, str]] = defaultdict(dict)
    for group, split, name in places:
        first[group].setdefault(split, name)
    problems = []
    for sides in first.values():
        if len(sides) > 1:
            files = tuple(dict.fromkeys(sides[split] for split in SPLITS if split in sides))
            detail = f"one {'group' if len(files) > 1 else 'image'} in {split_words(sides)} {where}"
            problems.append(Problem("group in two splits", ERROR, files, detail))
    return problems


def split_words(splits: Iterable[str]) -> str:
    """``"train and test"``."""
    there = set(splits)
    return " and ".join(split for split in SPLITS if split in there)


def never_found(entry: DatasetEntry | None, records: Iterable[Record], seen: Sequence[Seen]) -> Iterator[Problem]:
    """Targets that are on no image that was looked at."""
    targets = list(entry.target_names if entry is not None else ())
    targets += [region.target for record in records for region in record.regions]
    # without masks, the entry says only where they are not
    without = {target.name for target in entry.targets if not target.masks} if entry is not None else set()
    present = {target for item in seen for target in item.present}
    for target in dict.fromkeys(targets):
        if seen and target not in present and target not in without:
            detail = f"'{target}' is on none of the {len(seen):,} images looked at"
            yield Problem("target never found", WARNING, (), detail)
