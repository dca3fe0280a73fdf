from __future__ import annotations

import pytest

HEAD = 'text = ["caption"]\n[[tables]]\nfile = "t.csv"\nkey = "file"\n'
BOXES = (
    '[boxes]\ncolumns = ["x0", "y0", "x1", "y1"]\nabnormal = true\ntext = "about"\n'
    'target = { column = "type", map = { 1 = "bone lesion", 2 = "liver lesion" } }\n'
)
ROWS = (
    "file,x0,y0,x1,y1,type,about,caption\n"
    'a.png,1.2,1,4,3.9,1,"In the  rib.",CT.\n'
    "a.png,5,1,7,3,1,,CT.\n"
    "a.png,2,2,6,5,2,,CT.\n"
    "b.png,,,,,,,MRI.\n"
)


def made(toy, rows=ROWS, entry=HEAD + BOXES):
    for name in ("a", "b"):
        toy.image(f"images/{name}.png")
    toy.text("t.csv", rows)
    toy.entry("boxes", entry)


def test_boxes_become_regions(toy):
    made(toy)
    records = toy.read()
    assert list(records) == ["a", "a#2", "b"]
    one = records["a"]
    assert [(r.target, r.box, r.abnormal) for r in one.regions] == [
        ("bone lesion", (1, 1, 4, 4), True),
        ("liver lesion", (2, 2, 6, 5), True),
    ]
    assert one.regions[0].attributes == {"report": "In the rib."} and one.text == "CT."
    assert [r.box for r in records["a#2"].regions] == [(5, 1, 7, 3)] and records["a#2"].text is None
    assert records["a#2"].group == one.group and records["a#2"].split == one.split
    assert records["b"].regions == () and records["b"].text == "MRI."
    assert [t.text for t in one.triplets()] == ["bone lesion", "liver lesion", "CT."]


@pytest.mark.parametrize("cell", ['"[1, 2, 3, 4]"', '"1, 2, 3, 4"', "1 2 3 4"])
def test_one_column_of_four_numbers_and_widths(toy, cell):
    entry = HEAD.replace('text = ["caption"]\n', "") + (
        '[boxes]\ncolumns = ["box"]\nformat = "xywh"\ntarget = "lesion"\n'
    )
    made(toy, f"file,box\na.png,{cell}\n", entry)
    assert toy.read()["a"].regions[0].box == (1, 2, 4, 6)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (ROWS.replace(",1,4,3.9,1,", ",1,4,3.9,9,"), "value '9' is not one of 1, 2"),
        (ROWS.replace(",1,4,3.9,1,", ",1,4,3.9,,"), "a box without a label"),
        (ROWS.replace("1.2,1,4", "1.2,,4"), "not four numbers"),
        (ROWS.replace("1.2,1,4", "x,1,4"), "not four numbers"),
        (ROWS.replace("1.2,1,4", "5,1,4"), "no area inside"),
        (ROWS.replace("x0", "left"), "no column 'x0'"),
        (ROWS.replace("b.png", "gone.png"), "image 'gone.png' is missing"),
    ],
)
def test_rows_that_do_not_fit_are_named(toy, refused, rows, words):
    made(toy, rows)
    refused(f"toy.*{words}")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (HEAD, "needs .boxes."),
        (HEAD + BOXES.replace('"x0", "y0"', '"x0"'), "neither four nor one"),
        (HEAD + BOXES + 'format = "cxcywh"\n', "neither 'xyxy' nor 'xywh'"),
        (HEAD + BOXES.replace("columns", "cells"), "'cells'"),
    ],
)
def test_entries_that_do_not_fit_are_refused(toy, refused, entry, words):
    made(toy, entry=entry)
    refused(words)


def test_two_splits(toy, refused):
    entry = HEAD + 'split = "train"\n[[tables]]\nfile = "u.csv"\nkey = "file"\nsplit = "test"\n' + BOXES
    made(toy, "\n".join(ROWS.splitlines()[:-1]), entry)
    toy.text("u.csv", "\n".join(ROWS.splitlines()[::4]))
    assert {name: record.split for name, record in toy.read().items()} == {"a": "train", "a#2": "train", "b": "test"}
    toy.text("u.csv", ROWS)
    refused("toy/a: is in tables of two splits")


def test_a_table_of_boxes_beside_a_table_of_images(toy):
    entry = (
        'label = { column = "type" }\nignore = ["mark"]\n[[tables]]\nfile = "t.csv"\nkey = "file"\n'
        '[[tables]]\nfile = "b.csv"\nkey = "file"\n'
        '[boxes]\ntable = "b.csv"\ncolumns = ["x0", "y0", "x1", "y1"]\ntarget = { column = "type" }\n'
        '[[targets]]\nname = "mass"\nabnormal = true\nabsent_if = { type = ["normal"] }\n'
    )
    made(toy, "file,type\na.png,ill\nb.png,normal\n", entry)
    toy.text("b.csv", "file,type,x0,y0,x1,y1\na.png,mass,1,1,4,3\na.png,mass,5,1,7,3\na.png,mark,1,1,2,2\n")
    records = toy.read()
    assert list(records) == ["a", "a#2", "b"]
    assert (records["a"].label, records["b"].label) == ("ill", "normal")
    assert [(r.target, r.box, r.abnormal) for r in records["a"].regions] == [("mass", (1, 1, 4, 3), True)]
    assert [(r.target, r.absent, r.abnormal) for r in records["b"].regions] == [("mass", True, True)]
