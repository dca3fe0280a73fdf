from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unibiomed.data.adapters import streaming
from unibiomed.data.adapters.streaming import walk_json
from unibiomed.errors import DataError

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=30,
)


def joined(path, objects=()) -> Any:
    """What the pieces of a file say together."""
    pieces = iter(walk_json(path, "toy/t.json", objects))
    whole = next(pieces).value
    for key, part, value in pieces:
        home = whole if key is None or part is None else whole[key]
        name = key if part is None else part
        if isinstance(home, list):
            assert name == len(home)
            home.append(value)
        else:
            home[name] = value
    return whole


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=values, chunk=st.integers(1, 40), indent=st.none() | st.just(1), plain=st.booleans())
def test_pieces_say_what_the_file_says(tmp_path, monkeypatch, value, chunk, indent, plain):
    monkeypatch.setattr(streaming, "CHUNK", chunk)
    path = tmp_path / "t.json"
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=plain), encoding="utf-8")
    assert joined(path) == value
    assert joined(path, list(value) if isinstance(value, dict) else ()) == value


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_every_cut_is_noticed(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(streaming, "CHUNK", chunk)
    path = tmp_path / "t.json"
    text = '{"a": [{"b": -1.5e-3}, "\\ud83d\\ude00é", true], "c": {"d": null}}'
    for end in range(len(text)):
        path.write_text(text[:end], encoding="utf-8")
        with pytest.raises(DataError, match=r"toy/t\.json: cannot be read as JSON \(.*line 1, column"):
            joined(path, ("c",))
    path.write_text("\ufeff" + text + "\n", encoding="utf-8")
    assert joined(path) == json.loads(text)


@pytest.mark.parametrize("chunk", [1, 5, 1000])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"a": [\n{"b": 1},\n{"b" 2}\n], "z": 3}', "Expecting ':' delimiter, line 3, column 6"),
        (b'{"a": [1\n 2]}', "Expecting ',' delimiter, line 2, column 2"),
        (b"[1, 2,]", "Expecting value, line 1, column 7"),
        (b'{"a": 1,}', "Expecting property name"),
        (b"{a: 1}", "Expecting property name"),
        (b"[1] 2", "Extra data, line 1, column 5"),
        (b'{"a": [1],\n"a": [2]}', "'a' stands there twice, line 2"),
        (b"", "Expecting value, line 1, column 1"),
        (b'["\xff"]', "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_broken_is_named(tmp_path, monkeypatch, content, words, chunk):
    monkeypatch.setattr(streaming, "CHUNK", chunk if len(content) < 1000 else len(content))
    path = tmp_path / "t.json"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        joined(path)
    assert words in str(caught.value) and str(caught.value).startswith("toy/t.json: ")
    assert "\n" not in str(caught.value)


def test_folders_are_no_files(tmp_path):
    with pytest.raises(DataError, match="toy: cannot be read"):
        list(walk_json(tmp_path, "toy"))


def test_what_stands_before_a_break_is_given(tmp_path):
    path = tmp_path / "t.json"
    path.write_text('{"a": [1, 2, x]}')
    pieces = walk_json(path, "t")
    assert [next(pieces).value for _ in range(4)] == [{}, [], 1, 2]
    with pytest.raises(DataError):
        next(pieces)


def test_a_piece_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "CHUNK", 10)
    monkeypatch.setattr(streaming, "MAX_PIECE", 100)
    path = tmp_path / "t.json"
    path.write_text(json.dumps([["a" * 60], ["b" * 1000]]))
    with pytest.raises(DataError, match="a piece is longer than"):
        joined(path)


def test_memory_does_not_grow_with_the_file(tmp_path):
    path = tmp_path / "t.json"
    with path.open("w") as file:
        row = json.dumps({"id": 1, "text": "x" * 100, "numbers": list(range(100))})
        file.write('{"rows": [' + ",\n".join([row] * 10_000) + "]}")
    tracemalloc.start()
    try:
        assert sum(1 for _ in walk_json(path, "t")) == 10_002
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 4.5e6 > 2.5e6 > peak
