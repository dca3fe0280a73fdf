"""A split is decided by names, never tears a group, and leaves something to train and to test on."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unibiomed.data.splits import assign_splits, join_groups, split_position
from unibiomed.errors import DataError

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)


def test_position_is_the_documented_hash() -> None:
    digest = hashlib.sha256(b"set:p1").hexdigest()
    assert split_position("set", "p1") == int(digest[:15], 16) / 16**15
    assert split_position("set", "p1") != split_position("other", "p1")


def test_shares_are_about_right() -> None:
    sides = list(assign_splits("set", {str(i): str(i) for i in range(5000)}).values())
    assert 0.18 < sides.count("test") / 5000 < 0.22
    assert 0.055 < sides.count("val") / 5000 < 0.085


@given(st.dictionaries(NAMES, NAMES, max_size=30))
def test_groups_stay_whole(groups: dict[str, str]) -> None:
    splits = assign_splits("set", groups)
    assert splits.keys() == groups.keys()
    assert len({(groups[image], split) for image, split in splits.items()}) == len(set(groups.values()))
    number = len(set(groups.values()))
    if number > 1:
        assert {"train", "test"} <= set(splits.values())
    if number < 10:
        assert "val" not in splits.values()
    assert assign_splits("set", dict(reversed(groups.items()))) == splits


@given(st.dictionaries(NAMES, NAMES, max_size=15), st.lists(st.lists(NAMES, max_size=4), max_size=5))
def test_linked_images_share_a_group(groups: dict[str, str], linked: list[list[str]]) -> None:
    joined = join_groups(groups, linked)
    assert joined.keys() == groups.keys()
    for images in linked:
        assert len({joined[image] for image in images if image in joined}) <= 1
    for one in groups:
        for two in groups:
            if groups[one] == groups[two]:
                assert joined[one] == joined[two]
    assert set(joined.values()) <= set(groups.values())


def test_joining_is_transitive_and_named_by_the_first() -> None:
    joined = join_groups({"a": "g3", "b": "g2", "c": "g1", "d": "g4"}, [["a", "b"], ["c", "b"], ["gone", "d"]])
    assert joined == {"a": "g3", "b": "g3", "c": "g3", "d": "g4"}


def test_a_new_twin_moves_no_image_of_a_listed_group() -> None:
    groups = {f"p{i}": f"p{i}" for i in range(100)}
    before = assign_splits("set", join_groups(groups, [["p7", "p8"]]))
    for new in ("a", "p70", "z"):
        after = assign_splits("set", join_groups(groups | {new: new}, [["p7", "p8", new]]))
        assert {image: after[image] for image in groups if image != new} == {
            image: side for image, side in before.items() if image != new
        }


def test_official_split_yields_to_groups() -> None:
    groups = {"a": "g", "b": "g", "c": "h", "d": "h", "e": "i"}
    official = {"a": "train", "b": "test", "c": "val", "d": "train", "e": "train"}
    expected = {"a": "test", "b": "test", "c": "val", "d": "val", "e": "train"}
    assert assign_splits("set", groups, official) == expected
    with pytest.raises(DataError, match="'e'"):
        assign_splits("set", groups, {key: value for key, value in official.items() if key != "e"})
