"""Folders in many layouts: each is recognised, described, and read by its description."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from unibiomed.data import Record, load_records
from unibiomed.data.add import Added, add_dataset
from unibiomed.data.check_records import read_or_tell
from unibiomed.data.entries import read_entry
from unibiomed.data.layouts import json_files, recognise_layout, survey
from unibiomed.errors import DataError, InputError, OutputError

SIZE = (24, 32)


class Folder:
    """A data set ``toy`` that nobody described."""

    def __init__(self, root: Path) -> None:
        self.root = root / "toy"
        self.root.mkdir()

    def path(self, name: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def image(self, name: str) -> None:
        seed = sum(name.encode())
        pixels = np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(self.path(name))

    def mask(self, name: str, *values: int) -> None:
        numbers = np.zeros(SIZE, dtype=np.uint16 if max(values) > 255 else np.uint8)
        for place, value in enumerate(values):
            numbers[2 + 3 * (place // 8) : 4 + 3 * (place // 8), 1 + 3 * (place % 8) : 3 + 3 * (place % 8)] = value
        Image.fromarray(numbers).save(self.path(name))

    def volume(self, name: str, *labels: int, hounsfield: bool = False) -> None:
        if labels:
            values = np.zeros((6, 7, 4), dtype=np.uint8)
            for place, label in enumerate(labels):
                values[1 + place, 2:5, 1:3] = label
        else:
            values = np.random.default_rng(len(name)).integers(0, 900, (6, 7, 4)).astype(np.int16)
            if hounsfield:
                values = np.where(np.indices(values.shape)[0] < 3, -1000, values % 150).astype(np.int16)
        nib.save(nib.Nifti1Image(values, np.diag([1.0, 1, 2, 1])), self.path(name))

    def text(self, name: str, words: str | list[Any] | dict[str, Any]) -> None:
        self.path(name).write_text(words if isinstance(words, str) else json.dumps(words))

    def add(self, **options: Any) -> tuple[Added, dict[str, Record]]:
        added = add_dataset(self.root, **{"modality": "MRI", "site": "brain", **options})
        records = load_records(self.root.parent, ["toy"])
        assert added.text == added.path.read_text()
        return added, {record.key.removeprefix("toy/"): record for record in records}


def add_and_read(folder: Folder) -> tuple[Added, dict[str, Record]]:
    """Add a data set that has to be mended, and read what of it fits."""
    added = add_dataset(folder.root, modality="MRI", site="brain")
    records, _ = read_or_tell(read_entry(added.path, folder.root.parent))
    return added, {record.key.removeprefix("toy/"): record for record in records}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def masks_of(records: Mapping[str, Record], target: str) -> list[str]:
    """Names of the mask files of a target, in the order of the records."""
    regions = [region for record in records.values() for region in record.regions if region.target == target]
    return [region.mask.name for region in regions if isinstance(region.mask, Path)]


def test_images_and_binary_masks(folder: Folder) -> None:
    for number in range(4):
        folder.image(f"img/{number}.jpg")
        folder.mask(f"masks/{number}.png", 255)
    added, records = folder.add(targets=["tumour"], licence="CC0")
    assert tomllib.loads(added.text) == {
        "name": "toy",
        "adapter": "images",
        "modality": "MRI",
        "site": "brain",
        "licence": "CC0",
        "images": "img",
        "targets": [{"name": "tumour", "abnormal": True}],
    }
    assert list(records) == ["0", "1", "2", "3"] and masks_of(records, "tumour")[1] == "1.png"
    assert records["1"].regions[0].load(SIZE).sum() == 4
    words = added.words()
    assert "images are in img, their masks in masks" in words and "tumour 4/4" in words


def test_classes_by_value(folder: Folder) -> None:
    for number in range(3):
        folder.image(f"images/{number}.png")
        folder.mask(f"labels/{number}_label.png", 1, *((4,) if number else ()))
    added, records = folder.add()
    targets = added.proposal.entry["targets"]
    assert [(t["name"], t["values"]) for t in targets] == [("class 1", [1]), ("class 4", [4])]
    asked = next(question for question in added.proposal.questions if "name the classes" in question)
    assert "objects" not in asked
    assert [region.load(SIZE).any() for region in records["0"].regions] == [True, False]
    with pytest.raises(DataError, match=r"there are 2 \(class 1, class 4\)"):
        folder.add(force=True, targets=["liver"])
    added, records = folder.add(force=True, targets=["liver", "liver tumour"])
    assert [r.abnormal for r in records["1"].regions] == [False, True]
    assert not any("class" in question for question in added.proposal.questions)


def test_numbered_objects(folder: Folder) -> None:
    for number in range(3):
        folder.image(f"images/{number}.png")
        folder.mask(f"masks/{number}.png", *range(1, 6 + 2 * number))
    added, records = folder.add(targets=["nucleus"])
    assert "number their objects" in added.words()
    assert records["2"].regions[0].values is None and records["2"].regions[0].objects


@pytest.mark.parametrize("numbers", [(1, 2, 3, 4, 5, 6), (301, 302, 303, 304, 305)])
def test_few_objects_may_be_classes(folder: Folder, numbers: tuple[int, ...]) -> None:
    for number in range(3):
        folder.image(f"images/{number}.png")
        folder.mask(f"masks/{number}.png", *numbers)
    added, _ = folder.add()
    assert len(added.proposal.entry["targets"]) == len(numbers)
    assert any("keep one target with objects = true" in question for question in added.proposal.questions)
    added, _ = folder.add(force=True, targets=[f"lobe {number}" for number in numbers])
    assert not any("objects" in question for question in added.proposal.questions)


def test_soft_masks(folder: Folder) -> None:
    for number in range(3):
        folder.image(f"images/{number}.png")
        soft = np.zeros(SIZE, dtype=np.uint8)
        soft[4:20, 4:20] = 255
        soft[3, 4:20] = np.arange(30, 190, 10)
        Image.fromarray(soft).save(folder.path(f"masks/{number}.png"))
    added, _ = folder.add(targets=["x-ray shadow"])
    assert any("soft edges" in question for question in added.proposal.questions)


def test_masks_beside_images_in_folders_of_classes(folder: Folder) -> None:
    for kind in ("benign", "malignant", "normal"):
        for number in range(1, 4):
            folder.image(f"{kind}/{kind} ({number}).png")
            folder.mask(f"{kind}/{kind} ({number})_mask.png", 255)
    folder.mask("benign/benign (1)_mask_1.png", 255)
    added, records = folder.add(targets=["lesion"])
    entry = added.proposal.entry
    assert entry["images"] == "*/*.png" and entry["targets"][0]["masks"] == ["{parent}/{stem}_mask*.png"]
    assert len(records) == 9
    one = records["benign/benign (1)"]
    assert one.label == "benign" and len(one.regions[0].further_masks) == 1
    assert records["normal/normal (2)"].label == "No findings" and one.abnormal_known


def test_masks_beside_images_of_patients(folder: Folder) -> None:
    for patient in ("TCGA_CS_4941", "TCGA_DU_5849"):
        for number in (1, 2, 12):
            folder.image(f"{patient}/{patient}_{number}.tif")
            folder.mask(f"{patient}/{patient}_{number}_mask.tif", 255)
    added, records = folder.add()
    assert added.proposal.entry["group"] == {"pattern": "^([^/]+)/"}
    assert len(records) == 6 and len({record.group for record in records.values()}) == 2
    assert masks_of(records, "target")[0].endswith("_1_mask.tif")


def test_splits_above_and_below(folder: Folder) -> None:
    for split, count in (("train", 3), ("valid", 1), ("test", 2)):
        for number in range(count):
            folder.image(f"images/{split}/{number}.png")
            folder.mask(f"masks/{split}/{number}.png", 1)
    added, records = folder.add()
    assert added.proposal.entry["targets"][0]["masks"] == ["masks/{parent}/{stem}.png"]
    assert {name: record.split for name, record in records.items() if name.endswith("/0")} == {
        "test/0": "test",
        "train/0": "train",
        "valid/0": "val",
    }


def test_splits_above_the_folders(folder: Folder) -> None:
    for split, numbers in (("Training", (1, 2, 3)), ("Test", (4, 5))):
        for number in numbers:
            folder.image(f"{split}/images/{number}.jpg")
            folder.mask(f"{split}/masks/{number}.png", 1)
    added, records = folder.add()
    assert added.proposal.entry["images"] == "*/images/*.jpg"
    assert records["Test/images/4"].split == "test" and records["Training/images/2"].split == "train"
    assert [region.mask is not None for record in records.values() for region in record.regions] == [True] * 5
    folder.image("Test/images/1.jpg")
    folder.mask("Test/masks/1.png", 1)
    added, records = folder.add(force=True)
    assert added.proposal.entry["targets"][0]["masks"] == ["{above}/masks/{stem}.png"]
    for name in ("Test/images/1", "Training/images/1"):
        mask = records[name].regions[0].mask
        assert isinstance(mask, Path) and mask.parent.parent.name == name.partition("/")[0]


def test_a_folder_a_patient_with_images_and_masks(folder: Folder) -> None:
    for patient in range(22):
        folder.image(f"all/P{patient}/images/{patient}.png")
        folder.mask(f"all/P{patient}/masks/{patient}.png", 1)
    added, records = folder.add()
    assert added.proposal.entry["targets"][0]["masks"] == ["all/{above}/masks/{stem}.png"]
    assert len({record.group for record in records.values()}) == 22 and all(r.regions for r in records.values())


def test_one_folder_a_target(folder: Folder) -> None:
    for number in range(4):
        folder.image(f"images/{number}.png")
        folder.mask(f"masks/left_lung/{number}.png", 255)
        if number < 2:
            folder.mask(f"masks/nodules/{number}.png", 255)
    added, records = folder.add()
    targets = {target["name"]: target for target in added.proposal.entry["targets"]}
    assert targets["left lung"] == {"name": "left lung", "masks": ["masks/left_lung/{stem}.png"]}
    assert targets["nodules"]["missing"] == "unknown" and targets["nodules"]["abnormal"]
    assert [region.target for region in records["3"].regions] == ["left lung"]
    assert any("nodules 2" in question for question in added.proposal.questions)


def test_targets_in_the_names_of_masks(folder: Folder) -> None:
    for number in range(3):
        folder.image(f"images/case{number}.png")
        for word in ("optic_disc", "optic_cup"):
            folder.mask(f"masks/case{number}_{word}_mask.png", 255)
    _, records = folder.add()
    assert sorted(region.target for region in records["case1"].regions) == ["optic cup", "optic disc"]


def test_folders_named_after_their_targets(folder: Folder) -> None:
    for number in range(3):
        folder.image(f"images/{number}.jpg")
        folder.mask(f"vessels/{number}.png", 1)
    added, records = folder.add()
    assert masks_of(records, "vessels") == ["0.png", "1.png", "2.png"]
    assert added.proposal.entry["images"] == "images"


def test_last_words_that_masks_have_not(folder: Folder) -> None:
    for number, side in ((21, "training"), (22, "training"), (1, "test"), (2, "test")):
        folder.image(f"images/{number:02}_{side}.tif")
        folder.mask(f"manual/{number:02}_manual1.png", 255)
    added, records = folder.add()
    assert added.proposal.entry["stem"] == "^(.+)_(?:test|training)$"
    assert records["21_training"].split == "train" and records["01_test"].split == "test"
    assert masks_of(records, "target") == ["01_manual1.png", "02_manual1.png", "21_manual1.png", "22_manual1.png"]


def test_split_and_patients_in_file_names(folder: Folder) -> None:
    for patient in range(4):
        for number in range(3):
            for part in ("images", "masks"):
                name = f"{part}/P{patient}_{number}.png"
                folder.image(name) if part == "images" else folder.mask(name, 1)
    added, records = folder.add()
    assert added.proposal.entry["group"] == {"pattern": r"^(P\d+(?=[_-]|$))"}
    assert {record.group for record in records.values()} == {"P0", "P1", "P2", "P3"}


def test_years_and_a_single_prefix_are_no_patients(folder: Folder) -> None:
    for year in (2019, 2020, 2021):
        for number in range(4):
            folder.image(f"images/{year}_{number}.png")
            folder.mask(f"masks/{year}_{number}.png", 1)
    added, _ = folder.add()
    assert "group" not in added.proposal.entry
    assert any("group rule" in question for question in added.proposal.questions)


def test_labels_patients_and_split_of_a_table(folder: Folder) -> None:
    rows = ["image,Diagnosis,patient_id,split"]
    for number in range(6):
        folder.image(f"images/{number}.png")
        folder.mask(f"masks/{number}.png", 1)
        side = "test" if number > 3 else "train"
        rows.append(f"{number}.png,{'Melanoma' if number % 2 else 'common_nevus'},p{number // 2},{side}")
    folder.text("meta.csv", "\n".join(rows))
    added, records = folder.add()
    assert (records["0"].label, records["1"].label) == ("common nevus", "Melanoma")
    assert (records["2"].group, records["5"].split, records["0"].split) == ("p1", "test", "train")
    assert not any("group rule" in question for question in added.proposal.questions)
    folder.text("meta.csv", "\n".join(rows[:-1]))
    added, records = folder.add(force=True)
    assert "meta.csv tells of 5 of 6 images" in added.words() and records["0"].label is None


@pytest.mark.parametrize(("sign", "column"), [(";", "image"), ("\t", "image"), (",", "isic_id")])
def test_tables_with_other_signs_and_columns(folder: Folder, sign: str, column: str) -> None:
    rows = [[column, "patient_id", "diagnosis"]]
    for number in range(6):
        folder.image(f"images/x{number}.png")
        folder.mask(f"masks/x{number}.png", 1)
        rows.append([f"x{number}", f"p{number // 2}", "nevus" if number % 2 else "melanoma, in situ"])
    words = [[f'"{cell}"' if "," in cell else cell for cell in row] for row in rows]
    folder.text("meta.csv", "\n".join(sign.join(row) for row in words))
    added, records = folder.add()
    assert (records["x0"].label, records["x3"].group) == ("melanoma, in situ", "p1")
    assert not any("meta.csv" in question for question in added.proposal.questions)


def test_tables_that_are_not_understood_are_named(folder: Folder) -> None:
    for number in range(3):
        folder.image(f"images/{number}.png")
        folder.mask(f"masks/{number}.png", 1)
    folder.text("meta.csv", "bild,befund\n0,gut\n")
    folder.text("more/sheet.xlsx", "")
    added, _ = folder.add()
    assert any("nothing was taken from meta.csv, more/sheet.xlsx;" in words for words in added.proposal.questions)


def test_pictures_in_folders_of_classes(folder: Folder) -> None:
    for split in ("train", "test"):
        for kind in ("glioma", "no_finding"):
            for number in range(3):
                folder.image(f"{split}/{kind}/{split}{number}.jpg")
    added, records = folder.add()
    assert len(records) == 12 and "targets" not in added.proposal.entry
    assert records["test/glioma/test1"].label == "glioma" and records["test/glioma/test1"].split == "test"
    assert records["train/no_finding/train0"].label == "No findings"


def test_nnunet(folder: Folder) -> None:
    labels = {"background": 0, "liver": 1, "whole tumour": [1, 2], "ignore": 3}
    channels = {"0": "CT", "1": "PET"}
    folder.text(
        "dataset.json", {"channel_names": channels, "labels": labels, "name": "abdomen", "licence": "CC-BY 4.0"}
    )
    for number in range(2):
        for channel in range(2):
            folder.volume(f"imagesTr/case{number}_{channel:04}.nii.gz")
        folder.volume(f"labelsTr/case{number}.nii.gz", 1, 2)
        folder.volume(f"imagesTs/other{number}_0000.nii.gz")
    added, records = folder.add(modality=None, site=None)
    entry = added.proposal.entry
    assert (entry["licence"], entry["site"], entry["adapter"]) == ("CC-BY 4.0", "abdomen", "volumes")
    assert recognise_layout(folder.root, licence="mine").entry["licence"] == "mine"
    assert {name[:10]: record.modality for name, record in records.items()} == {
        "case0_0000": "CT",
        "case0_0001": "PET",
        "case1_0000": "CT",
        "case1_0001": "PET",
    }
    assert {record.group for record in records.values()} == {"case0", "case1"}
    liver, tumour = records["case0_0000@1"].regions
    assert (liver.target, tumour.target, tumour.values, tumour.abnormal) == ("liver", "whole tumour", (1, 2), True)
    assert liver.load().any()


def test_nnunet_with_test_cases(folder: Folder) -> None:
    folder.text("dataset.json", {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}})
    for part, case in (("Tr", "a"), ("Tr", "b"), ("Ts", "c_0001")):
        folder.volume(f"images{part}/{case}_0000.nii.gz")
        folder.volume(f"labels{part}/{case}.nii.gz", 1)
    added, records = folder.add(modality=None)
    assert "the test split" in added.words()
    assert {record.group: record.split for record in records.values()} == {"a": "train", "b": "train", "c_0001": "test"}
    mask = records["imagesTs/c_0001_0000@1"].regions[0].mask
    assert isinstance(mask, Path) and mask.parent.name == "labelsTs"
    folder.volume("imagesTs/d_0000.nii.gz")
    added, records = folder.add(modality=None, force=True)
    assert "imagesTs was left out: labelsTs lacks 1 of its 2 cases" in added.proposal.questions
    assert set(records) == {f"{case}_0000@{n}" for case in "ab" for n in range(4)}


def test_older_nnunet_and_one_modality(folder: Folder) -> None:
    folder.text("dataset.json", {"modality": {"0": "T1", "1": "FLAIR"}, "labels": {"0": "background", "1": "edema"}})
    folder.volume("imagesTr/BRATS_001.nii.gz")
    folder.volume("labelsTr/BRATS_001.nii.gz", 1)
    added, records = folder.add(modality=None)
    assert added.proposal.entry["modality"] == "MRI" and "stem" not in added.proposal.entry
    assert records["BRATS_001@1"].regions[0].target == "edema"


def test_several_sequences_of_a_case(folder: Folder) -> None:
    for case in ("c_01", "c_02"):
        for kind in ("flair", "t1", "t1ce"):
            folder.volume(f"{case}/{case}_{kind}.nii.gz")
        folder.volume(f"{case}/{case}_seg.nii.gz", 1, 2, 4)
    added, records = folder.add(modality=None)
    assert added.proposal.entry["modality"] == "MRI"
    assert added.proposal.entry["exclude"] == "_seg$"
    assert len(records) == 2 * 3 * 4 and {record.group for record in records.values()} == {"c_01", "c_02"}
    assert [r.target for r in records["c_02/c_02_t1@1"].regions] == ["class 1", "class 2", "class 4"]


def test_hounsfield_units_say_ct(folder: Folder) -> None:
    for number in range(2):
        folder.volume(f"volumes/{number}.nii.gz", hounsfield=True)
        folder.volume(f"segmentations/{number}.nii.gz", 1)
    added, records = folder.add(modality=None)
    assert "Hounsfield units: CT" in added.words()
    assert records["0@0"].modality == "CT"


def test_dicom_series(folder: Folder) -> None:
    for case in ("case_1", "case_2"):
        series = generate_uid()
        for number in range(3):
            one = Dataset()
            one.file_meta = FileMetaDataset()
            one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = MRImageStorage
            one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = generate_uid()
            one.Modality, one.SeriesInstanceUID, one.PhotometricInterpretation = "MR", series, "MONOCHROME2"
            one.Rows, one.Columns, one.SamplesPerPixel, one.PixelRepresentation = 6, 7, 1, 0
            one.BitsAllocated, one.BitsStored, one.HighBit = 16, 16, 15
            one.ImagePositionPatient, one.ImageOrientationPatient = [0, 0, 3 * number], [1, 0, 0, 0, 1, 0]
            one.PixelSpacing = [1, 1]
            one.PixelData = np.full((6, 7), 10 * number, dtype=np.uint16).tobytes()
            one["PixelData"].VR = "OW"
            one.save_as(folder.path(f"scans/{case}/{number}.dcm"), enforce_file_format=True)
        affine = np.diag([-1.0, -1, 3, 1])
        nib.save(nib.Nifti1Image(np.ones((7, 6, 3), dtype=np.uint8), affine), folder.path(f"masks/{case}.nii.gz"))
    added, records = folder.add(modality=None)
    assert added.proposal.entry["images"] == "scans" and "says MRI" in added.words()
    assert records["case_2@1"].modality == "MRI" and records["case_2@1"].regions[0].load().all()


def test_one_series_alone_is_refused(folder: Folder) -> None:
    for number in range(3):
        folder.text(f"{number}.dcm", "x")
    with pytest.raises(DataError, match="one DICOM series"):
        folder.add()


def test_tables_of_other_kinds(folder: Folder) -> None:
    rows = [{"image": f"{number}.png", "label": "AB"[number % 2]} for number in range(4)]
    for number in range(4):
        folder.image(f"images/{number}.png")
    folder.text("labels.jsonl", "\n".join(json.dumps(row) for row in rows))
    _, records = folder.add()
    assert [record.label for record in records.values()] == ["A", "B", "A", "B"]
    (folder.root / "labels.jsonl").unlink()
    folder.text("labels.json", {"version": 1, "rows": rows})
    added, records = folder.add(force=True)
    assert added.proposal.entry["tables"] == [{"file": "labels.json", "key": "image", "rows": "rows"}]
    assert records["1"].label == "B"
    (folder.root / "labels.json").unlink()
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pytest.importorskip("pyarrow").Table.from_pylist(rows), folder.path("labels.parquet"))
    _, records = folder.add(force=True)
    assert records["2"].label == "A"


def test_coco(folder: Folder) -> None:
    for split, number in (("train", 1), ("val", 2)):
        folder.image(f"pictures/{number}.png")
        images = [{"id": 1, "file_name": f"{number}.png", "height": SIZE[0], "width": SIZE[1]}]
        square = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 1, 9, 9], "segmentation": [[1, 1, 9, 1, 9, 9]]}
        categories = [{"id": 3, "name": "lung_nodule"}, {"id": 4, "name": "heading"}]
        coco = {"images": images, "annotations": [square], "categories": categories}
        folder.text(f"annotations/instances_{split}2017.json", coco)
    added, records = folder.add()
    assert added.proposal.entry["targets"] == [{"name": "lung nodule", "abnormal": True, "categories": ["lung_nodule"]}]
    assert {name: record.split for name, record in records.items()} == {"1": "train", "2": "val"}
    _, records = folder.add(force=True, targets=["nodule"])
    assert records["1"].regions[0].target == "nodule" and records["1"].regions[0].load().any()


def test_large_coco_is_read_in_pieces(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_files, "WHOLE_BYTES", 0)
    monkeypatch.setattr(json_files, "MOST_MEMBERS", 5)
    count = 9
    for number in range(count):
        folder.image(f"pictures/{number}.png")
    # the last image alone has the second category, far behind the members that are kept
    annotations = [
        {"id": n, "image_id": n, "category_id": 4 + n // 8, "bbox": [1, 1, 9, 9], "segmentation": [[1, 1, 9, 1, 9, 9]]}
        for n in range(count)
    ]
    images = [{"id": n, "file_name": f"{n}.png", "height": SIZE[0], "width": SIZE[1]} for n in range(count)]
    categories = [{"id": n, "name": name} for n, name in ((3, "never"), (4, "polyp"), (5, "ulcer"))]
    folder.text("instances.json", {"images": images, "annotations": annotations, "categories": categories})
    added, records = folder.add()
    assert [target["name"] for target in added.proposal.entry["targets"]] == ["polyp", "ulcer"]
    assert len(records) == count and records["8"].regions[-1].target == "ulcer"


def test_broken_json_is_told(folder: Folder) -> None:
    folder.text("labels.json", {"images": []})
    broken = folder.path("labels.json")
    broken.write_text(broken.read_text()[:-1])
    folder.image("1.tif")
    with pytest.raises(DataError, match=r"no layout that is known.*; labels.json: cannot be read as JSON \("):
        folder.add()
    folder.image("images/1.png")
    folder.mask("masks/1.png", 1)
    added, _ = folder.add()
    assert any("labels.json: cannot be read as JSON" in text for text in added.proposal.questions)


@pytest.mark.parametrize("place", ["{}/_annotations.coco.json", "annotations/instances_{}2017.json"])
def test_coco_pictures_in_several_folders(folder: Folder, place: str) -> None:
    """As Roboflow, CVAT and COCO itself have them; numbers may begin anew in each folder."""
    for split, count in (("train", 3), ("valid", 2)):
        images = [{"id": n, "file_name": f"{n}.png", "height": SIZE[0], "width": SIZE[1]} for n in range(count)]
        for item in images:
            folder.image(f"{split}/{item['file_name']}")
        square = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 1, 9, 9], "segmentation": [[1, 1, 9, 1, 9, 9]]}
        coco = {"images": images, "annotations": [square], "categories": [{"id": 3, "name": "polyp"}]}
        folder.text(place.format(split), coco)
    added, records = folder.add()
    assert added.proposal.entry["images"] == "." and not {"split", "group"} & set(added.proposal.entry)
    assert [(table["folder"], table["split"]) for table in added.proposal.entry["tables"]] == [
        ("train", "train"),
        ("valid", "val"),
    ]
    assert {name: record.split for name, record in records.items()} == dict.fromkeys(
        ("train/0", "train/1", "train/2"), "train"
    ) | dict.fromkeys(("valid/0", "valid/1"), "val")
    one = records["valid/1"]
    assert isinstance(one.image, Path) and one.image.parent.name == "valid" and one.regions[0].mask is not None


def test_patients_of_coco_pictures_in_several_folders(folder: Folder) -> None:
    for split, patients in (("train2017", (0, 1, 2)), ("val2017", (3, 4))):
        names = [f"P{patient}_{n}.png" for patient in patients for n in range(2)]
        for name in names:
            folder.image(f"{split}/{name}")
        images = [{"id": n, "file_name": name, "height": SIZE[0], "width": SIZE[1]} for n, name in enumerate(names)]
        folder.text(f"{split}/a.json", {"images": images, "annotations": [], "categories": []})
    _, records = folder.add()
    # and not the two folders, whose names hold numbers
    assert {record.group for record in records.values()} == {"P0", "P1", "P2", "P3", "P4"}


def test_the_published_form(folder: Folder) -> None:
    folder.image("train/p1_MRI_brain.png")
    folder.mask("train_mask/p1_MRI_brain_brain+tumor.png", 255)
    images = [{"id": 1, "file_name": "p1_MRI_brain.png"}]
    annotation = {"image_id": 1, "file_name": "p1_MRI_brain.png", "mask_file": "p1_MRI_brain_brain+tumor.png"}
    folder.text("train.json", {"images": images, "annotations": [annotation]})
    added, records = folder.add(modality=None, site=None)
    assert added.proposal.entry == {"name": "toy", "adapter": "published", "licence": "unknown"}
    assert records["train/p1_MRI_brain"].regions[0].target == "brain tumor"


def test_questions(folder: Folder) -> None:
    for split, number in (("train", 1), ("test", 2)):
        folder.image(f"imgs/case{number}/source.jpg")
        row = {"img_name": f"case{number}/source.jpg", "Question": "What is it?", "Answer": "a lung", "qid": number}
        folder.text(f"{split}.json", [row, row | {"Question": "Is it a lung?", "Answer": "Yes", "qid": 10 + number}])
    added, records = folder.add()
    assert added.proposal.entry["columns"] == {"question": "Question", "answer": "Answer"}
    assert added.proposal.entry["images"] == "imgs/*/*"
    asked = records["case1/source.train"]
    assert [(item.question, item.kind) for item in asked.questions] == [
        ("What is it?", "open"),
        ("Is it a lung?", "closed"),
    ]


def test_patients_and_split_of_questions_in_columns(folder: Folder) -> None:
    rows = ["image,patient_id,split,question,answer"]
    for number in range(6):
        folder.image(f"images/x{number}.png")
        side = "test" if number > 3 else "train"
        rows += [f"x{number}.png,p{number // 2},{side},{asked}?,yes" for asked in ("Is it a lung", "Is it large")]
    folder.text("qa.csv", "\n".join(rows))
    _, records = folder.add()
    assert {(record.group, record.split) for record in records.values()} == {
        ("p0", "train"),
        ("p1", "train"),
        ("p2", "test"),
    }
    folder.text("qa.csv", "\n".join([*rows, "x0.png,p0,test,Is it small?,no"]))
    added, records = folder.add(force=True)
    assert "split" not in added.proposal.entry and len(records) == 6
    assert any("some images in two splits" in question for question in added.proposal.questions)


@pytest.mark.parametrize("columns", ["question,answer", "caption"])
def test_patients_in_the_names_of_pictures_with_tables(folder: Folder, columns: str) -> None:
    rows = [f"image,{columns}"]
    for number in range(12):
        folder.image(f"images/P{number // 2:02}_{number}.png")
        words = "A mass in the liver" + ",yes" * ("," in columns)
        rows.append(f"P{number // 2:02}_{number},{words}")
    folder.text("words.csv", "\n".join(rows))
    added, records = folder.add()
    assert {record.group for record in records.values()} == {f"P{number:02}" for number in range(6)}
    assert any("grouped by letters and a number" in reason for reason in added.proposal.reasons)
    assert not any("group rule" in question for question in added.proposal.questions)
    for path in folder.root.glob("images/*"):
        path.rename(path.with_name(path.name.partition("_")[2]))
    folder.text("words.csv", "\n".join(row.rpartition("_")[2] for row in rows))
    added, _ = folder.add(force=True)
    assert any("group rule" in question for question in added.proposal.questions)


def test_pictures_inside_parquet_are_told(folder: Folder) -> None:
    rows = {"image": [{"bytes": b"PNG", "path": "0.png"}], "question": ["What?"], "answer": ["Nothing."]}
    pq.write_table(pa.table(rows), folder.path("data/train-00000-of-00001.parquet"))
    with pytest.raises(DataError, match=r"lie inside 'data/train-00000-of-00001\.parquet'.*save them as files"):
        folder.add()


def test_captions_and_reports(folder: Folder) -> None:
    folder.text(
        "reports.csv", "uid,patient_id,findings\n1,a,The lungs are clear today.\n2,a,There is no effusion here.\n"
    )
    _, records = folder.add(site=None)
    assert records["1"].image is None and records["1"].text == "The lungs are clear today."
    assert records["1"].group == records["2"].group == "a" and records["1"].site == "chest"
    folder.image("pics/1.png")
    folder.image("pics/2.png")
    added, records = folder.add(force=True)
    assert added.proposal.entry["adapter"] == "captions" and records["2"].image is not None


def test_modality_and_site_of_names(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    folder = Folder(tmp_path / "elsewhere")
    for number in range(2):
        folder.image(f"images/{number}.png")
        folder.mask(f"masks/{number}.png", 1)
    place = folder.root.rename(tmp_path / "Breast-UltraSound_set")
    proposal = recognise_layout(place)
    assert (proposal.entry["modality"], proposal.entry["site"]) == ("ultrasound", "breast")
    assert any("give --modality if that is wrong" in reason for reason in proposal.reasons)
    place = place.rename(tmp_path / "NeoPolyp")
    assert "the paper's catalogue knows" in " ".join(recognise_layout(place, site="colon").reasons)
    place = place.rename(tmp_path / "ct_and_mri_brain")
    with pytest.raises(DataError, match=r"nothing tells its modality: give --modality \(CT, MRI"):
        recognise_layout(place)
    place = place.rename(tmp_path / "unnamed")
    with pytest.raises(DataError, match=r"give --modality .* and --site \(such as abdomen\)$"):
        recognise_layout(place)
    with pytest.raises(InputError, match="unknown modality"):
        recognise_layout(place, modality="sonar")
    place = place.rename(tmp_path / "my data (2)")
    with pytest.raises(DataError, match="rename the folder"):
        recognise_layout(place)


def test_modality_by_file_name(folder: Folder) -> None:
    for kind in ("CT", "PET"):
        for number in range(2):
            folder.image(f"images/s{number}_{kind}.png")
            folder.mask(f"masks/s{number}_{kind}.png", 1)
    _, records = folder.add(modality=None)
    assert {name: record.modality for name, record in records.items()} == {
        "s0_CT": "CT",
        "s0_PET": "PET",
        "s1_CT": "CT",
        "s1_PET": "PET",
    }


def test_licence_file(folder: Folder) -> None:
    folder.image("images/1.png")
    folder.mask("masks/1.png", 1)
    folder.text("LICENSE.txt", "do what you want")
    added, _ = folder.add()
    assert added.proposal.entry["licence"] == "see LICENSE.txt in the folder"


def test_nothing_is_known(folder: Folder) -> None:
    with pytest.raises(DataError, match="holds no file"):
        folder.add()
    folder.text("readme.md", "hello")
    with pytest.raises(DataError, match="no layout that is known"):
        folder.add()
    for number in range(3):
        folder.image(f"images/{number}.png")
    with pytest.raises(DataError, match="no layout that is known"):
        folder.add()
    folder.text("broken.json", "{")
    folder.text("odd.csv", "a,b\n1\n")
    with pytest.raises(DataError, match="no layout that is known"):
        folder.add()
    with pytest.raises(DataError, match="not a folder"):
        recognise_layout(folder.root / "none")
    assert not (folder.root / "dataset.toml").exists()


def test_nothing_is_written_that_does_not_read(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        folder.image(f"images/{number}.png")
        folder.mask(f"masks/{number}.png", 1)
    folder.add(dry_run=False)
    before = (folder.root / "dataset.toml").read_bytes()
    with pytest.raises(DataError, match="--force"):
        folder.add()
    dry = add_dataset(folder.root, modality="CT", site="brain", dry_run=True)
    assert 'modality = "CT"' in dry.text and (folder.root / "dataset.toml").read_bytes() == before
    folder.path("near_duplicates.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"near-identical images cannot be read.*nothing was written"):
        folder.add(force=True)
    (folder.root / "near_duplicates.txt").unlink()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OutputError, match="No space left"):
        folder.add(force=True)
    assert (folder.root / "dataset.toml").read_bytes() == before
    assert {path.name for path in folder.root.iterdir()} == {"images", "masks", "dataset.toml"}


def test_masks_that_cannot_be_read(folder: Folder) -> None:
    for number in range(3):
        folder.image(f"images/{number}.png")
        coloured = np.zeros((8, 8, 3), dtype=np.uint8)
        coloured[2:5, 2:5, 0] = 255
        (folder.root / "masks").mkdir(exist_ok=True)
        Image.fromarray(coloured).save(folder.root / f"masks/{number}.png")
    with pytest.raises(DataError, match=r"mask has colours \(mode RGB\): save it with one channel"):
        folder.add()


def test_one_broken_mask_and_one_doubled_name_stop_nothing(folder: Folder) -> None:
    for number in range(4):
        folder.image(f"images/{number}.png")
        folder.mask(f"masks/{number}.png", 7)
    folder.text("masks/1.png", "no picture")
    folder.image("images/2.jpg")
    added, _ = add_and_read(folder)
    assert any("1 of 4 masks" in words and "masks/1.png: cannot" in words for words in added.proposal.questions)
    assert any("images/2.png: two images are named '2'" in words for words in added.proposal.questions)
    assert "3 of the masks hold the value 7" in added.words()


def test_volumes_that_do_not_fit_stop_nothing(folder: Folder) -> None:
    for number in range(5):
        folder.volume(f"images/{number}.nii.gz")
        folder.volume(f"labels/{number}.nii.gz", 1, 2)
    nib.save(nib.Nifti1Image(np.ones((6, 7, 3), np.uint8), np.diag([1.0, 1, 2, 1])), folder.path("labels/2.nii.gz"))
    folder.text("images/0.nii.gz", "no volume")
    folder.text("labels/3.nii.gz", "no volume")
    added, records = add_and_read(folder)
    assert {name.partition("@")[0] for name in records} == {"1", "4"}
    assert [target["name"] for target in added.proposal.entry["targets"]] == ["class 1", "class 2"]
    mended = [words for words in added.proposal.questions if "to be mended" in words]
    assert len(mended) == 1 and "images/0.nii.gz: not a volume" in mended[0] and "and 2 more" in mended[0]


def test_questions_about_missing_pictures_stop_nothing(folder: Folder) -> None:
    rows = ["image,question,answer", *(f"{n}.png,Is it a lung?,yes" for n in range(13))]
    folder.text("qa.csv", "\n".join(rows))
    for number in range(12):
        folder.image(f"images/{number}.png")
    added, records = add_and_read(folder)
    assert len(records) == 12
    assert any("qa.csv: image '12.png' is missing" in words for words in added.proposal.questions)


def test_patients_of_questions_on_both_sides_are_to_be_mended(folder: Folder) -> None:
    rows = ["image,patient,split,question,answer"]
    for number in range(6):
        folder.image(f"images/{number}.png")
        rows.append(f"{number}.png,p{number // 2},{'test' if number > 2 else 'train'},Is it a lung?,yes")
    folder.text("qa.csv", "\n".join(rows))
    added, records = add_and_read(folder)
    assert {name: record.split for name, record in records.items() if record.group == "p1"} == {
        "2.test": "test",
        "3.test": "test",
    }
    told = "images/2.png = images/3.png: one group in train and test of the authors' split"
    assert any(told in words for words in added.proposal.questions)


def test_work_is_bounded(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "NAMES_EACH", 10)
    opened: list[str] = []
    real = Image.open
    monkeypatch.setattr("PIL.Image.open", lambda path, **options: (opened.append(str(path)), real(path, **options))[1])
    for number in range(40):
        folder.image(f"images/{number:03}.png")
        folder.mask(f"masks/{number:03}.png", 1)
    proposal = recognise_layout(folder.root, modality="CT", site="brain")
    assert len(opened) == 10
    assert any("more files than were listed" in question for question in proposal.questions)
    assert len(survey.survey_folder(folder.root).names["images"]) == 10
    monkeypatch.setattr(survey, "MAX_FOLDERS", 2)
    assert set(survey.survey_folder(folder.root).names) == {"", "images"}


def test_external_sets_stay_external(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    folder = Folder(tmp_path / "a")
    for number in range(3):
        folder.image(f"images/{number}.png")
        folder.mask(f"masks/{number}.png", 1)
    added = add_dataset(folder.root.rename(tmp_path / "CHAOS"), modality="CT", site="abdomen")
    assert "testing alone" in added.words()
    assert {record.split for record in load_records(tmp_path, ["CHAOS"])} == {"test"}


def test_published_sets_are_described_as_the_catalogue_knows_them(folder: Folder) -> None:
    for number in ("0001", "0002"):
        folder.volume(f"img/img{number}.nii.gz")
        folder.volume(f"label/label{number}.nii.gz", 1, 6)
    place = folder.root.rename(folder.root.parent / "BTCV")
    added = add_dataset(place)
    entry = added.proposal.entry
    assert (entry["modality"], entry["site"], len(entry["targets"])) == ("CT", "abdomen", 13)
    records = {record.key: record for record in load_records(place.parent, ["BTCV"])}
    regions = {region.target: region for region in records["BTCV/img0001@2"].regions}
    assert regions["liver"].values == (6,) and regions["liver"].load().any()
    for number in ("0001", "0002"):  # files of another layout
        (place / "label" / f"label{number}.nii.gz").rename(place / "label" / f"img{number}.nii.gz")
    other = recognise_layout(place, site="abdomen")
    assert [target["name"] for target in other.entry["targets"]] == ["class 1", "class 6"]


def test_real_folders(shared_data: Path) -> None:
    hearts = recognise_layout(shared_data / "acdc_cardiac_mri").entry
    assert (hearts["modality"], hearts["site"], len(hearts["targets"])) == ("MRI", "heart", 3)
    cells = recognise_layout(shared_data / "dsb2018_nuclei_microscopy")
    assert any("number their objects" in reason for reason in cells.reasons)
    polyps = recognise_layout(shared_data / "kvasir_seg_polyp").entry
    assert polyps["split"]["map"]["validation"] == "val" and polyps["modality"] == "endoscopy"
