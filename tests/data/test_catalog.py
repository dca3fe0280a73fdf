"""The shipped catalogue is valid, a user's own entries are read, and real data come out as their sources say."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter, defaultdict
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from unibiomed.data import Record, load_catalog, load_records
from unibiomed.data.conversation import canonical_turns
from unibiomed.data.entries import read_entry
from unibiomed.errors import DataError
from unibiomed.images.modality import MODALITIES

SHIPPED = sorted(path for path in Path(str(files("unibiomed.data") / "sets")).glob("*.toml"))
HEAD = 'name = "toy"\nlicence = "CC0"\nadapter = "images"\nmodality = "CT"\nsite = "abdomen"\n'


@pytest.fixture(scope="module")
def records(shared_data: Path) -> list[Record]:
    return load_records(shared_data)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_entries_are_valid(path: Path, tmp_path: Path) -> None:
    entry = read_entry(path, tmp_path)
    assert entry.name == path.stem
    assert entry.folder == tmp_path / path.stem
    assert entry.licence
    assert entry.citation
    assert entry.title


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = ", "TOML"),
        (HEAD + "colour = 1\n", "'colour'"),
        (HEAD.replace("site", "sight"), "'sight'"),
        (HEAD.replace('site = "abdomen"\n', ""), "lacks a key"),
        (HEAD + 'abnormal_known = "yes"\n', "wrong type"),
        (HEAD.replace('"images"', '"magic"'), "adapter 'magic'"),
        (HEAD.replace('"images"', '"reports"'), "needs"),
        (HEAD.replace('"toy"', '"../toy"'), "other signs"),
        (HEAD + 'images = "../other"\n', "leaves"),
        (HEAD + 'group = { pattern = "(" }\n', "regular expression"),
        (HEAD + 'group = { pattern = "p" }\n', "no group"),
        (HEAD + "group = { }\n", "exactly one"),
        (HEAD + "group = { block = 0 }\n", "positive"),
        (HEAD + "group = 3\n", "not a table"),
        (HEAD + 'targets = "liver"\n', "not a list"),
        (HEAD + '[[targets]]\nname = "liver"\nvalues = [0]\n', "wrong type"),
        (HEAD + '[[targets]]\nname = "liver"\nmasks = ["masks/liver.png"]\n', "stem"),
        (HEAD + '[[targets]]\nname = "liver"\nmasks = ["/etc/{stem}.png"]\n', "leaves"),
        (HEAD + '[[targets]]\nname = "liver"\nmissing = "maybe"\n', "maybe"),
        (HEAD + '[[tables]]\nfile = "a.csv"\n', "lacks a key"),
        (HEAD + "[[targets]]\nname = 'liver'\nmasks = []\n", "neither masks nor absent_if"),
        (HEAD + "[[targets]]\nname = 'liver'\nabsent_if = { label = [] }\n", "without values"),
        (HEAD + "[[targets]]\nname = 'liver'\nabsent_if = { label = 'normal' }\n", "wrong type"),
        (
            HEAD + "[[targets]]\nname = 'liver'\nmissing = 'absent'\nabsent_if = { l = ['n'] }\n",
            "leave one of them out",
        ),
        (HEAD + "[[targets]]\nname = 'liver'\nabsent_if = { label = ['normal'] }\n", "needs \\[\\[tables"),
        (
            HEAD.replace('"images"', '"coco"')
            + "[[tables]]\nfile = 'a.json'\n[[targets]]\nname = 'liver'\nabsent_if = { l = ['n'] }\n",
            "absent_if .* images, volumes, boxes alone",
        ),
        (HEAD + "split_with = 'all'\nsplit = 'train'\n", "split_with is for"),
        (HEAD + "split_with = ' '\n", "split_with is empty"),
        (HEAD + "split_with = 'all'\nnear_duplicates = 'twins.txt'\n", "cannot be combined"),
        (HEAD + "ignore_values = [0]\n", "wrong type"),
        (HEAD + "ignore_values = [2]\n[[targets]]\nname = 'liver'\nvalues = [2]\n", "value 2"),
        (
            HEAD.replace('"images"', '"reports"') + "ignore_values = [2]\n[[tables]]\nfile = 'a.csv'\nkey = 'id'\n",
            "ignore_values is for",
        ),
        (
            HEAD.replace('"images"', '"boxes"')
            + "[[tables]]\nfile = 'a.csv'\nkey = 'id'\n[boxes]\ntable = 'b.csv'\ncolumns = ['b']\ntarget = 'liver'\n",
            "'b.csv' of \\[boxes\\]",
        ),
        (HEAD + '[[tables]]\nfile = "a.csv"\nkey = "id"\nfolder = "train"\n', "for adapter 'coco' alone"),
        (HEAD.replace('"images"', '"coco"') + '[[tables]]\nfile = "a.json"\nfolder = "../b"\n', "leaves"),
    ],
)
def test_broken_entries_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "dataset.toml").write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        load_catalog(tmp_path)
    assert "\n" not in str(caught.value)


def test_roots_without_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder"):
        load_catalog(tmp_path / "none")
    with pytest.raises(DataError, match="no data set"):
        load_records(tmp_path)
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "dataset.toml").write_text(HEAD.replace('"toy"', '"boy"'))
    with pytest.raises(DataError, match="name of its folder"):
        load_catalog(tmp_path)
    (tmp_path / "toy" / "dataset.toml").write_text(HEAD)
    with pytest.raises(DataError, match=r"'boy'.*there are toy"):
        load_records(tmp_path, ["boy"])


def test_reading_records_needs_no_torch() -> None:
    code = "import sys, unibiomed.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_shipped_set_is_read(records: list[Record], shared_data: Path) -> None:
    there = {path.stem for path in SHIPPED if (shared_data / path.stem).is_dir()}
    assert {record.dataset for record in records} == there
    assert len({record.key for record in records}) == len(records)
    assert {record.modality for record in records} == set(MODALITIES)


def test_counts_of_the_sources(records: list[Record]) -> None:
    number = Counter(record.dataset for record in records)
    assert number["sts_pet_ct_mr"] == 2142
    assert number["lgg_brain_mri"] == 2073
    # A test patient shares its slices with a training patient.
    assert number["acdc_cardiac_mri"] == 1000 - 8
    # Three groups of near-identical images carry two labels: 3 + 2 + 2 images; 41 have twins nearer to training.
    assert number["busi_breast_ultrasound"] == 780 - 7 - 41
    groups: dict[str, set[str]] = defaultdict(set)
    for record in records:
        groups[record.dataset].add(record.group)
    assert len(groups["lgg_brain_mri"]) == 110
    assert len(groups["sts_pet_ct_mr"]) == 51
    assert len(groups["duke_dme_oct"]) == 10


def test_no_patient_on_two_sides(records: list[Record], shared_data: Path) -> None:
    entries = load_catalog(shared_data)
    shared = {entry.name for entry in entries if entry.shared_images}
    patients_of = {entry.name: entry.split_name for entry in entries}
    assert shared <= {"vqa_rad"}, "its authors split the questions, not the images"
    sides: dict[tuple[str, str], set[str]] = defaultdict(set)
    for record in records:
        if record.dataset not in shared:
            sides[patients_of[record.dataset], record.group].add(record.split)
    assert [group for group, splits in sides.items() if len(splits) > 1] == []


def test_every_set_trains_and_tests(records: list[Record], shared_data: Path) -> None:
    whole = {entry.name for entry in load_catalog(shared_data) if entry.split and entry.split.value}
    sides: dict[str, set[str]] = defaultdict(set)
    for record in records:
        # sets whose groups may share patients are on one side as a whole
        if record.dataset not in whole:
            sides[record.dataset].add(record.split)
    assert [name for name, splits in sides.items() if not {"train", "test"} <= splits] == []


def test_near_duplicates_across_the_official_split(records: list[Record]) -> None:
    polyps = {record.key.removeprefix("kvasir_seg_polyp/"): record for record in records if "kvasir" in record.dataset}
    assert polyps["train_0222"].split == "test"
    assert polyps["train_0222"].group == polyps["test_0016"].group
    assert Counter(record.split for record in polyps.values()) == {"train": 799, "val": 100, "test": 101}


def test_questions_keep_the_official_split(records: list[Record]) -> None:
    questions = Counter()
    for record in records:
        questions[record.split] += len(record.questions)
    assert questions == {"train": 1797, "test": 451, "val": 0}


def test_reports_hold_no_hidden_words(records: list[Record]) -> None:
    texts = [record.text for record in records if record.dataset == "iu_xray_reports"]
    assert len(texts) > 3800
    assert not any("XXXX" in text for text in texts if text)


def test_one_image_of_each_target_fits_its_mask(records: list[Record], shared_data: Path) -> None:
    """Every target has a mask that is not empty, and masks are as large as their images."""
    from PIL import Image

    wanted: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        for region in record.regions:
            if region.mask is not None:
                wanted[record.dataset, region.target].append(record)
    described = {
        (entry.name, target.name) for entry in load_catalog(shared_data) for target in entry.targets if target.masks
    }
    boxed = {(record.dataset, region.target) for record in records for region in record.regions if region.box}
    assert set(wanted) == described - boxed
    for (dataset, target), members in wanted.items():
        for record in members[::3]:
            assert record.image is not None
            with Image.open(record.image) as image:
                width, height = image.size
            region = next(region for region in record.regions if region.target == target)
            if region.load((height, width)).any():
                break
        else:
            pytest.fail(f"{dataset}: no mask of {target} that is not empty")


def test_absence_is_known_or_left_out(records: list[Record]) -> None:
    chest = [record for record in records if record.dataset == "covid_cxr_multistructure"]
    known = Counter(region.target for record in chest for region in record.regions)
    drawn = Counter(region.target for record in chest for region in record.regions if region.mask is not None)
    assert (drawn["consolidation"], known["consolidation"]) == (32, 100)
    assert (drawn["left lung"], known["left lung"]) == (99, 99)
    assert "pleural effusion" not in known  # two images: too few to learn or to judge
    lines = [
        region for record in chest for region in record.regions if region.target == "tubes and lines" and region.mask
    ]
    assert any(region.further_masks for region in lines)


def test_labels_and_attributes(records: list[Record]) -> None:
    by_key = {record.key: record for record in records}
    assert by_key["brain_tumor_cheng_t1c/1"].label == "Meningioma"
    assert by_key["busi_breast_ultrasound/normal_1"].label == "No findings"
    nevus = by_key["ph2_dermoscopy/IMD003"]
    assert nevus.label == "Common nevus"
    assert nevus.attributes["pigment network"] == "typical"
    pet = next(record for record in records if record.modality == "PET")
    assert pet.site == "limb"
    assert pet.spacing is not None
    assert pet.spacing[0] > 3
    sizes = [record.spacing for record in records if record.key.startswith("sts_pet_ct_mr/STS_020_CT")]
    assert sizes
    assert not any(sizes)


def test_normal_images_say_what_is_absent(records: list[Record]) -> None:
    """Of normal images, targets are known to be absent; of diseased images without masks nothing is claimed."""
    known: dict[tuple[str, str | None], set[str]] = defaultdict(set)
    for record in records:
        known[record.dataset, record.label] |= {region.target for region in record.regions if region.absent}
    assert known["tvhl_fundus", "No findings"] == {"hard exudate"}
    assert known["tvhl_fundus", "Proliferative diabetic retinopathy"] == set()
    assert known["kermany_pediatric_cxr", "Pneumonia"] == set()
    assert {"consolidation", "pneumothorax"} <= known["kermany_pediatric_cxr", "No findings"]
    assert {"subdural hemorrhage", "ischemic stroke"} <= known["head_ct_hemorrhage", "No findings"]
    assert known["head_ct_hemorrhage", "Intracranial hemorrhage"] == set()
    by_key = {record.key: record for record in records}
    brain = by_key["normals/brainmri_11no"]
    assert (brain.modality, brain.site, brain.label) == ("MRI", "brain", "No findings")
    assert [region.target for region in brain.regions] == ["brain tumor", "lower-grade glioma"]


def test_sets_of_the_same_patients_are_split_together(records: list[Record]) -> None:
    chest = [r for r in records if r.dataset == "chest_ct_normals_iqothnccd" or r.key.startswith("normals/chestct_")]
    assert len(chest) == 116
    assert {record.split for record in chest} == {"train"}
    assert {r.split for r in records if r.dataset == "normals" and r.modality == "MRI"} == {"train", "val", "test"}
    eyes = {name: {r.group: r.split for r in records if r.dataset == name} for name in ("tvhl_fundus", "tvhl_oct")}
    both = eyes["tvhl_fundus"].keys() & eyes["tvhl_oct"].keys()
    assert len(both) > 150
    assert all(eyes["tvhl_fundus"][patient] == eyes["tvhl_oct"][patient] for patient in both)


@pytest.mark.parametrize("dataset", ["tvhl_fundus", "kermany_pediatric_cxr", "nih_chest_xray_mini", "normals"])
def test_disease_without_outline_is_not_recognised(records: list[Record], dataset: str) -> None:
    """Only normal images have an answer to ``recognize``: it cannot point at what nobody outlined."""
    for record in records:
        if record.dataset == dataset:
            turns = [turn for turn in canonical_turns(record, {}) if turn.task in ("recognize", "report")]
            assert bool(turns) == (record.label == "No findings"), record.key
            assert all(turn.answer.startswith("No findings") and not turn.masks for turn in turns)


def test_hemorrhage_is_recognised_once(records: list[Record]) -> None:
    brains = [record for record in records if record.dataset == "mbh_brain_hemorrhage_ct"]
    for record in brains[::10]:
        masks = {index: region.load() for index, region in enumerate(record.regions)}
        union, *kinds = masks.values()
        assert (union == np.logical_or.reduce(kinds)).all()
        (answer,) = [turn.answer for turn in canonical_turns(record, masks) if turn.task == "recognize"]
        assert answer.count("[SEG]") == 1
        assert answer.endswith("Intracranial hemorrhage")


def test_values_that_are_ignored(records: list[Record]) -> None:
    endoscopy = [record for record in records if record.dataset == "edd2020_endoscopy"]
    assert len(endoscopy) == 23
    for record in endoscopy:
        record.check_masks()
