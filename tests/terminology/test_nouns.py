"""Nouns of targets."""

from __future__ import annotations

from unibiomed.terminology import find_noun, get_noun, get_target
from unibiomed.terminology.targets import read_table


def test_every_noun_belongs_to_a_target() -> None:
    for name, item in read_table("nouns.toml").items():
        assert get_target(name) is not None, name
        assert item.keys() <= {"one", "several", "counted"} and item


def test_forms() -> None:
    nucleus = get_noun("Cell nucleus")
    assert nucleus is not None and not nucleus.counted
    assert [nucleus.form(parts) for parts in (1, 2, 30)] == ["cell nucleus", *["group of cell nuclei"] * 2]
    assert find_noun("Group of cell nuclei") == find_noun("cell nucleus") == nucleus
    fluid = get_noun("macular fluid")
    assert fluid is not None and fluid.counted and fluid.form(1) == "pocket of macular fluid"
    assert get_noun("liver") is None and find_noun("liver") is None


def test_no_form_belongs_to_two_targets() -> None:
    nouns = [noun for name in read_table("nouns.toml") if (noun := get_noun(name)) is not None]
    forms = [form for noun in nouns for form in {noun.one, noun.several}]
    assert len(forms) == len(set(forms))
