from __future__ import annotations

import json

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
