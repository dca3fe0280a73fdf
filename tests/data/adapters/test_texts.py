from __future__ import annotations

import json

import pytest

ROWS = [
    {"img": "a.png", "q": "Is it red?", "a": "Yes"},
    {"img": "a.png", "q": "What is it?", "a": "a polyp"},
    {"img": "b", "q": "How many?", "a": 2},
]
QUESTIONS = 'columns = { question = "q", answer = "a" }\n[[tables]]\nfile = "t.json"\nkey = "img"\n'


def test_questions_with_columns_of_their_own(toy, refused):
    for name in "abcdefgh":
        toy.image(f"images/{name}.png")
    toy.text("t.json", json.dumps(ROWS + [{"img": name, "q": "?", "a": "x"} for name in "cdefgh"]))
    toy.entry("questions", QUESTIONS)
    records = {record.image.stem: record for record in toy.read().values()}
    asked = records["a"].questions
    assert [(item.question, item.answer, item.kind) for item in asked] == [
        ("Is it red?", "Yes", "closed"),
        ("What is it?", "a polyp", "open"),
    ]
    assert len({item.qid for record in records.values() for item in record.questions}) == 9
    assert {record.split for record in records.values()} == {"train", "test"}
    assert records["b"].attributes == {}
    toy.entry("questions", QUESTIONS.replace('"q"', '"words"'))
    refused("column 'words' is missing")


def test_captions(toy, refused):
    for name in ("a", "b", "c"):
        toy.image(f"images/{name}.png")
    toy.text("t.csv", "file,caption\na.png,CT of the abdomen.\na.png,A cyst.\na.png,A cyst.\nb.png,\nc.png,MRI.\n")
    head = 'text = ["caption"]\n[[tables]]\nfile = "t.csv"\nkey = "file"\n'
    toy.entry("captions", head)
    records = toy.read()
    assert {name: record.text for name, record in records.items()} == {"a": "CT of the abdomen. A cyst.", "c": "MRI."}
    assert records["a"].load_image().shape == (6, 8, 3)
    toy.entry("captions", head + 'split = "test"\n')
    assert {record.split for record in toy.read().values()} == {"test"}
    toy.entry("captions", head.replace('text = ["caption"]\n', ""))
    refused("needs the columns")
    toy.entry("captions", head)
    toy.text("t.csv", "file,caption\ngone.png,x\n")
    refused("toy/t.csv: image 'gone.png' is missing from images/")


def test_captions_of_images_that_share_a_name(toy, refused):
    for name in ("1/a", "2/a"):
        toy.image(f"images/{name}.png")
    toy.entry("captions", 'images = "images/*/*.png"\ntext = ["t"]\n[[tables]]\nfile = "t.csv"\nkey = "file"\n')
    toy.text("t.csv", "file,t\n1/a.png,one\n2/a.png,two\n")
    assert {name: record.text for name, record in toy.read().items()} == {"1/a": "one", "2/a": "two"}
    toy.text("t.csv", "file,t\na.png,one\n")
    refused("image 'a.png' may be '1/a' or '2/a'")


TWO_SPLITS = (
    'text = ["t"]\n[[tables]]\nfile = "train.csv"\nkey = "file"\nsplit = "train"\n'
    '[[tables]]\nfile = "test.csv"\nkey = "file"\nsplit = "test"\n'
)


@pytest.mark.parametrize("adapter", ["captions", "reports"])
def test_texts_keep_the_split_of_their_table(toy, refused, adapter):
    for name in ("1/a", "2/a", "2/b"):
        toy.image(f"images/{name}.png")
    toy.text("train.csv", "file,t\n1/a.png,one\n1/a.png,two\n")
    toy.text("test.csv", "file,t\n2/a.png,three\n2/b.png,\n")
    toy.entry(adapter, 'images = "images/*/*.png"\n' + TWO_SPLITS)
    told = {name: (record.split, record.text) for name, record in toy.read().items()}
    assert told == {"1/a": ("train", "one two"), "2/a": ("test", "three")}
    toy.text("test.csv", "file,t\n1/a.png,three\n")
    refused("toy/1/a: is in tables of two splits; leave it out of one")


def test_reports_without_a_split_among_others(toy, refused):
    toy.text("train.csv", "file,t\na,one\n")
    toy.text("test.csv", "file,t\nb,two\n")
    toy.entry("reports", TWO_SPLITS.replace('split = "test"\n', ""))
    refused("toy/b: no official split is given")


def test_questions_of_a_group_in_two_splits(toy, refused):
    for name in ("p1_a", "p1_b"):
        toy.image(f"images/{name}.png")
    toy.text("train.csv", "file,q,a\np1_a,Where?,Here\n")
    toy.text("test.csv", "file,q,a\np1_b,Where?,There\n")
    rest = TWO_SPLITS.removeprefix('text = ["t"]\n')
    head = 'columns = { question = "q", answer = "a" }\ngroup = { pattern = \'^(p\\d)_\' }\n'
    toy.entry("questions", head + rest)
    refused("toy/p1_b: is in the official test split, but 'p1_a' of the same group in train")
    toy.entry("questions", "mend_split = true\n" + head + rest)
    assert {record.split for record in toy.read().values()} == {"test"}
    toy.entry("questions", "shared_images = true\n" + head + rest)
    assert [record.split for record in toy.read().values()] == ["train", "test"]
    toy.entry("questions", "shared_images = true\nexternal = true\n" + head + rest)
    assert {record.split for record in toy.read().values()} == {"test"}
