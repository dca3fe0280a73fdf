from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from unibiomed.evaluate.sample_scores import SampleScore
from unibiomed.evaluate.trust import pair_table, paraphrase_table, robustness_table
from unibiomed.metrics.intervals import dyadic_proportion, upper_bound_of_zero


def segment(
    name: str,
    *,
    target_present: bool,
    predicted_present: bool,
    kind: str = "in_context",
    failure: str | None = None,
    **more,
) -> SampleScore:
    row = SampleScore(
        f"set/{name}#segment/liver",
        "segment",
        "set",
        "CT",
        f"set/{name}",
        0,
        "liver",
        kind,
        target_present=target_present,
    )
    row.predicted_present, row.failure = predicted_present, failure
    row.true_area, row.predicted_area = 10 * target_present, 10 * predicted_present
    row.intersection = 10 * (target_present and predicted_present)
    for key, value in more.items():
        setattr(row, key, value)
    return row


@pytest.mark.parametrize(
    ("on_present", "on_absent", "both_correct", "same"),
    [(True, False, 1.0, 0.0), (True, True, 0.0, 1.0), (False, False, 0.0, 1.0), (False, True, 0.0, 0.0)],
)
def test_pairs(on_present, on_absent, both_correct, same):
    rows = [segment(f"a{i}", target_present=True, predicted_present=on_present) for i in range(6)]
    rows += [segment(f"b{i}", target_present=False, predicted_present=on_absent) for i in range(4)]
    table = pair_table(rows, limit=0, seed=1)["masks"]
    assert table["set_accuracy"]["value"] == both_correct
    assert table["confusion"]["value"] == same
    # each image is used at most once
    assert table["set_accuracy"]["count"] == 4
    assert table["questions"]["liver (set)"] == {k: v for k, v in table.items() if k != "questions"}


def test_disjoint_mask_is_correct_but_not_strictly():
    rows = [segment(f"a{i}", target_present=True, predicted_present=True, intersection=10 * (i < 2)) for i in range(4)]
    rows += [segment(f"b{i}", target_present=False, predicted_present=False) for i in range(4)]
    table = pair_table(rows, limit=0, seed=1)["masks"]
    assert (table["set_accuracy"]["value"], table["set_accuracy_strict"]["value"]) == (1.0, 0.5)


def test_wrong_finding_is_correct_but_not_strictly():
    rows = [
        SampleScore(
            f"set/{i}#recognize",
            "recognize",
            "set",
            "CT",
            f"set/{i}",
            0,
            target_present=i < 4,
            predicted_present=i < 4,
            exact_match=i != 0,
        )
        for i in range(8)
    ]
    table = pair_table(rows, limit=0, seed=1)["text"]
    assert (table["set_accuracy"]["value"], table["set_accuracy_strict"]["value"]) == (1.0, 0.75)


def test_predictors_with_true_box_have_no_pairs():
    rows = [
        segment("a", target_present=True, predicted_present=True, true_box=True),
        segment("b", target_present=False, predicted_present=False, true_box=True),
    ]
    assert pair_table(rows, 0, 0) == {}


def test_pairs_are_limited_and_failures_are_wrong():
    rows = [segment(f"a{i}", target_present=True, predicted_present=True, failure="crashed") for i in range(6)]
    rows += [segment(f"b{i}", target_present=False, predicted_present=False) for i in range(6)]
    table = pair_table(rows, limit=2, seed=1)["masks"]
    assert table["set_accuracy"]["count"] == 2
    assert table["set_accuracy"]["value"] == 0.0 and table["unreadable"] == 2


def test_empty_answer_is_unreadable():
    there, absent = (segment(name, target_present=name == "a", predicted_present=False) for name in "ab")
    there.task = absent.task = "recognize"
    there.predicted_labels, there.true_labels, absent.predicted_labels, absent.true_labels = (
        [],
        ["Cyst"],
        ["No findings"],
        ["No findings"],
    )
    table = pair_table([there, absent], 0, 1)["text"]
    assert table["set_accuracy"]["value"] == table["confusion"]["value"] == 0.0 and table["unreadable"] == 1


def test_pairs_need_images_with_and_without_the_target():
    assert pair_table([segment("a", target_present=True, predicted_present=True)], 0, 0) == {}


def test_out_of_context_pairs_are_separate():
    rows = [
        segment("a", target_present=True, predicted_present=True),
        segment("b", target_present=False, predicted_present=True, kind="out_of_context"),
    ]
    table = pair_table(rows, 0, 0)
    assert set(table) == {"masks_out_of_context"} and table["masks_out_of_context"]["confusion"]["value"] == 1.0


def test_robustness_uses_the_same_images():
    rows = [
        segment("a", target_present=True, predicted_present=True),
        segment("b", target_present=True, predicted_present=True),
    ]
    changed = segment("a", target_present=True, predicted_present=False, perturbation="noise", strength=2)
    changed.id += "@noise2"
    table = robustness_table([*rows, changed])
    assert table["noise"]["0"]["dice"] == table["noise"]["0"]["dice"] | {"value": 1.0, "count": 1}
    assert table["noise"]["2"]["dice"]["value"] == 0.0
    assert robustness_table(rows) == {}


def perturbed(row: SampleScore, name: str, strength: int, **more) -> SampleScore:
    return replace(row, id=f"{row.id}@{name}{strength}", perturbation=name, strength=strength, **more)


def test_cropped_targets_are_left_out_at_every_strength():
    a, b = (
        segment("a", target_present=True, predicted_present=True),
        segment("b", target_present=True, predicted_present=False),
    )
    absent = segment("c", target_present=False, predicted_present=False)
    rows = [a, b, absent, *(perturbed(a, "crop", s) for s in (1, 2)), perturbed(b, "crop", 1)]
    rows.append(perturbed(b, "crop", 2, target_present=False, true_area=0, predicted_present=True, predicted_area=10))
    rows += [perturbed(absent, "crop", s, predicted_present=s == 2) for s in (1, 2)]
    table = robustness_table(rows)["crop"]
    assert list(table) == ["0", "1", "2"]
    # b is cropped out at strength 2, so it is left out at every strength
    assert [(level["dice"]["value"], level["dice"]["count"]) for level in table.values()] == [(1.0, 1)] * 3
    assert [(v["false_masks"]["value"], v["false_masks"]["count"]) for v in table.values()] == [(0, 1), (0, 1), (1, 1)]


def test_lateral_targets_are_left_out_of_flips():
    names = ["left lung", "right lung", "Left Kidney", "right kidney", "left ventricle", "right ventricle"]
    names += ["left breast", "liver"]
    rows = [
        replace(segment("a", target_present=True, predicted_present=True), id=f"a#{name}", target=name)
        for name in names
    ]
    rows += [perturbed(row, change, 1) for row in rows for change in ("flip", "blur")]
    table = robustness_table(rows)
    assert table["blur"]["1"]["dice"]["count"] == 8
    # ventricles do not depend on the side, and there is no right breast in the data
    assert table["flip"]["1"]["dice"]["count"] == 4
    assert set(robustness_table([r for r in rows if r.target in names[:4]])) == {"blur"}


def test_lateral_findings_are_left_out_of_flips():
    plain = SampleScore(
        "a#recognize", "recognize", "set", "CT", "set/a", 0, true_labels=["Left lung", "Right lung"], exact_match=True
    )
    assert set(robustness_table([plain, perturbed(plain, "flip", 1), perturbed(plain, "noise", 1)])) == {"noise"}


def test_pairs_that_share_a_subject_are_correlated():
    values = [1.0, 1.0, 0.0, 0.0] * 4
    apart = dyadic_proportion(values, [(f"a{i}", f"b{i}") for i in range(16)])
    # no pair shares a subject: the standard error of the mean
    assert apart.value == 0.5 and apart.subjects == 32
    assert apart.high - 0.5 == pytest.approx(1.96 * 0.5 / 4)
    first = dyadic_proportion(values, [(f"a{i % 4}", f"b{i}") for i in range(16)])
    second = dyadic_proportion(values, [(f"a{i}", f"b{i % 4}") for i in range(16)])
    within = dyadic_proportion(values, [(f"a{i % 4}", f"a{i % 4}") for i in range(16)])
    # four subjects with identical values: equivalent to four pairs
    for found in (first, second, within):
        assert found.high - 0.5 == pytest.approx(min(0.5, 1.96 * 0.5 / 2))
    assert math.isnan(dyadic_proportion([1.0, 0.0], [("a", "b"), ("b", "a")]).low)


def test_proportion_of_zero_or_one_has_an_exact_bound():
    found = dyadic_proportion([0.0] * 8, [(f"a{i}", f"b{i}") for i in range(8)])
    assert (found.low, found.high) == (0, pytest.approx(upper_bound_of_zero(8)))
    found = dyadic_proportion([1.0] * 8, [(f"a{i}", f"b{i % 4}") for i in range(8)])
    assert (found.low, found.high) == (pytest.approx(1 - upper_bound_of_zero(4)), 1)


def test_interval_of_pairs_has_its_coverage():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        left, right = rng.normal(size=60), rng.normal(size=60)
        pairs = [(int(a), int(b)) for a, b in rng.integers(0, 60, (200, 2))]
        values = [float(left[a] + right[b] + rng.normal() > 0) for a, b in pairs]
        found = dyadic_proportion(values, [(f"a{a}", f"b{b}") for a, b in pairs])
        covered += found.low <= 0.5 <= found.high
    assert 0.9 <= covered / 300 <= 0.98


def test_paraphrases():
    rows = [
        segment("a", target_present=True, predicted_present=True),
        segment("a", target_present=True, predicted_present=True, paraphrase=1, agreement=0.25),
    ]
    table = paraphrase_table(rows)["segment"]
    assert table["agreement"]["value"] == 0.25 and table["dice_original"]["value"] == 1.0
