"""The data sets of the UniBiomed paper (tables A2 to A6), read from ``published.toml``, and what must agree in them.

They describe what the published model saw. None of them comes with this package, and most have to be asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from unibiomed.data.entries import ADAPTERS
from unibiomed.data.keys import build, listed, read_toml
from unibiomed.errors import DataError
from unibiomed.tasks import TASKS

__all__ = [
    "Abnormality",
    "ModalityCount",
    "PublishedCatalog",
    "PublishedDataset",
    "StatedTotal",
    "TotalCheck",
    "check_totals",
    "fold_name",
    "load_published",
    "read_published",
]

TABLES = ("A2", "A3", "A4")
GROUPS = ("patient", "case", "slide", "image")


@dataclass(frozen=True, slots=True)
class PublishedDataset:
    """One data set of the paper. What is not known is empty, or None.

    Parameters
    ----------
    name : str
        Name in this catalogue: small letters, digits and ``_``.
    title : str
        What it is, in a few words.
    rows : dict of str to str
        The paper's name of it in each table that lists it: ``{"A2": "MSD", "A4": "MSD03 Liver"}``.
    modality : list of str
        Of `unibiomed.images.MODALITIES`.
    regions : list of str
        Regions of interest, in the words of table A4.
    triplets : int or None
        Image-text-annotation triplets according to table A4.
    external : bool
        Kept for testing alone: never trained on.
    collection : bool
        The union of other data sets of the catalogue, and not counted as one.
    tasks : list of str
        What the paper uses it for, of `unibiomed.tasks.TASKS`.
    link, licence, citation : str
        Where it is found, its licence as its authors state it, and who made it.
    adapter : str
        How its authors lay it out; empty where it has to be converted first.
    options : dict
        Keys of an entry that would read it; see the head of ``published.toml``.
    group : str
        What no split may tear apart: ``"patient"``, ``"case"`` (one scan), ``"slide"`` or ``"image"``.
    also : list of str
        Other names.
    shipped : str
        Name of the entry that describes a scaled-down part of it.
    note : str
        What is doubtful, and where the paper's tables disagree.
    """

    name: str
    title: str
    rows: dict[str, str]
    modality: list[str]
    regions: list[str] = field(default_factory=list)
    triplets: int | None = None
    external: bool = False
    collection: bool = False
    tasks: list[str] = field(default_factory=list)
    link: str = ""
    licence: str = ""
    citation: str = ""
    adapter: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    group: str = ""
    also: list[str] = field(default_factory=list)
    shipped: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9_]+", self.name):
            raise DataError(f"data set name '{self.name}' holds other signs than a-z, 0-9 and '_'")
        known: tuple[tuple[str, Iterable[str], Iterable[str]], ...] = (
            ("table", self.rows, TABLES),
            ("task", self.tasks, TASKS),
            ("adapter", [self.adapter] if self.adapter else [], ADAPTERS),
            ("group", [self.group] if self.group else [], GROUPS),
        )
        for what, words, allowed in known:
            for word in words:
                if word not in allowed:
                    raise DataError(f"{what} '{word}' of data set '{self.name}' is not one of {', '.join(allowed)}")
        if not self.rows or not self.modality:
            raise DataError(f"data set '{self.name}' is in no table or has no modality")
        if self.external and "A2" not in self.rows:
            raise DataError(f"data set '{self.name}' is external, but not in table A2, which says so")
        if self.link and not self.link.startswith(("http://", "https://")):
            raise DataError(f"link '{self.link}' of data set '{self.name}' is no web address")

    @property
    def names(self) -> frozenset[str]:
        """All its names, as `fold_name` gives them."""
        return frozenset(fold_name(name) for name in (self.name, *self.rows.values(), *self.also))


@dataclass(frozen=True, slots=True)
class Abnormality:
    """A row of table A6: how many images show an abnormality, and the data sets they come from."""

    name: str
    images: int
    sets: list[str]
    note: str = ""


@dataclass(frozen=True, slots=True)
class ModalityCount:
    """A row of table A5: images and triplets of a modality."""

    name: str
    images: int
    triplets: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class StatedTotal:
    """A total that the paper states, and why the rows may not sum to it."""

    name: str
    stated: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class TotalCheck:
    """A total that the paper states, beside the sum of the catalogue's rows."""

    name: str
    stated: int
    found: int
    note: str = ""

    @property
    def difference(self) -> int:
        """Stated minus found: zero where the paper agrees with itself."""
        return self.stated - self.found


@dataclass(frozen=True, slots=True)
class PublishedCatalog:
    """All of ``published.toml``; its parts are lists of the classes above.

    Raises
    ------
    DataError
        Two data sets have one name, an external one shares a name with another, or a table names what is not there.
    """

    datasets: tuple[PublishedDataset, ...]
    abnormalities: tuple[Abnormality, ...]
    no_findings: Abnormality
    modalities: tuple[ModalityCount, ...]
    totals: tuple[StatedTotal, ...]

    def __post_init__(self) -> None:
        for what, items in (
            ("data sets", self.datasets),
            ("abnormalities", self.abnormalities),
            ("modalities", self.modalities),
            ("totals", self.totals),
        ):
            seen: set[str] = set()
            for item in items:
                if item.name in seen:
                    raise DataError(f"two {what} are named '{item.name}'")
                seen.add(item.name)
        names = {dataset.name for dataset in self.datasets}
        modalities = {row.name for row in self.modalities}
        for dataset in self.datasets:
            for modality in dataset.modality:
                if modality not in modalities:
                    raise DataError(f"modality '{modality}' of data set '{dataset.name}' has no row in [[modalities]]")
            if dataset.external:
                for other in self.datasets:
                    if other is not dataset and other.names & dataset.names:
                        raise DataError(f"external data set '{dataset.name}' shares a name with '{other.name}'")
        for row in (*self.abnormalities, self.no_findings):
            for name in row.sets:
                if name not in names:
                    raise DataError(f"'{row.name}' names the data set '{name}', which is not in the catalogue")

    def named(self, name: str) -> list[PublishedDataset]:
        """Data sets of a name: the one with exactly that name, else all that have it as one of their `names`."""
        folded = fold_name(name)
        exact = [dataset for dataset in self.datasets if fold_name(dataset.name) == folded]
        return exact or [dataset for dataset in self.datasets if folded in dataset.names]

    def is_external(self, name: str) -> bool:
        """Whether a data set of this name, however it is written, is kept for testing alone."""
        return any(dataset.external for dataset in self.named(name))

    def abnormal_in(self, name: str) -> list[str]:
        """Rows of table A6, "No findings" among them, that list a data set."""
        return [row.name for row in (*self.abnormalities, self.no_findings) if name in row.sets]


def fold_name(name: str) -> str:
    """A name without what people write differently: ``"HCC-TACE-Seg"`` and ``"hcc_tace_seg"`` are the same."""
    return "".join(sign for sign in name.casefold() if sign.isalnum())


@cache
def load_published() -> PublishedCatalog:
    """Read the catalogue that comes with the package; later calls give the same object.

    Returns
    -------
    PublishedCatalog
        The paper's data sets, abnormalities, modalities and totals.
    """
    with as_file(files("unibiomed.data").joinpath("published.toml")) as path:
        return read_published(path)


def read_published(path: Path) -> PublishedCatalog:
    """Read and check a file like ``published.toml``.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    PublishedCatalog
        What it holds.

    Raises
    ------
    DataError
        The file cannot be read, a key is unknown, missing or of the wrong type, or the parts do not fit together.
    """
    values = read_toml(path)
    try:
        for name, kind in (
            ("datasets", PublishedDataset),
            ("abnormalities", Abnormality),
            ("modalities", ModalityCount),
            ("totals", StatedTotal),
        ):
            values[name] = tuple(build(kind, item, _called(item, name)) for item in listed(values, name))
        if "no_findings" in values:
            values["no_findings"] = build(Abnormality, values["no_findings"], "no_findings")
        return build(PublishedCatalog, values, "the file")
    except DataError as error:
        raise DataError(f"{path.name}: {error}; mend the catalogue") from error


def _called(item: object, name: str) -> str:
    return f"{name} '{item['name']}'" if isinstance(item, dict) and "name" in item else name


def check_totals(catalog: PublishedCatalog | None = None) -> tuple[TotalCheck, ...]:
    """Set every total that the paper states beside the sum of the rows.

    Parameters
    ----------
    catalog : PublishedCatalog, optional
        The one that comes with the package when left out.

    Returns
    -------
    tuple of TotalCheck
        In the order of the file, with the catalogue's explanation of what does not agree.

    Raises
    ------
    DataError
        The catalogue states a total that nothing here counts.
    """
    catalog = load_published() if catalog is None else catalog
    checks = []
    for total in catalog.totals:
        if total.name not in _COUNTED:
            raise DataError(f"total '{total.name}' is unknown; use one of {', '.join(_COUNTED)}")
        checks.append(TotalCheck(total.name, total.stated, _COUNTED[total.name](catalog), total.note))
    return tuple(checks)


def _sets(catalog: PublishedCatalog, table: str = "", external: bool | None = None, task: str = "") -> int:
    return sum(
        not dataset.collection
        and (not table or table in dataset.rows)
        and (external is None or dataset.external == external)
        and (not task or task in dataset.tasks)
        for dataset in catalog.datasets
    )


_COUNTED: dict[str, Callable[[PublishedCatalog], int]] = {
    "data sets": lambda c: _sets(c),
    "internal data sets": lambda c: _sets(c, external=False),
    "data sets of A2": lambda c: _sets(c, "A2"),
    "internal data sets of A2": lambda c: _sets(c, "A2", external=False),
    "external data sets of A2": lambda c: _sets(c, "A2", external=True),
    "data sets of A3": lambda c: _sets(c, "A3"),
    "data sets compared in segmentation": lambda c: _sets(c, "A2", task="segment"),
    "modalities": lambda c: len(c.modalities),
    "triplets of A4": lambda c: sum(dataset.triplets or 0 for dataset in c.datasets),
    "images of A5": lambda c: sum(row.images for row in c.modalities),
    "triplets of A5": lambda c: sum(row.triplets for row in c.modalities),
    "images of A6": lambda c: sum(row.images for row in (*c.abnormalities, c.no_findings)),
    "abnormal images of A6": lambda c: sum(row.images for row in c.abnormalities),
    "abnormalities of A6": lambda c: len(c.abnormalities),
}
