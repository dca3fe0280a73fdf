from __future__ import annotations

from dataclasses import replace

import pytest

from unibiomed.evaluate.sample_scores import SampleScore
from unibiomed.evaluate.samples import BACKGROUND_BOX
from unibiomed.evaluate.summary import PUBLISHED_LIMIT, summarise
from unibiomed.evaluate.text_metrics import CHEST_F1


def segment(
    name: str, dice: float | None, *, target: str = "liver", target_present: bool = True, **more
) -> SampleScore:
    """Return a score with a Dice in tenths; None for an empty mask."""
    row = SampleScore(
        f"set/{name}#segment/{target}",
        "segment",
        "set",
        "CT",
        f"set/{name}",
        0,
        target,
        kind="in_context",
        target_present=target_present,
    )
    row.intersection, row.predicted_area, row.true_area = (
        round(10 * (dice or 0)),
        10 if dice is not None else 0,
        10 if target_present else 0,
    )
    row.predicted_present, row.surface_dice = dice is not None, dice or 0.0
    for key, value in more.items():
        setattr(row, key, value)
    return row


def test_strict_protocol_includes_absent_targets():
    rows = [
        segment("a", 0.8),
        segment("b", 0.4),
        segment("c", None, target_present=False),
        segment("d", 0.0, target_present=False),
    ]
    table = summarise(rows)["segment"]
    assert table["strict"]["dice"]["value"] == pytest.approx(0.6)
    # of two images without the target, one is correct (1) and one has a false mask (0)
    assert table["strict"]["dice_with_absent"]["value"] == pytest.approx((0.8 + 0.4 + 1 + 0) / 4)
    assert table["strict"]["false_masks"]["value"] == 0.5 and table["strict"]["false_masks"]["count"] == 2
    assert table["published"]["dice"]["value"] == pytest.approx(0.6)
    assert table["published"]["dice"]["count"] == 2


def test_published_protocol_uses_300_annotations():
    rows = [segment(f"{i:04}", 1.0 if i < PUBLISHED_LIMIT else 0.0) for i in range(PUBLISHED_LIMIT + 100)]
    table = summarise(rows)["segment"]
    assert table["published"]["dice"]["value"] == 1.0
    assert table["strict"]["dice"]["value"] == pytest.approx(0.75)


def test_failures_score_zero_and_are_listed():
    rows = [
        segment("a", 1.0),
        segment("b", 1.0, failure="RuntimeError: crashed"),
        segment("c", None, target_present=False),
    ]
    rows[2].failure, rows[2].predicted_present = "no prediction", True
    table = summarise(rows)
    assert table["failures"] == {"segment: RuntimeError: crashed": 1, "segment: no prediction": 1}
    assert table["segment"]["strict"]["dice"]["value"] == 0.5
    assert table["segment"]["strict"]["detected"]["value"] == 0.5
    assert table["segment"]["strict"]["false_masks"]["value"] == 1.0
    assert table["samples"] == 3


def test_target_is_detected_by_a_common_pixel():
    rows = [
        segment("a", 0.5, false_components=1),
        segment("b", 0.0, false_components=3),
        segment("c", None, false_components=0),
    ]
    strict = summarise(rows)["segment"]["strict"]
    assert strict["detected"]["value"] == strict["targets"]["liver"]["detected"]["value"] == pytest.approx(1 / 3)
    assert strict["false_components"]["value"] == pytest.approx(4 / 3)


def test_volume_dice_of_both_protocols():
    rows = [
        segment("v_1", 0.8, volume="v"),
        segment("v_2", 0.0, target_present=False, volume="v"),  # ten false pixels
        segment("w_1", 1.0, volume="w"),
        # two volumes without the target: one with a false mask, one without
        segment("x_1", 0.0, target_present=False, volume="x"),
        segment("x_2", 0.0, target_present=False, volume="x"),
        segment("y_1", None, target_present=False, volume="y"),
    ]
    table = summarise(rows)["segment"]
    assert table["strict"]["volumes"]["liver"]["value"] == pytest.approx((2 * 8 / 30 + 1 + 0 + 1) / 4)
    assert table["published"]["volumes"]["liver"]["value"] == pytest.approx((0.8 + 1) / 2)
    assert table["published"]["volumes"]["liver"]["count"] == 2


def test_object_metrics():
    rows = [
        segment("a", 1.0, object_counts=[1.0, 3, 0, 0, 2.4]),
        segment("b", None, target_present=False, object_counts=[0.0, 0, 2, 0, 0.0]),
        segment("c", None, object_counts=[0.0, 0, 0, 1, 0.0], failure="no prediction"),
        segment("d", 1.0, target="cell nucleus"),
    ]
    objects = summarise(rows)["segment"]["strict"]["objects"]
    assert list(objects) == ["liver"]
    assert objects["liver"]["aji"]["value"] == pytest.approx(0.5)
    quality = {name: objects["liver"][name] for name in ("pq", "sq", "rq")}
    assert quality["rq"]["value"] == pytest.approx(3 / (3 + 3 / 2)) and quality["sq"]["value"] == pytest.approx(0.8)
    assert quality["pq"]["value"] == pytest.approx(2.4 / (3 + 3 / 2))
    assert 0 == quality["rq"]["low"] < quality["rq"]["high"] == 1


def test_macro_mean_of_targets():
    rows = [segment(str(i), 1.0) for i in range(9)] + [segment("x", 0.0, target="polyp")]
    assert summarise(rows)["segment"]["strict"]["dice"]["value"] == pytest.approx(0.5)


def label(name: str, true: list[str], predicted: list[str], *, substring_match: bool = False, **more) -> SampleScore:
    row = SampleScore(
        f"set/{name}#recognize",
        "recognize",
        "set",
        "CT",
        f"set/{name}",
        0,
        true_labels=true,
        predicted_labels=predicted,
    )
    row.target_present, row.predicted_present = true != ["No findings"], predicted != ["No findings"]
    row.exact_match, row.substring_match = sorted(true) == sorted(predicted), substring_match or true == predicted
    row.intersection = row.predicted_area = row.true_area = 0
    for key, value in more.items():
        setattr(row, key, value)
    return row


def test_recognition():
    rows = [
        label("a", ["Polyp"], ["Polyp"]),
        label("b", ["Polyp"], ["Polyp with stalk"], substring_match=True),
        label("c", ["No findings"], ["Polyp"]),
        label("d", ["No findings"], ["No findings"]),
        label("e", ["Glioma"], ["No findings"]),
    ]
    table = summarise(rows)["recognize"]
    assert table["strict"]["accuracy"]["value"] == pytest.approx(2 / 5)
    # without normal images
    assert table["published"]["accuracy"]["value"] == pytest.approx(2 / 3)
    assert table["strict"]["balanced_accuracy"]["value"] == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)
    assert table["strict"]["false_findings"]["value"] == 0.5
    assert table["strict"]["missed"]["value"] == pytest.approx(1 / 3)
    polyp = table["strict"]["per_label"]["Polyp"]
    assert (polyp["precision"]["value"], polyp["recall"]["value"], polyp["count"]) == (0.5, 0.5, 2)
    assert polyp["recall"]["low"] == 0 and polyp["recall"]["high"] == 1
    # predicted in two images, true in two, both in one
    assert polyp["f1"]["value"] == pytest.approx(2 * 1 / 4)
    assert table["strict"]["per_label"]["Glioma"]["recall"]["value"] == 0.0
    assert table["strict"]["per_label"]["(other)"]["predicted"] == 1


def test_f1_of_zero_or_one_has_an_interval():
    """The interval follows from Clopper and Pearson's for the proportion of correct labels."""
    rows = [label(f"g{i}", ["Glioma"], ["Glioma"]) for i in range(4)]
    rows += [label(f"p{i}", ["Polyp"], ["No findings"]) for i in range(4)]
    labels = summarise(rows)["recognize"]["strict"]["per_label"]
    glioma, polyp = labels["Glioma"]["f1"], labels["Polyp"]["f1"]
    least = 0.025**0.25
    assert (glioma["value"], glioma["high"]) == (1, 1)
    assert glioma["low"] == pytest.approx(2 * least / (1 + least), abs=1e-6)
    assert (polyp["low"], polyp["value"]) == (0, 0)
    assert polyp["high"] == pytest.approx(2 * (1 - least) / (2 - least), abs=1e-6)


def test_zero_false_findings_have_an_interval():
    rows = [label(f"n{i}", ["No findings"], ["No findings"]) for i in range(23)]
    assert summarise(rows)["recognize"]["strict"]["false_findings"]["high"] == pytest.approx(0.148, abs=1e-3)


def test_confusion_and_labels():
    rows = [
        label("a", ["Polyp"], ["Polyp"]),
        label("b", ["Polyp"], ["polyp."]),
        label("c", ["Polyp"], ["Polyp with stalk"]),
        label("d", ["No findings"], ["Polyp"]),
        label("e", ["No findings"], ["No findings"], failure="no memory"),
        label("f", ["No findings"], ["Polyp"], perturbation="blur", strength=1),
        label("g", ["No findings"], ["Polyp"], paraphrase=1),
    ]
    expected = {
        "No findings": {"(failure)": 1, "Polyp": 1},
        "Polyp": {"Polyp": 2, "(other)": 1},
    }
    assert summarise(rows)["recognize"]["strict"]["confusion"] == expected
    for row in rows:
        row.task = "classify"
    assert summarise(rows)["classify"]["strict"]["confusion"] == expected


def test_background_boxes_are_counted_separately():
    def box(name, true, predicted, kind=""):
        right = true == predicted
        return SampleScore(
            f"set/{name}#classify/0", "classify", "set", "CT", f"set/{name}", 0, "", kind,
            true_labels=[true], predicted_labels=[predicted], exact_match=right, substring_match=right,
        )  # fmt: skip

    regions = [box("a", "liver", "liver"), box("b", "liver", "Something else."), box("c", "kidney", "kidney")]
    regions.append(box("d", "kidney", "kidney"))
    background = [
        box("e", "something else", "something else", BACKGROUND_BOX),
        box("f", "something else", "liver", BACKGROUND_BOX),
    ]
    alone, both = summarise(regions)["classify"], summarise(regions + background)["classify"]
    added = {"background_accuracy": 0.5, "accuracy_with_background": 4 / 6, "called_background": 0.25}
    assert {name: both["strict"].pop(name)["value"] for name in added} == pytest.approx(added)
    # the accuracy of regions does not change
    assert both == alone


def test_published_recognition_uses_300_abnormal_images():
    normal = [label(f"n{i}", ["No findings"], ["Polyp"]) for i in range(PUBLISHED_LIMIT)]
    rows = [label(f"{i:04}", ["Polyp"], ["Polyp" if i < PUBLISHED_LIMIT else "Cyst"]) for i in range(400)]
    table = summarise(normal + rows)["recognize"]["published"]
    assert table["accuracy"]["value"] == 1.0 and table["accuracy"]["count"] == PUBLISHED_LIMIT
    # region classification has no normal images
    classes = [
        SampleScore(f"set/{i}#classify/0", "classify", "set", "CT", "set/a", i, substring_match=i < 300)
        for i in range(400)
    ]
    assert summarise(classes)["classify"]["published"]["accuracy"]["value"] == 1.0


def test_published_questions_use_the_first_300():
    rows = [
        SampleScore(
            f"set/{i}#ask/0",
            "ask",
            "set",
            "CT",
            f"set/{i}",
            i,
            kind="closed",
            exact_match=True,
            substring_match=i < 300,
        )
        for i in range(400)
    ]
    closed = summarise(rows)["ask"]["closed"]
    assert closed["accuracy"]["count"] == 400
    assert closed["accuracy_published"]["value"] == 1.0 and closed["accuracy_published"]["count"] == 300


def test_published_dice_by_modality_and_dataset():
    rows = [
        segment("a", 1.0),
        segment("b", 0.5, modality="MRI", dataset="other"),
        segment("c", None, target_present=False),
    ]
    published = summarise(rows)["segment"]["published"]
    assert {name: part["dice"]["value"] for name, part in published["modalities"].items()} == {"CT": 1.0, "MRI": 0.5}
    assert {name: part["dice"]["count"] for name, part in published["datasets"].items()} == {"other": 1, "set": 1}


def test_mask_with_a_wrong_label_scores_zero():
    rows = [label("a", ["Polyp"], ["Polyp"]), label("b", ["Polyp"], ["Cyst"]), label("c", ["No findings"], ["Cyst"])]
    for row, pixels in zip(rows, (10, 10, 0), strict=True):
        row.intersection = row.predicted_area = row.true_area = pixels
    rows.append(label("d", ["No findings"], ["No findings"]))
    strict = summarise(rows)["recognize"]["strict"]
    assert strict["dice"]["value"] == 1.0 and strict["dice_correct_label"]["value"] == pytest.approx(2 / 4)


def test_presence_auroc_of_recognition():
    rows = [
        label("a", ["Polyp"], ["Polyp"]),
        label("b", ["Polyp"], ["No findings"]),
        label("c", ["No findings"], ["Polyp"]),
        label("d", ["No findings"], ["No findings"]),
    ]
    assert "presence_auroc" not in summarise(rows)["recognize"]["strict"]
    rows[0].presence, rows[2].presence = 0.9, 0.3
    # of four pairs, two are concordant, one is discordant, one is a tie
    assert summarise(rows)["recognize"]["strict"]["presence_auroc"]["value"] == pytest.approx(2.5 / 4)
    rows[1].failure, rows[1].predicted_present = "no prediction", False
    rows[3].failure, rows[3].predicted_present = "no prediction", True
    assert summarise(rows)["recognize"]["strict"]["presence_auroc"]["value"] == pytest.approx(1 / 4)
    assert "presence_auroc" not in summarise(rows[:2])["recognize"]["strict"]


def test_scores_in_context_and_overall():
    rows = [
        segment("a", 1.0, presence=0.9, mask_score=0.9),
        segment("b", None, target_present=False, presence=0.95, mask_score=0.5),
        segment("c", None, target_present=False, presence=0.05, mask_score=0.5, kind="out_of_context"),
        segment("d", 0.5, failure="crashed"),
    ]
    scores = summarise(rows)["segment"]["scores"]
    # the failure counts as confidently wrong: one of four pairs is concordant
    assert scores["presence"]["auroc"]["value"] == 0.25 and scores["presence"]["count"] == 4
    assert scores["presence_in_context"]["auroc"]["value"] == 0.0 and scores["presence_in_context"]["count"] == 3
    assert scores["presence"]["reliability"] == [[pytest.approx(0.025), 0.5, 2], [pytest.approx(0.925), 0.5, 2]]
    # the most confident mask and the empty one are correct; the failure is last
    assert scores["risk"]["aurc"]["value"] == pytest.approx((0 + 0 + 1 / 3) / 3) and scores["risk"]["count"] == 3
    assert scores["mask"]["count"] == 1
    assert "presence" not in summarise([segment("a", 1.0), rows[1], rows[3]][::2])["segment"]["scores"]
    # the presence score alone gives a confidence
    for row in rows:
        row.mask_score = None
    assert summarise(rows)["segment"]["scores"].keys() == {"presence", "presence_in_context", "risk"}


def test_perturbed_images_and_paraphrases_are_excluded():
    rows = [segment("a", 1.0), segment("a", 0.0, perturbation="noise", strength=3), segment("a", 0.0, paraphrase=1)]
    assert summarise(rows)["segment"]["strict"]["dice"]["count"] == 1


def report(name: str, answer: str, reference: str, *, modality: str = "X-ray") -> SampleScore:
    return SampleScore(
        f"set/{name}#report",
        "report",
        "set",
        modality,
        f"set/{name}",
        0,
        answer=answer,
        reference=reference,
        exact_match=False,
    )


def test_chest_f1_uses_references_with_findings():
    rows = [
        report("a", "There is a pleural effusion.", "There is a pleural effusion. No pneumothorax."),
        report("b", "The lungs are clear. No pneumothorax.", "Cardiomegaly."),
        # no chest X-ray, or no finding in the reference
        report("c", "Cardiomegaly.", "A fracture of the wrist.", modality="CT"),
        report("d", "Cardiomegaly.", "The knee."),
    ]
    # one match; "No Finding" is wrong, cardiomegaly is missed
    assert summarise(rows)["report"]["strict"][CHEST_F1] == pytest.approx(2 / 4)
    assert CHEST_F1 not in summarise(rows[2:])["report"]["strict"]


def test_chest_f1_is_for_reports_only():
    rows = [replace(report("a", "Airways.", "Consolidation."), id="set/a#describe/0", task="describe")]
    assert CHEST_F1 not in summarise(rows)["describe"]["strict"]


def test_failed_report_has_no_finding():
    rows = [report("a", "Cardiomegaly.", "Cardiomegaly."), report("b", "", "Cardiomegaly.")]
    rows[1].failure = "no prediction"
    assert summarise(rows)["report"]["strict"][CHEST_F1] == pytest.approx(2 / 3)


def test_order_of_labels_does_not_matter():
    rows = [
        label("a", ["Consolidation", "Ground-glass opacity"], ["Consolidation", "Ground-glass opacity"]),
        label("b", ["Ground-glass opacity", "Consolidation"], ["Consolidation"]),
        label("c", ["Polyp"], ["Polyp"]),
    ]
    strict = summarise(rows)["recognize"]["strict"]
    assert strict["balanced_accuracy"]["value"] == pytest.approx((1 / 2 + 1) / 2)
    assert strict["labels"]["Consolidation + Ground-glass opacity"]["accuracy"]["count"] == 2
    assert list(strict["labels"]) == list(strict["confusion"])


def test_presence_is_not_evaluated_with_true_box():
    rows = [
        segment("v_1", 0.8, volume="v", mask_score=0.7),
        segment("v_2", None, target_present=False, volume="v"),
        segment("w", None, target_present=False, kind="out_of_context"),
    ]
    for row in rows:
        row.true_box = True
    table = summarise(rows)["segment"]
    strict = table["strict"]
    assert strict["dice"]["value"] == strict["targets"]["liver"]["dice"]["value"] == 0.8
    for key in ("dice_with_absent", "false_masks", "false_masks_out_of_context", "false_components"):
        assert strict[key]["value"] is None and strict["targets"]["liver"].get(key, strict[key])["value"] is None
    # over all slices, empty ones would be correct by construction
    assert "volumes" not in strict and table["published"]["volumes"]["liver"]["value"] == 0.8
    assert table["scores"].keys() == {"mask"}


def test_unmeasured_distances_are_counted():
    rows = [segment("a", 0.5, spacing_known=True, hd95=4.0), segment("b", 0.0, spacing_known=True, failure="broken")]
    distance = summarise(rows)["segment"]["strict"]["targets"]["liver"]["hd95_mm"]
    assert (distance["value"], distance["count"], distance["unmeasured"]) == (4.0, 1, 1)
