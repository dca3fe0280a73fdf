"""The paper's catalogue: its sums, where the paper contradicts itself, and that external stays external."""

from __future__ import annotations

import json
import re
from collections import Counter
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unibiomed.data import load_catalog, load_records
from unibiomed.data.adapters.common import VOLUME_ENDINGS
from unibiomed.data.entries import ADAPTERS, read_entry
from unibiomed.data.pixels import load_mask
from unibiomed.data.published import (
    PublishedCatalog,
    PublishedDataset,
    check_totals,
    fold_name,
    load_published,
    read_published,
)
from unibiomed.errors import DataError
from unibiomed.images.modality import MODALITIES
from unibiomed.tasks import TASKS

EXTERNAL = {
    "crag", "monuseg", "flare23", "abdomenct1k", "chaos", "ircadb", "sliver07", "hcctace", "tciapancreas", "qubiq",
    "rider", "panorama", "abdomenatlas", "brats21",
}  # fmt: skip
TEXT = (files("unibiomed.data") / "published.toml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def catalog() -> PublishedCatalog:
    return load_published()


@pytest.fixture(scope="module")
def by_name(catalog: PublishedCatalog) -> dict[str, PublishedDataset]:
    return {dataset.name: dataset for dataset in catalog.datasets}


# ---------------------------------------------------------------- what the paper says


def test_sums_and_their_disagreements() -> None:
    totals = {total.name: total for total in check_totals()}
    sums = {name: (total.stated, total.found, total.difference) for name, total in totals.items()}
    assert sums == {
        "data sets": (84, 83, 1),  # RadGenome is in A2 and in A3
        "internal data sets": (70, 69, 1),
        "data sets of A2": (61, 61, 0),
        "internal data sets of A2": (47, 47, 0),
        "external data sets of A2": (14, 14, 0),
        "data sets of A3": (23, 23, 0),
        "data sets compared in segmentation": (60, 61, -1),
        "modalities": (10, 10, 0),
        "triplets of A4": (27_408_704, 27_397_860, 10_844),
        "images of A5": (18_961_150, 18_961_150, 0),
        "triplets of A5": (27_408_704, 27_408_728, -24),
        "images of A6": (341_284, 341_284, 0),
        "abnormal images of A6": (270_000, 275_058, -5_058),
        "abnormalities of A6": (15, 15, 0),
    }
    for total in totals.values():
        assert bool(total.note) == bool(total.difference), total.name
    assert "AutoPET" in totals["triplets of A4"].note and "RadGenome" in totals["data sets"].note


def test_the_84_data_sets(catalog: PublishedCatalog) -> None:
    """84 blocks, but not the paper's 84: RadGenome, which it counts twice, is one; MedTrinity is a row of A4 alone."""
    assert len(catalog.datasets) == 84
    tables = Counter(table for dataset in catalog.datasets for table in dataset.rows)
    assert tables == {"A2": 61, "A3": 23, "A4": 60}
    assert [dataset.name for dataset in catalog.datasets if dataset.collection] == ["medtrinity"]
    assert [d.name for d in catalog.datasets if {"A2", "A3"} <= set(d.rows)] == ["radgenome"]
    # A2 has 46 rows: MSD is ten data sets, US four, Radiography three, AMOS two
    rows = Counter(dataset.rows["A2"] for dataset in catalog.datasets if "A2" in dataset.rows)
    assert len(rows) == 46
    assert {name: number for name, number in rows.items() if number > 1} == {
        "MSD": 10, "US": 4, "Radiography": 3, "AMOS": 2,
    }  # fmt: skip


def test_triplets_are_those_of_a4(catalog: PublishedCatalog) -> None:
    for dataset in catalog.datasets:
        assert (dataset.triplets is not None) == ("A4" in dataset.rows), dataset.name
        assert bool(dataset.regions) == ("A4" in dataset.rows), dataset.name
    sums: Counter[str] = Counter()
    for dataset in catalog.datasets:
        if len(dataset.modality) == 1:
            sums[dataset.modality[0]] += dataset.triplets or 0
    assert sums["CT"] == 10_473_700 and sums["MRI"] == 453_964 and sums["PET"] == 0
    # what A5 counts of a modality, A4 must not exceed: the rest is MedTrinity's
    assert all(sums[row.name] <= row.triplets for row in catalog.modalities)


def test_external_sets(catalog: PublishedCatalog) -> None:
    assert {dataset.name for dataset in catalog.datasets if dataset.external} == EXTERNAL


def test_words_are_those_of_the_package(catalog: PublishedCatalog) -> None:
    assert {row.name for row in catalog.modalities} == set(MODALITIES)
    assert {modality for dataset in catalog.datasets for modality in dataset.modality} == set(MODALITIES)
    # boxes without words are no task of the paper's data
    assert {task for dataset in catalog.datasets for task in dataset.tasks} == set(TASKS) - {"outline"}
    assert {dataset.adapter for dataset in catalog.datasets} <= {"", *ADAPTERS}
    shipped = {path.name for path in (files("unibiomed.data") / "sets").iterdir()}
    assert {f"{dataset.shipped}.toml" for dataset in catalog.datasets if dataset.shipped} <= shipped


def test_abnormalities(catalog: PublishedCatalog, by_name: dict[str, PublishedDataset]) -> None:
    images = {row.name: row.images for row in catalog.abnormalities}
    assert len(images) == 15 and catalog.no_findings.images == 66_226
    assert images["Brain tumor"] == 119_523 and images["Skin lesion"] == 119
    for row in (*catalog.abnormalities, catalog.no_findings):
        assert all("recognize" in by_name[name].tasks for name in row.sets), row.name
    # where a set has nothing but the abnormality, A6 repeats A4
    same = ("Colon cancer", "Lung tumor", "Lung nodule", "COVID19 infection", "Pneumothorax", "Retinal lesion")
    for row in catalog.abnormalities:
        if row.name in same:
            assert sum(by_name[name].triplets or 0 for name in row.sets) == row.images, row.name
    recognized = {dataset.name for dataset in catalog.datasets if "recognize" in dataset.tasks}
    assert recognized == {name for name in by_name if catalog.abnormal_in(name)}
    assert catalog.abnormal_in("msd06_lung") == ["Lung tumor", "No findings"]
    # the one external set of A6 is told
    listed = [row.name for row in catalog.abnormalities if EXTERNAL & set(row.sets)]
    assert listed == [] and EXTERNAL & set(catalog.no_findings.sets) == {"chaos"}
    assert "CHAOS" in catalog.no_findings.note


def test_every_set_says_what_it_is(catalog: PublishedCatalog) -> None:
    for dataset in catalog.datasets:
        assert dataset.title and dataset.tasks, dataset.name
        if not dataset.adapter and "A2" in dataset.rows:
            assert "first" in dataset.note, f"{dataset.name}: no adapter, and no word on what to do first"
        if dataset.adapter:
            assert " first" not in dataset.note, f"{dataset.name}: an adapter, though something is to be done first"
        values = dataset.options.get("values", {})
        assert all(type(value) is int and value > 0 for value in values.values()), dataset.name
        assert len(set(values.values())) == len(values), dataset.name
        assert dataset.adapter or set(dataset.options) <= {"values"}, dataset.name


def toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + " }"
    return f"[{', '.join(toml(item) for item in value)}]" if isinstance(value, list) else json.dumps(value)


@pytest.mark.parametrize("name", [d.name for d in load_published().datasets if d.adapter and d.options])
def test_options_make_an_entry(by_name: dict[str, PublishedDataset], tmp_path: Path, name: str) -> None:
    """What the catalogue knows of the files, written into a dataset.toml, is an entry that the package accepts."""
    dataset = by_name[name]
    options = dict(dataset.options)
    masks = {"masks": options.pop("masks")} if "masks" in options else {}
    targets = [{"name": what, "values": [value], **masks} for what, value in options.pop("values", {}).items()]
    options["targets"] = options.get("targets", []) + (targets or [{"name": "region", **masks}] if masks else targets)
    head = {"name": name, "licence": "?", "adapter": dataset.adapter, "modality": dataset.modality[0], "site": "body"}
    path = tmp_path / "dataset.toml"
    path.write_text("\n".join(f"{key} = {toml(value)}" for key, value in (head | options).items()))
    entry = read_entry(path, tmp_path)
    assert entry.adapter == dataset.adapter
    assert len(entry.targets) == len(options["targets"])


MASKS = [
    (dataset.name, dataset.adapter, mask)
    for dataset in load_published().datasets
    for options in (dataset.options, *dataset.options.get("targets", []))
    for mask in options.get("masks", [])
]


@pytest.mark.parametrize(("name", "adapter", "mask"), MASKS)
def test_masks_are_of_a_kind_that_is_read(tmp_path: Path, name: str, adapter: str, mask: str) -> None:
    if adapter == "volumes":
        assert mask.endswith(VOLUME_ENDINGS)
    else:
        path = tmp_path / Path(mask).name
        drawn = np.array([[0, 1, 1], [1, 0, 0]], dtype=np.uint8)
        Image.fromarray(drawn).save(path)
        assert (load_mask(path, (2, 3), None, None) == drawn).all()


def test_the_two_modalities_of_amos_are_told_apart(by_name: dict[str, PublishedDataset]) -> None:
    cases = [f"amos_{number:04d}" for number in (1, 4, 410, 499, 507, 578, 600)]
    left_out = {
        kind: [case for case in cases if re.search(by_name[f"amos22_{kind}"].options["exclude"], case)]
        for kind in ("ct", "mri")
    }
    assert left_out == {"ct": cases[4:], "mri": cases[:4]}


# ---------------------------------------------------------------- names


def test_names_are_found_however_they_are_written(catalog: PublishedCatalog) -> None:
    for name, found in {
        "CHAOS": ["chaos"],
        "HCC-TACE-Seg": ["hcctace"],
        "AbdomenCT-1K": ["abdomenct1k"],
        "3D-IRCADb-01": ["ircadb"],
        "BraTS2021": ["brats21"],
        "amos": ["amos22_ct", "amos22_mri"],
        "lidc": ["lidc_idri"],
        "nothing": [],
        "": [],
    }.items():
        assert [dataset.name for dataset in catalog.named(name)] == found, name
    assert catalog.is_external("Pancreas_CT") and not catalog.is_external("MSD") and not catalog.is_external("mine")


@given(st.text())
def test_folding_is_stable(name: str) -> None:
    assert fold_name(fold_name(name)) == fold_name(name)
    assert fold_name(f" {name}-_") == fold_name(name)


# ---------------------------------------------------------------- a broken file


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('name = "glas"', 'name = "pannuke"', "two data sets are named 'pannuke'"),
        ('name = "Lung nodule"', 'name = "Lung tumor"', "two abnormalities are named 'Lung tumor'"),
        ('name = "glas"', 'name = "GlaS"', "other signs"),
        ('name = "glas"\n', 'name = "glas"\ncolour = "red"\n', "key 'colour' of datasets 'glas' is unknown"),
        ("triplets = 330\n", 'triplets = "330"\n', "wrong type"),
        ("triplets = 330\n", "triplets = true\n", "wrong type"),
        ('title = "GlaS: glands in H&E slides of the colon"\n', "", "lacks a key"),
        ('modality = ["OCT"]', 'modality = ["retina scan"]', "modality 'retina scan'"),
        ('rows = { A2 = "GlaS", A4 = "GlaS" }', 'rows = { A9 = "GlaS" }', "table 'A9'"),
        ('rows = { A2 = "GlaS", A4 = "GlaS" }', "rows = {}", "no table"),
        ('rows = { A2 = "CRAG", A4 = "CRAG" }', 'rows = { A4 = "CRAG" }', "external, but not in table A2"),
        ('rows = { A2 = "GlaS", A4 = "GlaS" }', 'rows = { A2 = "CRAG", A4 = "GlaS" }', "'crag' shares a name"),
        ('tasks = ["describe", "ask"]', 'tasks = ["describe", "guess"]', "task 'guess'"),
        ('adapter = "boxes"', 'adapter = "magic"', "adapter 'magic'"),
        ('group = "slide"', 'group = "moon"', "group 'moon'"),
        ('link = "https://drive.grand', 'link = "file://drive.grand', "no web address"),
        ('sets = ["lidc_idri"]', 'sets = ["lidc"]', "'Lung nodule' names the data set 'lidc'"),
        ("images = 66_226\n", "", "lacks a key"),
        ("[no_findings]", "[nothing]", "'nothing'"),
        ("[[totals]]", "[[totals", "TOML"),
    ],
)
def test_broken_catalogues_are_refused(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in TEXT
    path = tmp_path / "published.toml"
    path.write_text(TEXT.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(DataError, match=words) as caught:
        read_published(path)
    assert "\n" not in str(caught.value) and "published.toml" in str(caught.value)


def test_totals_that_nothing_counts_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "published.toml"
    path.write_text(TEXT + '\n[[totals]]\nname = "apples"\nstated = 3\n', encoding="utf-8")
    with pytest.raises(DataError, match="total 'apples' is unknown"):
        check_totals(read_published(path))


# ---------------------------------------------------------------- never trained on


def describe(root: Path, name: str, images: int = 12, called: str = "") -> None:
    folder = root / name
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    text = f'name = "{called or name}"\nlicence = "CC0"\nadapter = "images"\nmodality = "CT"\nsite = "abdomen"\n'
    (folder / "dataset.toml").write_text(text + '[[targets]]\nname = "liver"\nmissing = "absent"\n')
    for number in range(images):
        Image.new("L", (4, 4)).save(folder / "images" / f"{number}.png")


@pytest.mark.parametrize("name", ["chaos", "CHAOS", "AbdomenCT-1K", "HCC-TACE-Seg", "BraTS2021"])
def test_an_external_set_is_never_trained_on(tmp_path: Path, name: str) -> None:
    describe(tmp_path, name)
    describe(tmp_path, "mine")
    entries = {entry.name: entry for entry in load_catalog(tmp_path)}
    assert entries[name].external and not entries["mine"].external
    records = load_records(tmp_path)
    assert {record.split for record in records if record.dataset == name} == {"test"}
    assert all(record.external == (record.dataset == name) for record in records)
    assert {record.split for record in records if record.dataset == "mine"} == {"train", "test"}


def test_internal_sets_and_shared_names_stay_internal(tmp_path: Path) -> None:
    for name in ("word", "MSD", "chaos_of_mine"):
        describe(tmp_path, name, images=1)
    assert not any(entry.external for entry in load_catalog(tmp_path))


@pytest.mark.parametrize("names", [("toy", "toy"), ("toy", "Toy")])
def test_two_entries_of_one_name(tmp_path: Path, names: tuple[str, str]) -> None:
    for folder, name in zip(("first", "second"), names, strict=True):
        describe(tmp_path, folder, images=1, called=name)
    with pytest.raises(DataError, match=r"first/dataset\.toml and second/dataset\.toml: both describe") as caught:
        load_catalog(tmp_path)
    assert "\n" not in str(caught.value)
