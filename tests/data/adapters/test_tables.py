from __future__ import annotations

import json
import sys

import pytest

from unibiomed.data import load_catalog
from unibiomed.data.adapters import tables
from unibiomed.errors import DataError


def with_table(toy, file, more=""):
    toy.image("images/a.png")
    toy.entry("images", f'attributes = {{ n = "n" }}\n[[tables]]\nfile = "{file}"\nkey = "id"\n{more}')


def test_rows_inside_json(toy, refused):
    with_table(toy, "t.json", 'rows = "annotations"\n')
    toy.text("t.json", json.dumps({"info": 1, "annotations": [{"id": "images/a.png", "n": 3}]}))
    assert toy.read()["a"].attributes == {"n": "3"}
    toy.text("t.json", json.dumps({"info": 1}))
    refused("toy/t.json: table is not a list of rows")


def test_kept_rows(toy, refused):
    with_table(toy, "t.csv", 'keep = { view = ["AP", "PA"] }\n')
    toy.text("t.csv", "id,view,n\na,lateral,1\na,AP,2\n,lateral,3\na,,4\n")
    assert toy.read()["a"].attributes == {"n": "2"}
    with_table(toy, "t.csv", "keep = { n = [2] }\n")
    refused("key 'keep' of tables has the wrong type")
    toy.entry("coco", '[[tables]]\nfile = "t.json"\nkeep = { view = ["AP"] }\n')
    refused("tables of adapter 'coco' are taken whole, without 'keep'")


def test_parquet(toy, refused):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    with_table(toy, "t.parquet")
    pictures = pa.array([{"bytes": b"x", "path": "a"}])
    parquet.write_table(pa.table({"id": ["a"], "n": [2.5], "image": pictures}), toy.folder / "t.parquet")
    assert toy.read()["a"].attributes == {"n": "2.5"}
    toy.text("t.parquet", "no parquet")
    refused("toy/t.parquet: table cannot be read")


def test_parquet_without_pyarrow_says_what_to_install(toy, refused, monkeypatch):
    with_table(toy, "t.parquet")
    toy.text("t.parquet", "x")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused(r"pip install 'unibiomed\[train\]'")


def test_large_tables_are_refused_before_they_are_read(toy, refused, monkeypatch):
    with_table(toy, "t.csv")
    toy.text("t.csv", "id,n\na,1\n")
    monkeypatch.setattr(tables, "MAX_TABLE_BYTES", 5)
    refused("toy/t.csv: table is larger than")


def test_rows_are_read_one_by_one(toy):
    rows = [{"id": f"{k}.png", "n": k, "unasked": "x" * 50} for k in range(5)]
    toy.entry("images", 'attributes = { n = "n" }\n[[tables]]\nfile = "t.json"\nkey = "id"\n')
    (entry,) = [entry for entry in load_catalog(toy.root) if entry.name == "toy"]
    read = tables.iter_rows(entry, entry.tables[0])
    toy.text("t.json", json.dumps(rows)[:-1] + ", x]")
    assert [next(read) for _ in rows] == rows
    with pytest.raises(DataError, match=r"toy/t\.json: cannot be read as JSON"):
        next(read)


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("t.json", '[{"id": "a", "n": 1}, 3]', "is not a list of rows"),
        ("t.json", "3", "is not a list of rows"),
        ("t.json", '{"id": []}', "is not a list of rows"),
        ("t.json", '[{"id": "a"}, {"id": ""}]', "column 'id' is missing or empty"),
        ("t.jsonl", '{"id": "a"}\n[1]\n', "is not a list of rows"),
        ("t.jsonl", '{"id": "a"}\n{"id"\n', "table cannot be read"),
        ("t.csv", "id,n\na,1\n,2\n", "column 'id' is missing or empty"),
    ],
)
def test_broken_rows_are_named(toy, refused, file, text, words):
    with_table(toy, file)
    toy.text(file, text)
    refused(f"toy/{file}.*: .*{words}")


def test_the_number_zero_is_no_empty_cell(toy):
    for name in "ab":
        toy.image(f"images/{name}.png")
    toy.entry(
        "images",
        'group = { column = "patient" }\nlabel = { column = "y", map = { 0 = "No findings", 1 = "Tumor" } }\n'
        '[[tables]]\nfile = "t.json"\nkey = "id"\n',
    )
    toy.text("t.json", json.dumps([{"id": "a", "patient": 0, "y": 0}, {"id": "b", "patient": 0, "y": 1}]))
    records = toy.read()
    assert {record.group for record in records.values()} == {"0"}
    assert [record.label for record in records.values()] == ["No findings", "Tumor"]


@pytest.mark.parametrize("adapter", ["images", "questions"])
def test_an_image_that_is_not_there_is_not_another_of_its_name(toy, refused, adapter):
    toy.image("images/train/1.png")
    toy.entry(adapter, 'images = "images/*/*"\nlabel = { column = "n" }\n[[tables]]\nfile = "t.csv"\nkey = "id"\n')
    head = "id,n,question,answer\n"
    toy.text("t.csv", f"{head}train/1.png,1,Is it?,yes\ntest/1.png,2,Is it?,no\n")
    refused("toy/t.csv: image 'test/1.png' and 'train/1' would both be 'train/1'; restore the one that is missing")
    # the same image with and without folder and ending
    toy.text("t.csv", f"{head}train/1.png,1,Is it?,yes\n1,2,Is it?,no\ntrain/1,3,Is it?,no\n")
    assert len(toy.read()) == 1
