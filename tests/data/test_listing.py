"""The list of data sets and what is shown of one: every known set, once, and what is here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from unibiomed.data.catalog import known_entries
from unibiomed.data.listing import dataset_facts, list_datasets, list_facts, show_dataset
from unibiomed.errors import DataError

ENTRY = 'name = "{}"\nlicence = "CC0"\nadapter = "images"\nmodality = "CT"\nsite = "abdomen"\n'
TARGET = '[[targets]]\nname = "liver"\n'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with a set of one's own, an external one under another name, and folders that nobody described."""
    for name in ("mine", "HCC-TACE-Seg"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "dataset.toml").write_text(ENTRY.format(name) + TARGET)
    for name in ("WORD", "MSD", "holiday", "drive_fundus_vessel"):
        (tmp_path / name).mkdir()
    return tmp_path


def rows(text: str) -> dict[str, str]:
    table = text.split("\n\n")[0].splitlines()
    return {line.split()[0]: line for line in table[1:]}


def test_every_set_is_listed_once() -> None:
    facts = list_facts()
    names = [row["name"] for row in facts["datasets"]]
    shipped = {entry.name for entry in known_entries()}
    assert len(names) == len(set(names)) == 84 + len(shipped - {"vqa_rad"})
    assert shipped <= set(names)
    assert {row["here"] for row in facts["datasets"]} == {None}
    assert json.loads(json.dumps(facts)) == facts
    both = next(row for row in facts["datasets"] if row["name"] == "vqa_rad")
    assert both["from"] == "paper, entry" and both["tasks"] == ["describe", "ask"]


def test_the_table_is_aligned() -> None:
    text = list_datasets()
    table = text.split("\n\n")[0].splitlines()
    assert re.split(r"\s{2,}", table[0]) == ["name", "modality", "triplets", "split", "tasks"]
    column = table[0].index("split")
    assert {line[column:].split()[0] for line in table[1:]} == {"internal", "external"}
    assert all(line[column - 2 : column] == "  " for line in table)
    listed = rows(text)
    assert re.split(r"\s{2,}", listed["flare23"]) == ["flare23", "CT", "4,760,889", "external", "segment, classify"]
    assert re.split(r"\s{2,}", listed["brats21"])[2] == "-"
    assert re.split(r"\s{2,}", listed["pmc_oa"])[1] == "10 modalities"
    assert re.split(r"\s{2,}", listed["sts_pet_ct_mr"])[1] == "CT, PET, MRI"


def test_the_paper_s_disagreements_are_told() -> None:
    text = list_datasets()
    assert "triplets of A4: 27,408,704 stated, 27,397,860 found." in text
    assert "triplets of A5: 27,408,704 stated, 27,408,728 found." in text
    assert "images of A6" not in text.replace("abnormal images of A6", "")


def test_what_is_here(root: Path) -> None:
    here = {row["name"]: row["here"] for row in list_facts(root)["datasets"]}
    assert here["mine"] == here["hcctace"] == here["drive_fundus_vessel"] == "yes"
    assert here["word"] == "undescribed"
    # a folder "MSD" may be any of ten sets
    assert here["msd03_liver"] == here["chaos"] == here["drive"] == here["idrid_hard_exudates"] == "no"
    assert "holiday" not in here and "HCC-TACE-Seg" not in here
    listed = rows(list_datasets(root))
    assert re.split(r"\s{2,}", listed["hcctace"])[3:5] == ["external", "yes"]
    assert re.split(r"\s{2,}", listed["mine"]) == ["mine", "CT", "-", "internal", "yes", "segment, classify"]
    assert "undescribed" in listed["word"]


def test_a_set_of_the_paper_is_shown(root: Path) -> None:
    text = show_dataset("CHAOS")
    assert text.startswith("name: chaos\ntitle: ")
    for line in ("triplets: 2,341", "external: yes", "  A4: CHAOS", "regions: Liver", "abnormalities: No findings"):
        assert line in text.splitlines(), line
    assert "here:" not in text and "here: no" in show_dataset("chaos", root)
    assert "\n  values:\n    liver: 1\n    liver tumor: 2\n" in show_dataset("MSD03 Liver")
    facts = dataset_facts("hcctace", root)
    assert facts["here"] == "yes" and facts["external"] and facts["triplets"] == 9_947
    assert facts["entry"]["name"] == "HCC-TACE-Seg" and facts["entry"]["targets"] == ["liver"]
    assert facts == dataset_facts("HCC-TACE-Seg", root)


@pytest.mark.parametrize("name", [entry.name for entry in known_entries()])
def test_shipped_sets_are_shown(name: str) -> None:
    facts = dataset_facts(name)
    assert json.loads(json.dumps(facts)) == facts
    assert facts["name"] == name and facts["entry"]["licence"] and facts["entry"]["citation"]
    text = show_dataset(name)
    assert "\n  licence: " in text and "(" not in text.split("\n")[0]
    assert all(": " in line or line.endswith(":") for line in text.splitlines())


def test_a_set_of_one_s_own_is_shown(root: Path) -> None:
    facts = dataset_facts("Mine", root)
    assert facts["name"] == "mine" and facts["here"] == "yes" and facts["from"] == "entry"
    assert facts["entry"]["targets"] == ["liver"] and "folder" not in facts["entry"]
    assert str(root) not in show_dataset("mine", root)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("chaso", r"'chaso' is unknown; did you mean chaos"),
        ("flare24", r"did you mean flare2\d or flare2\d"),
        ("drive_fundus_vesel", "did you mean drive_fundus_vessel"),
        ("qqqqqqqqqq", "'unibiomed data list' lists them all"),
        ("MSD", "is the name of msd01_brain, .*msd10_colon; name one of them"),
        ("", "is unknown"),
    ],
)
def test_names_that_name_nothing(name: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        show_dataset(name)
    assert "\n" not in str(caught.value)


def test_roots_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder"):
        list_datasets(tmp_path / "none")
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "dataset.toml").write_text("name = ")
    with pytest.raises(DataError, match="TOML"):
        show_dataset("chaos", tmp_path)


def test_listing_loads_nothing_heavy() -> None:
    code = (
        "import sys; from unibiomed.data.listing import list_datasets; list_datasets();"
        "sys.exit(str({'torch', 'numpy', 'PIL', 'nibabel', 'pydicom'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "set()"
