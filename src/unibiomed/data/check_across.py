"""Checking several data sets together: whether an image that is kept for testing alone is trained on in another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from unibiomed.data.check import CheckReport
from unibiomed.data.check_files import ERROR, Problem, name_of
from unibiomed.data.check_records import read_or_tell
from unibiomed.data.entries import DatasetEntry
from unibiomed.data.index import file_sha256
from unibiomed.data.pixels import voxel_files

__all__ = ["check_across"]

Copy = tuple[DatasetEntry, Path]


def check_across(entries: Sequence[DatasetEntry]) -> CheckReport:
    """Find images of external data sets that others have for training or validation, as files of the same bytes.

    Parameters
    ----------
    entries : sequence of DatasetEntry
        From `unibiomed.data.check.find_entries`.

    Returns
    -------
    CheckReport
        An error for each such image; its files are named with their data sets.
    """
    by_size: dict[int, list[Copy]] = defaultdict(list)
    images = 0
    for entry in entries if _mixed(entries) else ():
        used = (record.image for record in read_or_tell(entry)[0] if entry.external or record.split != "test")
        for path in dict.fromkeys(used):
            if isinstance(path, Path) and path.exists():
                images += 1
                by_size[sum(file.stat().st_size for file in voxel_files(path))].append((entry, path))
    same: dict[str, list[Copy]] = defaultdict(list)
    for alike in by_size.values():
        for entry, path in alike if _mixed([entry for entry, _ in alike]) else ():
            same[" ".join(map(file_sha256, voxel_files(path)))].append((entry, path))
    problems = []
    for copies in same.values():
        if _mixed([entry for entry, _ in copies]):
            files = tuple(f"{entry.name}/{name_of(path, entry.folder)}" for entry, path in copies)
            detail = "identical files in data sets for training and for testing alone"
            problems.append(Problem("leak between data sets", ERROR, files, detail))
    return CheckReport("all together", images, images, images, tuple(sorted(problems, key=lambda p: p.files)))


def _mixed(entries: Sequence[DatasetEntry]) -> bool:
    return len({entry.external for entry in entries}) > 1
