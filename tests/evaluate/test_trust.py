from __future__ import annotations

import pytest

from unibiomed.evaluate.score import Row
from unibiomed.evaluate.trust import pair_table, paraphrase_table, robustness_table


def segment(name: str, *, there: bool, found: bool, kind: str = "own", failure: str | None = None, **more) -> Row:
    row = Row(f"set/{name}#segment/liver", "segment", "set", "CT", f"set/{name}", 0, "liver", kind, there=there)
    row.found, row.failure = found, failure
    row.true, row.predicted = 10 * there, 10 * found
    row.shared = 10 * (there and found)
    for key, value in more.items():
        setattr(row, key, value)
    return row


@pytest.mark.parametrize(
    ("on_present", "on_absent", "both_right", "same"),
    [(True, False, 1.0, 0.0), (True, True, 0.0, 1.0), (False, False, 0.0, 1.0), (False, True, 0.0, 0.0)],
)
def test_pairs(on_present, on_absent, both_right, same):
    rows = [segment(f"a{i}", there=True, found=on_present) for i in range(6)]
    rows += [segment(f"b{i}", there=False, found=on_absent) for i in range(4)]
    table = pair_table(rows, limit=0, seed=1)["masks"]
    assert table["set_accuracy"]["value"] == both_right
    assert table["confusion"]["value"] == same
    # each image at most once
    assert table["set_accuracy"]["count"] == 4
    assert table["questions"]["liver (set)"] == {k: v for k, v in table.items() if k != "questions"}


def test_pairs_are_limited_and_failures_are_never_right():
    rows = [segment(f"a{i}", there=True, found=True, failure="crashed") for i in range(6)]
    rows += [segment(f"b{i}", there=False, found=False) for i in range(6)]
    table = pair_table(rows, limit=2, seed=1)["masks"]
    assert table["set_accuracy"]["count"] == 2
    assert table["set_accuracy"]["value"] == 0.0 and table["unreadable"] == 2


def test_no_pairs_without_both_sides():
    assert pair_table([segment("a", there=True, found=True)], 0, 0) == {}


def test_foreign_targets_are_pairs_of_their_own():
    rows = [segment("a", there=True, found=True), segment("b", there=False, found=True, kind="foreign")]
    table = pair_table(rows, 0, 0)
    assert set(table) == {"masks_foreign"} and table["masks_foreign"]["confusion"]["value"] == 1.0


def test_robustness_compares_the_same_images():
    rows = [segment("a", there=True, found=True), segment("b", there=True, found=True)]
    changed = segment("a", there=True, found=False, change="noise", strength=2)
    changed.id += "@noise2"
    table = robustness_table([*rows, changed])
    assert table["noise"]["0"]["dice"] == table["noise"]["0"]["dice"] | {"value": 1.0, "count": 1}
    assert table["noise"]["2"]["dice"]["value"] == 0.0
    assert robustness_table(rows) == {}


def test_paraphrases():
    rows = [segment("a", there=True, found=True), segment("a", there=True, found=True, paraphrase=1, agreement=0.25)]
    table = paraphrase_table(rows)["segment"]
    assert table["agreement"]["value"] == 0.25 and table["dice_own_words"]["value"] == 1.0
