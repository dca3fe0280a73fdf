"""Values of the results against independent computations."""

from __future__ import annotations

import random
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unibiomed.evaluate.sample_scores import SampleScore
from unibiomed.evaluate.summary import summarise
from unibiomed.evaluate.task_scorers import normalise_answer
from unibiomed.evaluate.trust import pair_table

near = partial(pytest.approx, abs=1e-6)
"""Results have six digits."""
LABELS = ("Glioma", "Lower-grade glioma", "Polyp", "No findings")
ANSWER = st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS))


def labelled(i: int, task: str, true: str, predicted: str, **more: object) -> SampleScore:
    score = SampleScore(
        f"set/{i:03}#{task}",
        task,
        "set",
        "MRI",
        f"set/{i}",
        i,
        true_labels=[true],
        predicted_labels=[predicted],
        **more,
    )
    a, b = normalise_answer(true), normalise_answer(predicted)
    score.exact_match, score.substring_match = a == b, a in b
    return score


@given(st.lists(ANSWER, min_size=1, max_size=30))
def test_region_classification(answers: list[tuple[str, str]]) -> None:
    true, predicted = (np.array([normalise_answer(pair[side]) for pair in answers]) for side in (0, 1))
    table = summarise([labelled(i, "classify", *pair) for i, pair in enumerate(answers)])["classify"]
    assert table["strict"]["accuracy"]["value"] == near((true == predicted).mean())
    recalls = [(predicted[true == label] == label).mean() for label in np.unique(true)]
    assert table["strict"]["balanced_accuracy"]["value"] == near(np.mean(recalls))
    contained = [t in p for t, p in zip(true, predicted, strict=True)]
    assert table["published"]["accuracy"]["value"] == near(np.mean(contained))
    labels = {normalise_answer(name): row for name, row in table["strict"]["per_label"].items() if name != "(other)"}
    assert labels.keys() == set(true)
    for label, row in labels.items():
        hits = ((true == label) & (predicted == label)).sum()
        assert row["count"] == (true == label).sum()
        assert row["recall"]["value"] == near(hits / (true == label).sum())
        assert row["precision"]["value"] == near(hits / max((predicted == label).sum(), 1))
        assert row["f1"]["value"] == near(2 * hits / ((true == label).sum() + (predicted == label).sum()))


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0, 1)), min_size=1, max_size=30))
def test_findings(images: list[tuple[bool, bool, float]]) -> None:
    scores = []
    for i, (present, predicted, presence) in enumerate(images):
        names = ("Polyp" if flag else "No findings" for flag in (present, predicted))
        score = labelled(i, "recognize", *names)
        score.target_present, score.predicted_present, score.presence = present, predicted, presence
        score.intersection, score.predicted_area, score.true_area = 0, int(predicted), int(present)
        scores.append(score)
    strict = summarise(scores)["recognize"]["strict"]
    normal = [predicted for present, predicted, _ in images if not present]
    assert strict["false_findings"]["count"] == len(normal)
    if normal:
        assert strict["false_findings"]["value"] == near(np.mean(normal))
    if 0 < len(normal) < len(images):
        positives, negatives = ([p for present, _, p in images if present == flag] for flag in (True, False))
        concordant = [(a > b) + (a == b) / 2 for a in positives for b in negatives]
        assert strict["presence_auroc"]["value"] == near(np.mean(concordant))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=12), st.integers(0, 5))
def test_pairs(answers: list[tuple[bool, bool]], seed: int) -> None:
    """Each data set has one image with the target and one without, so that the pairs are known."""
    scores = []
    for i, both in enumerate(answers):
        for present, predicted in zip((True, False), both, strict=True):
            name = f"s{i}/{present}"
            score = SampleScore(f"{name}#segment/liver", "segment", f"s{i}", "CT", name, 0, "liver", "in_context")
            score.target_present, score.predicted_present = present, predicted
            score.intersection, score.predicted_area, score.true_area = present and predicted, predicted, present
            scores.append(score)
    random.Random(seed).shuffle(scores)
    table = pair_table(scores, 0, seed)["masks"]
    assert table["set_accuracy"]["value"] == near(np.mean([a and not b for a, b in answers]))
    assert table["confusion"]["value"] == near(np.mean([a == b for a, b in answers]))
    assert table["set_accuracy"]["count"] == len(answers) and table["unreadable"] == 0
