"""The whole chain against what the authors' own code gave for the same weights and images (tests/parity/README.md)."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from unibiomed.model.generation import generate
from unibiomed.model.modeling import MaskPrediction, UniBiomedModel
from unibiomed.model.official import convert_official, official_config, official_settings
from unibiomed.model.processing import ImageInputs, ProcessorSettings, UniBiomedProcessor

TOLERANCE = 1e-4


class ByteTokenizer:
    """The tokenizer of the cases: bytes and special tokens."""

    def __init__(self, made_up: ModuleType) -> None:
        self.made_up = made_up

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        return {"input_ids": self.made_up.encode(text)}

    def convert_tokens_to_ids(self, token: str) -> int:
        return self.made_up.encode(token)[0]

    def decode(self, ids: list[int], **_: Any) -> str:
        parts = [bytes([i]) if i < 256 else self.made_up.SPECIAL_TOKENS[i - 256].encode() for i in ids]
        return b"".join(parts).decode("utf-8", errors="replace")


class Run:
    """One case, run through our code, with every number that the authors' code was asked for."""

    def __init__(self, model: UniBiomedModel, processor: UniBiomedProcessor, made_up: ModuleType, case: str) -> None:
        self.model, self.processor, self.case = model, processor, case
        self.inputs: ImageInputs = processor.image(made_up.image(*made_up.CASES[case]))
        assert self.inputs.tile_pixels is not None
        self.answer = made_up.encode(made_up.ANSWER)
        self.prompt = processor.prompt_ids(made_up.QUESTION, self.inputs.tokens)
        with torch.inference_mode():
            self.features = model.encode_image(
                self.inputs.grounding_pixels, self.inputs.tile_pixels, [len(self.inputs.tile_pixels)]
            )
            ids = torch.tensor([self.prompt + self.answer[:-1]])
            embeds = model.embed(ids, self.features.tokens)
            self.hidden = model.mllm.model.language_model(inputs_embeds=embeds).last_hidden_state[0]
            self.at_seg = self.hidden[ids[0] == model.config.seg_token_id]
            self.states = model.grounding_head(self.at_seg)
            self.masks: MaskPrediction = model.decode_masks(self.features.maps, self.states)


@pytest.fixture(scope="module", params=["eager", "sdpa"])
def model(
    request: pytest.FixtureRequest,
    official_state: dict[str, torch.Tensor],
    official_json_text: str,
    token_ids: dict[str, int],
) -> UniBiomedModel:
    config = official_config(json.loads(official_json_text), token_ids=token_ids)
    config._attn_implementation = request.param
    model = UniBiomedModel(config).eval()
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    model.load_state_dict(convert_official(official_state, shapes), strict=True)
    for part in (
        model.mllm.model.vision_tower.encoder.layer[0].attention,
        model.mllm.model.language_model.layers[0].self_attn,
        model.grounding.vision_encoder.backbone.blocks[0].attn,
        model.grounding.mask_decoder.transformer.layers[0].self_attn,
    ):
        assert part.config._attn_implementation == request.param
    return model


@pytest.fixture(scope="module")
def processor(made_up: ModuleType, official_json_text: str) -> UniBiomedProcessor:
    settings = ProcessorSettings(**official_settings(json.loads(official_json_text)))
    return UniBiomedProcessor(ByteTokenizer(made_up), settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=["one_tile", "seven_tiles"])
def run(
    request: pytest.FixtureRequest, model: UniBiomedModel, processor: UniBiomedProcessor, made_up: ModuleType
) -> Run:
    return Run(model, processor, made_up, request.param)


@pytest.fixture(scope="module")
def official(run: Run, parity: Path) -> dict[str, np.ndarray]:
    with np.load(parity / f"{run.case}.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def largest(ours: torch.Tensor, theirs: np.ndarray) -> float:
    assert tuple(ours.shape) == theirs.shape
    return float(np.abs(ours.numpy() - theirs).max())


def test_prompt_and_answer_ids(run: Run, official: dict[str, np.ndarray]) -> None:
    assert run.prompt == official["ids"].tolist()
    assert run.answer == official["seq"].tolist()


def test_the_spelled_out_prompt_has_the_same_ids(
    run: Run, official: dict[str, np.ndarray], made_up: ModuleType
) -> None:
    spelled = run.processor.prompt(made_up.QUESTION, run.inputs.tokens)
    assert run.processor.encode(spelled) == official["ids"].tolist()


def test_pixels_of_the_tiles(run: Run, official: dict[str, np.ndarray]) -> None:
    pixels = run.inputs.tile_pixels
    assert pixels is not None
    assert largest(pixels[:, :, ::32, ::32], official["pixel_values_sub"]) < 1e-6
    mean, std = official["pixel_values_stat"]
    assert float(pixels.mean()) == pytest.approx(float(mean), abs=1e-5)
    assert float(pixels.std()) == pytest.approx(float(std), abs=1e-4)


def test_pixels_for_sam2_with_rounded_constants(run: Run, official: dict[str, np.ndarray]) -> None:
    assert largest(run.inputs.grounding_pixels[0, :, ::64, ::64], official["g_pixel_sub"]) < 1e-6


NUMBERS = {
    "vit_out": lambda run: run.features.tokens[0].view(-1, 256, run.hidden.shape[-1])[:, ::8],
    "last_hidden": lambda run: run.hidden[-40:],
    "seg_hidden": lambda run: run.at_seg,
    "seg_embed": lambda run: run.states,
    "high_s0_sub": lambda run: run.features.maps[0][0, ::8, ::32, ::32],
    "high_s1_sub": lambda run: run.features.maps[1][0, ::8, ::16, ::16],
    "pix_feat_sub": lambda run: run.features.maps[2][0, ::8, ::8, ::8],
    "low_multi_sub": lambda run: run.masks.logits[:, :, ::8, ::8],
    "iou": lambda run: run.masks.predicted_iou,
    "obj": lambda run: run.masks.presence_logits[:, None],
    "low_res_sub": lambda run: run.masks.best()[:, ::2, ::2],
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers(name: str, run: Run, official: dict[str, np.ndarray], record_property: Any) -> None:
    difference = largest(NUMBERS[name](run), official[name])
    record_property("max_abs_difference", difference)
    assert difference < TOLERANCE


def test_masks_to_the_pixel(run: Run, official: dict[str, np.ndarray]) -> None:
    n, height, width = official["mask_shape"].tolist()
    theirs = np.unpackbits(official["masks"])[: n * height * width].reshape(n, height, width).astype(bool)
    ours = (run.processor.mask_logits(run.masks.best(), (height, width)).sigmoid() > 0.5).numpy()
    assert 0 < theirs.mean() < 1
    np.testing.assert_array_equal(ours, theirs)


def test_free_greedy_decoding(run: Run, official: dict[str, np.ndarray]) -> None:
    theirs = official["greedy"].tolist()
    (answer,) = generate(run.model, run.processor, run.features, [run.prompt], max_new_tokens=len(theirs))
    assert answer.ids == theirs
