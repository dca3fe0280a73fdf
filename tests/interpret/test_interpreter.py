from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.data import get_testdata_file

import unibiomed
from unibiomed.errors import InputError, ModelError
from unibiomed.findings import Interpretation
from unibiomed.images import MedicalImage
from unibiomed.interpret import Interpreter, drawing, load
from unibiomed.interpret import interpreter as module
from unibiomed.interpret.vocabulary import ModelVocabulary
from unibiomed.model.modeling import UniBiomedModel
from unibiomed.tasks import TASKS

HEIGHT, WIDTH = 61, 97


def quarter(height: int, width: int) -> np.ndarray:
    """Where the script's mask lies, to within the pixels that interpolation may move."""
    mask = np.zeros((height, width), bool)
    mask[: round(height / 2), : round(width / 2)] = True
    return mask


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)


# ---------------------------------------------------------------- the six tasks


def test_a_finding_that_no_image_of_the_kind_was_said_to_show_counts_as_not_found(interpreter, script, picture):
    interpreter.vocabulary = ModelVocabulary({}, {"CT": ["Sarcoma"], "MRI": ["Glioma"]})
    script.says = ["It is [SEG]. Glioma"]
    for modality, found in (("CT", False), ("MRI", True), ("fundus", False)):
        result = interpreter.interpret(picture, "recognize", modality=modality)
        (finding,) = result.findings
        assert (finding.label, finding.present, bool(finding.mask.any())) == ("Glioma", found, found), modality
        assert any("not trained to find in" in note for note in result.notes) == (not found)
        assert result.text == ("Glioma" if found else "No findings")


def test_results_tell_what_was_looked_at_and_come_back(interpreter, script, picture):
    script.says = ["liver"]
    result = interpreter.interpret(picture, box=(10, 20, 40, 50), modality="CT")
    details = result.details
    assert (details["box"], details["modality"], details["format"]) == ([10, 20, 40, 50], "CT", "array")
    assert details["presence_threshold"] is None or 0 <= details["presence_threshold"] <= 1
    other = interpreter.interpret(255 - picture, box=(10, 20, 40, 50))
    assert len(details["pixels"]) == 16 and details["pixels"] != other.details["pixels"]
    again = type(result).from_dict(result.to_dict())
    assert again.findings == result.findings and again.details == details


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"targets": [1]}, "have to be texts"),
        ({"question": 3}, "have to be texts"),
        ({"targets": ["a"], "max_new_tokens": 0}, "an answer of 0 tokens"),
        ({"targets": ["a", "b"], "task": "segment", "question": "Where?"}, "targets and question are two questions"),
        ({"targets": ["a"], "question": "Where?"}, "targets and question are two questions: give one of them"),
        ({"targets": "a", "task": "ask", "question": "Where?"}, "targets and question are two questions"),
    ],
)
def test_questions_of_the_wrong_kind(interpreter, picture, given, words):
    with pytest.raises(InputError, match=words):
        interpreter.interpret(picture, **given)


def test_segment_gives_each_target_its_mask_on_the_images_own_pixels(interpreter, script, picture):
    script.says = ["Sure, It is [SEG].", "It is [SEG]."]
    result = interpreter.interpret(picture, targets=["optic disc", "optic cup"])
    assert isinstance(result, Interpretation) and result.task == "segment"
    assert script.questions == [
        "Please segment the optic disc in the image.",
        "Please segment the optic cup in the image.",
    ]
    assert [f.label for f in result.findings] == ["optic disc", "optic cup"]
    for finding in result.findings:
        assert finding.mask.shape == (HEIGHT, WIDTH) and finding.mask.dtype == bool
        assert iou(finding.mask, quarter(HEIGHT, WIDTH)) > 0.9
        assert finding.present and finding.area_fraction == pytest.approx(0.25, abs=0.02)
        assert finding.box[:2] == (0, 0) and finding.area_mm2 is None
        assert finding.presence == pytest.approx(1 / (1 + np.exp(-8)))
        assert finding.mask_score == pytest.approx(0.75)
    assert result.text == "optic disc: found; optic cup: found"
    assert (result.height, result.width, result.notes) == (HEIGHT, WIDTH, ())
    assert len(result.tokens) == len(result.token_probabilities) > 4


def test_one_target_is_one_finding_however_often_the_answer_points_at_it(interpreter, script, picture):
    script.says = ["It is [SEG]. It is [SEG].", "It is [SEG]."]
    result = interpreter.interpret(picture, targets=["optic disc", "optic cup"])
    assert [f.label for f in result.findings] == ["optic disc", "optic cup"]
    assert all(iou(f.mask, quarter(HEIGHT, WIDTH)) > 0.9 for f in result.findings)


def test_one_target_may_be_a_plain_string(interpreter, script, picture):
    script.says = ["It is [SEG]."]
    assert interpreter.interpret(picture, targets="liver tumor").findings[0].label == "liver tumor"
    assert script.questions == ["Please segment the liver tumor in the image."]


def test_a_target_below_the_presence_threshold_has_an_empty_mask(interpreter, script, picture):
    script.says, script.presence = ["It is [SEG].", "It is [SEG]."], [2.0, -2.0]
    there, absent = interpreter.interpret(picture, targets=["liver", "spleen"]).findings
    assert there.present and not absent.present
    assert absent.label == "spleen" and absent.presence == pytest.approx(0.1192, abs=1e-4)
    assert absent.mask.shape == (HEIGHT, WIDTH) and not absent.mask.any() and absent.box is None
    interpreter.presence_threshold = 0.0
    assert interpreter.interpret(picture, targets=["liver", "spleen"]).findings[1].present


def test_a_target_without_a_mask_in_the_answer_is_absent(interpreter, script, picture):
    script.says = ["There is no such thing.", "It is [SEG]."]
    absent, there = interpreter.interpret(picture, targets=["spleen", "liver"]).findings
    assert not absent.present and not absent.mask.any() and absent.presence is None
    assert there.label == "liver" and there.present, "the only mask belongs to the second answer"


def test_recognize_with_one_label(interpreter, script, picture):
    script.says = ["It is [SEG]. Brain tumor"]
    result = interpreter.interpret(picture)
    assert result.task == "recognize" and result.text == "Brain tumor"
    assert [(f.label, f.present) for f in result.findings] == [("Brain tumor", True)]
    assert result.raw_text == "It is [SEG]. Brain tumor<|end|>"


def test_recognize_with_several_labels_keeps_their_order(interpreter, script, tiny, picture):
    def corner(k: int) -> torch.Tensor:
        return tiny.upper_left(k) if k == 0 else tiny.upper_left(k).flip(0, 1)

    script.says, script.logits = ["It is [SEG]. Liver tumor. [SEG]. Kidney cyst"], corner
    first, second = interpreter.interpret(picture, "recognize").findings
    assert (first.label, second.label) == ("Liver tumor", "Kidney cyst")
    assert iou(first.mask, quarter(HEIGHT, WIDTH)) > 0.9
    assert iou(second.mask, np.rot90(quarter(HEIGHT, WIDTH), 2)) > 0.85


def test_no_findings_is_one_finding_with_an_all_zero_mask(interpreter, script, picture):
    script.says = ["No findings."]
    result = interpreter.interpret(picture, "recognize")
    assert result.text.rstrip(".") == "No findings"
    (finding,) = result.findings
    assert finding.label == "No findings" and not finding.present
    assert finding.mask.shape == (HEIGHT, WIDTH) and not finding.mask.any()


def test_a_label_whose_mask_was_emptied_is_said_to_be_unlikely(interpreter, script, picture):
    script.says, script.presence = ["It is [SEG]. Polyp"], [-5.0]
    result = interpreter.interpret(picture)
    assert not result.findings[0].present
    assert len(result.notes) == 1 and "'Polyp'" in result.notes[0] and "0.5" in result.notes[0]


def test_report_ties_each_phrase_to_its_mask(interpreter, script, picture):
    script.says = ["<p> A large mass </p> [SEG] in the left lung and <p> an effusion </p> [SEG]."]
    result = interpreter.interpret(picture, "report")
    assert [f.phrase for f in result.findings] == ["A large mass", "an effusion"]
    assert all(f.present for f in result.findings)
    assert result.text.rstrip(".") == "A large mass in the left lung and an effusion"


def test_classify_names_the_box_and_how_sure_it_is(interpreter, script, picture):
    script.says, script.probability = ["liver in abdomen CT"], 0.99
    result = interpreter.interpret(picture, box=(10, 20, 40, 50))
    assert result.task == "classify" and result.text == "liver in abdomen CT"
    (finding,) = result.findings
    assert finding.label == "liver" and finding.box == (10, 20, 40, 50) and finding.mask is None
    assert finding.confidence == pytest.approx(0.99 ** len(result.tokens))


def test_describe_speaks_of_the_box(interpreter, script, picture):
    script.says = ["A round, smooth nodule."]
    result = interpreter.interpret(picture, "describe", box=(10, 20, 40, 50))
    (finding,) = result.findings
    assert finding.phrase == result.text == "A round, smooth nodule."
    assert finding.box == (10, 20, 40, 50) and finding.presence is None and finding.confidence is None
    assert script.questions == ["Please describe the region in the green box of this image."]


def test_ask_without_and_with_masks(interpreter, script, picture):
    script.says = ["Computed tomography."]
    words = interpreter.interpret(picture, question="Which modality is it?")
    assert words.task == "ask" and words.text == "Computed tomography." and words.findings == ()
    script.says = ["Yes, <p> a polyp </p> [SEG]."]
    grounded = interpreter.interpret(picture, question="Is there a polyp?")
    assert [f.label for f in grounded.findings] == ["a polyp"] and grounded.findings[0].present
    assert script.questions == ["Which modality is it?", "Is there a polyp?"]


def test_plain_words_may_replace_the_words_of_a_task(interpreter, script, picture):
    script.says = ["It is [SEG]. Cyst"]
    result = interpreter.interpret(picture, "recognize", question="Anything odd here?")
    assert result.task == "recognize" and script.questions == ["Anything odd here?"]


@pytest.mark.parametrize("task", [name for name, task in TASKS.items() if task.in_words])
def test_every_task_runs_on_the_model_itself(interpreter, picture, task):
    needs = TASKS[task]
    result = interpreter.interpret(
        picture,
        task,
        targets=["liver"] if needs.needs_target else [],
        box=(5, 5, 60, 40) if needs.needs_box else None,
        question="What is it?" if needs.needs_question else None,
        max_new_tokens=6,
    )
    assert result.task == task and 0 < len(result.tokens) <= 6
    assert Interpretation.from_dict(result.to_dict()).raw_text == result.raw_text
    assert "cut" in result.notes[0], "six tokens are not a whole answer of an untrained model"


def test_the_modality_is_named_when_it_is_known(interpreter, script, picture):
    script.says = ["It is [SEG]."]
    interpreter.interpret(MedicalImage(picture, modality="fundus"), targets="optic disc")
    interpreter.interpret(picture, targets="optic disc", modality="OCT")
    assert script.questions == [
        "Please segment the optic disc in the fundus image.",
        "Please segment the optic disc in the OCT image.",
    ]


def test_an_answer_that_was_cut_says_so(interpreter, script, picture):
    script.says, script.finished = ["It is a very long"], False
    assert interpreter.interpret(picture, question="What?").notes == ("the answer was cut at its longest length",)


def test_targets_of_another_task_are_not_dropped_in_silence(interpreter, script, picture):
    script.says = ["No findings."]
    result = interpreter.interpret(picture, "recognize", targets=["liver"])
    assert len(result.notes) == 1 and "targets have no effect" in result.notes[0]


@pytest.mark.parametrize("wrong", [-0.1, 1.5, float("nan"), "0.5", True, None])
def test_the_presence_threshold_is_a_number_from_0_to_1(interpreter, wrong):
    before = interpreter.presence_threshold
    with pytest.raises(InputError, match=r"presence threshold is .*give a number from 0 to 1"):
        interpreter.presence_threshold = wrong
    assert interpreter.presence_threshold == before
    for right in (0, 1, np.float32(0.5)):
        interpreter.presence_threshold = right
        assert interpreter.presence_threshold == float(right)
    interpreter.presence_threshold = before


def test_what_was_noted_while_reading_is_said_of_every_answer(interpreter, script):
    script.says = ["No findings."]
    blank = interpreter.interpret(np.full((40, 50), 7, np.uint8))
    assert any("same value" in note for note in blank.notes) and blank.findings[0].label == "No findings"
    guessed = interpreter.interpret(np.linspace(0, 3000, 2000).reshape(40, 50))
    assert any("grey levels were scaled from the values" in note for note in guessed.notes)
    few = interpreter.interpret(np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint16))
    assert any("lowest 8 bits" in note for note in few.notes)
    clear = interpreter.interpret(np.random.default_rng(0).integers(0, 256, (40, 50), dtype=np.uint8))
    assert clear.notes == ()


# ---------------------------------------------------------------- scores of models whose heads are untrained


def test_untrained_heads_are_not_asked(interpreter, script, picture, monkeypatch):
    monkeypatch.setattr(interpreter.model.config, "scores_trained", False)
    script.says, script.presence = ["It is [SEG]."], [-50.0]
    (finding,) = interpreter.interpret(picture, targets="liver").findings
    assert finding.present and finding.presence > 0.99, "read off the mask, not off the presence head"
    assert 0.8 < finding.mask_score < 1 and finding.mask_score != pytest.approx(0.75)


# ---------------------------------------------------------------- the image's own grid


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (61, 97), (200, 33)])
def test_masks_have_the_size_of_any_image(interpreter, script, size):
    script.says = ["It is [SEG]."]
    result = interpreter.interpret(np.zeros((*size, 3), np.uint8), targets="liver")
    assert result.findings[0].mask.shape == size == (result.height, result.width)
    assert result.overlay().width >= size[1]


def test_dicom_spacing_and_modality_reach_the_findings(interpreter, script):
    path = get_testdata_file("CT_small.dcm")
    header = pydicom.dcmread(path)
    script.says = ["It is [SEG]."]
    result = interpreter.interpret(path, targets="spine")
    row, column = (float(v) for v in header.PixelSpacing)
    (finding,) = result.findings
    assert finding.mask.shape == (header.Rows, header.Columns)
    assert result.spacing == (row, column)
    assert finding.area_mm2 == pytest.approx(finding.mask.sum() * row * column)
    assert script.questions == ["Please segment the spine in the CT image."]
    assert result.image == str(path)


def test_a_slice_of_a_volume(interpreter, script, tmp_path):
    values = np.random.default_rng(0).normal(0, 300, (33, 47, 5))
    image = nibabel.Nifti1Image(values.astype(np.float32), np.diag([2.0, 1.5, 1.0, 1.0]))
    nibabel.save(image, tmp_path / "volume.nii.gz")
    script.says = ["It is [SEG]."]
    result = interpreter.interpret(tmp_path / "volume.nii.gz", targets="liver", slice_index=3, window="lung")
    (finding,) = result.findings
    assert finding.mask.shape == (47, 33), "shown with the patient upright, the first axis runs across"
    assert result.spacing == pytest.approx((1.5, 2.0))
    assert finding.area_mm2 == pytest.approx(finding.mask.sum() * 3.0)


def test_images_of_every_kind_of_object(interpreter, script, picture, tmp_path):
    Image.fromarray(picture).save(tmp_path / "a.png")
    kinds: list[Any] = [tmp_path / "a.png", str(tmp_path / "a.png"), picture, Image.fromarray(picture)]
    script.says = ["It is [SEG]."]
    results = [interpreter.interpret(kind, targets="liver") for kind in kinds]
    for result in results:
        assert np.array_equal(result.pixels, picture)
        assert np.array_equal(result.findings[0].mask, results[0].findings[0].mask)


# ---------------------------------------------------------------- one look, many questions


def test_an_image_is_encoded_once_however_much_is_asked(interpreter, picture, monkeypatch):
    calls = {"encode_image": 0, "vision_encoder": 0}
    encode_image = UniBiomedModel.encode_image

    def spy(self: UniBiomedModel, *arguments: Any, **options: Any) -> Any:
        calls["encode_image"] += 1
        return encode_image(self, *arguments, **options)

    def hook(*_: Any) -> None:
        calls["vision_encoder"] += 1

    monkeypatch.setattr(UniBiomedModel, "encode_image", spy)
    handle = interpreter.model.grounding.vision_encoder.register_forward_hook(hook)
    try:
        seen = interpreter.encode(picture)
        interpreter.interpret(seen, targets=["a", "b", "c"], max_new_tokens=2)
        interpreter.interpret(seen, "recognize", max_new_tokens=2)
        interpreter.interpret(seen, question="What?", max_new_tokens=2)
        assert calls == {"encode_image": 1, "vision_encoder": 1}
        interpreter.interpret(picture, targets=["a", "b"], max_new_tokens=2)
        assert calls == {"encode_image": 2, "vision_encoder": 2}
    finally:
        handle.remove()


def test_asking_an_encoded_image_is_asking_the_image(interpreter, picture):
    direct = interpreter.interpret(picture, "report", max_new_tokens=12)
    seen = interpreter.interpret(interpreter.encode(picture), "report", max_new_tokens=12)
    assert seen.raw_text == direct.raw_text and seen.findings == direct.findings
    assert seen.token_probabilities == pytest.approx(direct.token_probabilities)


def test_all_masks_of_an_answer_are_decoded_in_one_call(interpreter, script, picture):
    script.says = ["[SEG]", "[SEG] [SEG]", "none", "[SEG]"]
    result = interpreter.interpret(picture, targets=["a", "b", "c", "d"])
    assert script.decoded == [4]
    assert [(f.label, f.present) for f in result.findings] == [
        ("a", True), ("b", True), ("c", False), ("d", True),
    ]  # fmt: skip


def test_no_gradients_are_kept(interpreter, picture):
    assert not interpreter.model.training
    features = interpreter.encode(picture).features
    assert all(not t.requires_grad for t in (*features.tokens, *features.maps))


# ---------------------------------------------------------------- boxes


@pytest.fixture
def seen_by_the_model(monkeypatch) -> list[np.ndarray]:
    """The pixels that go to the processor."""
    seen: list[np.ndarray] = []
    image = module.UniBiomedProcessor.image

    def spy(self: Any, pixels: np.ndarray) -> Any:
        seen.append(np.asarray(pixels))
        return image(self, pixels)

    monkeypatch.setattr(module.UniBiomedProcessor, "image", spy)
    return seen


def is_green(pixels: np.ndarray) -> np.ndarray:
    return (pixels == (0, 255, 0)).all(-1)


def outline(height: int, width: int, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    frame = np.zeros((height, width), bool)
    frame[y0:y1, x0:x1] = True
    frame[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2] = False
    return frame


def test_a_model_with_tiles_sees_the_box_on_the_image_itself(interpreter, seen_by_the_model):
    settings = dataclasses.replace(interpreter.processor.settings, tile_size=32)
    interpreter.processor = module.UniBiomedProcessor(interpreter.processor.tokenizer, settings)
    interpreter.encode(np.zeros((HEIGHT, WIDTH, 3), np.uint8), box=(10, 20, 40, 50))
    (pixels,) = seen_by_the_model
    assert np.array_equal(is_green(pixels), outline(HEIGHT, WIDTH, 10, 20, 40, 50))


def test_a_shared_model_sees_the_box_at_its_own_size(interpreter, tiny, seen_by_the_model):
    interpreter.encode(np.zeros((4 * tiny.SIDE, 8 * tiny.SIDE, 3), np.uint8), box=(80, 80, 400, 160))
    (pixels,) = seen_by_the_model
    assert np.array_equal(is_green(pixels), outline(tiny.SIDE, tiny.SIDE, 10, 20, 50, 40))


def test_the_smallest_box_is_still_drawn(interpreter, seen_by_the_model):
    interpreter.encode(np.zeros((1000, 1000, 3), np.uint8), box=(999, 999, 1000, 1000))
    assert is_green(seen_by_the_model[0]).sum() == 1


def test_a_box_is_drawn_for_the_model_only(interpreter, script, picture):
    script.says = ["liver"]
    before = picture.copy()
    result = interpreter.interpret(picture, box=[10, 20, 40, 50])
    assert np.array_equal(result.pixels, before) and np.array_equal(picture, before)


def test_an_encoded_image_is_looked_at_again_with_the_box(interpreter, script, picture, seen_by_the_model):
    script.says = ["liver"]
    seen = interpreter.encode(picture)
    interpreter.interpret(seen, box=(10, 20, 40, 50))
    assert [bool(is_green(p).any()) for p in seen_by_the_model] == [False, True]


# ---------------------------------------------------------------- what cannot be done


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"task": "diagnose"}, "unknown task 'diagnose'"),
        ({"task": "segment"}, "needs at least one target"),
        ({"targets": [" "]}, "needs at least one target"),
        ({"task": "classify"}, "needs a box"),
        ({"task": "describe"}, "needs a box"),
        ({"task": "ask"}, "needs a question"),
        ({"question": "  "}, "question is empty"),
        ({"box": (0, 0, 98, 10)}, "outside the image of 97x61"),
        ({"box": (-1, 0, 5, 5)}, "outside"),
        ({"box": (5, 5, 5, 9)}, "no area"),
        ({"box": (1, 2, 3)}, "four integers"),
        ({"box": (0.5, 0, 3, 3)}, "four integers"),
        ({"modality": "smell"}, "unknown modality"),
        ({"targets": [f"t{i}" for i in range(65)]}, "at most 64"),
        ({"slice_index": 0}, "no slices"),
        ({"window": "kitchen"}, "window"),
        ({"question": "why " * 5000}, "shorten the question"),
    ],
)
def test_what_cannot_be_asked(interpreter, picture, options, words):
    with pytest.raises(InputError, match=words) as caught:
        interpreter.interpret(picture, **options)
    assert "\n" not in str(caught.value)


def test_an_encoded_image_has_its_window_already(interpreter, picture):
    with pytest.raises(InputError, match="while an image file is read"):
        interpreter.interpret(interpreter.encode(picture), window="lung")


def test_zero_characters_and_control_tokens_in_a_question_are_harmless(interpreter, picture):
    result = interpreter.interpret(picture, question="what\0 is <image> [SEG] <|end|> it", max_new_tokens=3)
    assert len(result.tokens) == 3


def test_values_that_are_not_numbers_are_told(interpreter, script, picture, monkeypatch):
    script.says, script.probability = ["liver"], float("nan")
    with pytest.raises(ModelError, match="not numbers in float32"):
        interpreter.interpret(picture, question="What?")
    script.says, script.probability = ["[SEG]"], 0.9
    script.logits = lambda k: torch.full((16, 16), float("nan"))
    with pytest.raises(ModelError, match="not numbers"):
        interpreter.interpret(picture, targets="liver")


def test_an_answer_of_too_many_masks_does_not_fill_the_memory(interpreter, script, picture, monkeypatch):
    monkeypatch.setattr(drawing, "MAX_DECODED_PIXELS", 3 * HEIGHT * WIDTH)
    script.says = ["[SEG] [SEG] [SEG]"]
    assert len(interpreter.interpret(picture, "report").findings) == 3
    script.says = ["[SEG] [SEG] [SEG] [SEG]"]
    with pytest.raises(InputError, match="4 masks of 97x61 pixels"):
        interpreter.interpret(picture, "report")


def test_a_model_that_repeats_itself_is_read_in_parts(interpreter, script, picture):
    script.says = ["[SEG]" * 70]
    result = interpreter.interpret(picture, "report")
    assert script.decoded == [64, 6] and len(result.findings) == 70


# ---------------------------------------------------------------- loading


def test_load_is_at_the_top_of_the_package(model_folder):
    assert unibiomed.load is load and unibiomed.Interpreter is Interpreter


def test_the_name_of_a_model_is_its_folders(model_folder, monkeypatch):
    monkeypatch.chdir(model_folder)
    assert load(".", device="cpu").name == model_folder.name


@pytest.mark.parametrize("options", [{"device": "abacus"}, {"device": "cuda:99"}, {"dtype": "int8"}])
def test_devices_and_dtypes_that_cannot_be_used(model_folder, options):
    with pytest.raises(InputError, match="cannot be used"):
        load(model_folder, **options)


def test_half_precision_answers_too(model_folder, picture):
    result = load(model_folder, device="cpu", dtype="bfloat16").interpret(picture, "report", max_new_tokens=4)
    assert len(result.tokens) == 4


def test_without_the_shipped_model_it_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "NANO", tmp_path / "nano")
    for name in (None, "nano"):
        with pytest.raises(ModelError, match="install unibiomed again, or give a model folder"):
            load(name)


def test_loading_is_silent(model_folder, capfd):
    load(model_folder, device="cpu").interpret(np.zeros((8, 8), np.uint8), targets="x", max_new_tokens=2)
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""


def test_results_survive_as_json(interpreter, script, picture, tmp_path):
    script.says = ["<p> A mass </p> [SEG]."]
    result = interpreter.interpret(picture, "report")
    again = Interpretation.from_dict(result.to_dict())
    assert again.findings == result.findings and again.tokens == result.tokens
    buffer = io.BytesIO()
    result.overlay("title").save(buffer, "PNG")
    assert buffer.getbuffer().nbytes > 1000
    assert isinstance(tmp_path, Path)
