from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from unibiomed.errors import InputError
from unibiomed.evaluate.predictions import PredictionStore
from unibiomed.evaluate.predictors import BASELINES, PredictorContext, make_predictor, samples_for
from unibiomed.evaluate.predictors.baselines import MostFrequentAnswer, EmptyMask, MeanShape, NearestNeighbor
from unibiomed.evaluate.predict import answer_case
from unibiomed.evaluate.samples import make_cases, suite_records
from unibiomed.evaluate.case_scoring import score_case
from unibiomed.evaluate.suite import Suite
from unibiomed.findings import NO_FINDINGS
from unibiomed.tasks import SEG

SIZE = (20, 30)


def ask(predictor, case):
    """What it says to each sample that it can answer, as the run counts it."""
    samples = [s for s in case.samples if s.task in predictor.tasks]
    found = answer_case(predictor, replace(case, samples=tuple(samples)), case.pixels())
    return {s.id.partition("#")[2]: p for s, p in zip(samples, found, strict=True)}


@pytest.fixture(scope="module")
def organs(toy_cases):
    return toy_cases(datasets=["organs"])


@pytest.mark.parametrize("name", BASELINES)
def test_every_floor_answers_all_that_it_says_it_can_and_the_same_twice(name, toy_cases, toy_training):
    context = PredictorContext(toy_training)
    first, second = (make_predictor(f"floor:{name}", context) for _ in range(2))
    assert first.name == name and first.note and first.tasks and first.paraphrase_tasks <= {"ask"}
    for case in toy_cases():
        answers = ask(first, case)
        assert answers == ask(second, case)
        assert all(p.error is None for p in answers.values())


def test_no_such_floor(toy_training):
    with pytest.raises(InputError, match="there is no floor 'cellar': use one of empty"):
        make_predictor("floor:cellar", PredictorContext(toy_training))


def test_the_empty_mask(organs):
    answers = ask(EmptyMask(), organs[0])
    assert answers["recognize"].labels == (NO_FINDINGS,) and answers["recognize"].masks == ()
    liver = answers["segment/liver"]
    assert liver.scores == (0.0,) and not liver.decode(SIZE)[0].any()


def test_the_mean_shape(organs, toy_training):
    floor = MeanShape(toy_training)
    masks = {case.record.key: ask(floor, case) for case in organs}
    liver = masks["organs/test_0"]["segment/liver"]
    # four of six training images show a liver, two a tumor
    assert liver.scores[0] == pytest.approx(4 / 6)
    assert masks["organs/test_0"]["segment/liver tumor"].scores[0] == pytest.approx(2 / 6)
    mask = liver.decode(SIZE)[0]
    truth = organs[0].masks(SIZE)[0]
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.9
    # whatever the image shows
    assert masks["organs/test_2"]["segment/liver"].masks == liver.masks
    foreign = next(p for key, p in masks["organs/test_0"].items() if key.split("/")[1] not in ("liver", "liver tumor"))
    assert foreign.scores == (0.0,) and not foreign.decode(SIZE)[0].any()


def test_the_commonest_answer(toy_cases, organs, toy_training):
    floor = MostFrequentAnswer(toy_training)
    answers = ask(floor, organs[0])
    # four of six training images show no tumor
    assert answers["recognize"].labels == (NO_FINDINGS,)
    # every liver beats every tumor: four to two
    assert answers["classify/0"].text == "liver in abdomen CT"
    assert not any(key.startswith("segment") for key in answers)
    quiz = ask(floor, toy_cases(datasets=["quiz"])[1])
    assert [p.text for p in quiz.values()] == ["Yes", "a polyp"]


def test_the_commonest_finding_counts_as_named(organs, toy_training, tmp_path):
    ill = [
        r
        for r in toy_training()
        if r.dataset == "organs" and any(q.target == "liver tumor" and q.mask for q in r.regions)
    ]
    floor, store = MostFrequentAnswer(lambda: ill), PredictionStore(tmp_path)
    rows = []
    for case in organs:
        case = replace(case, samples=tuple(s for s in case.samples if s.task == "recognize"))
        for prediction in floor.predict(case, case.pixels()):
            store.write(prediction)
        rows += score_case(case, case.samples, store)
    # it says the same of all three images, and is right on the one with a tumor
    assert [row.predicted_labels for row in rows] == [["Liver tumor"]] * 3
    assert [row.exact_match for row in rows] == [True, False, False] and all(row.predicted_present for row in rows)


@pytest.mark.parametrize("name", ["images/train_0.png", "masks/train_0_liver.png"])
def test_a_training_image_that_cannot_be_read_teaches_nothing(toy_root, toy_cases, tmp_path, name):
    root = shutil.copytree(toy_root, tmp_path / "toy")
    (root / "organs" / name).write_bytes(b"nothing")
    records = [r for r in suite_records(Suite("toy"), root, "train") if r.dataset == "organs"]
    case = toy_cases(datasets=["organs"])[0]
    for floor in (MeanShape, MostFrequentAnswer, NearestNeighbor):
        one, other = (
            floor(lambda part=part: part) for part in (records, [r for r in records if not r.key.endswith("train_0")])
        )
        asked = replace(case, samples=tuple(samples_for(one, case.samples)))
        found = one.predict(asked, asked.pixels())
        assert found == other.predict(asked, asked.pixels()) and not any(p.error for p in found)


def test_the_commonest_answer_of_what_was_never_asked(organs, toy_training):
    floor = MostFrequentAnswer(lambda: [r for r in toy_training() if r.dataset == "quiz"])
    assert {p.error for p in ask(floor, organs[0]).values()} == {"no such question in the training split"}


def test_the_nearest_image_of_the_training_split_gives_its_own_answer(toy_training):
    suite = Suite("toy", split="train", out_of_context=False)
    organs = [r for r in toy_training() if r.dataset == "organs"]
    floor = NearestNeighbor(lambda: organs)
    for case in make_cases(suite, organs):
        answers = ask(floor, case)
        masks = case.masks(SIZE)
        for sample in case.samples:
            answer = answers[sample.id.partition("#")[2]]
            found = answer.decode(SIZE)
            for mask, truth in zip(found, case.truths(sample, masks, SIZE), strict=True):
                assert np.array_equal(mask, truth)
            assert answer.text == sample.answer or sample.task == "segment"
            assert sample.task != "segment" or answer.labels == (sample.target,)


def test_the_nearest_image_may_have_another_size(organs, toy_training):
    floor = NearestNeighbor(toy_training)
    wide = np.repeat(organs[0].pixels(), 2, axis=1)
    found = floor.predict(organs[0], wide)
    liver = next(p for p in found if p.sample.endswith("#segment/liver"))
    assert liver.decode((20, 60))[0].any()
    report = next(p for p in found if p.sample.endswith("#report"))
    assert len(report.masks) == report.text.count(SEG)
