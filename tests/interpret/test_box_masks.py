"""The task ``outline``: the mask of what a box holds."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch

from unibiomed.errors import InputError, ModelError
from unibiomed.findings import Interpretation
from unibiomed.interpret import Interpreter
from unibiomed.interpret.box_masks import LABEL, can_outline
from unibiomed.model.modeling import MaskPrediction, UniBiomedModel

BOX = (10, 5, 80, 55)


@pytest.fixture
def boxed(interpreter: Interpreter, monkeypatch: pytest.MonkeyPatch) -> Interpreter:
    """The tiny model, as if its box prompt had been trained."""
    monkeypatch.setattr(interpreter.model.config, "box_prompt", True)
    return interpreter


def count_encodings(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The pixels of all images that the model encodes from now on."""
    seen: list[torch.Tensor] = []
    real = UniBiomedModel.encode_image

    def encode(self: UniBiomedModel, pixels: torch.Tensor, *args: object, **options: object) -> object:
        seen.append(pixels)
        return real(self, pixels, *args, **options)

    monkeypatch.setattr(UniBiomedModel, "encode_image", encode)
    return seen


def test_a_box_gives_a_mask(boxed, picture):
    result = boxed.interpret(picture, "outline", box=BOX, modality="CT")
    [finding] = result.findings
    assert (result.task, finding.label) == ("outline", LABEL)
    assert finding.mask is not None and finding.mask.shape == picture.shape[:2]
    assert finding.presence is None and 0 <= finding.mask_score <= 1
    assert (result.details["box"], result.details["modality"], result.raw_text) == (list(BOX), "CT", "")
    assert result.details["presence_threshold"] is None and result.tokens == ()
    assert Interpretation.from_dict(result.to_dict()).findings == result.findings


def test_the_language_model_is_not_asked_and_no_box_is_drawn(boxed, script, picture, monkeypatch):
    seen = count_encodings(monkeypatch)
    result = boxed.interpret(picture, "outline", box=BOX)
    assert script.questions == [] and script.decoded == [1]
    assert result.text == "Outlined the region in the box." and result.findings[0].mask_score == pytest.approx(0.75)
    assert len(seen) == 1 and torch.equal(seen[0], boxed.processor.image(picture).grounding_pixels)


def test_the_box_is_scaled_to_the_square_that_the_model_reads(boxed, script, picture, tiny: ModuleType):
    boxed.interpret(picture, "outline", box=BOX)
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = BOX
    side = tiny.SIDE
    # SAM's boxes include their last pixel
    wanted = [x0 * side / width, y0 * side / height, (x1 - 1) * side / width, (y1 - 1) * side / height]
    assert script.boxes == [pytest.approx(wanted)]


def test_the_mask_ends_at_the_box(boxed, script, picture):
    script.logits = lambda k: torch.full((16, 16), 9.0)
    [finding] = boxed.interpret(picture, "outline", box=(10, 12, 20, 23)).findings
    assert finding.box == (10, 12, 20, 23) and finding.mask.sum() == 10 * 11


def test_the_box_decoder_is_used_where_there_is_one(interpreter, picture, monkeypatch):
    """Its logits have a size of their own, end at one half, and its predicted IoU is the mask score."""
    model = interpreter.model
    monkeypatch.setattr(model.config, "box_decoder", True)
    # what is calibrated is SAM2's score
    monkeypatch.setattr(model.config, "mask_calibration", [0.0, -9.0])
    monkeypatch.setattr(model.config, "mask_threshold", "dice")
    asked = []

    def decode(self: UniBiomedModel, maps: object, boxes: torch.Tensor) -> MaskPrediction:
        asked.append(boxes)
        logits = torch.full((1, 1, 256, 256), -0.01)
        logits[..., :128] = 0.01
        return MaskPrediction(logits, torch.tensor([[1.25]]))

    monkeypatch.setattr(UniBiomedModel, "decode_boxes", decode)
    monkeypatch.setattr(UniBiomedModel, "decode_masks", None)
    [finding] = interpreter.interpret(picture, "outline", box=BOX).findings
    height, width = picture.shape[:2]
    side = model.config.image_size
    assert asked[0].tolist() == [
        pytest.approx([10 * side / width, 5 * side / height, 79 * side / width, 54 * side / height])
    ]
    assert finding.mask_score == 1.0
    left, top, right, bottom = finding.box
    assert (left, top, bottom) == (10, 5, 55) and abs(right - width / 2) <= 1


def test_an_empty_mask_is_said(boxed, script, picture):
    script.logits = lambda k: torch.full((16, 16), -9.0)
    result = boxed.interpret(picture, "outline", box=BOX)
    assert result.text == "No region was found in the box." and not result.findings[0].present
    assert "not found" in result.table()


def test_an_image_that_was_encoded_is_used_again(boxed, picture, monkeypatch):
    plain, drawn = boxed.encode(picture), boxed.encode(picture, box=(1, 1, 30, 30))
    fresh = boxed.interpret(picture, "outline", box=BOX)
    seen = count_encodings(monkeypatch)
    first = boxed.interpret(plain, "outline", box=BOX)
    assert seen == [] and np.array_equal(first.findings[0].mask, fresh.findings[0].mask)
    # a box that is drawn on the image would be taken for a part of it
    second = boxed.interpret(drawn, "outline", box=BOX)
    assert len(seen) == 1 and np.array_equal(second.findings[0].mask, fresh.findings[0].mask)


def test_targets_have_no_effect_and_a_note_says_so(boxed, script, picture):
    result = boxed.interpret(picture, "outline", box=BOX, targets=["liver"])
    assert result.notes == ("targets have no effect on the task 'outline'; they belong to 'segment'",)


def test_a_model_without_a_trained_box_prompt_refuses(interpreter, picture):
    assert not can_outline(interpreter.model.config)
    with pytest.raises(ModelError, match=r"was not trained to outline what a box holds: .*--task segment"):
        interpreter.interpret(picture, "outline", box=BOX)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "needs a box"),
        ({"box": (0, 0, 98, 61)}, "extends outside"),
        ({"box": (5, 5, 5, 9)}, "has no area"),
        ({"box": BOX, "question": "What is it?"}, "takes no question"),
    ],
)
def test_what_cannot_be_outlined(boxed, picture, given, says):
    with pytest.raises(InputError, match=says):
        boxed.interpret(picture, "outline", **given)


def test_values_that_are_not_finite(boxed, script, picture):
    script.logits = lambda k: torch.full((16, 16), float("nan"))
    with pytest.raises(ModelError, match="not numbers"):
        boxed.interpret(picture, "outline", box=BOX)


@pytest.mark.parametrize("trained", [False, True])
def test_of_several_candidates_one_is_chosen(boxed, picture, monkeypatch, trained):
    """By SAM2's IoU head where it was trained; it says the opposite of the masks' own probabilities here."""
    monkeypatch.setattr(boxed.model.config, "scores_trained", trained)
    unsure, sure = torch.full((16, 16), -0.1), torch.full((16, 16), -9.0)
    unsure[:, :8], sure[8:] = 0.1, 9.0

    def decode(self: UniBiomedModel, maps: object, boxes: torch.Tensor) -> MaskPrediction:
        return MaskPrediction(torch.stack([unsure, sure])[None], torch.tensor([[0.9, 0.2]]), torch.zeros(1))

    monkeypatch.setattr(UniBiomedModel, "decode_boxes", decode)
    [finding] = boxed.interpret(picture, "outline", box=BOX).findings
    left, top, right, bottom = BOX
    assert finding.mask[top + 1, left + 1] == trained and finding.mask[bottom - 2, right - 2] == (not trained)
    assert finding.mask_score == pytest.approx(0.9) if trained else finding.mask_score > 0.9
