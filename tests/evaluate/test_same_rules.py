"""The tables have rows, the functions of `unibiomed.metrics` have lists: both go by the same rules."""

from __future__ import annotations

import math
import random
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unibiomed.evaluate.sample_scores import SampleScore
from unibiomed.evaluate.summary import summarise
from unibiomed.evaluate.trust import pair_table
from unibiomed.metrics import (
    accuracy,
    auroc,
    balanced_accuracy,
    false_findings,
    label_scores,
    paired_trust,
    substring_accuracy,
)
from unibiomed.metrics.classification import plain

near = partial(pytest.approx, abs=1e-6)
"""Tables have six digits."""
LABELS = ("Glioma", "Lower-grade glioma", "Polyp", "No findings")
ANSWER = st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS))


def named(i: int, task: str, wanted: str, said: str, **more: object) -> SampleScore:
    row = SampleScore(f"set/{i:03}#{task}", task, "set", "MRI", f"set/{i}", i, true_labels=[wanted], predicted_labels=[said], **more)
    row.exact_match, row.substring_match = plain(wanted) == plain(said), plain(wanted) in plain(said)
    return row


@given(st.lists(ANSWER, min_size=1, max_size=30))
def test_names_of_boxes(answers: list[tuple[str, str]]) -> None:
    truths, said = ([pair[side] for pair in answers] for side in (0, 1))
    table = summarise([named(i, "classify", *pair) for i, pair in enumerate(answers)])["classify"]
    assert table["strict"]["accuracy"]["value"] == near(accuracy(said, truths))
    assert table["strict"]["balanced_accuracy"]["value"] == near(balanced_accuracy(said, truths))
    assert table["published"]["accuracy"]["value"] == near(substring_accuracy(said, truths))
    scores = {name: score for name, score in label_scores(said, truths).items() if score.support}
    told = {plain(name): row for name, row in table["strict"]["per_label"].items() if name != "(other)"}
    assert told.keys() == {plain(name) for name in scores}
    for name, score in scores.items():
        row = told[plain(name)]
        assert row["count"] == score.support and row["recall"]["value"] == near(score.recall)
        assert row["f1"]["value"] == near(score.f1)
        # a table has no number that is none: a label that was never told has a precision of 0
        assert row["precision"]["value"] == near(0.0 if math.isnan(score.precision) else score.precision)


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0, 1)), min_size=1, max_size=30))
def test_findings(images: list[tuple[bool, bool, float]]) -> None:
    rows = []
    for i, (there, found, presence) in enumerate(images):
        row = named(i, "recognize", "Polyp" if there else "No findings", "Polyp" if found else "No findings")
        row.target_present, row.predicted_present, row.presence = there, found, presence
        row.intersection, row.predicted_area, row.true_area = 0, int(found), int(there)
        rows.append(row)
    strict = summarise(rows)["recognize"]["strict"]
    normal = false_findings([found for there, found, _ in images if not there])
    assert strict["false_findings"]["count"] == normal.images
    if normal.images:
        assert strict["false_findings"]["value"] == near(normal.share)
    if 0 < normal.images < len(images):
        wanted = auroc([score for *_, score in images], [there for there, *_ in images])
        assert strict["presence_auroc"]["value"] == near(wanted)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=12), st.integers(0, 5))
def test_pairs(answers: list[tuple[bool, bool]], seed: int) -> None:
    """One image with the target and one without in each data set, so that it is known which make a pair."""
    rows = []
    for i, both in enumerate(answers):
        for there, found in zip((True, False), both, strict=True):
            row = SampleScore(f"s{i}/{there}#segment/liver", "segment", f"s{i}", "CT", f"s{i}/{there}", 0, "liver", "own")
            row.target_present, row.predicted_present = there, found
            row.intersection, row.predicted_area, row.true_area = there and found, found, there
            rows.append(row)
    random.Random(seed).shuffle(rows)
    table = pair_table(rows, 0, seed)["masks"]
    wanted = paired_trust([a for a, _ in answers], [b for _, b in answers])
    assert table["set_accuracy"]["value"] == near(wanted.set_accuracy.value)
    assert table["confusion"]["value"] == near(wanted.confusion.value)
    assert table["set_accuracy"]["count"] == wanted.pairs and table["unreadable"] == wanted.unreadable
