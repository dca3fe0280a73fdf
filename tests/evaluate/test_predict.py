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
from unibiomed.evaluate.predictions import Prediction, PredictionStore
from unibiomed.evaluate.predict import answer_case, question_digest, predict_cases, predictions_folder, image_digest
from unibiomed.evaluate.samples import make_cases, suite_records
from unibiomed.evaluate.suite import Suite


class Scripted:
    """Finds nothing, and remembers what it was asked; `twist` changes its answers, or raises."""

    def __init__(self, name="scripted", tasks=("segment",), twist=lambda case, found: found):
        self.name, self.tasks, self.note, self.twist = name, frozenset(tasks), "", twist
        self.paraphrase_tasks = self.tasks
        self.question_digest: list[str] = []

    def predict(self, case, pixels):
        self.question_digest += [sample.id for sample in case.samples]
        empty = np.zeros(pixels.shape[:2], dtype=bool)
        return self.twist(case, [Prediction.of_masks(s.id, "", [s.target], [empty]) for s in case.samples])


@pytest.fixture
def cases(toy_cases):
    return toy_cases(datasets=["organs"], tasks=["segment", "recognize"])


def ids(cases, task="segment"):
    return [s.id for case in cases for s in case.samples if s.task == task]


def answer(case, twist):
    return answer_case(Scripted(twist=twist), case, case.pixels())


def test_each_is_asked_what_it_can_answer_and_once(cases, tmp_path):
    one, both = Scripted("one"), Scripted("both", ("segment", "recognize"))
    counts = predict_cases(cases, [one, both], tmp_path, progress=False)
    assert one.question_digest == ids(cases)
    assert sorted(both.question_digest) == sorted(ids(cases) + ids(cases, "recognize"))
    assert counts["one"] == Counter(answered=9, kept=0) and counts["both"] == Counter(answered=12, kept=0)
    again = Scripted("one")
    assert predict_cases(cases, [again], tmp_path, progress=False) == {"one": Counter(kept=9)}
    assert again.question_digest == []


def test_other_words_are_for_who_reads_them(toy_cases, tmp_path):
    words = {"segment": ["Where is the {target}?"], "recognize": ["What is wrong?"]}
    cases = toy_cases(datasets=["organs"], tasks=["segment", "recognize"], paraphrases=words)
    tasks = ("segment", "recognize")
    reader, half, deaf = (Scripted(name, tasks) for name in ("reader", "half", "deaf"))
    half.paraphrase_tasks, deaf.paraphrase_tasks = frozenset({"recognize"}), frozenset()
    predict_cases(cases, [reader, half, deaf], tmp_path, progress=False)
    samples = [s for case in cases for s in case.samples]
    assert reader.question_digest == [s.id for s in samples]
    assert half.question_digest == [s.id for s in samples if not (s.paraphrase and s.task == "segment")]
    assert deaf.question_digest == [s.id for s in samples if not s.paraphrase]
    assert len(reader.question_digest) > len(half.question_digest) > len(deaf.question_digest)


def test_a_run_goes_on_after_broken_files_and_failures(cases, tmp_path):
    predict_cases(cases, [Scripted()], tmp_path, progress=False)
    store = PredictionStore(predictions_folder(tmp_path, "scripted"))
    broken, failed, missing = ids(cases)[0], ids(cases)[4], ids(cases)[8]
    store.path(broken).write_text(store.path(broken).read_text()[:40])
    store.write(Prediction.failed(failed, "no memory"))
    store.path(missing).unlink()
    second = Scripted()
    counts = predict_cases(cases, [second], tmp_path, progress=False)
    assert second.question_digest == [broken, failed, missing]
    assert counts["scripted"] == Counter(answered=3, kept=6)
    assert all(store.has(sample) for sample in ids(cases))


@pytest.mark.parametrize("error", [RuntimeError("no\nmemory"), MemoryError(), InputError("too small")])
def test_a_crash_on_one_image_fails_there_alone(cases, tmp_path, error):
    def crash(case, found):
        if case.record.key == "organs/test_1":
            raise error
        return found

    counts = predict_cases(cases, [Scripted(twist=crash), Scripted("steady")], tmp_path, progress=False)
    assert counts["scripted"] == Counter(answered=6, failed=3, kept=0)
    assert counts["steady"] == Counter(answered=9, kept=0)
    store = PredictionStore(predictions_folder(tmp_path, "scripted"))
    reason = store.read(ids(cases)[3]).error
    assert reason and "\n" not in reason and not store.has(ids(cases)[3])
    # the words of a user's error are whole; of others the kind is told
    assert reason == "too small" if isinstance(error, InputError) else type(error).__name__ in reason


def test_what_cannot_be_written_stops_the_run(cases, tmp_path):
    def full(case, found):
        raise OutputError("disk full")

    with pytest.raises(OutputError):
        answer(cases[0], full)
    (tmp_path / "predictions").write_text("in the way")
    with pytest.raises(OutputError):
        predict_cases(cases, [Scripted()], tmp_path, progress=False)


def test_a_mask_of_the_wrong_size(segment_case):
    def turn(case, found):
        wrong = np.zeros((30, 20), dtype=bool)
        return [Prediction.of_masks(found[0].sample, "", ["liver"], [wrong]), *found[1:]]

    first, *others = answer(segment_case, turn)
    assert first.sample == segment_case.samples[0].id and first.masks == ()
    assert first.error == "the mask is 20 x 30 pixels, the image 30 x 20"
    assert [p.error for p in others] == [None, None]


@pytest.mark.parametrize("rle", [{"size": 5, "counts": "1"}, {"size": [[20], [30]]}, {"size": [20, 30], "counts": "1"}])
def test_broken_run_lengths(segment_case, rle):
    first, *others = answer(segment_case, lambda case, found: [replace(found[0], masks=(rle,)), *found[1:]])
    assert first.error and not any(p.error for p in others)


def test_doubled_answers(segment_case):
    found = answer(segment_case, lambda case, found: [*found, found[1]])
    assert [p.error for p in found] == [None, "answered more than once", None]


def test_missing_answers(segment_case):
    found = answer(segment_case, lambda case, found: found[1:])
    assert [p.error for p in found] == ["no answer", None, None]
    assert [p.error for p in answer(segment_case, lambda case, found: [])] == ["no answer"] * 3


def test_answers_for_strangers(segment_case):
    stranger = Prediction("organs/test_9#segment/liver", "x")
    found = answer(segment_case, lambda case, found: [*found, stranger])
    assert all("unknown sample 'organs/test_9#segment/liver'" in p.error for p in found)
    assert [p.sample for p in found] == [s.id for s in segment_case.samples]
    # an answer under a wrong name is a missing one and a stranger: the missing one is told
    renamed = answer(segment_case, lambda case, found: [stranger, *found[1:]])
    assert [p.error for p in renamed] == ["no answer", None, None]


@pytest.mark.parametrize("nonsense", [None, 3, [None], ["liver"]])
def test_answers_that_are_none(segment_case, nonsense):
    assert all(p.error for p in answer(segment_case, lambda case, found: nonsense))


def test_an_unreadable_image_fails_alone(cases, tmp_path):
    broken = replace(cases[1], record=replace(cases[1].record, image=b"nothing"))
    one, two, unreadable = Scripted("one"), Scripted("two"), {}
    run = [cases[0], broken, cases[2]]
    counts = predict_cases(run, [one, two], tmp_path, progress=False, unreadable=unreadable)
    assert counts["one"] == counts["two"] == Counter(answered=6, failed=3, kept=0)
    assert list(unreadable) == ["organs/test_1"] and "organs/test_1" in unreadable["organs/test_1"]
    assert one.question_digest == ids([cases[0], cases[2]])
    # mended, it is asked
    assert predict_cases(cases, [one], tmp_path, progress=False)["one"] == Counter(answered=3, kept=6)


def test_folders_of_predictors(tmp_path):
    assert predictions_folder(tmp_path, "nano-v1.2+x").name == "nano-v1.2+x"
    for name in ("../up", "..", ".", "a/b", "a b"):
        folder = predictions_folder(tmp_path, name)
        assert folder.resolve().parent == (tmp_path / "predictions").resolve()


def test_what_is_asked_otherwise_is_asked_again(toy_cases, tmp_path):
    def asked(words, **values):
        predictor = Scripted()
        for name, value in values.items():
            setattr(predictor, name, value)
        cases = toy_cases(datasets=["organs"], tasks=["segment"], paraphrases={"segment": [words]})
        predict_cases(cases, [predictor], tmp_path, progress=False)
        return predictor.question_digest

    assert len(asked("Where is the {target}?")) == 15
    assert asked("Where is the {target}?") == []
    again = asked("Show the {target}.")
    assert len(again) == 6 and all(sample.endswith("~1") for sample in again)
    # what the answers are taken from has changed
    assert len(asked("Show the {target}.", edition="2")) == 15
    assert asked("Show the {target}.", edition="2") == []
    with pytest.raises(InputError, match="another model called 'scripted'"):
        asked("Show the {target}.", edition="2", fingerprint="other")


def test_a_change_of_another_level_is_asked_again(segment_case, monkeypatch):
    case = replace(segment_case, perturbation=("noise", 2))
    sample = case.samples[0]
    before = question_digest(case, sample)
    assert before == question_digest(case, sample) != question_digest(replace(case, perturbation=("noise", 3)), sample)
    assert len({before, question_digest(segment_case, sample), question_digest(case, replace(sample, box=(0, 0, 2, 2)))}) == 3
    monkeypatch.setitem(PERTURBATIONS, "noise", replace(PERTURBATIONS["noise"], levels=(1, 99, 3, 4, 5)))
    assert question_digest(case, sample) != before


def test_another_picture_is_asked_about_again(toy_root, tmp_path):
    root = shutil.copytree(toy_root / "organs", tmp_path / "toy" / "organs").parent
    suite = Suite("toy", tasks=["segment"])

    def asked(root=root):
        predictor = Scripted()
        predict_cases(make_cases(suite, suite_records(suite, root)), [predictor], tmp_path / "out", progress=False)
        return predictor.question_digest

    assert len(asked()) == 9 and asked() == []
    path = root / "organs" / "images" / "test_1.png"
    os.utime(path, (1, 1))
    assert asked() == []
    # the same picture elsewhere is the same
    assert asked(shutil.copytree(root, tmp_path / "moved")) == []
    Image.fromarray(np.asarray(Image.open(path)) // 2).save(path)
    again = asked()
    assert len(again) == 3 and all(sample.startswith("organs/test_1#") for sample in again)
    assert asked() == []


def test_answers_of_before_pictures_were_known_are_kept(segment_case, tmp_path):
    store, sample = PredictionStore(tmp_path), segment_case.samples[0].id
    store.write(Prediction(sample, "x", asked="a"))
    assert store.has(sample, "a", "seen") and not store.has(sample, "b", "seen")
    store.write(Prediction(sample, "x", asked="a", seen="other"))
    assert not store.has(sample, "a", "seen") and store.has(sample, "a", "other")


def test_another_window_or_slice_is_another_picture(segment_case):
    record = segment_case.record
    others = [replace(record, window="lung"), replace(record, slice_index=3), replace(record, image=b"else")]
    digests = {image_digest(replace(segment_case, record=one)) for one in (record, *others)}
    assert len(digests) == 4
