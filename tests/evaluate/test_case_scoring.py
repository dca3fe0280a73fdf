from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unibiomed.data.records import Record, Region
from unibiomed.evaluate.case_scoring import GroundTruth, score_case, score_case_or_fail
from unibiomed.evaluate.predictions import Prediction, PredictionStore
from unibiomed.evaluate.sample_scores import SampleScore, SampleScoreWriter, read_sample_scores
from unibiomed.evaluate.samples import Case, Sample

SIZE = (20, 30)


def square(row: int, column: int, side: int = 8) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[row : row + side, column : column + side] = True
    return mask


@pytest.fixture
def case(tmp_path: Path) -> Case:
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(square(4, 4).astype(np.uint8)).save(tmp_path / "liver.png")
    record = Record(
        "set/a",
        tmp_path / "a.png",
        "set",
        "CT",
        "abdomen",
        "patient 1",
        "test",
        (Region("liver", tmp_path / "liver.png"), Region("spleen", None)),
        spacing=(0.5, 0.5),
    )
    samples = tuple(
        Sample(f"set/a#segment/{target}", "segment", "?", "It is [SEG].", target, regions=(j,), kind=kind)
        for target, j, kind in (
            ("liver", 0, "in_context"),
            ("spleen", 1, "in_context"),
            ("polyp", None, "out_of_context"),
        )
    )
    return Case(record, samples)


@pytest.fixture
def store(tmp_path: Path) -> PredictionStore:
    return PredictionStore(tmp_path / "predictions")


def mask(sample: Sample, guess: np.ndarray, score: float | None = None) -> Prediction:
    return Prediction.from_masks(sample.id, "", [sample.target], [guess], [score], [score])


def test_masks(case, store):
    liver, spleen, polyp = case.samples
    store.write(mask(liver, square(4, 8), 0.9))
    store.write(mask(spleen, square(0, 0) & False, 0.2))
    store.write(mask(polyp, square(0, 0, 1), 0.6))
    a, b, c = score_case(case, case.samples, store)
    assert (a.intersection, a.predicted_area, a.true_area, a.target_present, a.predicted_present) == (
        32,
        64,
        64,
        True,
        True,
    )
    assert a.dice == 0.5 and a.iou == pytest.approx(1 / 3)
    # shifted by four pixels of 0.5 mm, which is the tolerance of 2 mm
    assert a.surface_dice == pytest.approx(1.0, abs=0.02) and a.hd95 == pytest.approx(2.0) and a.spacing_known
    assert (a.presence, a.mask_score, a.subject) == (0.9, 0.9, "set/patient 1")
    assert (b.target_present, b.predicted_present, b.dice, b.failure) == (False, False, 1.0, None)
    assert (c.target_present, c.predicted_present, c.dice) == (False, True, 0.0)


def test_failure_has_the_worst_scores(case, store):
    liver, _spleen, _ = case.samples
    store.write(Prediction.failed(liver.id, "crashed\nbadly"))
    a, b, c = score_case(case, case.samples, store)
    assert (a.failure, a.dice, a.surface_dice, a.predicted_present) == ("crashed badly", 0.0, 0.0, False)
    assert a.hd95 == pytest.approx(np.hypot(10, 15))
    assert (b.failure, b.dice, b.predicted_present) == ("no prediction", 0.0, True)
    assert c.failure == "no prediction"


def test_disjoint_mask_does_not_detect_the_target(case, store):
    liver, spleen, _ = case.samples
    store.write(mask(liver, square(14, 20, 4) | square(0, 24, 2)))
    store.write(mask(spleen, square(0, 0, 3)))
    a, b, _ = score_case(case, case.samples, store)
    assert (a.predicted_present, a.detected, a.false_components) == (True, False, 2)
    assert (b.predicted_present, b.detected, b.false_components) == (True, False, 1)
    store.write(mask(liver, square(8, 8) | square(0, 24, 2)))
    a, _, c = score_case(case, case.samples, store)
    assert (a.predicted_present, a.detected, a.false_components) == (True, True, 1)
    # a failure counts as one false component
    assert (c.failure, c.detected, c.false_components) == ("no prediction", False, 1)


def test_mask_of_wrong_size_is_a_failure(case, store):
    liver = case.samples[0]
    store.write(mask(liver, np.ones((30, 20), dtype=bool)))
    (row,) = score_case(case, [liver], store)
    assert row.failure == "the mask is 20 x 30 pixels, the image 30 x 20" and row.dice == 0.0


@pytest.fixture
def nuclei(tmp_path: Path) -> Case:
    """Two touching squares with the labels 300 and 7, and a target without objects."""
    numbers = np.zeros(SIZE, dtype=np.uint16)
    numbers[square(4, 4)], numbers[square(4, 12)] = 300, 7
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "n.png")
    Image.fromarray(numbers).save(tmp_path / "numbers.png")
    record = Record(
        "set/n",
        tmp_path / "n.png",
        "set",
        "pathology",
        "brain",
        "n",
        "test",
        (Region("cell", tmp_path / "numbers.png", objects=True), Region("cyst", None, objects=True)),
    )
    samples = tuple(
        Sample(f"set/n#segment/{target}", "segment", "?", "It is [SEG].", target, regions=(j,), kind="in_context")
        for j, target in enumerate(("cell", "cyst"))
    )
    return Case(record, samples)


def test_touching_objects_are_separated_by_labels(nuclei, store):
    cell, cyst = nuclei.samples
    store.write(mask(cell, square(4, 4)))
    store.write(mask(cyst, square(0, 0, 3)))
    a, b = score_case(nuclei, nuclei.samples, store)
    assert a.object_counts == [0.5, 1, 0, 1, 1.0]
    # there is no object: the mask is a false positive
    assert b.object_counts == [0.0, 0, 1, 0, 0.0]
    # one mask over both has an IoU of 0.5 with each
    store.write(mask(cell, square(4, 4) | square(4, 12)))
    assert next(score_case(nuclei, [cell], store)).object_counts == [0.5, 0, 1, 2, 0.0]


def test_failure_misses_every_object(nuclei, store):
    a, b = score_case(nuclei, nuclei.samples, store)
    assert (a.failure, a.object_counts) == ("no prediction", [0.0, 0, 0, 2, 0.0])
    assert b.object_counts is not None and b.object_counts[1:] == [0, 0, 0, 0.0]


def test_objects_need_instance_labels_and_original_images(nuclei, case, store):
    moved = Case(nuclei.record, nuclei.samples, ("flip", 1))
    store.write(mask(nuclei.samples[0], square(4, 4)))
    assert next(score_case(moved, nuclei.samples, store)).object_counts is None
    nucleus = Sample(
        "set/a#segment/nucleus", "segment", "?", "It is [SEG].", "nucleus", regions=(0,), kind="in_context"
    )
    store.write(mask(nucleus, square(4, 4)))
    assert next(score_case(case, [nucleus], store)).object_counts is None


def text_case(case: Case, task: str, answer: str, **more) -> tuple[Case, Sample]:
    sample = Sample(f"set/a#{task}", task, "?", answer, **more)
    return Case(case.record, (sample,)), sample


def test_recognition_combines_masks_and_compares_labels(case, store):
    asked, sample = text_case(case, "recognize", "It is [SEG]. Liver tumor", labels=("Liver tumor",), regions=(0,))
    said = Prediction.from_masks(
        sample.id,
        "It is [SEG]. liver tumor. It is [SEG]. Cyst",
        ["liver tumor", "Cyst"],
        [square(4, 4) & (np.arange(30) < 8), square(4, 4) & (np.arange(30) >= 8)],
        [0.4, 0.7],
    )
    store.write(said)
    (row,) = score_case(asked, [sample], store)
    assert (row.exact_match, row.substring_match, row.dice, row.presence) == (False, True, 1.0, 0.7)
    assert row.answer == "liver tumor. Cyst"


def test_failed_recognition_counts_as_wrong(case, store):
    for label, found in (("Liver tumor", False), ("No findings", True)):
        asked, sample = text_case(case, "recognize", label, labels=(label,))
        (row,) = score_case(asked, [sample], store)
        assert (row.failure, row.predicted_present, row.exact_match, row.dice) == ("no prediction", found, False, 0.0)


def test_any_pixel_in_a_normal_image_is_false(case, store):
    asked, sample = text_case(case, "recognize", "No findings", labels=("No findings",))
    store.write(Prediction.from_masks(sample.id, "It is [SEG]. Cyst", ["Cyst"], [square(0, 0)]))
    (row,) = score_case(asked, [sample], store)
    assert (row.target_present, row.predicted_present, row.exact_match, row.dice) == (False, True, False, 0.0)
    store.write(Prediction(sample.id, "No findings", ("No findings",)))
    (row,) = score_case(asked, [sample], store)
    assert (row.predicted_present, row.exact_match, row.dice) == (False, True, 1.0)


def test_finding_with_an_empty_mask_counts_as_not_found(case, store):
    nothing, text = np.zeros(SIZE, dtype=bool), "It is [SEG]. Cyst"
    asked, sample = text_case(case, "recognize", "No findings", labels=("No findings",))
    store.write(Prediction.from_masks(sample.id, text, ["Cyst"], [nothing], [0.3]))
    (row,) = score_case(asked, [sample], store)
    assert (row.predicted_labels, row.predicted_present, row.exact_match, row.dice, row.answer) == (
        ["No findings"],
        False,
        True,
        1.0,
        "Cyst",
    )
    # a present finding is missed; the published protocol uses the text
    asked, sample = text_case(case, "recognize", text, labels=("Cyst",), regions=(0,))
    store.write(Prediction.from_masks(sample.id, text, ["Cyst"], [nothing], [0.3]))
    (row,) = score_case(asked, [sample], store)
    assert (row.predicted_present, row.exact_match, row.substring_match, row.dice) == (False, False, True, 0.0)
    # an answer without masks is accepted
    store.write(Prediction(sample.id, "Cyst", ("Cyst",)))
    (row,) = score_case(asked, [sample], store)
    assert (row.predicted_labels, row.predicted_present, row.exact_match) == (["Cyst"], True, True)


def test_empty_answer_has_no_finding(case, store):
    for labels, regions in ((("No findings",), ()), (("Cyst",), (0,))):
        asked, sample = text_case(case, "recognize", "It is [SEG]. Cyst", labels=labels, regions=regions)
        store.write(Prediction(sample.id, ""))
        (row,) = score_case(asked, [sample], store)
        assert (row.predicted_labels, row.predicted_present, row.exact_match) == ([], False, False)


def test_ground_truth_is_read_once(case, store, monkeypatch):
    opened = []
    original = Record.load_image
    monkeypatch.setattr(Record, "load_image", lambda self: opened.append(self.key) or original(self))
    for sample in case.samples:
        store.write(mask(sample, square(4, 4)))
    truth = GroundTruth(case)
    first, second = (list(score_case(case, case.samples, store, truth)) for _ in range(2))
    assert first == second == list(score_case(case, case.samples, store)) and len(opened) == 2


def test_masks_of_wrong_size_in_a_normal_image_are_a_failure(case, store):
    asked, sample = text_case(case, "recognize", "No findings", labels=("No findings",))
    masks = [square(0, 0), np.ones((5, 5), dtype=bool)]
    store.write(Prediction.from_masks(sample.id, "It is [SEG]. A. It is [SEG]. B", ["A", "B"], masks))
    (row,) = score_case(asked, [sample], store)
    assert row.failure == "the mask is 5 x 5 pixels, the image 30 x 20"
    assert (row.dice, row.predicted_present) == (0.0, True)


def test_classes_and_answers(case, store):
    asked, sample = text_case(case, "classify", "liver in abdomen CT", box=(4, 4, 12, 12))
    store.write(Prediction(sample.id, "Liver in abdomen CT<|end|>", ("Liver",)))
    (row,) = score_case(asked, [sample], store)
    assert (row.exact_match, row.predicted_labels, row.true_labels) == (True, ["Liver"], ["liver"])
    asked, sample = text_case(case, "ask", "Yes", kind="closed")
    store.write(Prediction(sample.id, "yes, it does."))
    (row,) = score_case(asked, [sample], store)
    assert (row.exact_match, row.substring_match) == (False, True)


def test_paraphrases_are_compared_with_the_original_answer(case, store):
    liver = case.samples[0]
    other = Sample(**{**_plain(liver), "id": f"{liver.id}~1", "paraphrase": 1})
    store.write(mask(liver, square(4, 4)))
    store.write(mask(other, square(4, 8)))
    _, row = score_case(case, [liver, other], store)
    assert row.agreement == 0.5


def _plain(sample: Sample) -> dict:
    return {name: getattr(sample, name) for name in sample.__dataclass_fields__}


def test_sample_scores_round_trip(tmp_path, case, store):
    store.write(mask(case.samples[0], square(4, 4)))
    rows = list(score_case(case, case.samples, store))
    with SampleScoreWriter(tmp_path / "scores" / "m.jsonl") as writer:
        for row in rows:
            writer.add(row)
    assert list(read_sample_scores(tmp_path / "scores" / "m.jsonl")) == rows


def test_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "m.jsonl"
    row = SampleScore("set/a#ask/0", "ask", "set", "CT", "set/a", 0)
    with SampleScoreWriter(path) as writer:
        writer.add(row)
    with pytest.raises(KeyboardInterrupt), SampleScoreWriter(path) as writer:
        raise KeyboardInterrupt
    assert list(read_sample_scores(path)) == [row]


def test_unmatched_files_are_found(case, store):
    store.write(mask(case.samples[0], square(4, 4)))
    store.write(Prediction("set/other#segment/liver", "text"))
    known = {sample.id for sample in case.samples}
    assert store.unmatched_files(known) == [str(store.path("set/other#segment/liver").relative_to(store.folder))]


def test_unreadable_image_has_the_worst_known_distance(case, store):
    case.record.image.write_bytes(b"nothing")
    unreadable: dict[str, str] = {}
    liver, _, polyp = score_case_or_fail(case, case.samples, store, unreadable)
    assert list(unreadable) == ["set/a"] and liver.failure and liver.target_present and not polyp.target_present
    # the mask has the size of the image: 20 x 30 pixels of 0.5 mm
    assert liver.hd95 == pytest.approx(np.hypot(10, 15)) and liver.spacing_known
    case.record.regions[0].mask.write_bytes(b"nothing")
    assert score_case_or_fail(case, case.samples, store, {})[0].hd95 is None
