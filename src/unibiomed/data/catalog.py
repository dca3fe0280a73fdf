"""The catalogue of data sets: one TOML file each, shipped beside this module; a user's own lie in their data root."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path

from unibiomed.data.adapters import read_records
from unibiomed.data.entries import DatasetEntry, read_entry
from unibiomed.data.records import Record
from unibiomed.errors import DataError

__all__ = ["load_catalog", "load_records"]

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
        Sorted by name. Known data sets that are not there, and folders that nobody described, are passed over.

    Raises
    ------
    DataError
        `root` is not a folder, an entry is broken, or none of the data sets is there.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"data root '{root}' is not a folder; give the folder that holds the data sets")
    entries: dict[str, DatasetEntry] = {}
    with as_file(files("unibiomed.data").joinpath("sets")) as folder:
        for path in sorted(folder.glob("*.toml")):
            entry = read_entry(path, root)
            if entry.folder.is_dir():
                entries[entry.name] = entry
    for path in sorted(root.glob(f"*/{OWN_ENTRY}")):
        entry = read_entry(path, root)
        if entry.name != path.parent.name:
            raise DataError(f"{path.parent.name}/{OWN_ENTRY}: name is '{entry.name}'; give it the name of its folder")
        entries[entry.name] = entry
    if not entries:
        raise DataError(f"data root '{root}' holds no data set of the catalogue; describe one in {OWN_ENTRY}")
    return [entries[name] for name in sorted(entries)]


def load_records(root: str | Path, datasets: Sequence[str] | None = None) -> list[Record]:
    """Read the records of data sets. No image and no mask is opened.

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
    entries = {entry.name: entry for entry in load_catalog(root)}
    wanted = sorted(entries) if datasets is None else list(dict.fromkeys(datasets))
    for name in wanted:
        if name not in entries:
            raise DataError(f"data set '{name}' is not under '{root}'; there are {', '.join(sorted(entries))}")
    return [record for name in wanted for record in read_records(entries[name])]
