"""Small sets with groups in a table: records, sides, and what their masks hold."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from unibiomed.data import Record, load_records

# name: (records, groups, images of each target whose mask is not empty)
SETS: dict[str, tuple[int, int, dict[str, int]]] = {
    "aorta_ct": (12, 1, {"aorta": 12}),
    "ccaus_carotid_ultrasound": (20, 8, {"carotid artery": 20}),
    "cdd_cesm_mammography": (20, 19, {"breast lesion": 20}),
    "chaos_ct_liver": (20, 4, {"liver": 20}),
    "chd_heart_ct": (
        35,
        7,
        {
            "left ventricle": 17,
            "right ventricle": 22,
            "left atrium": 31,
            "right atrium": 34,
            "myocardium": 23,
            "aorta": 35,
            "pulmonary artery": 30,
        },
    ),
    "chest_ct_lung_heart_trachea": (19, 3, {"lung": 19, "heart": 4, "airways": 11}),
    "cvc_clinicdb_polyp": (305, 26, {"polyp": 305}),
    "faz_octa": (32, 32, {"foveal avascular zone": 32}),
    "fives_retinal_vessel": (20, 19, {"retinal vessel": 20}),
    "inbreast_mini": (3, 3, {"breast lesion": 3}),
    "isbi2012_em_membrane": (15, 3, {"cell membrane": 15}),
    "kidney_t2w_mri": (25, 21, {"kidney": 25}),
    "kits19_kidney_tumour_ct": (24, 5, {"kidney": 24, "kidney tumor": 21}),
    "lungsegdb_ct": (22, 12, {"lung": 22}),
    "monuseg_nuclei": (90, 30, {"cell nucleus": 90}),
    "msd_hippocampus_mri": (
        390,
        130,
        {"hippocampus": 260, "anterior hippocampus": 195, "posterior hippocampus": 195},
    ),
    "msd_left_atrium_mri": (12, 4, {"left atrium": 12}),
    "msd_liver_ct": (24, 9, {"liver": 24}),
    "msd_lung_tumour_ct": (10, 6, {"lung tumor": 10}),
    "msd_spleen_ct": (18, 10, {"spleen": 18}),
    "nerve_brachial_plexus_ultrasound": (22, 1, {"brachial plexus": 22}),
    "pancreas_tumor_mri": (26, 6, {"pancreas": 26, "pancreatic tumor": 12}),
    "prostate158_tumour_mri": (35, 31, {"prostate central gland": 35, "prostate tumor": 35}),
    "smdg_disc_cup": (27, 27, {"optic disc": 27, "optic cup": 27}),
    "spider_lumbar_mri": (51, 39, {"vertebra": 51, "spinal canal": 19, "intervertebral disc": 43}),
    "tnbc_nuclei_mini": (6, 6, {"cell nucleus": 6}),
    "uwm_gi_mri": (23, 10, {"large bowel": 20, "small bowel": 20, "stomach": 14}),
}


@pytest.mark.parametrize("name", SETS)
def test_records_and_masks(name: str, shared_data: Path) -> None:
    """Counts agree with the sources, groups with their table, and no mask value is left undescribed."""
    if not (shared_data / name).is_dir():
        pytest.skip(f"no data of {name}")
    records = load_records(shared_data, [name])
    shown: Counter[str] = Counter()
    for record in records:
        record.check_masks()
        shown.update(region.target for region in record.regions if region.load(record.load_image().shape[:2]).any())
    assert (len(records), len({record.group for record in records}), dict(shown)) == SETS[name]
    with (shared_data / name / "groups.csv").open(encoding="utf-8") as file:
        table = {row["stem"]: row["group"] for row in csv.DictReader(file)}
    assert all(table[record.key.removeprefix(f"{name}/")] == record.group for record in records)


@pytest.mark.parametrize("name", SETS)
def test_sides(name: str, shared_data: Path) -> None:
    """Sets whose patients cannot be told apart only train; all others train and test, with no group on two sides."""
    if not (shared_data / name).is_dir():
        pytest.skip(f"no data of {name}")
    sides: dict[str, set[str]] = defaultdict(set)
    for record in load_records(shared_data, [name]):
        sides[record.group].add(record.split)
    assert all(len(splits) == 1 for splits in sides.values())
    found = set().union(*sides.values())
    one_sided = ("aorta_ct", "chest_ct_lung_heart_trachea", "nerve_brachial_plexus_ultrasound")
    assert found == {"train"} if name in one_sided else {"train", "test"} <= found


def _by_key(shared_data: Path, name: str) -> dict[str, Record]:
    if not (shared_data / name).is_dir():
        pytest.skip(f"no data of {name}")
    return {record.key.removeprefix(f"{name}/"): record for record in load_records(shared_data, [name])}


def test_only_healthy_controls_are_known_to_be_normal(shared_data: Path) -> None:
    """A disease of the subject that an image may not show is neither a finding nor its absence."""
    kidneys = _by_key(shared_data, "kidney_t2w_mri")
    assert Counter(record.diagnosis(False) for record in kidneys.values()) == {None: 14, "No findings": 11}
    assert all((record.diagnosis(False) is None) == stem.startswith("1") for stem, record in kidneys.items())


@pytest.mark.parametrize("name", ["kits19_kidney_tumour_ct", "pancreas_tumor_mri", "msd_lung_tumour_ct"])
def test_slices_without_tumor_are_not_known_to_be_normal(name: str, shared_data: Path) -> None:
    for record in _by_key(shared_data, name).values():
        assert record.diagnosis(False) is None
        # five patients are too few to search their tumors in other images
        assert (record.diagnosis(True) is not None) == (name == "msd_lung_tumour_ct")


def test_colon_surrounds_small_bowel(shared_data: Path) -> None:
    """The numbers of small and large bowel: the colon lies at both flanks, the small bowel between them."""
    record = _by_key(shared_data, "uwm_gi_mri")["case117_day0_slice_0093"]
    # scattered pixels at edges carry other values, so quantiles and not the outermost columns
    left, right = {}, {}
    for region in record.regions:
        columns = np.nonzero(region.load())[1]
        if columns.size:
            left[region.target], right[region.target] = np.quantile(columns, (0.05, 0.95))
    assert left["large bowel"] < left["small bowel"]
    assert right["large bowel"] > right["small bowel"]
