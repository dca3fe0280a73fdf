from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from unibiomed.errors import InputError
from unibiomed.evaluate.case_scoring import score_case
from unibiomed.evaluate.predict import predict_case
from unibiomed.evaluate.predictions import PredictionStore
from unibiomed.evaluate.predictors import BASELINES, PredictorContext, make_predictor, samples_for
from unibiomed.evaluate.predictors.baselines import EmptyMask, MeanShape, MostFrequentAnswer, NearestNeighbor
from unibiomed.evaluate.record_selection import suite_records
from unibiomed.evaluate.samples import make_cases
from unibiomed.evaluate.suite import Suite
from unibiomed.findings import NO_FINDINGS
from unibiomed.tasks import SEG

SIZE = (20, 30)


def predict(predictor, case):
    """Return the prediction of each supported sample by the end of its ID."""
    samples = [s for s in case.samples if s.task in predictor.tasks]
    found = predict_case(predictor, replace(case, samples=tuple(samples)), case.pixels())
    return {s.id.partition("#")[2]: p for s, p in zip(samples, found, strict=True)}


@pytest.fixture(scope="module")
def organs(toy_cases):
    return toy_cases(datasets=["organs"])


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_answer_all_their_tasks_reproducibly(name, toy_cases, toy_training):
    context = PredictorContext(toy_training)
    first, second = (make_predictor(f"baseline:{name}", context) for _ in range(2))
    assert first.name == name and first.note and first.tasks and first.paraphrase_tasks <= {"ask"}
    for case in toy_cases():
        answers = predict(first, case)
        assert answers == predict(second, case)
        assert all(p.error is None for p in answers.values())


def test_unknown_baseline(toy_training):
    with pytest.raises(InputError, match="baseline 'cellar' not found: use one of empty"):
        make_predictor("baseline:cellar", PredictorContext(toy_training))


def test_empty_mask(organs):
    answers = predict(EmptyMask(), organs[0])
    assert answers["recognize"].labels == (NO_FINDINGS,) and answers["recognize"].masks == ()
    liver = answers["segment/liver"]
    assert liver.scores == (0.0,) and not liver.decode(SIZE)[0].any()


def test_mean_shape(organs, toy_training):
    baseline = MeanShape(toy_training)
    masks = {case.record.key: predict(baseline, case) for case in organs}
    liver = masks["organs/test_0"]["segment/liver"]
    # four of six training images show a liver, two a tumor
    assert liver.scores[0] == pytest.approx(4 / 6)
    assert masks["organs/test_0"]["segment/liver tumor"].scores[0] == pytest.approx(2 / 6)
    mask = liver.decode(SIZE)[0]
    truth = organs[0].masks(SIZE)[0]
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.9
    # independent of the image
    assert masks["organs/test_2"]["segment/liver"].masks == liver.masks
    other = next(p for key, p in masks["organs/test_0"].items() if key.split("/")[1] not in ("liver", "liver tumor"))
    assert other.scores == (0.0,) and not other.decode(SIZE)[0].any()


def test_most_frequent_answer(toy_cases, organs, toy_training):
    baseline = MostFrequentAnswer(toy_training)
    answers = predict(baseline, organs[0])
    # four of six training images show no tumor
    assert answers["recognize"].labels == (NO_FINDINGS,)
    # four boxes of a liver, two of a tumor
    assert answers["classify/0"].text == "liver in abdomen CT"
    assert not any(key.startswith("segment") for key in answers)
    quiz = predict(baseline, toy_cases(datasets=["quiz"])[1])
    assert [p.text for p in quiz.values()] == ["Yes", "a polyp"]


def test_most_frequent_finding_has_a_label(organs, toy_training, tmp_path):
    ill = [
        r
        for r in toy_training()
        if r.dataset == "organs" and any(q.target == "liver tumor" and q.mask for q in r.regions)
    ]
    baseline, store = MostFrequentAnswer(lambda: ill), PredictionStore(tmp_path)
    scores = []
    for case in organs:
        case = replace(case, samples=tuple(s for s in case.samples if s.task == "recognize"))
        for prediction in baseline.predict(case, case.pixels()):
            store.write(prediction)
        scores += score_case(case, case.samples, store)
    # the same answer for all three images, correct for the one with a tumor
    assert [row.predicted_labels for row in scores] == [["Liver tumor"]] * 3
    assert [row.exact_match for row in scores] == [True, False, False] and all(row.predicted_present for row in scores)


@pytest.mark.parametrize("name", ["images/train_0.png", "masks/train_0_liver.png"])
def test_unreadable_training_images_are_ignored(toy_root, toy_cases, tmp_path, name):
    root = shutil.copytree(toy_root, tmp_path / "toy")
    (root / "organs" / name).write_bytes(b"nothing")
    records = [r for r in suite_records(Suite("toy"), root, "train") if r.dataset == "organs"]
    case = toy_cases(datasets=["organs"])[0]
    for baseline in (MeanShape, MostFrequentAnswer, NearestNeighbor):
        one, other = (
            baseline(lambda part=part: part)
            for part in (records, [r for r in records if not r.key.endswith("train_0")])
        )
        supported = replace(case, samples=tuple(samples_for(one, case.samples)))
        found = one.predict(supported, supported.pixels())
        assert found == other.predict(supported, supported.pixels()) and not any(p.error for p in found)


def test_most_frequent_answer_to_an_unknown_question(organs, toy_training):
    baseline = MostFrequentAnswer(lambda: [r for r in toy_training() if r.dataset == "quiz"])
    assert {p.error for p in predict(baseline, organs[0]).values()} == {"no such question in the training split"}


def test_nearest_neighbor_of_a_training_image_is_itself(toy_training):
    suite = Suite("toy", split="train", out_of_context=False)
    organs = [r for r in toy_training() if r.dataset == "organs"]
    baseline = NearestNeighbor(lambda: organs)
    for case in make_cases(suite, organs):
        answers = predict(baseline, case)
        masks = case.masks(SIZE)
        for sample in case.samples:
            answer = answers[sample.id.partition("#")[2]]
            found = answer.decode(SIZE)
            for mask, truth in zip(found, case.truths(sample, masks, SIZE), strict=True):
                assert np.array_equal(mask, truth)
            assert answer.text == sample.answer or sample.task == "segment"
            assert sample.task != "segment" or answer.labels == (sample.target,)


def test_nearest_neighbor_of_another_size(organs, toy_training):
    baseline = NearestNeighbor(toy_training)
    wide = np.repeat(organs[0].pixels(), 2, axis=1)
    found = baseline.predict(organs[0], wide)
    liver = next(p for p in found if p.sample.endswith("#segment/liver"))
    assert liver.decode((20, 60))[0].any()
    report = next(p for p in found if p.sample.endswith("#report"))
    assert len(report.masks) == report.text.count(SEG)
