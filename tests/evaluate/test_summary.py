from __future__ import annotations

from dataclasses import replace

import pytest

from unibiomed.evaluate.sample_scores import SampleScore
from unibiomed.evaluate.samples import BACKGROUND_BOX
from unibiomed.evaluate.summary import PUBLISHED_LIMIT, summarise
from unibiomed.evaluate.text_metrics import CHEST


def segment(name: str, dice: float | None, *, target: str = "liver", there: bool = True, **more) -> SampleScore:
    """A row with a Dice of tenths; None for an empty mask."""
    row = SampleScore(f"set/{name}#segment/{target}", "segment", "set", "CT", f"set/{name}", 0, target, kind="own", target_present=there)
    row.intersection, row.predicted_area, row.true_area = (round(10 * (dice or 0)), 10 if dice is not None else 0, 10 if there else 0)
    row.predicted_present, row.surface_dice = dice is not None, dice or 0.0
    for key, value in more.items():
        setattr(row, key, value)
    return row


def test_strict_counts_what_the_published_protocol_leaves_out():
    rows = [segment("a", 0.8), segment("b", 0.4), segment("c", None, target_present=False), segment("d", 0.0, target_present=False)]
    table = summarise(rows)["segment"]
    assert table["strict"]["dice"]["value"] == pytest.approx(0.6)
    # of two images without the target one is right (1), one has a false mask (0)
    assert table["strict"]["dice_with_absent"]["value"] == pytest.approx((0.8 + 0.4 + 1 + 0) / 4)
    assert table["strict"]["false_masks"]["value"] == 0.5 and table["strict"]["false_masks"]["count"] == 2
    assert table["published"]["dice"]["value"] == pytest.approx(0.6)
    assert table["published"]["dice"]["count"] == 2


def test_published_stops_after_300_annotations():
    rows = [segment(f"{i:04}", 1.0 if i < PUBLISHED_LIMIT else 0.0) for i in range(PUBLISHED_LIMIT + 100)]
    table = summarise(rows)["segment"]
    assert table["published"]["dice"]["value"] == 1.0
    assert table["strict"]["dice"]["value"] == pytest.approx(0.75)


def test_a_failure_scores_nothing_and_is_named():
    rows = [segment("a", 1.0), segment("b", 1.0, failure="RuntimeError: crashed"), segment("c", None, target_present=False)]
    rows[2].failure, rows[2].predicted_present = "no prediction", True
    table = summarise(rows)
    assert table["failures"] == {"segment: RuntimeError: crashed": 1, "segment: no prediction": 1}
    assert table["segment"]["strict"]["dice"]["value"] == 0.5
    assert table["segment"]["strict"]["detected"]["value"] == 0.5
    assert table["segment"]["strict"]["false_masks"]["value"] == 1.0
    assert table["samples"] == 3


def test_a_target_is_detected_where_a_pixel_is_shared():
    rows = [segment("a", 0.5, false_components=1), segment("b", 0.0, false_components=3), segment("c", None, false_components=0)]
    strict = summarise(rows)["segment"]["strict"]
    assert strict["detected"]["value"] == strict["targets"]["liver"]["detected"]["value"] == pytest.approx(1 / 3)
    assert strict["false_parts"]["value"] == pytest.approx(4 / 3)


def test_volume_dice_over_all_slices_and_as_published():
    rows = [
        segment("v_1", 0.8, volume="v"),
        segment("v_2", 0.0, target_present=False, volume="v"),  # ten false pixels
        segment("w_1", 1.0, volume="w"),
        # two volumes without the target: one full of false pixels, one rightly empty
        segment("x_1", 0.0, target_present=False, volume="x"),
        segment("x_2", 0.0, target_present=False, volume="x"),
        segment("y_1", None, target_present=False, volume="y"),
    ]
    table = summarise(rows)["segment"]
    assert table["strict"]["volumes"]["liver"]["value"] == pytest.approx((2 * 8 / 30 + 1 + 0 + 1) / 4)
    assert table["published"]["volumes"]["liver"]["value"] == pytest.approx((0.8 + 1) / 2)
    assert table["published"]["volumes"]["liver"]["count"] == 2


def test_objects_are_counted_on_every_image():
    rows = [
        segment("a", 1.0, objects=[1.0, 3, 0, 0, 2.4]),
        segment("b", None, target_present=False, objects=[0.0, 0, 2, 0, 0.0]),
        segment("c", None, objects=[0.0, 0, 0, 1, 0.0], failure="no prediction"),
        segment("d", 1.0, target="cell nucleus"),
    ]
    objects = summarise(rows)["segment"]["strict"]["objects"]
    assert list(objects) == ["liver"]
    assert objects["liver"]["aji"]["value"] == pytest.approx(0.5)
    quality = {name: objects["liver"][name] for name in ("pq", "sq", "rq")}
    assert quality["rq"]["value"] == pytest.approx(3 / (3 + 3 / 2)) and quality["sq"]["value"] == pytest.approx(0.8)
    assert quality["pq"]["value"] == pytest.approx(2.4 / (3 + 3 / 2))
    assert 0 == quality["rq"]["low"] < quality["rq"]["high"] == 1


def test_a_mean_of_targets():
    rows = [segment(str(i), 1.0) for i in range(9)] + [segment("x", 0.0, target="polyp")]
    assert summarise(rows)["segment"]["strict"]["dice"]["value"] == pytest.approx(0.5)


def label(name: str, wanted: list[str], said: list[str], *, substring: bool = False, **more) -> SampleScore:
    row = SampleScore(f"set/{name}#recognize", "recognize", "set", "CT", f"set/{name}", 0, true_labels=wanted, predicted_labels=said)
    row.target_present, row.predicted_present = wanted != ["No findings"], said != ["No findings"]
    row.exact_match, row.substring_match = sorted(wanted) == sorted(said), substring or wanted == said
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
    # the normal images are left out
    assert table["published"]["accuracy"]["value"] == pytest.approx(2 / 3)
    assert table["strict"]["balanced_accuracy"]["value"] == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)
    assert table["strict"]["false_findings"]["value"] == 0.5
    assert table["strict"]["missed"]["value"] == pytest.approx(1 / 3)
    polyp = table["strict"]["per_label"]["Polyp"]
    assert (polyp["precision"]["value"], polyp["recall"]["value"], polyp["count"]) == (0.5, 0.5, 2)
    assert polyp["recall"]["low"] == 0 and polyp["recall"]["high"] == 1
    # an answer is a polyp in two of five images, the truth in two, both in one
    assert polyp["f1"]["value"] == pytest.approx(2 * 1 / 4)
    assert table["strict"]["per_label"]["Glioma"]["recall"]["value"] == 0.0
    assert table["strict"]["per_label"]["(other)"]["said"] == 1


def test_f1_of_all_right_or_all_wrong_has_an_interval():
    """That of the share that is right, of what the truth or the answer names: Clopper and Pearson's at its ends."""
    rows = [label(f"g{i}", ["Glioma"], ["Glioma"]) for i in range(4)]
    rows += [label(f"p{i}", ["Polyp"], ["No findings"]) for i in range(4)]
    labels = summarise(rows)["recognize"]["strict"]["per_label"]
    glioma, polyp = labels["Glioma"]["f1"], labels["Polyp"]["f1"]
    least = 0.025**0.25
    assert (glioma["value"], glioma["high"]) == (1, 1)
    assert glioma["low"] == pytest.approx(2 * least / (1 + least), abs=1e-6)
    assert (polyp["low"], polyp["value"]) == (0, 0)
    assert polyp["high"] == pytest.approx(2 * (1 - least) / (2 - least), abs=1e-6)


def test_no_false_finding_of_some_images_is_no_proof_that_there_are_none():
    rows = [label(f"n{i}", ["No findings"], ["No findings"]) for i in range(23)]
    assert summarise(rows)["recognize"]["strict"]["false_findings"]["high"] == pytest.approx(0.148, abs=1e-3)


def test_what_each_label_was_called():
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


def test_boxes_around_something_else_are_counted_apart():
    def box(name, wanted, said, kind=""):
        right = wanted == said
        return SampleScore(
            f"set/{name}#classify/0", "classify", "set", "CT", f"set/{name}", 0, "", kind,
            true_labels=[wanted], predicted_labels=[said], exact_match=right, substring_match=right,
        )  # fmt: skip

    named = [box("a", "liver", "liver"), box("b", "liver", "Something else."), box("c", "kidney", "kidney")]
    named.append(box("d", "kidney", "kidney"))
    others = [box("e", "something else", "something else", BACKGROUND_BOX), box("f", "something else", "liver", BACKGROUND_BOX)]
    alone, both = summarise(named)["classify"], summarise(named + others)["classify"]
    added = {"elsewhere": 0.5, "accuracy_with_elsewhere": 4 / 6, "named_called_elsewhere": 0.25}
    assert {name: both["strict"].pop(name)["value"] for name in added} == pytest.approx(added)
    # the accuracy on boxes around a region stays what it was
    assert both == alone


def test_published_recognition_stops_after_300_images_with_a_finding():
    normal = [label(f"n{i}", ["No findings"], ["Polyp"]) for i in range(PUBLISHED_LIMIT)]
    rows = [label(f"{i:04}", ["Polyp"], ["Polyp" if i < PUBLISHED_LIMIT else "Cyst"]) for i in range(400)]
    table = summarise(normal + rows)["recognize"]["published"]
    assert table["accuracy"]["value"] == 1.0 and table["accuracy"]["count"] == PUBLISHED_LIMIT
    # region classes have no normal images
    classes = [SampleScore(f"set/{i}#classify/0", "classify", "set", "CT", "set/a", i, substring_match=i < 300) for i in range(400)]
    assert summarise(classes)["classify"]["published"]["accuracy"]["value"] == 1.0


def test_published_questions_stop_after_300():
    rows = [
        SampleScore(f"set/{i}#ask/0", "ask", "set", "CT", f"set/{i}", i, kind="closed", exact_match=True, substring_match=i < 300)
        for i in range(400)
    ]
    closed = summarise(rows)["ask"]["closed"]
    assert closed["accuracy"]["count"] == 400
    assert closed["accuracy_published"]["value"] == 1.0 and closed["accuracy_published"]["count"] == 300


def test_published_dice_by_modality_and_dataset():
    rows = [segment("a", 1.0), segment("b", 0.5, modality="MRI", dataset="other"), segment("c", None, target_present=False)]
    published = summarise(rows)["segment"]["published"]
    assert {name: part["dice"]["value"] for name, part in published["modalities"].items()} == {"CT": 1.0, "MRI": 0.5}
    assert {name: part["dice"]["count"] for name, part in published["datasets"].items()} == {"other": 1, "set": 1}


def test_a_right_outline_under_a_wrong_finding_is_no_labelled_one():
    rows = [label("a", ["Polyp"], ["Polyp"]), label("b", ["Polyp"], ["Cyst"]), label("c", ["No findings"], ["Cyst"])]
    for row, pixels in zip(rows, (10, 10, 0), strict=True):
        row.intersection = row.predicted_area = row.true_area = pixels
    rows.append(label("d", ["No findings"], ["No findings"]))
    strict = summarise(rows)["recognize"]["strict"]
    assert strict["dice"]["value"] == 1.0 and strict["dice_labelled"]["value"] == pytest.approx(2 / 4)


def test_presence_of_a_finding_ranks_images():
    rows = [
        label("a", ["Polyp"], ["Polyp"]),
        label("b", ["Polyp"], ["No findings"]),
        label("c", ["No findings"], ["Polyp"]),
        label("d", ["No findings"], ["No findings"]),
    ]
    assert "presence_auroc" not in summarise(rows)["recognize"]["strict"]
    rows[0].presence, rows[2].presence = 0.9, 0.3
    # of four pairs two are right, one is wrong, one is a tie at 0
    assert summarise(rows)["recognize"]["strict"]["presence_auroc"]["value"] == pytest.approx(2.5 / 4)
    rows[1].failure, rows[1].predicted_present = "no prediction", False
    rows[3].failure, rows[3].predicted_present = "no prediction", True
    assert summarise(rows)["recognize"]["strict"]["presence_auroc"]["value"] == pytest.approx(1 / 4)
    assert "presence_auroc" not in summarise(rows[:2])["recognize"]["strict"]


def test_scores_of_own_targets_and_of_all():
    rows = [
        segment("a", 1.0, presence=0.9, mask_score=0.9),
        segment("b", None, target_present=False, presence=0.95, mask_score=0.5),
        segment("c", None, target_present=False, presence=0.05, mask_score=0.5, kind="foreign"),
        segment("d", 0.5, failure="crashed"),
    ]
    scores = summarise(rows)["segment"]["scores"]
    # the failure is surely wrong: of four pairs one is right
    assert scores["presence"]["auroc"]["value"] == 0.25 and scores["presence"]["count"] == 4
    assert scores["presence_own"]["auroc"]["value"] == 0.0 and scores["presence_own"]["count"] == 3
    assert scores["presence"]["reliability"] == [[pytest.approx(0.025), 0.5, 2], [pytest.approx(0.925), 0.5, 2]]
    # the surest mask is right, so is the empty one; the failure comes last
    assert scores["risk"]["aurc"]["value"] == pytest.approx((0 + 0 + 1 / 3) / 3) and scores["risk"]["count"] == 3
    assert scores["mask"]["count"] == 1
    assert "presence" not in summarise([segment("a", 1.0), rows[1], rows[3]][::2])["segment"]["scores"]
    # a score of presence alone is enough to be sure by
    for row in rows:
        row.mask_score = None
    assert summarise(rows)["segment"]["scores"].keys() == {"presence", "presence_own", "risk"}


def test_changed_images_and_other_words_stay_out_of_the_tables():
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


def test_chest_findings_of_reports_are_compared_where_the_reference_tells_any():
    rows = [
        report("a", "There is a pleural effusion.", "There is a pleural effusion. No pneumothorax."),
        report("b", "The lungs are clear. No pneumothorax.", "Cardiomegaly."),
        # no chest: not counted, whatever is said
        report("c", "Cardiomegaly.", "A fracture of the wrist.", modality="CT"),
        report("d", "Cardiomegaly.", "The knee."),
    ]
    # one hit; "No Finding" told in vain, cardiomegaly missed
    assert summarise(rows)["report"]["strict"][CHEST] == pytest.approx(2 / 4)
    assert CHEST not in summarise(rows[2:])["report"]["strict"]


def test_the_one_finding_of_a_box_is_no_report():
    rows = [replace(report("a", "Airways.", "Consolidation."), id="set/a#describe/0", task="describe")]
    assert CHEST not in summarise(rows)["describe"]["strict"]


def test_a_failed_report_tells_no_finding():
    rows = [report("a", "Cardiomegaly.", "Cardiomegaly."), report("b", "", "Cardiomegaly.")]
    rows[1].failure = "no prediction"
    assert summarise(rows)["report"]["strict"][CHEST] == pytest.approx(2 / 3)


def test_labels_of_one_image_are_one_class_in_whatever_order():
    rows = [
        label("a", ["Consolidation", "Ground-glass opacity"], ["Consolidation", "Ground-glass opacity"]),
        label("b", ["Ground-glass opacity", "Consolidation"], ["Consolidation"]),
        label("c", ["Polyp"], ["Polyp"]),
    ]
    strict = summarise(rows)["recognize"]["strict"]
    assert strict["balanced_accuracy"]["value"] == pytest.approx((1 / 2 + 1) / 2)
    assert strict["labels"]["Consolidation + Ground-glass opacity"]["accuracy"]["count"] == 2
    assert list(strict["labels"]) == list(strict["confusion"])


def test_what_is_given_the_box_of_the_truth_is_not_judged_on_presence():
    rows = [
        segment("v_1", 0.8, volume="v", mask_score=0.7),
        segment("v_2", None, target_present=False, volume="v"),
        segment("w", None, target_present=False, kind="foreign"),
    ]
    for row in rows:
        row.true_box = True
    table = summarise(rows)["segment"]
    strict = table["strict"]
    assert strict["dice"]["value"] == strict["targets"]["liver"]["dice"]["value"] == 0.8
    for key in ("dice_with_absent", "false_masks", "false_masks_foreign", "false_parts"):
        assert strict[key]["value"] is None and strict["targets"]["liver"].get(key, strict[key])["value"] is None
    # over all slices an empty one would be a gift
    assert "volumes" not in strict and table["published"]["volumes"]["liver"]["value"] == 0.8
    assert table["scores"].keys() == {"mask"}


def test_distances_that_could_not_be_measured_are_counted():
    rows = [segment("a", 0.5, spacing_known=True, hd95=4.0), segment("b", 0.0, spacing_known=True, failure="broken")]
    distance = summarise(rows)["segment"]["strict"]["targets"]["liver"]["hd95_mm"]
    assert (distance["value"], distance["count"], distance["unmeasured"]) == (4.0, 1, 1)
