"""SAM2's box prompt in a model of the published format, against `transformers`' own SAM2 with the same weights."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Sam2Config, Sam2Model

from unibiomed.interpret import Interpreter
from unibiomed.interpret.box_masks import can_outline
from unibiomed.interpret.scores import derived_scores
from unibiomed.model.modeling import UniBiomedModel
from unibiomed.model.official import convert_official, official_config, official_settings
from unibiomed.model.processing import ProcessorSettings, UniBiomedProcessor

BOXES = [(20, 30, 150, 200), (0, 0, 60, 40), (100, 90, 101, 91)]


class NoWords:
    """A tokenizer that is never asked for words."""

    def convert_tokens_to_ids(self, token: str) -> int:
        return 0


@pytest.fixture(scope="module")
def interpreter(
    official_state: dict[str, torch.Tensor], official_json_text: str, token_ids: dict[str, int]
) -> Interpreter:
    values = json.loads(official_json_text)
    model = UniBiomedModel(official_config(values, token_ids=token_ids)).eval()
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    model.load_state_dict(convert_official(official_state, shapes), strict=True)
    processor = UniBiomedProcessor(NoWords(), ProcessorSettings(**official_settings(values)))  # type: ignore[arg-type]
    return Interpreter(model, processor, "tiny-official")


@pytest.fixture(scope="module")
def sam2(interpreter: Interpreter) -> Sam2Model:
    ours = interpreter.model.grounding
    values = {key: value for key, value in ours.config.to_dict().items() if key != "model_type"}
    parts = ("vision_config", "prompt_encoder_config", "mask_decoder_config")
    model = Sam2Model(Sam2Config(**{part: values[part] for part in parts})).eval()
    report: Any = model.load_state_dict(ours.state_dict(), strict=False)
    assert report.missing_keys == []
    return model


def test_masks_are_those_of_transformers(interpreter: Interpreter, sam2: Sam2Model, made_up: ModuleType) -> None:
    assert can_outline(interpreter.model.config)
    pixels = made_up.image(*made_up.CASES["one_tile"])
    height, width = pixels.shape[:2]
    boxes = [box for box in BOXES if box[2] <= width and box[3] <= height]
    assert len(boxes) >= 2
    inputs = interpreter.processor.image(pixels)
    side = interpreter.model.config.image_size
    # SAM's boxes include their last pixel
    last = torch.tensor([(x0, y0, x1 - 1, y1 - 1) for x0, y0, x1, y1 in boxes], dtype=torch.float32)
    scaled = last * torch.tensor([side / width, side / height] * 2)
    with torch.inference_mode():
        theirs = sam2(pixel_values=inputs.grounding_pixels, input_boxes=scaled[None], multimask_output=True)
    for number, box in enumerate(boxes):
        [finding] = interpreter.interpret(pixels, "outline", box=box).findings
        candidates = theirs.pred_masks[0, number]
        assert len(candidates) == 3
        scores = derived_scores(candidates.sigmoid())[1]
        chosen = interpreter.processor.mask_logits(candidates[np.argmax(scores)][None], (height, width))[0]
        x0, y0, x1, y1 = box
        inside = np.zeros((height, width), dtype=bool)
        inside[y0:y1, x0:x1] = True
        assert np.array_equal(finding.mask, (chosen > 0).numpy() & inside)
        assert 0 <= finding.mask_score <= 1


def test_logits_are_those_of_transformers(interpreter: Interpreter, sam2: Sam2Model, made_up: ModuleType) -> None:
    inputs = interpreter.processor.image(made_up.image(*made_up.CASES["one_tile"]))
    side = interpreter.model.config.image_size
    boxes = torch.tensor([[0.1, 0.2, 0.6, 0.9], [0.5, 0.5, 0.9, 0.6]]) * side
    model = interpreter.model
    with torch.inference_mode():
        maps = model.encode_image(inputs.grounding_pixels, text=False).maps
        ours = model.decode_masks(maps, boxes=boxes)
        theirs = sam2(pixel_values=inputs.grounding_pixels, input_boxes=boxes[None], multimask_output=True)
    assert ours.logits is not None and ours.predicted_iou is not None and ours.presence_logits is not None
    assert torch.allclose(ours.logits, theirs.pred_masks[0], atol=1e-5)
    assert torch.allclose(ours.predicted_iou, theirs.iou_scores[0], atol=1e-5)
    assert torch.allclose(ours.presence_logits, theirs.object_score_logits.flatten(), atol=1e-5)
    # what is asked changes what is drawn
    assert not torch.allclose(ours.logits[0], ours.logits[1], atol=1e-3)
