from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from unibiomed.errors import DataError, InputError
from unibiomed.evaluate.predictions import PredictionStore
from unibiomed.evaluate.predictors import Context, make_predictor
from unibiomed.evaluate.predictors.files import FilesPredictor
from unibiomed.evaluate.run import answer_case, predict_cases, predictions_folder
from unibiomed.evaluate.suite import Changes
from unibiomed.findings import NO_FINDINGS
from unibiomed.tasks import TASKS

SIZE = (20, 30)
MASK = np.zeros(SIZE, dtype=np.uint8)
MASK[3:9, 4:20] = 255
LAYOUTS = [
    "{name}/{target}.png",
    "{name}/{TARGET}.PNG",
    "{name}__{target}.png",
    "{name}_{target_}.png",
    "{name}_{target+}.bmp",
    "{name}_CT_abdomen_{target+}.png",
    "{name}-{target_}.tif",
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model" / "organs").mkdir(parents=True)
    return tmp_path / "model"


@pytest.fixture
def case(toy_cases):
    return toy_cases(datasets=["organs"])[0]


def save(path, mask=MASK):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)
    return path


def write(folder, *rows):
    (folder / "answers.jsonl").write_text(
        "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)
    )


def ask(folder, case):
    """Its answers by what follows the image's name, as the run counts them."""
    predictor = FilesPredictor(folder)
    found = answer_case(predictor, case, case.pixels())
    return {p.sample.partition("#")[2]: p for p in found}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("target", ["liver", "liver tumor"])
def test_every_way_to_name_a_mask(folder, segment_case, layout, target):
    words = {"name": "test_0", "target": target, "TARGET": target.upper()}
    words |= {"target_": target.replace(" ", "_"), "target+": target.replace(" ", "+")}
    save(folder / "organs" / layout.format(**words))
    answers = ask(folder, segment_case)
    found = answers.pop(f"segment/{target}")
    assert found.error is None and found.labels == (target,) and found.scores == (None,)
    assert np.array_equal(found.decode(SIZE)[0], MASK > 0)
    assert {p.error for p in answers.values()} == {"no prediction"}


def test_masks_of_changed_images_have_the_change_in_their_names(folder, toy_cases):
    cases = toy_cases(datasets=["organs"], tasks=["segment"], changes=Changes(["noise"], limit=1))
    changed = next(case for case in cases if case.change == ("noise", 2))
    name = changed.record.key.removeprefix("organs/")
    save(folder / "organs" / name / "liver.png")
    assert ask(folder, changed)["segment/liver@noise2"].error == "no prediction"
    save(folder / "organs" / f"{name}@noise2" / "liver.png")
    assert ask(folder, changed)["segment/liver@noise2"].error is None


def test_two_masks_of_one_target_are_none(folder, segment_case):
    save(folder / "organs" / "test_0" / "liver.png")
    save(folder / "organs" / "test_0__liver.png")
    found = ask(folder, segment_case)["segment/liver"]
    assert found.error == "two masks of one target: liver.png and test_0__liver.png"


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (MASK.T, "mask is 20 x 30 pixels, its image 30 x 20"),
        (np.stack([MASK] * 3, 2), "has mode RGB"),
    ],
)
def test_masks_that_do_not_fit_fail_alone(folder, segment_case, mask, words):
    save(folder / "organs" / "test_0" / "liver.png", mask)
    save(folder / "organs" / "test_0" / "liver tumor.png")
    answers = ask(folder, segment_case)
    assert words in answers["segment/liver"].error
    assert answers["segment/liver tumor"].error is None


def test_a_broken_picture_fails_alone(folder, segment_case):
    path = save(folder / "organs" / "test_0" / "liver.png")
    path.write_bytes(path.read_bytes()[:30])
    save(folder / "organs" / "test_0" / "liver tumor.png")
    answers = ask(folder, segment_case)
    assert "liver.png" in answers["segment/liver"].error and answers["segment/liver tumor"].error is None


def test_strangers_are_named(folder, case):
    save(folder / "organs" / "test_0" / "liver.png")
    save(folder / "organs" / "test_0" / "spleen.png")
    save(folder / "lungs" / "test_0" / "liver.png")
    write(folder, {"sample": "organs/test_0#ask/9", "text": "x"}, {"sample": "organs/test_0#describe/0", "text": "x"})
    predictor = FilesPredictor(folder)
    predictor.claim(case)
    assert predictor.unused() == [
        "lungs/test_0/liver.png",
        "organs/test_0/spleen.png",
        "answers.jsonl: organs/test_0#ask/9",
    ]


def test_answers_in_words(folder, case):
    save(folder / "organs" / "test_0" / "liver tumor.png")
    write(
        folder,
        {"sample": "organs/test_0#recognize", "text": "It is [SEG]. Liver tumor", "score": 0.75},
        "",
        {"sample": "organs/test_0#classify/0", "text": "liver in abdomen CT"},
        {"sample": "organs/test_0#describe/1", "text": "A lesion."},
        {"sample": "organs/test_0#report", "text": "<p> Cyst. Small </p> [SEG] <p> Liver tumor. </p> [SEG]"},
    )
    answers = ask(folder, case)
    found = answers["recognize"]
    assert found.labels == ("Liver tumor",) and found.scores == (0.75,)
    assert np.array_equal(found.decode(SIZE)[0], MASK > 0)
    assert answers["classify/0"].labels == ("liver",)
    assert answers["describe/1"].text == "A lesion." and answers["describe/1"].error is None
    cyst, tumor = answers["report"].decode(SIZE)
    # a finding without a mask has an empty one
    assert answers["report"].labels == ("Cyst", "Liver tumor") and not cyst.any() and tumor.any()
    assert answers["classify/1"].error == "no prediction"


def test_labels_may_be_given(folder, case):
    write(folder, {"sample": "organs/test_0#recognize", "text": "I see a mass.", "labels": ["Mass"]})
    assert ask(folder, case)["recognize"].labels == ("Mass",)
    write(folder, {"sample": "organs/test_0#recognize", "labels": [NO_FINDINGS]})
    assert ask(folder, case)["recognize"].labels == (NO_FINDINGS,)
    write(folder, {"sample": "organs/test_0#recognize", "text": "No findings. All is well."})
    assert ask(folder, case)["recognize"].labels == (NO_FINDINGS,)


@pytest.mark.parametrize(
    "line",
    [
        '{"sample": "a"',
        "[]",
        "null",
        '{"text": "a"}',
        '{"sample": 1, "text": "a"}',
        '{"sample": "a", "text": 1}',
        "[" * 100_000,
        json.dumps({"sample": "a", "text": "x" * 1_000_001}),
    ],
    ids=["cut", "list", "null", "no sample", "number", "number as text", "deep", "long"],
)
def test_a_broken_line_of_answers_is_named(folder, one_line, line):
    write(folder, {"sample": "organs/test_0#recognize", "text": "x"}, line)
    with pytest.raises(DataError, match=r"answers.jsonl, line 2: ") as caught:
        FilesPredictor(folder)
    one_line(caught.value)


def test_answers_that_are_not_text(folder):
    (folder / "answers.jsonl").write_bytes(b'{"sample": "a", "text": "\xff\xfe"}\n')
    with pytest.raises(DataError, match=r"answers.jsonl, line 1: "):
        FilesPredictor(folder)


def test_answers_with_a_byte_order_mark(folder, case):
    line = json.dumps({"sample": "organs/test_0#describe/0", "text": "Größe"}, ensure_ascii=False)
    (folder / "answers.jsonl").write_bytes(b"\xef\xbb\xbf" + line.encode() + b"\r\n")
    assert ask(folder, case)["describe/0"].text == "Größe"


def test_two_answers_to_one_question_are_none(folder, case):
    write(folder, *[{"sample": "organs/test_0#describe/0", "text": t} for t in "ab"])
    assert ask(folder, case)["describe/0"].error == "2 answers in answers.jsonl"


@pytest.mark.parametrize("score", ["NaN", "2", "-0.1", '"high"', "true"])
def test_scores_are_probabilities(folder, segment_case, score):
    save(folder / "organs" / "test_0" / "liver.png")
    write(folder, f'{{"sample": "organs/test_0#segment/liver", "score": {score}}}')
    assert "is not in [0, 1]" in ask(folder, segment_case)["segment/liver"].error


def test_tasks_follow_from_what_there_is(folder):
    write(folder, {"sample": "a", "text": "x"})
    assert FilesPredictor(folder).tasks == frozenset(TASKS) - {"segment"}
    save(folder / "organs" / "a.png")
    assert FilesPredictor(folder).tasks == frozenset(TASKS)
    # masks do not tell in which words they were asked for
    assert FilesPredictor(folder).worded == frozenset(TASKS) - {"segment"}
    (folder / "answers.jsonl").unlink()
    assert FilesPredictor(folder).tasks == {"segment"} and not FilesPredictor(folder).worded


def test_nothing_to_read(tmp_path, folder):
    (folder / "organs" / "notes.txt").write_text("x")
    (folder / "lonely.png").write_bytes(b"")
    with pytest.raises(InputError, match="holds no masks"):
        FilesPredictor(folder)
    with pytest.raises(InputError, match="is not a folder"):
        FilesPredictor(tmp_path / "nowhere")


def test_a_folder_of_an_evaluation_is_read_again(toy_cases, toy_training, tmp_path):
    cases = toy_cases(datasets=["organs"], tasks=["segment", "recognize"])
    floor = make_predictor("floor:nearest", Context(toy_training))
    predict_cases(cases, [floor], tmp_path / "first", progress=False)
    written = predictions_folder(tmp_path / "first", floor.name)
    again = make_predictor(f"copy=files:{written}", Context(toy_training))
    assert again.name == "copy" and isinstance(again, FilesPredictor)
    counts = predict_cases(cases, [again], tmp_path / "second", progress=False)
    assert counts["copy"]["answered"] == sum(len(case.samples) for case in cases)
    first, second = PredictionStore(written), PredictionStore(predictions_folder(tmp_path / "second", "copy"))
    for sample in (s.id for case in cases for s in case.samples):
        assert first.read(sample) == second.read(sample)
    assert len(again.unused()) == counts["copy"]["answered"]
    for case in cases:
        again.claim(case)
    assert again.unused() == []


def test_broken_files_of_an_evaluation_fail_alone(toy_cases, toy_training, tmp_path):
    cases = toy_cases(datasets=["organs"], tasks=["segment"])
    floor = make_predictor("floor:empty", Context(toy_training))
    predict_cases(cases, [floor], tmp_path, progress=False)
    store = PredictionStore(predictions_folder(tmp_path, "empty"))
    broken, twisted, fine = (s.id for s in cases[0].samples)
    store.path(broken).write_text("{")
    values = json.loads(store.path(twisted).read_text())
    store.path(twisted).write_text(json.dumps(values | {"masks": [{"size": 5, "counts": "1"}]}))
    answers = {p.sample: p.error for p in answer_case(FilesPredictor(store.folder), cases[0], cases[0].pixels())}
    assert answers[broken] and answers[twisted] and answers[fine] is None
