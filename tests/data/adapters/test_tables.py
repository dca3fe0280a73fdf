from __future__ import annotations

import json
import sys

import pytest

from unibiomed.data.adapters import tables


def with_table(toy, file, more=""):
    toy.image("images/a.png")
    toy.entry("images", f'attributes = {{ n = "n" }}\n[[tables]]\nfile = "{file}"\nkey = "id"\n{more}')


def test_rows_inside_json(toy, refused):
    with_table(toy, "t.json", 'rows = "annotations"\n')
    toy.text("t.json", json.dumps({"info": 1, "annotations": [{"id": "images/a.png", "n": 3}]}))
    assert toy.read()["a"].attributes == {"n": "3"}
    toy.text("t.json", json.dumps({"info": 1}))
    refused("toy/t.json: table is not a list of rows")


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
