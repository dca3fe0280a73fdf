from __future__ import annotations

import json
from itertools import permutations

import numpy as np
import pytest

from unibiomed.findings import rle_encode

HEAD = '[[tables]]\nfile = "train.json"\nsplit = "train"\n'
TARGETS = (
    '[[targets]]\nname = "polyp"\ncategories = ["Polyp", "adenoma"]\nabnormal = true\n'
    '[[targets]]\nname = "tool"\nmissing = "unknown"\n'
)
SQUARE = [[1, 1, 5, 1, 5, 4, 1, 4]]


def coco(toy, annotations, *, names=("a.png",), file="train.json", **changes):
    for name in names:
        toy.image(f"images/{name}")
    data = {
        "images": [{"id": k, "file_name": name, "height": 6, "width": 8} for k, name in enumerate(names)],
        "annotations": [
            {"id": k, "image_id": 0, "category_id": 1, "iscrowd": 0} | a for k, a in enumerate(annotations)
        ],
        "categories": [{"id": 0, "name": "things"}, {"id": 1, "name": "Polyp"}, {"id": 2, "name": "tool"}],
    } | changes
    toy.text(file, json.dumps(data))


def square(y0, y1, x0, x1):
    mask = np.zeros((6, 8), dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_polygons_are_united_and_absence_is_known(toy):
    annotations = [{"segmentation": SQUARE}, {"segmentation": [[5, 4, 8, 4, 8, 6, 5, 6]]}]
    coco(toy, annotations, names=("a.png", "b.png"))
    toy.entry("coco", HEAD + TARGETS)
    records = toy.read()
    one, other = records["a"], records["b"]
    assert [region.target for region in one.regions] == ["polyp"]
    assert one.regions[0].abnormal and one.split == "train"
    assert (one.regions[0].load((6, 8)) == (square(1, 4, 1, 5) | square(4, 6, 5, 8))).all()
    assert [(region.target, region.absent) for region in other.regions] == [("polyp", True)]


def test_run_lengths_of_both_kinds_and_crowds(toy):
    counts = [7, 3, 38]
    crowd = rle_encode(square(0, 2, 6, 8))
    coco(
        toy,
        [
            {"segmentation": {"size": [6, 8], "counts": counts}},
            {"segmentation": crowd, "iscrowd": 1},
            {"segmentation": crowd, "category_id": 2},
        ],
    )
    toy.entry("coco", HEAD + TARGETS)
    polyp, tool = toy.read()["a"].regions
    assert (polyp.load() == (square(1, 4, 1, 2) | square(0, 2, 6, 8))).all()
    assert (tool.load() == square(0, 2, 6, 8)).all()


def test_boxes_where_an_outline_is_missing(toy):
    coco(
        toy,
        [
            {"bbox": [1.2, 1, 3.5, 2]},
            {"segmentation": [[4, 4, 7, 4, 7, 6, 4, 6]], "bbox": [4, 4, 3, 2]},
            {"bbox": [0, 0, 8, 6], "iscrowd": 1},
            {"segmentation": SQUARE, "category_id": 2},
        ],
    )
    toy.entry("coco", HEAD + TARGETS)
    records = toy.read()
    assert list(records) == ["a", "a#2"]
    one, further = records.values()
    boxes = {region.target: region.box for region in one.regions}
    assert boxes == {"tool": None, "polyp": (1, 1, 5, 3)}
    assert [(region.target, region.box) for region in further.regions] == [("polyp", (4, 4, 7, 6))]
    assert one.group == further.group and one.split == further.split


def test_crowds_without_outline_leave_their_target_open(toy):
    coco(toy, [{"bbox": [0, 0, 8, 6], "iscrowd": 1}])
    toy.entry("coco", HEAD + TARGETS)
    assert toy.read()["a"].regions == ()


def test_categories_name_targets_where_none_are_given(toy):
    coco(toy, [{"segmentation": SQUARE}])
    toy.entry("coco", HEAD)
    assert [region.target for region in toy.read()["a"].regions] == ["Polyp"]


def test_columns_of_images_and_two_splits(toy, refused):
    rows = [
        {"id": k, "file_name": f"{k}.png", "height": 6, "width": 8, "patient": p}
        for k, p in enumerate(("p1", "p1", "p2", "p3"))
    ]
    names = [row["file_name"] for row in rows]
    entry = 'group = { column = "patient" }\n' + HEAD + '[[tables]]\nfile = "test.json"\nsplit = "test"\n'
    toy.entry("coco", entry)
    coco(toy, [], names=names[:2], **{"images": rows[:2]})
    coco(toy, [], names=names[2:], file="test.json", **{"images": rows[2:]})
    assert [(r.group, r.split) for r in toy.read().values()] == [
        ("p1", "train"),
        ("p1", "train"),
        ("p2", "test"),
        ("p3", "test"),
    ]
    coco(toy, [], names=names[1:], file="test.json", **{"images": rows[1:]})
    refused("image '1' is listed twice")
    rows[2]["patient"] = "p1"
    coco(toy, [], names=names[2:], file="test.json", **{"images": rows[2:]})
    refused("is in the official test split")


@pytest.mark.parametrize(
    ("annotations", "changes", "words"),
    [
        ([{"segmentation": [[1, 1, 2, 2]]}], {}, "annotation 0: a polygon"),
        ([{"segmentation": [[1, 1, 2, 2, 1e9, 0]]}], {}, "annotation 0: a polygon"),
        ([{"segmentation": {"size": [5, 8], "counts": [40]}}], {}, "not of the size"),
        ([{"segmentation": {"size": [6, 8], "counts": [40]}}], {}, "do not fill"),
        ([{"segmentation": {"size": [6, 8], "counts": None}}], {}, "neither numbers nor text"),
        ([{"segmentation": {"size": [6, 8], "counts": "é"}}], {}, "image 'a', annotation 0: run lengths are broken"),
        ([{"segmentation": {"size": [6, 8], "counts": "@@"}}, {"segmentation": SQUARE}], {}, "are broken"),
        ([{"bbox": [9, 9, 1, 1]}], {}, "no area inside"),
        ([{"bbox": [1, 1, 1]}], {}, "not four numbers"),
        ([{}], {}, "neither outline nor box"),
        ([{"segmentation": SQUARE, "category_id": 9}], {}, "annotation 0 names an unknown category"),
        ([{"segmentation": SQUARE, "category_id": 0}], {}, "label 'things' belongs to no target"),
        ([], {"images": 3}, "not in the COCO form"),
        ([], {"images": [{"id": 0, "file_name": "a.png"}]}, "no size"),
        ([], {"images": [{"id": 0, "file_name": "a.png", "height": 10**6, "width": 10**6}]}, "no size up to"),
        ([], {"images": [{"id": 0, "file_name": "gone.png", "height": 6, "width": 8}]}, "'gone' is missing"),
        ([], {"images": [{"id": 0, "file_name": "../gone.png", "height": 6, "width": 8}]}, "is missing"),
    ],
)
def test_what_is_broken_is_named(toy, refused, annotations, changes, words):
    coco(toy, annotations, **changes)
    toy.entry("coco", HEAD + TARGETS)
    refused(words)


def test_labels_may_be_ignored(toy):
    coco(toy, [{"segmentation": SQUARE, "category_id": 0}])
    toy.entry("coco", 'ignore = ["things"]\n' + HEAD + TARGETS)
    assert [region.absent for region in toy.read()["a"].regions] == [True]


def test_the_order_of_the_lists_does_not_matter(toy):
    annotations = [{"segmentation": SQUARE}, {"bbox": [0, 0, 2, 2], "category_id": 2}, {"bbox": [2, 2, 4, 3]}]
    coco(toy, annotations, names=("a.png", "b.png"), info={"images": [1]}, licenses=[{"id": 7}])
    toy.entry("coco", HEAD + TARGETS)
    data = json.loads((toy.folder / "train.json").read_text())
    records = toy.read()
    assert list(records) == ["a", "a#2", "b"]
    for keys in permutations(data):
        toy.text("train.json", json.dumps({key: data[key] for key in keys}))
        assert toy.read() == records


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_file_that_ends_too_early_is_named(toy, refused, share):
    coco(toy, [{"segmentation": SQUARE}] * 20)
    toy.entry("coco", HEAD + TARGETS)
    text = (toy.folder / "train.json").read_text()
    toy.text("train.json", text[: int(share * len(text))])
    refused(r"toy/train.json: cannot be read as JSON \(.*line 1, column")


def test_lists_and_ids_stand_there_once(toy, refused):
    coco(toy, [{"segmentation": SQUARE}], names=("a.png", "b.png"))
    toy.entry("coco", HEAD + TARGETS)
    text = (toy.folder / "train.json").read_text()
    toy.text("train.json", text[:-1] + ', "annotations": []}')
    refused("toy/train.json: .*'annotations' stands there twice")
    data = json.loads(text)
    data["images"][1]["id"] = 0
    toy.text("train.json", json.dumps(data))
    refused("toy/train.json: image 'b' has the id 0 of another image")
    del data["images"]
    toy.text("train.json", json.dumps(data))
    refused("toy/train.json: is not in the COCO form")
    toy.text("train.json", json.dumps({**data, "images": [3]}))
    refused("toy/train.json: is not in the COCO form")


def test_numbers_that_are_none(toy, refused):
    coco(toy, [{"segmentation": SQUARE, "area": float("nan")}])
    toy.entry("coco", HEAD + TARGETS)
    assert not toy.read()["a"].regions[0].absent
    coco(toy, [{"segmentation": [[1, 1, 5, float("nan"), 5, 4]]}])
    refused("toy/train.json: image 'a', annotation 0: a polygon")
    coco(toy, [{"bbox": [1, 1, float("nan"), 2]}])
    refused("toy/train.json: image 'a', annotation 0: a box is not four numbers")
