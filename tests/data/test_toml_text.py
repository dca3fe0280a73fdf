from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unibiomed.data.toml_text import toml_text
from unibiomed.errors import DataError

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalars = words | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4), max_leaves=12
)


@given(st.dictionaries(words, values, max_size=6))
def test_toml_is_read_as_it_was_written(table: dict[str, Any]) -> None:
    assert tomllib.loads(toml_text(table)) == table


@pytest.mark.parametrize("value", [None, float("nan"), object(), {"a": {1: 2}}, "\udce4"])
def test_toml_refuses_what_it_cannot_say(value: object) -> None:
    with pytest.raises(DataError):
        toml_text({"key": value})
