from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

TARGET = '[[targets]]\nname = "polyp"\nabnormal = true\n'


def test_nested_folders_have_names_with_folders(toy, refused):
    for patient in ("P1", "P2"):
        for k in (1, 2):
            toy.image(f"cases/{patient}/photo/{k}.png")
        toy.image(f"cases/{patient}/mask/1.png", 255)
    toy.image("cases/.hidden/photo/1.png")
    toy.entry(
        "images",
        'images = "cases/*/photo/*.png"\ngroup = { pattern = "^(P.)/" }\n'
        + TARGET
        + 'masks = ["cases/{parent}/../mask/{stem}.png"]\n',
    )
    refused("leaves the data set")
    toy.entry("images", 'images = "cases/*/photo/*.png"\ngroup = { pattern = "^(P.)/" }\n')
    records = toy.read()
    assert list(records) == ["P1/photo/1", "P1/photo/2", "P2/photo/1", "P2/photo/2"]
    assert [record.group for record in records.values()] == ["P1", "P1", "P2", "P2"]
    assert len({record.split for record in records.values()}) == 2


def test_masks_follow_parent_and_stem(toy, refused):
    for name in ("a/1_img.png", "a/2_img.png", "b/c/1_img.png"):
        toy.image(f"all/{name}")
        toy.image(f"all/{name.replace('_img', '_mask_1')}", 255)
    toy.image("all/a/1_mask_2.png", 3)
    toy.entry(
        "images",
        "images = \"all/**/*.png\"\nexclude = '_mask_'\nstem = '^(.+)_img$'\n"
        + TARGET
        + 'masks = ["all/{parent}/{stem}_mask_*.png"]\n',
    )
    records = toy.read()
    assert list(records) == ["a/1_img", "a/2_img", "b/c/1_img"]
    one = records["a/1_img"].regions[0]
    assert [path.name for path in (one.mask, *one.further_masks)] == ["1_mask_1.png", "1_mask_2.png"]
    assert records["b/c/1_img"].regions[0].load((6, 8)).all()
    toy.image("all/a/odd.png")
    refused("odd: file name does not fit stem")


def test_folders_named_after_images_may_be_missing(toy, refused):
    toy.image("images/1.png")
    toy.image("images/2.png")
    toy.image("nuclei/1/masks/a.png", 255)
    toy.entry("images", TARGET + 'masks = ["nuclei/{stem}/masks/*.png"]\n')
    refused("toy/2: no mask file of 'polyp'")
    toy.entry("images", TARGET + 'missing = "absent"\nmasks = ["nuclei/{stem}/masks/*.png"]\n')
    records = toy.read()
    assert records["1"].regions[0].mask is not None
    assert records["2"].regions[0].absent


def test_tables_match_folders_stems_or_a_part_of_the_name(toy, refused):
    for name in ("P1/a.png", "P2/a.png", "P2/b.png"):
        toy.image(f"images/{name}")
    toy.text("patients.csv", "patient,sex\nP1,female\nP2,male\n")
    toy.text("files.csv", "file,view\nP1/a.png,AP\nP2/a,PA\nb.png,LL\n")
    toy.entry(
        "images",
        'images = "images/*/*.png"\nattributes = { sex = "sex", view = "view" }\n'
        '[[tables]]\nfile = "patients.csv"\nkey = "patient"\nmatch = "^(P[0-9])/"\n'
        '[[tables]]\nfile = "files.csv"\nkey = "file"\n',
    )
    told = {name: record.attributes for name, record in toy.read().items()}
    assert told == {
        "P1/a": {"sex": "female", "view": "AP"},
        "P2/a": {"sex": "male", "view": "PA"},
        "P2/b": {"sex": "male", "view": "LL"},
    }
    toy.text("files.csv", "file,view\na.png,AP\n")
    refused("toy/files.csv: image 'a.png' may be 'P1/a' or 'P2/a'")


def test_window_is_for_the_picture(toy, refused):
    (toy.folder / "images").mkdir()
    # 16-bit pictures of DeepLesion: Hounsfield units plus 32768.
    Image.fromarray(np.full((4, 4), 32768 + 40, dtype=np.uint16)).save(toy.folder / "images" / "a.png")
    toy.entry("images", 'window = "32808,400"\n')
    assert toy.read()["a"].load_image().max() == 128
    toy.entry("images", 'window = "liver"\n')
    refused("toy: unknown window")


def test_a_group_on_both_sides_of_the_official_split(toy, refused):
    for name in ("train_P1_1.png", "test_P1_2.png", "train_P2_1.png"):
        toy.image(f"images/{name}")
    rules = "group = { pattern = '_(P.)_' }\nsplit = { pattern = '^([a-z]+)_' }\n"
    toy.entry("images", rules)
    refused("train_P1_1: is in the official train split, but 'test_P1_2' of the same group in test")
    toy.entry("images", rules + "mend_split = true\n")
    assert {name: record.split for name, record in toy.read().items()} == {
        "train_P1_1": "test",
        "test_P1_2": "test",
        "train_P2_1": "train",
    }
    toy.image("images/other_P3_1.png")
    refused("split 'other' is not one of")


def test_twins_found_late_move_nothing(toy):
    for name in ("train_P1_1.png", "test_P2_1.png", "test_P2_2.png", "test_P3_1.png", "val_P4_1.png", "train_P5_1.png"):
        toy.image(f"images/{name}")
    rules = "group = { pattern = '_(P.)_' }\nsplit = { pattern = '^([a-z]+)_' }\n"
    toy.entry("images", rules)
    before = {name: record.split for name, record in toy.read().items()}
    twins = [["train_P1_1", "test_P2_1"], ["val_P4_1.png", "test_P3_1"], ["train_P1_1", "train_P5_1"], ["gone", "lost"]]
    toy.entry("images", rules + f"twins = {json.dumps(twins)}\n")
    after = {name: record.split for name, record in toy.read().items()}
    # the whole group of a leaking test image goes; what is nearest to training stays where it was
    assert after == {name: before[name] for name in ("train_P1_1", "train_P5_1", "val_P4_1")}


def test_twins_are_lists_of_names(toy, refused):
    toy.image("images/a.png")
    toy.entry("images", 'twins = ["a", "b"]\n')
    refused("'twins' of the file has the wrong type")


@pytest.mark.parametrize("adapter", ["images", "questions"])
def test_rows_of_one_image_say_the_same_split(toy, refused, adapter):
    """An image that is in test in one row and in training in another would be learned and judged."""
    for name in ("a", "b"):
        toy.image(f"images/{name}.png")
    table = 'split = { column = "side" }\n[[tables]]\nfile = "rows.csv"\nkey = "id"\n'
    toy.entry(adapter, table)
    head = "id,side,question,answer\na,train,What?,This\nb,test,What?,That\n"
    toy.text("rows.csv", head + "b,test,Where?,There\n")
    assert {record.split for name, record in toy.read().items() if name[0] == "b"} == {"test"}
    toy.text("rows.csv", head + "b,train,Where?,There\n")
    refused(r"toy/rows.csv: image 'b': its rows say 'test' and 'train' in column 'side'; give it one split")


def test_tables_give_the_split(toy, refused):
    for name in ("a", "b", "c"):
        toy.image(f"images/{name}.png")
    tables = "".join(f'[[tables]]\nfile = "{side}.csv"\nkey = "id"\nsplit = "{side}"\n' for side in ("train", "test"))
    toy.text("train.csv", "id\na\nb\n")
    toy.text("test.csv", "id\nc\n")
    toy.entry("images", tables)
    assert {name: record.split for name, record in toy.read().items()} == {"a": "train", "b": "train", "c": "test"}
    toy.text("test.csv", "id\nb\nc\n")
    refused("toy/b: is in tables of two splits")
    toy.text("test.csv", "id\nb\n")
    toy.text("train.csv", "id\na\n")
    refused("toy/c: no official split is given")
    toy.entry("images", "split = { pattern = '^(.)' }\n" + tables)
    refused("a rule and tables tell the split")
    toy.entry("images", "shared_images = true\n" + tables)
    refused("shared_images is for adapter 'questions' alone")
