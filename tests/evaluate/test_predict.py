from __future__ import annotations

import os
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from unibiomed.errors import InputError, OutputError
from unibiomed.evaluate.perturbations import PERTURBATIONS
from unibiomed.evaluate.predict import image_digest, predict_case, predict_cases, predictions_folder, question_digest
from unibiomed.evaluate.predictions import Prediction, PredictionStore
from unibiomed.evaluate.record_selection import suite_records
from unibiomed.evaluate.samples import make_cases
from unibiomed.evaluate.suite import Suite


class Scripted:
    """Predictor of empty masks that records its samples; `twist` modifies its predictions, or raises."""

    def __init__(self, name="scripted", tasks=("segment",), twist=lambda case, found: found):
        self.name, self.tasks, self.note, self.twist = name, frozenset(tasks), "", twist
        self.paraphrase_tasks = self.tasks
        self.samples: list[str] = []

    def predict(self, case, pixels):
        self.samples += [sample.id for sample in case.samples]
        empty = np.zeros(pixels.shape[:2], dtype=bool)
        return self.twist(case, [Prediction.from_masks(s.id, "", [s.target], [empty]) for s in case.samples])


@pytest.fixture
def cases(toy_cases):
    return toy_cases(datasets=["organs"], tasks=["segment", "recognize"])


def ids(cases, task="segment"):
    return [s.id for case in cases for s in case.samples if s.task == task]


def predict(case, twist):
    return predict_case(Scripted(twist=twist), case, case.pixels())


def test_each_supported_sample_is_predicted_once(cases, tmp_path):
    one, both = Scripted("one"), Scripted("both", ("segment", "recognize"))
    counts = predict_cases(cases, [one, both], tmp_path, progress=False)
    assert one.samples == ids(cases)
    assert sorted(both.samples) == sorted(ids(cases) + ids(cases, "recognize"))
    assert counts["one"] == Counter(predicted=9, reused=0) and counts["both"] == Counter(predicted=12, reused=0)
    again = Scripted("one")
    assert predict_cases(cases, [again], tmp_path, progress=False) == {"one": Counter(reused=9)}
    assert again.samples == []


def test_paraphrases_are_for_predictors_that_read_text(toy_cases, tmp_path):
    words = {"segment": ["Where is the {target}?"], "recognize": ["What is wrong?"]}
    cases = toy_cases(datasets=["organs"], tasks=["segment", "recognize"], paraphrases=words)
    tasks = ("segment", "recognize")
    reader, half, none = (Scripted(name, tasks) for name in ("reader", "half", "none"))
    half.paraphrase_tasks, none.paraphrase_tasks = frozenset({"recognize"}), frozenset()
    predict_cases(cases, [reader, half, none], tmp_path, progress=False)
    samples = [s for case in cases for s in case.samples]
    assert reader.samples == [s.id for s in samples]
    assert half.samples == [s.id for s in samples if not (s.paraphrase and s.task == "segment")]
    assert none.samples == [s.id for s in samples if not s.paraphrase]
    assert len(reader.samples) > len(half.samples) > len(none.samples)


def test_run_continues_after_broken_files_and_failures(cases, tmp_path):
    predict_cases(cases, [Scripted()], tmp_path, progress=False)
    store = PredictionStore(predictions_folder(tmp_path, "scripted"))
    broken, failed, missing = ids(cases)[0], ids(cases)[4], ids(cases)[8]
    store.path(broken).write_text(store.path(broken).read_text()[:40])
    store.write(Prediction.failed(failed, "no memory"))
    store.path(missing).unlink()
    second = Scripted()
    counts = predict_cases(cases, [second], tmp_path, progress=False)
    assert second.samples == [broken, failed, missing]
    assert counts["scripted"] == Counter(predicted=3, reused=6)
    assert all(store.has(sample) for sample in ids(cases))


@pytest.mark.parametrize("error", [RuntimeError("no\nmemory"), MemoryError(), InputError("too small")])
def test_exception_fails_one_image_only(cases, tmp_path, error):
    def crash(case, found):
        if case.record.key == "organs/test_1":
            raise error
        return found

    counts = predict_cases(cases, [Scripted(twist=crash), Scripted("steady")], tmp_path, progress=False)
    assert counts["scripted"] == Counter(predicted=6, failed=3, reused=0)
    assert counts["steady"] == Counter(predicted=9, reused=0)
    store = PredictionStore(predictions_folder(tmp_path, "scripted"))
    reason = store.read(ids(cases)[3]).error
    assert reason and "\n" not in reason and not store.has(ids(cases)[3])
    # errors of users are reported as they are, others with their type
    assert reason == "too small" if isinstance(error, InputError) else type(error).__name__ in reason


def test_write_error_stops_the_run(cases, tmp_path):
    def full(case, found):
        raise OutputError("disk full")

    with pytest.raises(OutputError):
        predict(cases[0], full)
    (tmp_path / "predictions").write_text("in the way")
    with pytest.raises(OutputError):
        predict_cases(cases, [Scripted()], tmp_path, progress=False)


def test_mask_of_wrong_size(segment_case):
    def turn(case, found):
        wrong = np.zeros((30, 20), dtype=bool)
        return [Prediction.from_masks(found[0].sample, "", ["liver"], [wrong]), *found[1:]]

    first, *others = predict(segment_case, turn)
    assert first.sample == segment_case.samples[0].id and first.masks == ()
    assert first.error == "the mask is 20 x 30 pixels, the image 30 x 20"
    assert [p.error for p in others] == [None, None]


@pytest.mark.parametrize("rle", [{"size": 5, "counts": "1"}, {"size": [[20], [30]]}, {"size": [20, 30], "counts": "1"}])
def test_invalid_rle(segment_case, rle):
    first, *others = predict(segment_case, lambda case, found: [replace(found[0], masks=(rle,)), *found[1:]])
    assert first.error and not any(p.error for p in others)


def test_duplicate_predictions(segment_case):
    found = predict(segment_case, lambda case, found: [*found, found[1]])
    assert [p.error for p in found] == [None, "more than one prediction", None]


def test_missing_predictions(segment_case):
    found = predict(segment_case, lambda case, found: found[1:])
    assert [p.error for p in found] == ["no prediction", None, None]
    assert [p.error for p in predict(segment_case, lambda case, found: [])] == ["no prediction"] * 3


def test_predictions_for_unknown_samples(segment_case):
    unknown = Prediction("organs/test_9#segment/liver", "x")
    found = predict(segment_case, lambda case, found: [*found, unknown])
    assert all("unknown sample 'organs/test_9#segment/liver'" in p.error for p in found)
    assert [p.sample for p in found] == [s.id for s in segment_case.samples]
    # a prediction with a wrong ID is reported as a missing one
    renamed = predict(segment_case, lambda case, found: [unknown, *found[1:]])
    assert [p.error for p in renamed] == ["no prediction", None, None]


@pytest.mark.parametrize("nonsense", [None, 3, [None], ["liver"]])
def test_invalid_answers(segment_case, nonsense):
    assert all(p.error for p in predict(segment_case, lambda case, found: nonsense))


def test_unreadable_image_fails_separately(cases, tmp_path):
    broken = replace(cases[1], record=replace(cases[1].record, image=b"nothing"))
    one, two, unreadable = Scripted("one"), Scripted("two"), {}
    run = [cases[0], broken, cases[2]]
    counts = predict_cases(run, [one, two], tmp_path, progress=False, unreadable=unreadable)
    assert counts["one"] == counts["two"] == Counter(predicted=6, failed=3, reused=0)
    assert list(unreadable) == ["organs/test_1"] and "organs/test_1" in unreadable["organs/test_1"]
    assert one.samples == ids([cases[0], cases[2]])
    # the repaired image is predicted
    assert predict_cases(cases, [one], tmp_path, progress=False)["one"] == Counter(predicted=3, reused=6)


def test_predictions_folders(tmp_path):
    assert predictions_folder(tmp_path, "nano-v1.2+x").name == "nano-v1.2+x"
    for name in ("../up", "..", ".", "a/b", "a b"):
        folder = predictions_folder(tmp_path, name)
        assert folder.resolve().parent == (tmp_path / "predictions").resolve()


def test_modified_questions_are_predicted_again(toy_cases, tmp_path):
    def predicted(words, **values):
        predictor = Scripted()
        for name, value in values.items():
            setattr(predictor, name, value)
        cases = toy_cases(datasets=["organs"], tasks=["segment"], paraphrases={"segment": [words]})
        predict_cases(cases, [predictor], tmp_path, progress=False)
        return predictor.samples

    assert len(predicted("Where is the {target}?")) == 15
    assert predicted("Where is the {target}?") == []
    again = predicted("Show the {target}.")
    assert len(again) == 6 and all(sample.endswith("~1") for sample in again)
    # the source of the answers has changed
    assert len(predicted("Show the {target}.", source_digest="2")) == 15
    assert predicted("Show the {target}.", source_digest="2") == []
    with pytest.raises(InputError, match="another model named 'scripted'"):
        predicted("Show the {target}.", source_digest="2", fingerprint="other")


def test_modified_perturbation_levels_are_predicted_again(segment_case, monkeypatch):
    case = replace(segment_case, perturbation=("noise", 2))
    sample = case.samples[0]
    before = question_digest(case, sample)
    assert before == question_digest(case, sample) != question_digest(replace(case, perturbation=("noise", 3)), sample)
    assert (
        len({before, question_digest(segment_case, sample), question_digest(case, replace(sample, box=(0, 0, 2, 2)))})
        == 3
    )
    monkeypatch.setitem(PERTURBATIONS, "noise", replace(PERTURBATIONS["noise"], levels=(1, 99, 3, 4, 5)))
    assert question_digest(case, sample) != before


def test_modified_images_are_predicted_again(toy_root, tmp_path):
    root = shutil.copytree(toy_root / "organs", tmp_path / "toy" / "organs").parent
    suite = Suite("toy", tasks=["segment"])

    def predicted(root=root):
        predictor = Scripted()
        predict_cases(make_cases(suite, suite_records(suite, root)), [predictor], tmp_path / "out", progress=False)
        return predictor.samples

    assert len(predicted()) == 9 and predicted() == []
    path = root / "organs" / "images" / "test_1.png"
    os.utime(path, (1, 1))
    assert predicted() == []
    # the path does not matter
    assert predicted(shutil.copytree(root, tmp_path / "moved")) == []
    Image.fromarray(np.asarray(Image.open(path)) // 2).save(path)
    again = predicted()
    assert len(again) == 3 and all(sample.startswith("organs/test_1#") for sample in again)
    assert predicted() == []


def test_predictions_without_image_digest_are_reused(segment_case, tmp_path):
    store, sample = PredictionStore(tmp_path), segment_case.samples[0].id
    store.write(Prediction(sample, "x", question_digest="a"))
    assert store.has(sample, "a", "current") and not store.has(sample, "b", "current")
    store.write(Prediction(sample, "x", question_digest="a", image_digest="other"))
    assert not store.has(sample, "a", "current") and store.has(sample, "a", "other")


def test_window_and_slice_are_part_of_the_image_digest(segment_case):
    record = segment_case.record
    others = [replace(record, window="lung"), replace(record, slice_index=3), replace(record, image=b"else")]
    digests = {image_digest(replace(segment_case, record=one)) for one in (record, *others)}
    assert len(digests) == 4
