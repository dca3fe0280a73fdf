"""The catalogue of data sets: one TOML file each, shipped beside this module; a user's own lie in their data root."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

from unibiomed.data.entries import DatasetEntry, read_entry
from unibiomed.data.published import load_published
from unibiomed.errors import DataError

if TYPE_CHECKING:
    from unibiomed.data.records import Record

__all__ = ["OWN_ENTRY", "iter_records", "known_entries", "load_catalog", "load_records"]

OWN_ENTRY = "dataset.toml"
"""A folder of the data root that holds this file describes itself; it goes before a shipped entry of the same name."""


def load_catalog(root: str | Path) -> list[DatasetEntry]:
    """Entries of all data sets that lie under a folder.

    Parameters
    ----------
    root : str or Path
        Folder that holds one folder a data set.

    Returns
    -------
    list of DatasetEntry
        Sorted by name. Known data sets that are not there, and folders that nobody described, are passed over. A data
        set that the paper kept for testing alone is external, whatever its entry says: it is never trained on.

    Raises
    ------
    DataError
        `root` is not a folder, an entry is broken, two have one name, or none of the data sets is there.
    """
    entries = [entry for entry in known_entries(root) if entry.folder.is_dir()]
    if not entries and (Path(root) / OWN_ENTRY).is_file():
        raise DataError(f"'{root}' is a data set itself: give the folder above it, and its name as the one wanted")
    if not entries:
        raise DataError(f"data root '{root}' holds no data set of the catalogue; describe one in {OWN_ENTRY}")
    return entries


def known_entries(root: str | Path | None = None) -> list[DatasetEntry]:
    """Entries that come with the package and those of a data root, whether their data are there or not.

    Parameters
    ----------
    root : str or Path, optional
        Folder that holds one folder a data set; without it, the entries of the package alone.

    Returns
    -------
    list of DatasetEntry
        Sorted by name.

    Raises
    ------
    DataError
        `root` is not a folder, an entry is broken, or two have one name.
    """
    if root is not None and not Path(root).is_dir():
        raise DataError(f"data root '{root}' is not a folder; give the folder that holds the data sets")
    entries: dict[str, DatasetEntry] = {}
    with as_file(files("unibiomed.data").joinpath("sets")) as folder:
        for path in sorted(folder.glob("*.toml")):
            entry = read_entry(path, Path() if root is None else Path(root))
            entries[entry.name] = entry
    if root is not None:
        entries |= {entry.name: entry for entry in _own_entries(Path(root))}
    return [
        replace(entry, external=True) if _is_external(entry.name) else entry for _, entry in sorted(entries.items())
    ]


@cache
def _is_external(name: str) -> bool:
    # every way of writing a hundred names is compared: once a name is enough
    return load_published().is_external(name)


def _own_entries(root: Path) -> list[DatasetEntry]:
    found: dict[str, tuple[Path, DatasetEntry]] = {}
    for path in sorted(root.glob(f"*/{OWN_ENTRY}")):
        entry = read_entry(path, root)
        # names that differ in case alone would be one folder on another machine
        other = found.setdefault(entry.name.casefold(), (path, entry))[0]
        if other != path:
            both = f"{other.parent.name}/{OWN_ENTRY} and {path.parent.name}/{OWN_ENTRY}"
            raise DataError(f"{both}: both describe a data set '{entry.name}'; give one another name")
    for path, entry in found.values():
        if entry.name != path.parent.name:
            raise DataError(f"{path.parent.name}/{OWN_ENTRY}: name is '{entry.name}'; give it the name of its folder")
    return [entry for _, entry in found.values()]


def load_records(root: str | Path, datasets: Sequence[str] | None = None) -> list[Record]:
    """Read the records of data sets. No image and no mask is opened, but for the headers of volumes.

    Parameters
    ----------
    root : str or Path
        Folder that holds one folder a data set.
    datasets : sequence of str, optional
        Names of those wanted; all that are there when left out.

    Returns
    -------
    list of Record
        Sorted by data set, then by file name; the same on every machine.

    Raises
    ------
    DataError
        A data set is not there, or one of its files does not fit its entry in the catalogue.
    """
    return list(iter_records(root, datasets))


def iter_records(root: str | Path, datasets: Sequence[str] | None = None) -> Iterator[Record]:
    """Read the records of data sets one by one: of each, names and tables are held, and one record.

    Parameters
    ----------
    root : str or Path
        Folder that holds one folder a data set.
    datasets : sequence of str, optional
        Names of those wanted; all that are there when left out.

    Yields
    ------
    Record
        In the order of `load_records`.

    Raises
    ------
    DataError
        A data set is not there, or, when its turn comes, one of its files does not fit its entry in the catalogue.
    """
    from unibiomed.data.adapters import iter_records as records_of  # loads numpy, which naming data sets does without

    entries = {entry.name: entry for entry in load_catalog(root)}
    wanted = sorted(entries) if datasets is None else list(dict.fromkeys(datasets))
    for name in wanted:
        if name not in entries:
            raise DataError(f"data set '{name}' is not under '{root}'; there are {', '.join(sorted(entries))}")
    for name in wanted:
        yield from records_of(entries[name])
