"""Every kind of problem is found in a made-up data set, and a good one is clean."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from unibiomed.data import Record
from unibiomed.data.adapters import iter_records
from unibiomed.data.check import CheckReport, Problem, check_dataset, find_entries, write_duplicates
from unibiomed.data.pixels import mask_numbers
from unibiomed.data.records import Region
from unibiomed.data.similar import read_near_duplicates
from unibiomed.errors import DataError

HEAD = 'name = "toy"\nlicence = "CC0"\nadapter = "images"\nmodality = "CT"\nsite = "abdomen"\n'
LIVER = '[[targets]]\nname = "liver"\nvalues = [1]\n'


class Toy:
    """A data set whose images all look different, each with a mask of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "toy"
        for part in ("images", "masks"):
            (self.folder / part).mkdir(parents=True)

    def image(self, stem: str, seed: int, *, size: tuple[int, int] = (40, 48), mask: int | None = 1) -> None:
        rough = np.random.default_rng(seed).integers(0, 256, (8, 9), dtype=np.uint8)
        picture = Image.fromarray(rough).resize(size[::-1], Image.Resampling.BICUBIC)
        picture.save(self.folder / "images" / f"{stem}.png")
        if mask is not None:
            self.mask(f"{stem}.png", mask, size)

    def mask(self, name: str, value: int, size: tuple[int, int] = (40, 48)) -> None:
        numbers = np.zeros(size, dtype=np.uint8)
        numbers[3:9, 4:20] = value
        Image.fromarray(numbers).save(self.folder / "masks" / name)

    def entry(self, text: str) -> None:
        (self.folder / "dataset.toml").write_text(text)

    def check(self, **options: int) -> CheckReport:
        return check_dataset(find_entries(self.folder)[0], **options)


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    made = Toy(tmp_path)
    for number in range(6):
        made.image(f"p{number}_a", number)
    made.entry(HEAD + LIVER)
    return made


def only(report: CheckReport, kind: str) -> Problem:
    assert [problem.kind for problem in report.problems] == [kind], report.table()
    return report.problems[0]


def test_a_good_data_set_is_clean(toy: Toy) -> None:
    report = toy.check()
    assert (report.images, report.looked_at, report.records, report.problems) == (6, 6, 6, ())
    assert report.table() == "toy: 6 of 6 images looked at, 6 records; 0 errors, 0 warnings"


def break_image(toy: Toy) -> None:
    (toy.folder / "images" / "p1_a.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")


def break_mask(toy: Toy) -> None:
    (toy.folder / "masks" / "p1_a.png").write_bytes(b"no picture")


def coloured_mask(toy: Toy) -> None:
    colours = np.zeros((40, 48, 3), dtype=np.uint8)
    colours[3:9, 4:20, 0] = 255
    Image.fromarray(colours).save(toy.folder / "masks" / "p1_a.png")


def lose_mask(toy: Toy) -> None:
    (toy.folder / "masks" / "p1_a.png").unlink()


def lose_image(toy: Toy) -> None:
    (toy.folder / "images" / "p1_a.png").unlink()


def everything(toy: Toy) -> None:
    Image.fromarray(np.ones((40, 48), dtype=np.uint8)).save(toy.folder / "masks" / "p1_a.png")


@pytest.mark.parametrize(
    ("spoil", "kind", "severity", "files", "detail"),
    [
        (break_image, "unreadable image", "error", ("images/p1_a.png",), "damaged"),
        (break_mask, "unreadable mask", "error", ("masks/p1_a.png",), "cannot be read as a mask"),
        (coloured_mask, "unreadable mask", "error", ("masks/p1_a.png",), "mode RGB"),
        (lose_mask, "missing mask", "error", ("images/p1_a.png",), "'liver'"),
        (lose_image, "unused mask", "warning", ("masks/p1_a.png",), "no image"),
        (lambda toy: toy.mask("p1_a.png", 0), "empty mask", "warning", ("masks/p1_a.png",), "nothing is marked"),
        (
            lambda toy: toy.mask("p1_a.png", 1, (48, 40)),
            "size mismatch",
            "error",
            ("masks/p1_a.png",),
            "mask of 40 x 48 pixels, image of 48 x 40",
        ),
        (lambda toy: toy.mask("p1_a.png", 3), "undescribed value", "error", ("masks/p1_a.png",), "value 3 belongs"),
        (everything, "mask of everything", "warning", ("masks/p1_a.png",), "'liver' covers"),
    ],
)
def test_problems_of_files(
    toy: Toy, spoil: Callable[[Toy], None], kind: str, severity: str, files: tuple[str, ...], detail: str
) -> None:
    spoil(toy)
    report = toy.check()
    problem = only(report, kind)
    assert (problem.severity, problem.files) == (severity, files)
    assert detail in problem.detail and "p1_a" not in problem.detail
    assert report.errors == (severity == "error")


def test_lost_masks_are_all_named(toy: Toy) -> None:
    for number in (1, 4):
        (toy.folder / "masks" / f"p{number}_a.png").unlink()
    report = toy.check()
    assert [(p.kind, p.files) for p in report.problems] == [("missing mask", (f"images/p{n}_a.png",)) for n in (1, 4)]
    assert (report.looked_at, report.records) == (6, 6)


def test_a_lost_mask_tears_no_group_where_the_authors_gave_no_split(toy: Toy) -> None:
    for number in range(6):
        toy.image(f"p{number}_b", 50 + number)
    toy.entry(HEAD + "group = { pattern = '^(p\\d)' }\n" + LIVER)
    assert not toy.check().problems
    lose_mask(toy)
    assert only(toy.check(), "missing mask").files == ("images/p1_a.png",)


def test_missing_masks_that_mean_something(toy: Toy) -> None:
    lose_mask(toy)
    for word in ("absent", "unknown"):
        toy.entry(HEAD + LIVER + f'missing = "{word}"\n')
        assert not toy.check().problems


def test_several_values_and_targets(toy: Toy) -> None:
    toy.mask("p2_a.png", 2)
    toy.entry(HEAD + LIVER + '[[targets]]\nname = "spleen"\nvalues = [2]\n[[targets]]\nname = "ghost"\nvalues = [7]\n')
    assert "'ghost'" in only(toy.check(), "target never found").detail
    toy.entry(HEAD + '[[targets]]\nname = "organ"\n')  # every value counts
    assert not toy.check().problems


def test_labels_outside_the_map_are_all_named(toy: Toy) -> None:
    label = 'label = { pattern = \'^(p\\d)\', map = { p0 = "A", p1 = "B", p2 = "A", p3 = "A" } }\n'
    toy.entry(HEAD + label + LIVER)
    lose_mask(toy)
    report = toy.check()
    assert [(p.kind, p.files) for p in report.problems] == [
        ("label outside the map", ("images/p4_a.png",)),
        ("label outside the map", ("images/p5_a.png",)),
        ("missing mask", ("images/p1_a.png",)),
    ]
    assert "'p4' is not one of p0, p1, p2, p3" in report.problems[0].detail


def test_groups_that_would_leak_are_all_named(toy: Toy) -> None:
    for number in range(3):
        toy.image(f"p{number}_b", 50 + number)
    side = 'split = { pattern = \'_(a|b)$\', map = { a = "train", b = "test" } }\n'
    toy.entry(HEAD + "group = { pattern = '^(p\\d)' }\n" + side + LIVER)
    report = toy.check()
    assert {p.kind for p in report.problems} == {"group in two splits"}
    assert [p.files for p in report.problems] == [(f"images/p{n}_a.png", f"images/p{n}_b.png") for n in range(3)]
    assert "mend_split" in report.problems[0].detail
    toy.entry(HEAD + "mend_split = true\ngroup = { pattern = '^(p\\d)' }\n" + side + LIVER)
    assert not toy.check().problems


def test_an_entry_that_does_not_fit(toy: Toy) -> None:
    toy.entry(HEAD + "group = { pattern = '^(q\\d)' }\n" + LIVER)
    report = toy.check()
    assert "does not fit '^(q" in only(report, "entry does not fit").detail
    assert (report.images, report.errors) == (0, 1)


def test_two_images_of_one_name_are_named_beside_other_problems(toy: Toy) -> None:
    break_mask(toy)
    Image.new("L", (48, 40)).save(toy.folder / "images" / "p2_a.jpg")
    report = toy.check()
    assert [(p.kind, p.files) for p in report.problems] == [
        ("does not fit", ("images/p2_a.png",)),
        ("unreadable mask", ("masks/p1_a.png",)),
    ]
    assert (report.looked_at, report.problems[0].detail) == (6, "two images are named 'p2_a'; rename one")


def test_volumes_that_do_not_fit_are_all_named(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    values = np.random.default_rng(0).normal(0, 300, (20, 24, 5)).astype(np.int16)
    for number in range(6):
        nib.save(nib.Nifti1Image(values + number, np.eye(4)), toy.folder / "images" / f"{number}.nii.gz")
        labels = np.zeros((20, 24, 4 if number == 1 else 5), dtype=np.uint8)
        labels[4:9, 4:9] = 1
        nib.save(nib.Nifti1Image(labels, np.eye(4)), toy.folder / "masks" / f"{number}.nii.gz")
    for spoilt in ("masks/2", "images/3"):
        (toy.folder / f"{spoilt}.nii.gz").write_bytes(b"no volume")
    (toy.folder / "masks" / "4.nii.gz").unlink()
    targets = '[[targets]]\nname = "liver"\nmasks = ["masks/{stem}.nii.gz"]\n'
    toy.entry(HEAD.replace('"images"', '"volumes"') + targets)
    report = toy.check()
    found = {(p.kind, p.files) for p in report.problems if p.severity == "error"}
    assert {item for item in found if item[0] != "leak between splits"} == {
        ("does not fit", ("masks/1.nii.gz",)),
        ("does not fit", ("masks/2.nii.gz",)),
        ("does not fit", ("images/3.nii.gz",)),
        ("missing mask", ("images/4.nii.gz",)),
    }
    assert report.looked_at == 3
    assert not any(problem.kind == "unused mask" for problem in report.problems)


def test_rows_that_do_not_fit_are_all_named(toy: Toy) -> None:
    rows = ["image,question,answer", *(f"p{n}_a,Is it a liver?,yes" for n in range(6))]
    spoilt = ["q1,What is it?,a lung", "p1_a,What is it?,", "q2,What is it?,a lung"]
    (toy.folder / "qa.csv").write_text("\n".join([*rows, *spoilt]))
    tables = '[[tables]]\nfile = "qa.csv"\nkey = "image"\n'
    toy.entry(HEAD.replace('"images"', '"questions"') + 'images = "images"\n' + tables)
    report = toy.check()
    assert [(p.kind, p.files, p.detail) for p in report.problems] == [
        ("does not fit", ("qa.csv",), "image 'q1' is missing from images/; restore it"),
        ("does not fit", ("qa.csv",), "image 'q2' is missing from images/; restore it"),
        ("does not fit", ("qa.csv, row 8",), "column 'answer' is missing or empty; mend the table"),
    ]
    assert (report.looked_at, report.records) == (6, 6)
    (toy.folder / "qa.csv").write_text("\n".join([rows[0], *spoilt]))
    report = toy.check()
    assert (report.looked_at, report.errors) == (0, 4) and "no records" in report.problems[-1].detail


def test_duplicates_and_near_duplicates(toy: Toy) -> None:
    side = 'split = { pattern = \'^(p|t)\', map = { p = "train", t = "test" } }\n'
    toy.entry(HEAD + side + LIVER)
    toy.image("t0_a", 100)
    toy.image("t1_copy", 0)  # of p0_a
    toy.image("p8_copy", 3)  # of p3_a
    small = Image.open(toy.folder / "images" / "p1_a.png")
    small.point(lambda v: v * 0.9).save(toy.folder / "images" / "t2_near.png")
    toy.mask("t2_near.png", 1)
    report = toy.check()
    assert [(p.kind, p.severity, p.files, p.detail) for p in report.problems] == [
        (
            "leak between splits",
            "error",
            ("images/p0_a.png", "images/t1_copy.png"),
            "identical files in train and test",
        ),
        (
            "leak between splits",
            "error",
            ("images/p1_a.png", "images/t2_near.png"),
            "near-identical images in train and test",
        ),
        ("duplicates", "warning", ("images/p3_a.png", "images/p8_copy.png"), "identical files in one split"),
    ]
    entry = find_entries(toy.folder)[0]
    path = write_duplicates(entry, report)
    assert read_near_duplicates(path) == [
        ("p0_a.png", "t1_copy.png"),
        ("p1_a.png", "t2_near.png"),
        ("p3_a.png", "p8_copy.png"),
    ]
    with pytest.raises(DataError, match="--force"):
        write_duplicates(entry, report)
    toy.entry(HEAD + 'near_duplicates = "near_duplicates.txt"\nmend_split = true\n' + side + LIVER)
    again = toy.check()
    assert not again.errors and not again.near_duplicates
    toy.entry(HEAD + "group = { pattern = '(_copy|_near|_a)$' }\nmend_split = true\n" + side + LIVER)
    write_duplicates(entry, again, force=True)
    assert len(read_near_duplicates(path)) == 3


def test_near_duplicates_with_different_labels(toy: Toy) -> None:
    toy.image("q0_a", 0)
    toy.entry(HEAD + "label = { pattern = '^(p|q)' }\nsplit = { value = \"train\" }\n" + LIVER)
    problem = only(toy.check(), "duplicates")
    assert problem.detail == "identical files in one split, with different labels"


def test_names_in_folders_are_listed_as_the_reader_knows_them(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    for place in ("A/scans", "B/scans"):
        (toy.folder / "images" / place).mkdir(parents=True)
        toy.image(f"{place}/1", 7, mask=None)
    toy.entry(HEAD + 'images = "images/*/scans/*.png"\nnear_duplicates = "near_duplicates.txt"\n')
    (toy.folder / "near_duplicates.txt").write_text("")
    report = toy.check()
    assert report.near_duplicates == (("A/scans/1.png", "B/scans/1.png"),)
    write_duplicates(find_entries(toy.folder)[0], report, force=True)
    assert not toy.check().near_duplicates


@pytest.mark.parametrize("turn", [1, 3, 6])
def test_pictures_that_are_turned_without_their_masks(toy: Toy, turn: int) -> None:
    path = toy.folder / "images" / "p1_a.png"
    exif = Image.Exif()
    exif[0x0112] = turn
    with Image.open(path) as picture:
        picture.copy().save(path, exif=exif)
    report = toy.check()
    kinds = {1: [], 3: ["turned image"], 6: ["size mismatch", "turned image"]}
    assert sorted(problem.kind for problem in report.problems) == kinds[turn], report.table()
    if turn == 3:
        assert (
            "its EXIF tag turns it, but not its masks and boxes" in report.table()
            and "images/p1_a.png" in report.table()
        )


def test_run_lengths_and_boxes(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    toy.image("a", 1, mask=None)
    images = [{"id": 1, "file_name": "a.png", "height": 40, "width": 48}]
    square = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9, 1, 9]]}
    empty = {"id": 2, "image_id": 1, "category_id": 2, "segmentation": {"size": [40, 48], "counts": [1920]}}
    categories = [{"id": 1, "name": "liver"}, {"id": 2, "name": "spleen"}]
    coco = {"images": images, "annotations": [square, empty], "categories": categories}
    (toy.folder / "coco.json").write_text(json.dumps(coco))
    toy.entry(HEAD.replace('"images"', '"coco"') + '[[tables]]\nfile = "coco.json"\n')
    report = toy.check()
    assert {(p.kind, p.files) for p in report.problems} == {
        ("empty mask", ("images/a.png",)),
        ("target never found", ()),
    }
    images[0]["height"] = 50
    empty["segmentation"] = {"size": [50, 48], "counts": [0, 2400]}
    (toy.folder / "coco.json").write_text(json.dumps(coco))
    assert [p.kind for p in toy.check().problems] == ["size mismatch", "size mismatch", "mask of everything"]


def test_volumes(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    values = np.random.default_rng(0).normal(0, 300, (20, 24, 5))
    labels = np.zeros((20, 24, 5), dtype=np.uint8)
    for number in range(4):
        labels[4:9, 4:9, number] = 1 if number < 3 else 4
        for part, array in (("images", (values + 200 * number).astype(np.int16)), ("masks", labels)):
            nib.save(
                nib.Nifti1Image(array * (number != 2 or part == "images"), np.eye(4)),
                toy.folder / part / f"{number}.nii.gz",
            )
    targets = '[[targets]]\nname = "liver"\nvalues = [1]\nmasks = ["masks/{stem}.nii.gz"]\n'
    toy.entry(HEAD.replace('"images"', '"volumes"') + targets)
    report = toy.check()
    assert (report.images, report.records) == (4, 20)
    assert {(p.kind, p.files, p.severity) for p in report.problems} >= {
        ("empty mask", ("masks/2.nii.gz",), "warning"),
        ("undescribed value", ("masks/3.nii.gz",), "error"),
    }
    assert {p.kind for p in report.problems} <= {"empty mask", "undescribed value", "leak between splits"}


def test_records_without_an_entry(toy: Toy) -> None:
    path = toy.folder / "images" / "p0_a.png"
    box = Region("liver", None, box=(1, 1, 60, 9))
    common = {"dataset": "toy", "modality": "CT", "site": "abdomen", "split": "train"}
    records = [
        Record(key="toy/1", image=path, group="1", regions=(box,), **common),
        Record(key="toy/2", image=path.read_bytes(), group="2", **common),
        Record(key="toy/3", image=None, text="No nodule.", group="3", **common),
    ]
    report = check_dataset(records)
    assert report.images == 2 and report.records == 3
    assert [(p.kind, p.files) for p in report.problems] == [
        ("size mismatch", ("p0_a.png",)),
        ("duplicates", ("p0_a.png", "toy/2")),
    ]
    with pytest.raises(DataError, match="no records"):
        check_dataset([])


def test_limit_is_spread_over_the_set_and_the_report_is_plain_data(toy: Toy) -> None:
    break_image(toy)
    report = toy.check(limit=3)
    assert (report.looked_at, report.images, report.errors) == (3, 6, 0)  # 0, 2, 4: not the broken one
    facts = toy.check().to_dict()
    assert json.loads(json.dumps(facts))["problems"][0]["kind"] == "unreadable image"
    assert (facts["errors"], facts["warnings"]) == (1, 0)
    with pytest.raises(DataError, match="limit"):
        toy.check(limit=0)


def test_the_table_sums_up(toy: Toy) -> None:
    for number in range(6):
        toy.mask(f"p{number}_a.png", 0)
    lines = toy.check().table().split("\n")
    assert lines[0].endswith("0 errors, 7 warnings")
    empty = next(line for line in lines if "empty mask" in line)
    assert re.search(r"6  nothing is marked: masks/p0_a.png, masks/p1_a.png, masks/p2_a.png, \.\.\.$", empty)
    toy.mask("p1_a.png", 9)
    assert toy.check().table().split("\n")[1].startswith("  error    undescribed value")


def test_workers_say_the_same(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    break_image(toy)
    toy.image("p9_a", 2)
    alone = toy.check()
    monkeypatch.setattr("unibiomed.data.check.SMALL", 0)
    assert toy.check(workers=2) == alone


def test_which_entries_are_meant(toy: Toy, tmp_path: Path) -> None:
    assert [entry.name for entry in find_entries(toy.folder)] == ["toy"]
    assert [entry.name for entry in find_entries(tmp_path)] == ["toy"]
    with pytest.raises(DataError, match="'other' is not under"):
        find_entries(tmp_path, ["other"])
    with pytest.raises(DataError, match="not described yet; run: unibiomed data add"):
        find_entries(toy.folder / "images")
    with pytest.raises(DataError, match="not a folder"):
        find_entries(tmp_path / "none")
    (tmp_path / "kvasir_seg_polyp").mkdir()
    assert find_entries(tmp_path / "kvasir_seg_polyp")[0].site is not None
    (tmp_path / "chaos").mkdir()
    (tmp_path / "chaos" / "dataset.toml").write_text(HEAD.replace("toy", "chaos"))
    assert find_entries(tmp_path / "chaos")[0].external


def test_targets_without_masks_are_no_problem(toy: Toy) -> None:
    tables = '[[tables]]\nfile = "t.csv"\nkey = "id"\n'
    scar = '[[targets]]\nname = "scar"\nmasks = []\nabsent_if = { type = ["normal"] }\n'
    rows = [f"p{number}_a,{'ill' if number else 'normal'}" for number in range(6)]
    (toy.folder / "t.csv").write_text("id,type\n" + "\n".join(rows))
    toy.entry(HEAD + tables + LIVER + scar)
    assert not toy.check().problems
    toy.mask("p2_a.png", 2)
    toy.entry(HEAD + tables + LIVER + scar)
    assert only(toy.check(), "undescribed value").files == ("masks/p2_a.png",)
    toy.entry(HEAD + "ignore_values = [2]\n" + tables + LIVER + scar)
    assert not toy.check().errors
    lose_mask(toy)
    assert only(toy.check(), "missing mask").files == ("images/p1_a.png",)


def test_real_data(shared_data: Path) -> None:
    eyes = check_dataset(find_entries(shared_data / "drishti_gs_mini_od_oc")[0])
    assert eyes.images == 36 and not eyes.problems
    assert not check_dataset(find_entries(shared_data / "drive_fundus_vessel")[0]).errors
    hearts = find_entries(shared_data / "acdc_cardiac_mri")[0]
    assert not check_dataset(hearts).errors
    # as if nobody had found them: two patients of the challenge share slices
    unaware = iter_records(replace(hearts, twins=[]))
    two = [record for record in unaware if record.group in ("patient074", "patient076")]
    leaks = [problem.files for problem in check_dataset(two).problems if problem.kind == "leak between splits"]
    assert ("patient074_frame01_slice_1.jpg", "patient076_frame01_slice_1.jpg") in leaks and len(leaks) == 8


def test_names_that_are_no_utf8_are_named(toy: Toy) -> None:
    for number in range(3):
        toy.image(f"a{number}", number)
    other = os.fsencode(toy.folder / "images") + b"/L\xe4sion.png"
    try:
        shutil.copy(os.fsencode(toy.folder / "images" / "a0.png"), other)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    problems = toy.check().problems
    assert any("its name is not UTF-8; rename it" in problem.detail for problem in problems)


def test_masks_of_several_pages_are_refused(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((6, 8), value, dtype=np.uint8)) for value in (0, 1)]
    pages[0].save(tmp_path / "m.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match="mask has several pages"):
        mask_numbers(tmp_path / "m.tif")


def test_copies_of_detached_headers_are_not_copies_of_volumes(tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    head = "ObjectType = Image\nNDims = 3\nDimSize = 6 5 4\nElementSpacing = 1 1 1\nElementType = MET_SHORT\n"
    for number in range(3):
        place = folder / "scans" / f"P{number}"
        place.mkdir(parents=True)
        (place / "ct.mhd").write_text(f"{head}ElementByteOrderMSB = False\nElementDataFile = ct.raw\n")
        voxels = np.random.default_rng(number).integers(-900, 900, (4, 5, 6), dtype=np.int16)
        (place / "ct.raw").write_bytes(voxels.tobytes())
    (folder / "dataset.toml").write_text(
        'name = "toy"\nlicence = "CC0"\nadapter = "volumes"\nimages = "scans/*/*"\nmodality = "CT"\nsite = "abdomen"\n'
    )
    report = check_dataset(find_entries(tmp_path, ["toy"])[0])
    assert report.records == 12 and not [p for p in report.problems if "identical files" in p.detail]
