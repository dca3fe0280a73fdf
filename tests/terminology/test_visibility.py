"""What images of each kind can show, and what they certainly do not."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from unibiomed.data import load_records
from unibiomed.terminology import absent_targets, can_show, get_target, image_regions, load_targets
from unibiomed.terminology.visibility import known_regions

LUNGS = {"lung", "left lung", "right lung"}
ABDOMEN = {"liver", "kidney", "spleen", "pancreas", "stomach", "small bowel", "large bowel", "aorta", "vertebra"}
ENTRIES = [
    tomllib.loads(file.read_text(encoding="utf-8"))
    for file in files("unibiomed.data").joinpath("sets").iterdir()
    if file.name.endswith(".toml")
]


@pytest.mark.parametrize(
    ("modality", "site", "possible", "absent"),
    [
        (
            "X-ray",
            "chest",
            {
                *LUNGS,
                "heart",
                "cardiomediastinum",
                "airways",
                "aorta",
                "vertebra",
                "consolidation",
                "pneumonia",
                "stomach",
            },
            {"kidney", "liver", "polyp", "brain tumor", "left ventricle", "optic disc", "cell nucleus", "fetal head"},
        ),
        ("fundus", "retina", {"optic disc", "hard exudate"}, {"lower-grade glioma", "macular fluid", "polyp", "liver"}),
        ("OCT", "retina", {"macular fluid", "foveal avascular zone"}, {"hard exudate", "brain tumor"}),
        (
            "CT",
            "abdomen",
            {*ABDOMEN, *LUNGS, "heart", "soft-tissue sarcoma", "liver lesion", "pleural effusion"},
            {"polyp", "brain tumor", "breast lesion", "hippocampus", "prostate gland"},
        ),
        ("CT", "chest", {*ABDOMEN, *LUNGS, "heart", "thyroid nodule"}, {"polyp", "fetal head", "brain tumor"}),
        ("CT", "heart", {*LUNGS, "vertebra", "aorta", "liver", "left atrium"}, {"kidney", "polyp", "small bowel"}),
        ("CT", "colon", {*ABDOMEN, "left lung", "left ventricle"}, {"polyp", "brain tumor"}),
        ("CT", "head", {"intracranial hemorrhage", "ischemic stroke", "brain tumor"}, {"heart", "lung", "polyp"}),
        ("CT", "head and neck", {"brain tumor", "thyroid nodule", "left lung", "airways"}, {"liver", "prostate tumor"}),
        ("MRI", "brain", {"brain tumor", "lower-grade glioma", "hippocampus"}, {"optic disc", "kidney", "liver"}),
        ("MRI", "heart", {*LUNGS, "liver", "spleen", "stomach"}, {"kidney", "prostate tumor", "brain tumor"}),
        ("MRI", "spine", {"vertebra", "kidney", "aorta", "spinal canal"}, {"polyp", "brain tumor", "liver lesion"}),
        ("MRI", "limb", {*LUNGS, "vertebra", "large bowel"}, {"brain tumor", "polyp", "consolidation"}),
        ("MRI", "prostate", {"prostate central gland", "prostate tumor", "large bowel"}, {"prostate gland", "liver"}),
        ("MRI", "breast", {"breast lesion", "heart", "lung"}, {"prostate tumor", "polyp"}),
        ("X-ray", "breast", {"breast lesion"}, {"lung", "prostate tumor", "thyroid nodule"}),
        ("ultrasound", "fetus", {"fetal head", "left ventricle"}, {"brain tumor", "thyroid nodule", "retinal vessel"}),
        ("ultrasound", "thyroid", {"thyroid nodule", "carotid artery"}, {"breast lesion", "liver", "lung"}),
        ("endoscopy", "colon", {"polyp", "large bowel"}, {"liver", "Barrett's esophagus", "brain tumor"}),
        ("endoscopy", "esophagus", {"polyp", "Barrett's esophagus"}, {"large bowel", "lung"}),
        ("dermoscopy", "back", {"skin lesion"}, {"vertebra", "soft-tissue sarcoma"}),
        ("pathology", "prostate", {"prostate gland", "gland", "cell nucleus"}, {"prostate central gland", "liver"}),
        ("pathology", "blood", {"white blood cell", "cell nucleus"}, {"gland", "prostate tumor", "cell membrane"}),
        ("pathology", "brain", {"cell nucleus", "brain tumor"}, {"gland", "hippocampus"}),
        ("pathology", "kidney", {"cell nucleus", "gland"}, {"kidney", "prostate gland"}),
        # nothing is known of the site: only the modality excludes
        ("MRI", "somewhere", {"liver", "brain tumor", "fetal head"}, {"polyp", "cell nucleus", "hard exudate"}),
        (None, "brain", {"brain tumor", "cell nucleus"}, {"kidney", "polyp"}),
    ],
)
def test_kinds_of_images(modality: str | None, site: str, possible: set[str], absent: set[str]) -> None:
    found = set(absent_targets(modality, site))
    assert all(get_target(name) is not None for name in possible | absent)
    assert not found & possible
    assert absent <= found
    for target in load_targets():
        assert can_show(target.name, modality, site) == (target.name not in found)


def test_what_is_not_known_excludes_nothing() -> None:
    assert absent_targets(None, None) == absent_targets(None, "somewhere") == ()
    assert can_show("polyp", None, None)
    assert can_show("something of my own", "CT", "abdomen")
    assert image_regions("CT", "somewhere") == image_regions("CT", None) == image_regions(None, "") == frozenset()


def test_annotated_targets_are_never_absent() -> None:
    assert "polyp" in absent_targets("CT", "abdomen", {"liver"})
    assert "polyp" not in absent_targets("CT", "abdomen", {"Polyp"})


@pytest.mark.parametrize(
    ("modality", "site", "regions"),
    [
        ("CT", "Head and Neck", {"brain", "neck"}),
        ("CT", "lungs", {"chest"}),
        ("MRI", "left knee", {"limb"}),
        ("MRI", "Lumbar spine", {"spine"}),
        ("X-ray", "breast", {"breast"}),
        ("MRI", "breast", {"breast", "chest"}),
        ("endoscopy", "oesophagus", {"upper_gi"}),
        ("endoscopy", "gastrointestinal tract", {"upper_gi", "lower_gi"}),
        ("endoscopy", "bronchus", {"chest"}),
        ("pathology", "lung", {"tissue_other"}),
        ("pathology", "bone marrow", {"blood"}),
        ("dermoscopy", "arm", {"skin"}),
        # part of a word is not the word
        ("CT", "pharmacy", set()),
    ],
)
def test_regions_of_a_site(modality: str, site: str, regions: set[str]) -> None:
    assert image_regions(modality, site) == regions <= known_regions()


def values(setting: str | dict[str, Any]) -> set[str]:
    """What a setting of the catalogue can be: it may come from a column."""
    return {setting} if isinstance(setting, str) else set(setting["map"].values())


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["name"])
def test_catalogue_sites_are_known_and_annotated_targets_possible(entry: dict[str, Any]) -> None:
    """A data set that takes the modality or the site from a column may hold any pair of its values."""
    pairs = [(modality, site) for modality in values(entry["modality"]) for site in values(entry["site"])]
    assert pairs and all(image_regions(None, site) for _, site in pairs)
    for target in entry.get("targets", []):
        assert get_target(target["name"]) is not None
        assert any(can_show(target["name"], modality, site) for modality, site in pairs), target["name"]


def test_no_record_shows_what_such_images_cannot_show(shared_data: Path) -> None:
    """Annotations may say that it is absent: masks with a value for each target hold none of some."""
    records = load_records(shared_data)
    kinds = {(record.modality, record.site, region.target) for record in records for region in record.regions}
    assert len(kinds) > 30
    impossible = {kind for kind in kinds if kind[2] in absent_targets(*kind[:2])}
    for record in records:
        for region in record.regions:
            kind = (record.modality, record.site, region.target)
            if kind in impossible:
                assert region.box is None, (record.key, kind)
                assert region.mask is None or not region.load(record.load_image().shape[:2]).any(), (record.key, kind)
