from __future__ import annotations

import json

import pytest

from unibiomed.data.adapters import published as published_adapter

IMAGE = "p{}_CT_abdomen.png"


def made(toy, split="train", numbers=(1, 2)):
    images, annotations = [], []
    for n in numbers:
        name = IMAGE.format(n)
        toy.image(f"{split}/{name}")
        images.append({"id": n, "file_name": name})
        for target in ("left+kidney", "liver tumor") if n == numbers[0] else ("left+kidney",):
            mask = f"{name[:-4]}_{target}.png"
            toy.image(f"{split}_mask/{mask}", 255)
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": n,
                    "file_name": name,
                    "mask_file": mask,
                    "split": split,
                    "sentences": [{"raw": "x", "sent": "x"}],
                }
            )
    toy.text(f"{split}.json", json.dumps({"images": images, "annotations": annotations}))
    return images, annotations


def published(toy, more=""):
    toy.entry("published", more, modality=None, site=None)


def test_names_tell_modality_site_and_targets(toy):
    made(toy)
    made(toy, "test", (3,))
    published(toy)
    records = toy.read()
    assert list(records) == ["test/p3_CT_abdomen", "train/p1_CT_abdomen", "train/p2_CT_abdomen"]
    one = records["train/p1_CT_abdomen"]
    assert (one.modality, one.site, one.split) == ("CT", "abdomen", "train")
    assert records["test/p3_CT_abdomen"].split == "test"
    assert [region.target for region in one.regions] == ["left kidney", "liver tumor"]
    assert one.regions[0].load((6, 8)).all()
    assert [region.target for region in records["train/p2_CT_abdomen"].regions] == ["left kidney"]


@pytest.mark.parametrize(
    ("word", "modality"),
    [
        ("MRI-FLAIR", "MRI"),
        ("T2", "MRI"),
        ("X-Ray", "X-ray"),
        ("endoscope", "endoscopy"),
        ("dermoscopy", "dermoscopy"),
        ("fundus", "fundus"),
        ("OCT", "OCT"),
        ("ultrasound", "ultrasound"),
        ("pathology", "pathology"),
        ("PET", "PET"),
    ],
)
def test_words_of_modalities(toy, word, modality):
    name = f"TCGA_HT_1_{word}_head+and+neck"
    toy.image(f"train/{name}.png")
    toy.text("train.json", json.dumps({"images": [{"id": 0, "file_name": f"{name}.png"}], "annotations": []}))
    published(toy)
    record = toy.read()[f"train/{name}"]
    assert (record.modality, record.site) == (modality, "head and neck")


def test_targets_of_the_entry_are_abnormal_absent_or_an_error(toy, refused):
    made(toy)
    kidney = '[[targets]]\nname = "kidney"\ncategories = ["left kidney"]\n'
    tumor = '[[targets]]\nname = "liver tumor"\nabnormal = true\nmissing = "absent"\n'
    published(toy, kidney + tumor)
    one, two = toy.read().values()
    assert {region.target: region.abnormal for region in one.regions} == {"kidney": False, "liver tumor": True}
    assert {region.target: region.absent for region in two.regions} == {"kidney": False, "liver tumor": True}
    published(toy, kidney)
    refused("label 'liver tumor' belongs to no target")
    published(toy, 'ignore = ["liver tumor"]\n' + kidney)
    assert [region.target for region in next(iter(toy.read().values())).regions] == ["kidney"]


def test_a_folder_further_down(toy):
    made(toy)
    for part in ("train", "train_mask", "train.json"):
        (toy.folder / "CT").mkdir(exist_ok=True)
        (toy.folder / part).rename(toy.folder / "CT" / part)
    published(toy, 'images = "CT"\n')
    assert len(toy.read()) == 2


def test_volumes_are_groups(toy, refused):
    described = {}
    for volume in ("v1", "v2"):
        slices = [f"{volume}_{k}_MRI_heart.png" for k in range(3)]
        masks = [f"train_mask/{volume}/{name[:-4]}_left+ventricle.png" for name in slices[:2]]
        for name in slices:
            toy.image(f"train/{volume}/{name}")
        for name in masks:
            toy.image(name, 255)
        described[volume] = {
            "slices": slices,
            "expressions": {
                "0": {
                    "exp": "left ventricle in heart MRI",
                    "img_file": [f"{volume}/{name}" for name in slices],
                    "mask_file": [*masks, "empty_mask"],
                }
            },
        }
    toy.text("meta_train.json", json.dumps({"volumes": described}))
    published(toy)
    records = toy.read()
    assert len(records) == 6 and {record.group for record in records.values()} == {"v1", "v2"}
    assert {record.split for record in records.values()} == {"train"}
    regions = [record.regions[0] for record in records.values()]
    assert [region.absent for region in regions] == [False, False, True] * 2
    assert {region.target for region in regions} == {"left ventricle"}
    described["v1"]["expressions"]["0"]["mask_file"].pop()
    toy.text("meta_train.json", json.dumps({"volumes": described}))
    refused("has 3 images, 2 masks")


def test_reports_are_texts_of_images_and_regions(toy, refused):
    for name in ("a_CT_lung", "b_CT_lung"):
        toy.image(f"train/{name}.png")
    for name in ("a_CT_lung_nodule", "a_CT_lung_effusion"):
        toy.image(f"train_mask/{name}.png", 255)
    items = {
        "0": {
            "abnormality": "Lung nodule",
            "image_file": "train/a_CT_lung.png",
            "mask_file": "train_mask/a_CT_lung_nodule.png",
            "report": '"A nodule in the left lung."',
            "anatomy": "lung",
        },
        "1": {
            "abnormality": "Pleural effusion",
            "image_file": "train/a_CT_lung.png",
            "mask_file": "train_mask/a_CT_lung_effusion.png",
            "report": "Fluid on the right.",
            "anatomy": "lung",
        },
        "2": {
            "abnormality": "no findings",
            "image_file": "train/b_CT_lung.png",
            "mask_file": "",
            "report": "Clear lungs.",
            "anatomy": "lung",
        },
    }
    toy.text("train_report.json", json.dumps(items))
    published(toy, '[[tables]]\nfile = "train_report.json"\n')
    one, two = toy.read().values()
    assert one.text == "A nodule in the left lung. Fluid on the right."
    assert [(r.target, r.abnormal, r.attributes) for r in one.regions] == [
        ("Lung nodule", True, {"report": "A nodule in the left lung."}),
        ("Pleural effusion", True, {"report": "Fluid on the right."}),
    ]
    assert one.label is None and one.abnormal_known and one.split == "train"
    assert (two.label, two.text, two.regions) == ("No findings", "Clear lungs.", ())
    del items["1"]
    toy.text("train_report.json", json.dumps(items))
    assert next(iter(toy.read().values())).label == "Lung nodule"
    items["0"]["mask_file"] = "gone.png"
    toy.text("train_report.json", json.dumps(items))
    refused("toy/train_report.json: mask 'gone.png' is missing")


def test_what_does_not_fit_is_named(toy, refused):
    images, annotations = made(toy)
    published(toy, "group = { pattern = '/(p)' }\n")
    assert {record.group for record in toy.read().values()} == {"p"}
    made(toy, "test", (3,))
    refused("is in the official")
    (toy.folder / "test.json").unlink()
    (toy.folder / "train_mask" / "p2_CT_abdomen_left+kidney.png").unlink()
    refused("mask 'p2_CT_abdomen_left.kidney.png' is missing")
    annotations[2]["mask_file"] = "other_CT_abdomen_liver.png"
    toy.text("train.json", json.dumps({"images": images, "annotations": annotations}))
    refused("is not named after its image")
    toy.text("train.json", json.dumps({"images": images, "annotations": [{"id": 0}]}))
    refused("toy/train.json: is not in the published form")
    toy.text("train.json", json.dumps([1]))
    refused("toy/train.json: is not in the published form")
    toy.image("train/plain.png")
    toy.text("train.json", json.dumps({"images": [{"id": 0, "file_name": "plain.png"}], "annotations": []}))
    published(toy)
    refused("its name does not tell the modality")


def test_the_order_of_the_lists_does_not_matter(toy, refused):
    images, annotations = made(toy)
    del annotations[1]["file_name"]
    published(toy)
    toy.text("train.json", json.dumps({"images": images, "annotations": annotations}))
    records = toy.read()
    toy.text("train.json", json.dumps({"annotations": annotations[::-1], "info": {}, "images": images}))
    turned = toy.read()
    assert list(turned) == list(records)
    for name, record in records.items():
        assert sorted(r.target for r in turned[name].regions) == sorted(r.target for r in record.regions)
    toy.text("train.json", json.dumps({"annotations": annotations}))
    refused("toy/train.json: is not in the published form .'images'")
    toy.text("train.json", json.dumps({"annotations": {}, "images": images}))
    refused("toy/train.json: is not in the published form")
    text = json.dumps({"images": images, "annotations": annotations})
    toy.text("train.json", text[:-20])
    refused("toy/train.json: cannot be read as JSON .*line 1, column")


@pytest.mark.parametrize(
    ("file", "split"),
    [("train_data/test.json", "test"), ("test/annotations.json", "test"), ("train_data/val_test.json", None)],
)
def test_the_name_of_a_file_tells_its_split_before_its_folders(file, split):
    assert published_adapter._split_of(file) == split
