"""Data sets as other tools and systems write them: paths, masks, stores and forms of annotations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from unibiomed.data import load_records
from unibiomed.data.add import add_dataset
from unibiomed.data.check_records import read_or_tell
from unibiomed.data.entries import read_entry
from unibiomed.data.mask_files import mask_numbers
from unibiomed.errors import DataError

SIZE = (24, 32)
SQUARE = [[2, 2, 12, 2, 12, 12, 2, 12]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "toy"
    path.mkdir()
    return path


def picture(path: Path, number: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(path)
    return path


def square() -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[4:14, 6:20] = 255
    return mask


def add(folder: Path, **options: Any):
    return add_dataset(folder, **{"site": "chest", "modality": "X-ray", **options})


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


# ---------------------------------------------------------------- masks


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
@pytest.mark.parametrize("ending", ["png", "tif", "bmp"])
def test_equal_channels_are_one(tmp_path, mode, ending):
    if ending == "bmp" and mode != "RGB":
        pytest.skip("BMP has no transparency")
    numbers = np.random.default_rng(0).integers(0, 5, SIZE).astype(np.uint8)
    path = tmp_path / f"a.{ending}"
    Image.fromarray(numbers).convert(mode).save(path)
    assert mask_numbers(path).tolist() == numbers.tolist()


def test_what_is_transparent_is_background(tmp_path):
    channels = np.full((*SIZE, 4), 255, np.uint8)
    channels[:10, :, 3] = 0
    Image.fromarray(channels).save(tmp_path / "a.png")
    numbers = mask_numbers(tmp_path / "a.png")
    assert not numbers[:10].any() and (numbers[10:] == 255).all()
    channels[0, 0, 3] = 100
    Image.fromarray(channels).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="half transparent"):
        mask_numbers(tmp_path / "a.png")


def test_colours_are_refused(tmp_path):
    channels = np.stack([square(), square(), square()], axis=-1)
    channels[0, 0] = (1, 2, 3)
    Image.fromarray(channels).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"has colours \(mode RGB\): save it with one channel"):
        mask_numbers(tmp_path / "a.png")


def test_wide_colours_are_refused(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", np.full((*SIZE, 3), 300, np.uint16), photometric="rgb")
    with pytest.raises(DataError, match="16-bit colours"):
        mask_numbers(tmp_path / "a.tif")


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("quality", [50, 95])
def test_a_black_and_white_jpeg(tmp_path, mode, quality):
    large = np.kron(square(), np.ones((8, 8), np.uint8))
    Image.fromarray(large).convert(mode).save(tmp_path / "a.jpg", quality=quality)
    numbers = mask_numbers(tmp_path / "a.jpg")
    assert set(np.unique(numbers)) == {0, 255} and (numbers == large).all()
    Image.new(mode, (20, 30)).save(tmp_path / "b.jpg")
    assert not mask_numbers(tmp_path / "b.jpg").any()


@pytest.mark.parametrize(
    "values", [square() // 255 * 3, np.where(square() > 0, 128, 0), np.add.outer(np.arange(24), np.arange(32)) * 4]
)
def test_a_jpeg_of_other_numbers_is_refused(tmp_path, values):
    Image.fromarray(values.astype(np.uint8)).save(tmp_path / "a.jpg", quality=100)
    with pytest.raises(DataError, match="JPEG changes the numbers of a mask"):
        mask_numbers(tmp_path / "a.jpg")
    colours = np.stack([square(), square() // 2, square()], axis=-1)
    Image.fromarray(colours).save(tmp_path / "b.jpg", quality=100)
    with pytest.raises(DataError, match="JPEG with colours"):
        mask_numbers(tmp_path / "b.jpg")


def test_labels_stored_as_floats_and_signed_bytes(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    numbers = (square() // 255).astype(np.float32) * 7
    numbers[0, 0] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", numbers)
    assert mask_numbers(tmp_path / "a.tif").max() == 7 and mask_numbers(tmp_path / "a.tif")[0, 0] == 0
    tifffile.imwrite(tmp_path / "b.tif", numbers / 2)
    with pytest.raises(DataError, match="fractions"):
        mask_numbers(tmp_path / "b.tif")
    signed = np.where(square() > 0, -1, 1).astype(np.int8)
    tifffile.imwrite(tmp_path / "c.tif", signed)
    assert mask_numbers(tmp_path / "c.tif").tolist() == signed.tolist()


def test_a_stack_is_no_mask(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    about = "ImageJ=1.54f\nimages=3\nslices=3\n"
    tifffile.imwrite(tmp_path / "a.tif", square(), description=about, metadata=None)
    with pytest.raises(DataError, match="stack of several planes"):
        mask_numbers(tmp_path / "a.tif")


# ---------------------------------------------------------------- COCO


def coco(folder: Path, names: list[str], annotations: list[dict[str, Any]] | None = None) -> None:
    images = [{"id": k, "file_name": name, "height": 24, "width": 32} for k, name in enumerate(names)]
    usual = [{"id": k, "image_id": k, "category_id": 1, "segmentation": SQUARE} for k in range(len(names))]
    content = {"images": images, "annotations": usual + (annotations or []), "categories": [{"id": 1, "name": "mass"}]}
    write_json(folder / "annotations.json", content)


@pytest.mark.parametrize(
    "form",
    [
        "images\\{}",
        ".\\images\\{}",
        "..\\..\\label-studio\\media\\upload\\4\\{}",
        "C:\\Users\\me\\{}",
        "/home/me/images/{}",
        "../data/{}",
        "images/{}",
    ],
)
def test_paths_of_other_machines(folder, form):
    for number in range(4):
        picture(folder / "images" / f"s{number}.png", number)
    coco(folder, [form.format(f"s{number}.png") for number in range(4)])
    add(folder)
    records = list(load_records(folder.parent, ["toy"]))
    assert [Path(record.image).name for record in records] == [f"s{number}.png" for number in range(4)]
    assert all(record.regions[0].load().any() and "me" not in record.key for record in records)


def test_the_last_part_of_a_path_has_to_be_unique(folder):
    picture(folder / "images" / "a.png")
    picture(folder / "images" / "b.png")
    coco(folder, ["/x/one/a.png", "/x/two/a.png", "/x/b.png"])
    with pytest.raises(DataError, match=r"such as '/x/one/a\.png'\) are in none of its folders"):
        add(folder)
    entry = 'name = "toy"\nadapter = "coco"\nmodality = "X-ray"\nsite = "chest"\nlicence = "CC0"\nimages = "images"\n'
    (folder / "dataset.toml").write_text(entry + '[[tables]]\nfile = "annotations.json"\n')
    records, problems = read_or_tell(read_entry(folder / "dataset.toml", folder.parent))
    assert [Path(record.image).name for record in records] == ["b.png"]
    assert any("several images end in 'a.png'" in problem.detail for problem in problems)


def test_bad_annotations_stop_nothing(folder):
    for number in range(4):
        picture(folder / "images" / f"s{number}.png", number)
    bad = [
        {"id": 90, "image_id": 0, "category_id": 1, "segmentation": [[1, 1, 2, 2]]},
        {"id": 91, "image_id": 77, "category_id": 1, "segmentation": SQUARE},
        {"id": 92, "image_id": 1, "category_id": 5, "segmentation": SQUARE},
    ]
    coco(folder, [f"images/s{number}.png" for number in range(4)], bad)
    added = add(folder)
    records, problems = read_or_tell(read_entry(added.path, folder.parent))
    assert len(records) == 4 and len(problems) == 3
    # One of the outlines of the first image is lost: that the others are all of the target is not known.
    assert [len(record.regions) for record in records] == [0, 1, 1, 1]


def test_bad_images_of_a_table_stop_nothing(folder):
    for number in range(3):
        picture(folder / f"s{number}.png", number)
    coco(folder, ["s0.png", "s1.png", "s2.png"])
    content = json.loads((folder / "annotations.json").read_text())
    content["images"][1]["height"] = 0
    content["images"].append(dict(content["images"][0]))
    write_json(folder / "annotations.json", content)
    added = add(folder)
    records, problems = read_or_tell(read_entry(added.path, folder.parent))
    assert len(records) == 2 and {"no size", "listed twice", "unknown image"} == {
        words for words in ("no size", "listed twice", "unknown image") if any(words in p.detail for p in problems)
    }


# ---------------------------------------------------------------- DICOM, volumes, stores


def dicom(path: Path, number: int) -> None:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.Modality = "DX"
    dataset.Rows, dataset.Columns = SIZE
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.PixelData = np.random.default_rng(number).integers(0, 4000, SIZE).astype(np.uint16).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize(
    ("images", "masks"), [("images/{}.dcm", "masks/{}.png"), ("{}.dcm", "masks/{}.png"), ("{}.dcm", "{}_mask.png")]
)
def test_dicom_images_with_masks(folder, images, masks):
    for number in range(4):
        dicom(folder / images.format(f"s{number}"), number)
        path = folder / masks.format(f"s{number}")
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(square()).save(path)
    added = add(folder, modality=None)
    assert added.proposal.entry["modality"] == "X-ray"
    records = list(load_records(folder.parent, ["toy"]))
    assert len(records) == 4 and all(record.regions[0].load().any() for record in records)
    assert records[0].load_image().std() > 20


def test_dicom_images_of_a_table(folder):
    for number in range(4):
        dicom(folder / "images" / f"s{number}.dcm", number)
    rows = "\n".join(f"s{number}.dcm,{'mass' if number % 2 else 'normal'}" for number in range(4))
    (folder / "labels.csv").write_text(f"image,label\n{rows}\n")
    add(folder)
    assert [record.label for record in load_records(folder.parent, ["toy"])].count("mass") == 2


def nifti(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.diag([1.0, 1, 3, 1])), path)


@pytest.mark.parametrize("described", [False, True])
def test_the_channel_of_4d_volumes(folder, described):
    labels = np.zeros((6, 7, 4), np.uint8)
    labels[2:4, 2:5, 1:3] = 1
    images, masks = ("imagesTr", "labelsTr") if described else ("images", "labels")
    for number in range(3):
        values = np.random.default_rng(number).integers(0, 900, (6, 7, 4, 2)).astype(np.int16)
        nifti(folder / images / f"c_{number}.nii.gz", values)
        nifti(folder / masks / f"c_{number}.nii.gz", labels)
    if described:
        names = {"0": "T1w", "1": "T2w"}
        write_json(folder / "dataset.json", {"modality": names, "labels": {"0": "background", "1": "tumor"}})
    added = add(folder, modality="MRI", site="brain")
    (asked,) = [question for question in added.proposal.questions if "channel" in question]
    assert "each image file holds 2 channels" in asked and ("(0 T1w, 1 T2w)" in asked) == described
    records = list(load_records(folder.parent, ["toy"]))
    assert {record.channel for record in records} == {0} and records[0].load_image().std() > 5


@pytest.mark.parametrize("store", ["names", "empty", "none"])
def test_the_store_of_monai_label(folder, store):
    labels = np.zeros((6, 7, 4), np.uint8)
    labels[1:3, 2:5, 1:3], labels[4:5, 2:5, 1:3] = 1, 2
    info = {"label_info": [{"name": "spleen", "idx": 1}, {"name": "liver", "idx": 2}]} if store == "names" else {}
    objects = {}
    for number in range(3):
        nifti(folder / f"s{number}.nii.gz", np.random.default_rng(number).integers(0, 900, (6, 7, 4)).astype(np.int16))
        nifti(folder / "labels" / "final" / f"s{number}.nii.gz", labels)
        objects[f"s{number}"] = {"image": {"ext": ".nii.gz"}, "labels": {"final": {"ext": ".nii.gz", "info": info}}}
    if store != "none":
        write_json(folder / "datastore_v2.json", {"name": "x", "objects": objects})
    added = add(folder, modality="CT", site="abdomen")
    names = [target["name"] for target in added.proposal.entry["targets"]]
    assert names == (["spleen", "liver"] if store == "names" else ["class 1", "class 2"])
    assert any("(--target)" in question for question in added.proposal.questions) == (store != "names")


# ---------------------------------------------------------------- forms that are not read

BOX = [[1, 1], [5, 5]]
LABELME = {"version": "5.0", "shapes": [{"label": "mass", "points": BOX}], "imagePath": "s0.png"}
VIA = {"s0.png123": {"filename": "s0.png", "size": 123, "regions": [], "file_attributes": {}}}
FEATURE = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": []}, "properties": {}}


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("s0.json", LABELME, "LabelMe"),
        ("via_region_data.json", VIA, "VIA"),
        ("via_project.json", {"_via_settings": {}, "_via_img_metadata": VIA}, "VIA"),
        ("meta.json", {"classes": [{"title": "mass"}], "tags": [], "projectType": "images"}, "Supervisely"),
        ("ann/s0.png.json", {"size": {"height": 24, "width": 32}, "objects": [], "tags": []}, "Supervisely"),
        ("s0.geojson", {"type": "FeatureCollection", "features": [FEATURE]}, "QuPath"),
        ("s0.json", [FEATURE], "QuPath"),
        ("project.qpproj", {"version": "0.5"}, "QuPath"),
        ("labels/s0.txt", "0 0.5 0.5 0.25 0.25\n1 0.1 0.2 0.1 0.1\n", "YOLO"),
        ("labels/s0.txt", "0 0.5 0.5 0.25 0.25 0.3 0.4\n", "YOLO"),
        ("annotations/s0.xml", "<annotation><object><bndbox></bndbox></object></annotation>", "Pascal VOC"),
        ("annotations.xml", "<?xml version='1.0'?><annotations><image id='0'></image></annotations>", "CVAT"),
    ],
)
def test_forms_that_are_not_read_are_named(folder, name, content, form):
    for number in range(3):
        picture(folder / "images" / f"s{number}.png", number)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DataError, match=f"form of .*{form}.*not read: convert the annotations to COCO JSON or to mask"):
        add(folder)


def test_forms_that_are_not_read_stand_in_the_way_of_nothing(folder):
    for number in range(3):
        picture(folder / "images" / f"s{number}.png", number)
        write_json(folder / "images" / f"s{number}.json", LABELME)
        (folder / "masks").mkdir(exist_ok=True)
        Image.fromarray(square()).save(folder / "masks" / f"s{number}.png")
    add(folder)
    assert len(list(load_records(folder.parent, ["toy"]))) == 3


def test_an_entry_that_finds_nothing_says_what_to_look_at(folder):
    picture(folder / "images" / "a.png")
    entry = (
        'name = "toy"\nadapter = "images"\nmodality = "CT"\nsite = "chest"\nlicence = "CC0"\nimages = "images/*.xyz"\n'
    )
    (folder / "dataset.toml").write_text(entry)
    with pytest.raises(DataError, match=r"no records found: check that its images, 'images/\*\.xyz' in dataset\.toml"):
        list(load_records(folder.parent, ["toy"]))
