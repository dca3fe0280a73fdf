from __future__ import annotations

import json
import math
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from unibiomed.errors import DataError, InputError
from unibiomed.evaluate.case_scoring import score_case
from unibiomed.evaluate.predict import predict_case, predict_cases, predictions_folder
from unibiomed.evaluate.predictions import Prediction, PredictionStore
from unibiomed.evaluate.predictors import PredictorContext, make_predictor
from unibiomed.evaluate.predictors.files import FilesPredictor
from unibiomed.evaluate.record_selection import suite_records
from unibiomed.evaluate.samples import make_cases
from unibiomed.evaluate.suite import PerturbationOptions, Suite
from unibiomed.findings import NO_FINDINGS, rle_encode
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


def predict(folder, case):
    """Return the predictions by the end of their sample IDs."""
    predictor = FilesPredictor(folder)
    found = predict_case(predictor, case, case.pixels())
    return {p.sample.partition("#")[2]: p for p in found}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("target", ["liver", "liver tumor"])
def test_all_mask_names(folder, segment_case, layout, target):
    words = {"name": "test_0", "target": target, "TARGET": target.upper()}
    words |= {"target_": target.replace(" ", "_"), "target+": target.replace(" ", "+")}
    save(folder / "organs" / layout.format(**words))
    answers = predict(folder, segment_case)
    found = answers.pop(f"segment/{target}")
    assert found.error is None and found.labels == (target,) and found.scores == (None,)
    assert np.array_equal(found.decode(SIZE)[0], MASK > 0)
    assert {p.error for p in answers.values()} == {"no prediction"}


def test_masks_of_perturbed_images_are_named_after_the_perturbation(folder, toy_cases):
    cases = toy_cases(datasets=["organs"], tasks=["segment"], perturbations=PerturbationOptions(["noise"], limit=1))
    changed = next(case for case in cases if case.perturbation == ("noise", 2))
    name = changed.record.key.removeprefix("organs/")
    save(folder / "organs" / name / "liver.png")
    assert predict(folder, changed)["segment/liver@noise2"].error == "no prediction"
    save(folder / "organs" / f"{name}@noise2" / "liver.png")
    assert predict(folder, changed)["segment/liver@noise2"].error is None


def test_two_masks_of_one_target_are_a_failure(folder, segment_case):
    save(folder / "organs" / "test_0" / "liver.png")
    save(folder / "organs" / "test_0__liver.png")
    found = predict(folder, segment_case)["segment/liver"]
    assert found.error == "two masks for one target: liver.png and test_0__liver.png"


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (MASK.T, "mask is 20 x 30 pixels, its image 30 x 20"),
        (np.stack([MASK, 255 - MASK, MASK], 2), "has colours"),
    ],
)
def test_masks_of_wrong_size_fail_separately(folder, segment_case, mask, words):
    save(folder / "organs" / "test_0" / "liver.png", mask)
    save(folder / "organs" / "test_0" / "liver tumor.png")
    answers = predict(folder, segment_case)
    assert words in answers["segment/liver"].error
    assert answers["segment/liver tumor"].error is None


def test_broken_image_fails_separately(folder, segment_case):
    path = save(folder / "organs" / "test_0" / "liver.png")
    path.write_bytes(path.read_bytes()[:30])
    save(folder / "organs" / "test_0" / "liver tumor.png")
    answers = predict(folder, segment_case)
    assert "liver.png" in answers["segment/liver"].error and answers["segment/liver tumor"].error is None


def test_unmatched_files_are_listed(folder, case):
    save(folder / "organs" / "test_0" / "liver.png")
    save(folder / "organs" / "test_0" / "spleen.png")
    save(folder / "lungs" / "test_0" / "liver.png")
    write(folder, {"sample": "organs/test_0#ask/9", "text": "x"}, {"sample": "organs/test_0#describe/0", "text": "x"})
    predictor = FilesPredictor(folder)
    predictor.match(case)
    assert predictor.unmatched() == [
        "lungs/test_0/liver.png",
        "organs/test_0/spleen.png",
        "answers.jsonl: organs/test_0#ask/9",
    ]


def test_text_answers(folder, case):
    save(folder / "organs" / "test_0" / "liver tumor.png")
    write(
        folder,
        {"sample": "organs/test_0#recognize", "text": "It is [SEG]. Liver tumor", "score": 0.75},
        "",
        {"sample": "organs/test_0#classify/0", "text": "liver in abdomen CT"},
        {"sample": "organs/test_0#describe/1", "text": "A lesion."},
        {"sample": "organs/test_0#report", "text": "<p> Cyst. Small </p> [SEG] <p> Liver tumor. </p> [SEG]"},
    )
    answers = predict(folder, case)
    found = answers["recognize"]
    assert found.labels == ("Liver tumor",) and found.scores == (0.75,)
    assert np.array_equal(found.decode(SIZE)[0], MASK > 0)
    assert answers["classify/0"].labels == ("liver",)
    assert answers["describe/1"].text == "A lesion." and answers["describe/1"].error is None
    cyst, tumor = answers["report"].decode(SIZE)
    # a finding without a mask has an empty one
    assert answers["report"].labels == ("Cyst", "Liver tumor") and not cyst.any() and tumor.any()
    assert answers["classify/1"].error == "no prediction"


def test_explicit_labels(folder, case):
    write(folder, {"sample": "organs/test_0#recognize", "text": "I see a mass.", "labels": ["Mass"]})
    assert predict(folder, case)["recognize"].labels == ("Mass",)
    write(folder, {"sample": "organs/test_0#recognize", "labels": [NO_FINDINGS]})
    assert predict(folder, case)["recognize"].labels == (NO_FINDINGS,)
    write(folder, {"sample": "organs/test_0#recognize", "text": "No findings. All is well."})
    assert predict(folder, case)["recognize"].labels == (NO_FINDINGS,)


SAMPLE = '"sample": "organs/test_0#describe/0"'


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f'{{{SAMPLE}, "text": "A les', "line 2: not a JSON object"),
        (f'[{{{SAMPLE}, "text": "x"}}]', "line 2: not a JSON object"),
        (f'{{{SAMPLE}, "text": "{"x" * 1_000_001}"}}', "line 2: not a JSON object"),
        (f'{{{SAMPLE}, "text": 1}}', "line 2: the text is not a string"),
        (f'{{{SAMPLE}, "text": null}}', "line 2: neither 'text' nor 'labels' nor 'masks'"),
        (f"{{{SAMPLE}}}", "line 2: neither 'text' nor 'labels' nor 'masks'"),
    ],
    ids=["cut", "list", "long", "number as text", "null as text", "nothing"],
)
def test_invalid_line_of_answers_fails_separately(folder, case, line, words):
    write(folder, {"sample": "organs/test_0#recognize", "text": "x"}, line)
    answers = predict(folder, case)
    assert answers["recognize"].error is None
    assert answers["describe/0"].error.startswith("answers.jsonl") and words in answers["describe/0"].error
    predictor = FilesPredictor(folder)
    predictor.match(case)
    assert predictor.unmatched() == []


@pytest.mark.parametrize(
    "line",
    [
        '{"sample": "organs/test_0#desc',
        '{"sample": "\\x", "te',
        "null",
        '{"text": "a"}',
        '{"sample": 1, "text": "a"}',
        "[" * 100_000,
    ],
    ids=["cut", "no string", "null", "no sample", "number", "deep"],
)
def test_line_of_answers_without_sample_is_listed(folder, case, line):
    write(folder, {"sample": "organs/test_0#recognize", "text": "x"}, line)
    predictor = FilesPredictor(folder)
    predictor.match(case)
    assert predictor.unmatched() == ["answers.jsonl, line 2: not a JSON object with 'sample'"]


def test_answers_without_a_valid_line(folder, one_line):
    (folder / "answers.jsonl").write_bytes(b'{"sample": "a", "text": "\xff\xfe"}\n')
    with pytest.raises(DataError, match=r"answers.jsonl, line 1: ") as caught:
        FilesPredictor(folder)
    one_line(caught.value)


def test_answers_with_byte_order_mark(folder, case):
    line = json.dumps({"sample": "organs/test_0#describe/0", "text": "Größe"}, ensure_ascii=False)
    (folder / "answers.jsonl").write_bytes(b"\xef\xbb\xbf" + line.encode() + b"\r\n")
    assert predict(folder, case)["describe/0"].text == "Größe"


def test_two_answers_to_one_question_are_a_failure(folder, case):
    write(folder, *[{"sample": "organs/test_0#describe/0", "text": t} for t in "ab"])
    assert predict(folder, case)["describe/0"].error == "2 answers in answers.jsonl"


@pytest.mark.parametrize("score", ["NaN", "2", "-0.1", '"high"', "true"])
def test_scores_are_probabilities(folder, segment_case, score):
    save(folder / "organs" / "test_0" / "liver.png")
    write(folder, f'{{"sample": "organs/test_0#segment/liver", "score": {score}}}')
    assert "is not in [0, 1]" in predict(folder, segment_case)["segment/liver"].error


def test_tasks_depend_on_the_files(folder):
    write(folder, {"sample": "a", "text": "x"})
    assert FilesPredictor(folder).tasks == frozenset(TASKS) - {"segment", "outline"}
    save(folder / "organs" / "a.png")
    assert FilesPredictor(folder).tasks == frozenset(TASKS)
    # masks do not depend on the wording of the question
    assert FilesPredictor(folder).paraphrase_tasks == frozenset(TASKS) - {"segment", "outline"}
    (folder / "answers.jsonl").unlink()
    assert FilesPredictor(folder).tasks == {"segment", "outline"} and not FilesPredictor(folder).paraphrase_tasks


def test_empty_folder(tmp_path, folder):
    (folder / "organs" / "notes.txt").write_text("x")
    (folder / "lonely.png").write_bytes(b"")
    with pytest.raises(InputError, match="contains no predictions"):
        FilesPredictor(folder)
    with pytest.raises(InputError, match="is not a folder"):
        FilesPredictor(tmp_path / "nowhere")


def test_predictions_of_an_evaluation_are_read(toy_cases, toy_training, tmp_path):
    cases = toy_cases(datasets=["organs"], tasks=["segment", "recognize"])
    baseline = make_predictor("baseline:nearest-neighbor", PredictorContext(toy_training))
    predict_cases(cases, [baseline], tmp_path / "first", progress=False)
    written = predictions_folder(tmp_path / "first", baseline.name)
    again = make_predictor(f"copy=files:{written}", PredictorContext(toy_training))
    assert again.name == "copy" and isinstance(again, FilesPredictor)
    counts = predict_cases(cases, [again], tmp_path / "second", progress=False)
    assert counts["copy"]["predicted"] == sum(len(case.samples) for case in cases)
    first, second = PredictionStore(written), PredictionStore(predictions_folder(tmp_path / "second", "copy"))
    for sample in (s.id for case in cases for s in case.samples):
        assert first.read(sample) == second.read(sample)
    assert len(again.unmatched()) == counts["copy"]["predicted"]
    for case in cases:
        again.match(case)
    assert again.unmatched() == []


def test_broken_predictions_of_an_evaluation_fail_separately(toy_cases, toy_training, tmp_path):
    cases = toy_cases(datasets=["organs"], tasks=["segment"])
    baseline = make_predictor("baseline:empty", PredictorContext(toy_training))
    predict_cases(cases, [baseline], tmp_path, progress=False)
    store = PredictionStore(predictions_folder(tmp_path, "empty"))
    broken, twisted, fine = (s.id for s in cases[0].samples)
    store.path(broken).write_text("{")
    values = json.loads(store.path(twisted).read_text())
    store.path(twisted).write_text(json.dumps(values | {"masks": [{"size": 5, "counts": "1"}]}))
    answers = {p.sample: p.error for p in predict_case(FilesPredictor(store.folder), cases[0], cases[0].pixels())}
    assert answers[broken] and answers[twisted] and answers[fine] is None


def blurred(mask):
    """Add noise as from JPEG compression."""
    return np.clip(mask.astype(int) + np.random.default_rng(0).integers(-12, 12, mask.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("bright", [255, 100])
@pytest.mark.parametrize("name", ["test_0#segment/liver_mask_0", "test_0_liver_mask_0", "liver/test_0_mask_0"])
def test_jpeg_masks_use_half_of_their_maximum(folder, segment_case, name, bright):
    # LISA writes 100 inside of the mask
    save(folder / "organs" / f"{name}.jpg", np.where(MASK > 0, bright, 0).astype(np.uint8))
    found = predict(folder, segment_case)["segment/liver"]
    overlap = np.logical_and(found.decode(SIZE)[0], MASK).sum() / np.logical_or(found.decode(SIZE)[0], MASK).sum()
    assert found.error is None and overlap > 0.9
    save(folder / "organs" / f"{name}.jpg", blurred(np.zeros(SIZE)))
    assert not predict(folder, segment_case)["segment/liver"].decode(SIZE)[0].any()


@pytest.mark.parametrize(
    ("mask", "words"),
    [(MASK.T, "mask is 20 x 30 pixels"), (np.stack([MASK, 255 - MASK, MASK], 2), "has colours"), (None, "cannot")],
)
def test_invalid_jpeg_masks_fail(folder, segment_case, mask, words):
    path = save(folder / "organs" / "test_0_liver.jpg", MASK if mask is None else mask)
    if mask is None:
        path.write_bytes(path.read_bytes()[:200])
    assert words in predict(folder, segment_case)["segment/liver"].error


def test_numbered_mask_of_an_image_with_one_question(folder, toy_cases):
    case = toy_cases(datasets=["organs"], tasks=["segment"], out_of_context=False)[0]
    save(folder / "organs" / "test_0_mask_0.png")
    save(folder / "organs" / "test_0_masked_img_0.jpg", np.stack([MASK] * 3, 2))
    answers = predict(folder, case)
    assert all("could belong to several questions: rename it to SAMPLE_mask_0" in p.error for p in answers.values())
    predictor = FilesPredictor(folder)
    predictor.match(case)
    assert predictor.unmatched() == ["organs/test_0_mask_0.png"]
    save(folder / "organs" / "test_0_liver.png", np.zeros(SIZE, dtype=np.uint8))
    answers = predict(folder, case)
    assert answers["segment/liver tumor"].decode(SIZE)[0].sum() == (MASK > 0).sum()
    assert not answers["segment/liver"].decode(SIZE)[0].any()
    predictor = FilesPredictor(folder)
    predictor.match(case)
    assert predictor.unmatched() == []


@pytest.mark.parametrize("name", ["test_0_mask_{}", "test_0#report_mask_{}"])
def test_masks_by_index_in_the_answer(folder, case, name):
    save(folder / "organs" / f"{name.format(0)}.png", np.zeros(SIZE, dtype=np.uint8))
    save(folder / "organs" / f"{name.format(1)}.png")
    text = "<p> Cyst </p> <SEG> and <p> Liver tumor </p> <SEG>"
    write(folder, {"sample": "organs/test_0#report", "text": text})
    found = predict(folder, case)["report"]
    assert found.labels == ("Cyst", "Liver tumor") and "[SEG]" in found.text
    assert [mask.any() for mask in found.decode(SIZE)] == [False, True]
    predictor = FilesPredictor(folder)
    predictor.match(case)
    assert predictor.unmatched() == []


RLE = rle_encode(MASK > 0)
EMPTY = rle_encode(np.zeros(SIZE, dtype=bool))
GLAMM = {"caption": "A liver with a lesion.", "phrases": ["liver", "liver tumor"], "pred_masks": [EMPTY, RLE], "x": 1}


def runs(mask):
    """Return an uncompressed COCO run-length encoding."""
    flat = np.concatenate(([0], mask.flatten(order="F").astype(int), [2]))
    edges = np.flatnonzero(np.diff(flat))
    return {"size": list(mask.shape), "counts": np.diff(np.concatenate(([0], edges))).tolist()}


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("organs/test_0.json", GLAMM),
        ("organs/test_0.json", {"image_id": "test_0"} | GLAMM),
        ("organs/all.json", [{"image": "/their/machine/organs/images/test_0.png"} | GLAMM]),
        ("organs/all.jsonl", {"file_name": "images/test_0.png", "scores": [0.25, 0.5]} | GLAMM),
        ("all.jsonl", {"image": "organs/images/test_0.png"} | GLAMM),
        ("all.jsonl", {"image_id": "organs/test_0"} | GLAMM),
    ],
)
def test_grounded_descriptions_with_rle(folder, case, name, row):
    (folder / name).write_text(json.dumps(row))
    answers = predict(folder, case)
    assert not answers["segment/liver"].decode(SIZE)[0].any()
    assert np.array_equal(answers["segment/liver tumor"].decode(SIZE)[0], MASK > 0)
    assert answers["report"].labels == ("liver", "liver tumor") and answers["report"].text == GLAMM["caption"]
    assert answers["report"].scores == ((0.25, 0.5) if "scores" in row else (None, None))
    assert answers["classify/0"].error == answers["describe/0"].error == "no prediction"
    predictor = FilesPredictor(folder)
    assert predictor.tasks == frozenset(TASKS)
    predictor.match(case)
    assert predictor.unmatched() == []


def test_rows_state_their_question(folder, case):
    last = [sample for sample in case.samples if sample.task == "describe"][-1]
    common = {"image": "test_0", "prompt": f"<image>\n{last.question}", "text": "A lesion."}
    rows = [
        {"image": "test_0", "target": "Liver", "text": "Sure, <SEG>.", "segmentation": runs(MASK > 0), "score": 0.5},
        {"image": "test_0", "task": "recognize", "text": "It is [SEG]. Cyst", "masks": [RLE]},
        common | {"box": list(last.box)},
        {"image": "test_0", "text": "does not state its question"},
        {"image": "test_1", "task": "recognize", "text": "It is [SEG]. Cyst"},
        {"sample": "organs/test_0#describe/0", "text": "Round."},
        common,
    ]
    (folder / "organs" / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n{\n{}\n")
    answers = predict(folder, case)
    assert np.array_equal(answers["segment/liver"].decode(SIZE)[0], MASK > 0)
    assert answers["segment/liver"].scores == (0.5,) and answers["segment/liver"].text == "Sure, [SEG]."
    assert answers["recognize"].labels == ("Cyst",) and answers["recognize"].decode(SIZE)[0].any()
    assert answers[last.id.partition("#")[2]].text == "A lesion."
    assert answers["describe/0"].text == "Round."
    predictor = FilesPredictor(folder)
    predictor.match(case)
    assert predictor.unmatched() == [
        "organs/rows.jsonl, line 4",
        "organs/rows.jsonl, line 5",
        "organs/rows.jsonl, line 7",
        "organs/rows.jsonl, line 8: not JSON",
        "organs/rows.jsonl, line 9: not an answer with an image and a text or masks",
    ]


def test_images_with_the_same_name_in_two_folders(folder, case):
    case = replace(case, record=replace(case.record, key="organs/a/test_0"))
    rows = [{"image": name} | GLAMM for name in ("test_0", "b/test_0", "a/test_0")]
    (folder / "organs" / "rows.json").write_text(json.dumps(rows))
    predictor = FilesPredictor(folder)
    predictor.match(case)
    assert predict(folder, case)["report"].error is None
    assert predictor.unmatched() == ["organs/rows.json, entry 1", "organs/rows.json, entry 2"]
    (folder / "organs" / "a").mkdir()
    (folder / "organs" / "rows.json").rename(folder / "organs" / "a" / "test_0.json")
    (folder / "organs" / "a" / "test_0.json").write_text(json.dumps(GLAMM))
    assert predict(folder, case)["report"].error is None


def test_answers_with_masks(folder, case):
    write(
        folder,
        {"sample": "organs/test_0#segment/liver", "text": "It is [SEG].", "masks": [RLE]},
        {"sample": "organs/test_0#recognize", "labels": ["Cyst"], "masks": [RLE]},
    )
    answers = predict(folder, case)
    assert answers["segment/liver"].decode(SIZE)[0].any() and answers["recognize"].decode(SIZE)[0].any()
    save(folder / "organs" / "test_0_liver.png")
    assert "two masks for one target" in predict(folder, case)["segment/liver"].error


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pred_masks": [RLE]}, "2 phrases, but 1 masks"),
        ({"pred_masks": [{"size": [30, 20], "counts": RLE["counts"]}] * 2}, "mask is 20 x 30 pixels"),
        ({"pred_masks": [{"size": [10**9, 10**9], "counts": "0"}] * 2}, "pixels, its image"),
        ({"pred_masks": [{"size": list(SIZE), "counts": "zz"}] * 2}, "run lengths"),
        ({"pred_masks": [{"size": list(SIZE), "counts": [1, 2]}] * 2}, "do not add up to its size"),
        ({"pred_masks": [{"size": list(SIZE), "counts": [-1, 601]}] * 2}, "do not add up to its size"),
        ({"pred_masks": [[1, 2, 3, 4, 5, 6]] * 2}, "polygons are not supported"),
        ({"pred_masks": "x"}, "are not a list"),
        ({"caption": 5}, "the text is not a string"),
    ],
)
def test_broken_rows_fail_separately(folder, case, one_line, changes, words):
    (folder / "organs" / "test_0.json").write_text(json.dumps(GLAMM | changes))
    save(folder / "organs" / "test_1_liver.png")
    found = predict(folder, case)["report"]
    assert words in found.error and found.error.startswith("organs/test_0.json")
    FilesPredictor(folder).match(case)


def test_row_scores_are_probabilities(folder, case):
    for scores in ([0.5], [2, 0.5], "high", [True, 0.5]):
        (folder / "organs" / "test_0.json").write_text(json.dumps(GLAMM | {"scores": scores}))
        assert predict(folder, case)["report"].error


def test_broken_table_of_an_image_fails_its_samples(folder, case):
    (folder / "organs" / "test_0.json").write_text("{")
    save(folder / "organs" / "test_1_liver.png")
    write(folder, {"sample": "organs/test_1#describe/0", "text": "x"})
    assert "test_0.json: not JSON" in predict(folder, case)["report"].error
    (folder / "organs" / "test_0.json").write_text("[" * 100_000)
    predictor = FilesPredictor(folder)
    predictor.match(case)
    assert "organs/test_0.json: not JSON in UTF-8 of at most 200 MB" in predictor.unmatched()


def test_answers_from_two_tables_are_a_failure(folder, case):
    (folder / "organs" / "test_0.json").write_text(json.dumps(GLAMM))
    write(folder, {"sample": "organs/test_0#report", "text": "x"})
    assert predict(folder, case)["report"].error == "2 answers in answers.jsonl and organs/test_0.json"


def test_stored_prediction_and_mask_are_two_answers(folder, segment_case):
    sample = segment_case.samples[0]
    PredictionStore(folder).write(Prediction.from_masks(sample.id, "", ["liver"], [MASK > 0]))
    assert predict(folder, segment_case)["segment/liver"].decode(SIZE)[0].any()
    save(folder / "organs" / "test_0_liver.png")
    error = predict(folder, segment_case)["segment/liver"].error
    assert error == "2 answers in test_0%23segment%2Fliver.json and test_0_liver.png"


def test_labels_without_masks_are_accepted(folder, case):
    """For models that answer with text only, a named finding counts as found."""
    write(folder, {"sample": "organs/test_0#recognize", "text": "It is [SEG]. Cyst"})
    found = predict(folder, case)["recognize"]
    assert (found.labels, found.masks) == (("Cyst",), ())
    store = PredictionStore(folder / "reused")
    store.write(found)
    (row,) = score_case(case, [s for s in case.samples if s.task == "recognize"], store)
    assert row.predicted_labels == ["Cyst"] and row.predicted_present


def test_unreadable_answers_file(folder, one_line):
    (folder / "answers.jsonl").mkdir()
    with pytest.raises(InputError, match=r"answers.jsonl' cannot be read \(") as caught:
        FilesPredictor(folder)
    one_line(caught.value)


@pytest.mark.parametrize("box", ["<box>[[1,2,30,40]]</box>", "<box>1,2,30,40</box>"])
def test_boxes_in_text_are_not_converted_to_masks(folder, case, box):
    text = f"<ref>liver</ref>{box}: no lesion."
    write(folder, *[{"sample": f"organs/test_0#{task}", "text": text} for task in ("describe/0", "report")])
    answers = predict(folder, case)
    assert answers["describe/0"].text == text
    assert answers["report"].text == text and answers["report"].error is None and not answers["report"].masks


def test_unknown_files_are_listed(folder, case):
    save(folder / "organs" / "test_0_liver.png")
    for name in ("organs/test_0_liver.npy", "lonely.png", "results.json"):
        (folder / name).write_text("{}")
    predictor = FilesPredictor(folder)
    predictor.match(case)
    assert predictor.unmatched() == [
        "lonely.png",
        "organs/test_0_liver.npy",
        "results.json: not an answer with an image and a text or masks",
    ]


SHAPE = (5, 6, 7)
AFFINE = np.diag([-1.0, -1, 3, 1])
VOLUMES = """
name = "scans"
licence = "CC0"
adapter = "volumes"
modality = "CT"
site = "abdomen"
split = { pattern = '^(test)' }
[[targets]]
name = "liver"
masks = ["labels/{stem}.nii.gz"]
values = [1]
[[targets]]
name = "liver tumor"
masks = ["labels/{stem}.nii.gz"]
values = [2]
"""


@pytest.fixture
def scans(tmp_path):
    """Data set with one volume in LPS orientation; returns its labels and cases."""
    root = tmp_path / "data"
    for name in ("images", "labels"):
        (root / "scans" / name).mkdir(parents=True)
    (root / "scans" / "dataset.toml").write_text(VOLUMES)
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[1:3, 2:5, 1:6] = 1
    labels[3, 1, 4] = 2
    values = np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype(np.int16)
    nib.save(nib.Nifti1Image(values, AFFINE), root / "scans" / "images" / "test_0.nii.gz")
    nib.save(nib.Nifti1Image(labels, AFFINE), root / "scans" / "labels" / "test_0.nii.gz")
    suite = Suite("toy", tasks=["segment"], out_of_context=False)
    (tmp_path / "model" / "scans").mkdir(parents=True)
    return labels, list(make_cases(suite, suite_records(suite, root)))


def keep(folder, name, values, affine=AFFINE):
    path = folder / "scans" / name
    path.parent.mkdir(exist_ok=True)
    if name.endswith(".npz"):
        np.savez_compressed(path, **(values if isinstance(values, dict) else {"segs": values}))
    else:
        nib.save(nib.Nifti1Image(values, affine), path)


def right(folder, cases, targets):
    """Check that every slice has the ground-truth mask and other targets have no prediction."""
    for case in cases:
        truth = case.masks(case.pixels().shape[:2])
        for (name, found), sample in zip(predict(folder, case).items(), case.samples, strict=True):
            if sample.target in targets:
                assert found.error is None, (name, found.error)
                assert np.array_equal(found.decode(truth[0].shape)[0], truth[sample.regions[0]])
            else:
                assert found.error == "no prediction"
    return True


@pytest.mark.parametrize("name", ["test_0/{}", "test_0_{}", "{}/test_0", "seg_test_0/{}"])
@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".npz", " slices first.npz"])
def test_volumes_of_single_targets(tmp_path, scans, name, ending):
    labels, cases = scans
    folder, values = tmp_path / "model", (labels == 2).astype(np.float64)
    if "first" in ending:
        values, ending = values.T, ".npz"
    keep(folder, name.format("liver tumor") + ending, values)
    assert len(cases) == 7 and right(folder, cases, {"liver tumor"})
    predictor = FilesPredictor(folder)
    assert predictor.tasks == {"segment", "outline"} and len(predictor.unmatched()) == 1
    predictor.match(cases[0])
    assert predictor.unmatched() == []


def test_volumes_with_reversed_axes(tmp_path, scans):
    labels, cases = scans
    turned = nib.Nifti1Image(labels, AFFINE).as_reoriented(nib.orientations.axcodes2ornt("SPR"))
    (tmp_path / "model" / "labels.json").write_text('{"1": "liver"}')
    nib.save(turned, tmp_path / "model" / "scans" / "test_0.nii.gz")
    assert right(tmp_path / "model", cases, {"liver"})


def test_sat_volumes_without_position(tmp_path, scans):
    labels, cases = scans
    # SAT loads volumes in RAS orientation
    loaded = np.asarray(nib.as_closest_canonical(nib.Nifti1Image(labels, AFFINE)).dataobj)
    folder = tmp_path / "model"
    for number, name in enumerate(("liver", "liver tumor"), 1):
        keep(folder, f"seg_test_0/{name}.nii.gz", (loaded == number).astype(np.float32), np.eye(4))
    keep(folder, "seg_test_0.nii.gz", loaded.astype(np.float32), np.eye(4))
    assert right(folder, cases, {"liver", "liver tumor"})
    predictor = FilesPredictor(folder)
    predictor.match(cases[0])
    assert predictor.unmatched() == []


@pytest.mark.parametrize("where", ["", "scans/"])
@pytest.mark.parametrize(
    "meaning", [{"1": "Liver", "2": "liver_tumor"}, {"background": 0, "liver": 1, "liver tumor": 2}]
)
@pytest.mark.parametrize("name", ["test_0.nii.gz", "test_0.npz", "seg_test_0.nii.gz"])
def test_label_map_volumes(tmp_path, scans, name, meaning, where):
    labels, cases = scans
    keep(tmp_path / "model", name, labels)
    (tmp_path / "model" / where / "labels.json").write_text(json.dumps(meaning))
    assert right(tmp_path / "model", cases, {"liver", "liver tumor"})


@pytest.mark.parametrize(
    ("meaning", "words"),
    [
        (None, "label map without labels.json"),
        ("{", "labels.json cannot be read"),
        ("[]", "labels.json contains no label"),
        ('{"one": "liver"}', "does not give a number and a name"),
        ('{"1": [2]}', "does not give a number and a name"),
        ("{}", "labels.json contains no label"),
    ],
)
def test_label_maps_without_labels(tmp_path, scans, meaning, words):
    labels, cases = scans
    keep(tmp_path / "model", "test_0.nii.gz", labels)
    if meaning is not None:
        (tmp_path / "model" / "labels.json").write_text(meaning)
    assert words in predict(tmp_path / "model", cases[0])["segment/liver"].error


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("test_0_liver.nii.gz", np.zeros((5, 6, 8), dtype=np.uint8), "has 8 x 6 x 5 voxels, its image 7 x 6 x 5"),
        ("test_0_liver.nii.gz", np.full(SHAPE, 0.3), "the values are not labels"),
        ("test_0_liver.npz", np.zeros((5, 6, 8), dtype=np.uint8), "has 5 x 6 x 8 values"),
        ("test_0_liver.npz", np.zeros((5, 7, 6), dtype=np.uint8), "has 5 x 7 x 6 values"),
        ("test_0_liver.npz", np.full(SHAPE, 0.3), "the values are not labels"),
        ("test_0_liver.npz", np.full(SHAPE, "a"), "values of type <U1"),
        ("test_0_liver.npz", np.full(SHAPE, None), "values of type object"),
        ("test_0_liver.npz", {"a": np.zeros(SHAPE), "b": np.zeros(SHAPE)}, "which array is the mask"),
        ("test_0_liver.npz", {"a": np.zeros(3)}, "which array is the mask"),
    ],
)
def test_volumes_of_wrong_size_fail_separately(tmp_path, scans, one_line, name, values, words):
    labels, cases = scans
    keep(tmp_path / "model", name, values)
    keep(tmp_path / "model", "test_0_liver tumor.nii.gz", (labels == 2).astype(np.uint8))
    answers = predict(tmp_path / "model", cases[4])
    assert words in answers["segment/liver"].error and name in answers["segment/liver"].error
    assert answers["segment/liver tumor"].error is None


@pytest.mark.parametrize("name", ["test_0_liver.nii.gz", "test_0_liver.npz"])
@pytest.mark.parametrize("left", [0, 30, 100])
def test_damaged_volumes_fail(tmp_path, scans, name, left):
    _, cases = scans
    keep(tmp_path / "model", name, np.random.default_rng(0).integers(0, 2, SHAPE).astype(np.uint8))
    path = tmp_path / "model" / "scans" / name
    path.write_bytes(path.read_bytes()[:left])
    assert "test_0_liver" in predict(tmp_path / "model", cases[0])["segment/liver"].error
    path.write_bytes(b"PK" + bytes(left))
    assert "test_0_liver" in predict(tmp_path / "model", cases[0])["segment/liver"].error


def test_volumes_at_another_position_fail(tmp_path, scans):
    labels, cases = scans
    moved = AFFINE.copy()
    moved[:3, 3] = 40
    keep(tmp_path / "model", "test_0_liver.nii.gz", labels, moved)
    assert "its position differs from that of the image" in predict(tmp_path / "model", cases[0])["segment/liver"].error
    keep(tmp_path / "model", "test_0_liver.npz", labels)
    assert "two masks for one target" in predict(tmp_path / "model", cases[0])["segment/liver"].error


def test_slices_with_images_and_rows(tmp_path, scans):
    _, cases = scans
    size = cases[4].pixels().shape[:2]
    save(tmp_path / "model" / "scans" / "test_0@4_liver.png", np.ones(size, dtype=np.uint8))
    row = {"image": "scans/images/test_0.nii.gz", "slice": 4, "target": "liver tumor"}
    (tmp_path / "model" / "rows.jsonl").write_text(json.dumps(row | {"masks": [rle_encode(np.ones(size, dtype=bool))]}))
    assert [p.decode(size)[0].all() for p in predict(tmp_path / "model", cases[4]).values()] == [True, True]
    assert {p.error for p in predict(tmp_path / "model", cases[3]).values()} == {"no prediction"}


def test_volumes_are_ignored_for_2d_images(folder, segment_case):
    nib.save(nib.Nifti1Image(np.zeros(SHAPE), AFFINE), folder / "organs" / "test_0_liver.nii.gz")
    assert predict(folder, segment_case)["segment/liver"].error == "no prediction"
    predictor = FilesPredictor(folder)
    predictor.match(segment_case)
    assert predictor.unmatched() == ["organs/test_0_liver.nii.gz"]


@pytest.mark.parametrize("row", [{"masks": []}, {"text": "There is no such thing."}, {"text": "None.", "masks": []}])
def test_denied_target_is_an_empty_mask(folder, segment_case, row):
    """Such an answer is correct for absent targets."""
    key = segment_case.record.key
    write(folder, {"sample": f"{key}#segment/liver", "score": 0.25, **row})
    assert "segment" in FilesPredictor(folder).tasks
    answers = predict(folder, segment_case)
    refused = answers.pop("segment/liver")
    assert refused.error is None and refused.scores == (0.25,) and not refused.decode(SIZE)[0].any()
    assert {p.error for p in answers.values()} == {"no prediction"}


def test_missing_mask_of_a_seg_token_is_a_failure(folder, segment_case):
    write(folder, {"sample": f"{segment_case.record.key}#segment/liver", "text": "It is [SEG]."})
    assert predict(folder, segment_case)["segment/liver"].error == "no prediction"


@pytest.mark.parametrize(
    ("sample", "row"),
    [
        ("classify/0", {"text": "liver", "score": math.nan}),
        ("recognize", {"text": "No findings", "scores": [0.5, math.inf]}),
        ("describe/1", {"text": "A lesion.", "score": 3.0}),
    ],
)
def test_unused_scores_are_validated(folder, case, sample, row):
    write(folder, {"sample": f"organs/test_0#{sample}", **row})
    assert "not in [0, 1]" in predict(folder, case)[sample].error
