"""The tiny official model of the parity cases (names, weights, folders), and tiny models of our own in all variants."""

from __future__ import annotations

import importlib.util
import json
import math
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unibiomed.model.configuration import UniBiomedConfig, nano_config
from unibiomed.model.modeling import ImageFeatures, UniBiomedModel
from unibiomed.model.processing import IMAGE_TOKEN, ProcessorSettings, UniBiomedProcessor
from unibiomed.train.tokenizer import train_tokenizer

PARITY = Path(__file__).resolve().parent.parent / "parity"
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def parity() -> Path:
    return PARITY


@pytest.fixture(scope="session")
def made_up_folder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("made_up_folder", PARITY / "made_up_folder.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def made_up(made_up_folder: ModuleType) -> ModuleType:
    return made_up_folder.load_made_up()


@pytest.fixture(scope="session")
def official_shapes(made_up_folder: ModuleType) -> dict[str, tuple[int, ...]]:
    return made_up_folder.official_shapes()


@pytest.fixture(scope="session")
def official_state(made_up: ModuleType, official_shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Read only: tests that change it make their own copy of the dict."""
    return {name: torch.from_numpy(made_up.tensor(name, shape)) for name, shape in official_shapes.items()}


@pytest.fixture(scope="session")
def official_json_text(made_up_folder: ModuleType, made_up: ModuleType) -> str:
    """``config.json`` as the authors' code writes it, at the tiny size."""
    return made_up_folder.config_text(made_up)


@pytest.fixture
def official_json(official_json_text: str) -> dict[str, Any]:
    """The same as a dict, to be changed at will."""
    return json.loads(official_json_text)


@pytest.fixture(scope="session")
def token_ids(made_up: ModuleType) -> dict[str, int]:
    return {token: 256 + i for i, token in enumerate(made_up.SPECIAL_TOKENS)}


@pytest.fixture
def official_folder(
    made_up_folder: ModuleType,
    tmp_path: Path,
    official_json: dict[str, Any],
    official_state: dict[str, torch.Tensor],
    token_ids: dict[str, int],
) -> Path:
    """An official checkpoint in one safetensors file, with a tokenizer of bytes and the special tokens."""
    return made_up_folder.write_folder(tmp_path / "official", json.dumps(official_json), official_state, token_ids)


# ---------------------------------------------------------------- our own models, tiny


TEXTS = ("Please segment the liver in the CT image.", "It is [SEG].", "What is in the green box of this image?") * 2
# form, mask candidates, side of the square that SAM2 reads
VARIANTS = {
    "published": ("published", 3, 64),
    "published-one-mask": ("published", 1, 64),
    "nano": ("nano", 1, 64),
    "nano-three-masks": ("nano", 3, 128),
}


THIN_STAGES = [[1, 3, 1, 1, 8], [2, 3, 2, 2, 8], [1, 5, 2, 2, 16], [1, 3, 2, 2, 16]]
THIN_STAGES += [[1, 5, 1, 2, 24], [1, 5, 2, 2, 32], [1, 3, 1, 2, 32]]


@dataclass(frozen=True)
class Tiny:
    """A model small enough for tests, with weights that make its answers depend on everything it is given."""

    name: str
    model: UniBiomedModel
    processor: UniBiomedProcessor

    def inputs(self, count: int = 1, *, first: int = 0) -> dict[str, Any]:
        """Arguments of ``encode_image`` for `count` pictures of different shapes."""
        images = [self.processor.image(picture(first + i)) for i in range(count)]
        tiles = [image.tile_pixels for image in images if image.tile_pixels is not None]
        return {
            "grounding_pixels": torch.cat([image.grounding_pixels for image in images]),
            "tile_pixels": torch.cat(tiles) if tiles else None,
            "tile_counts": [len(t) for t in tiles] if tiles else None,
        }

    @torch.inference_mode()
    def look(self, count: int = 1, *, first: int = 0) -> ImageFeatures:
        return self.model.encode_image(**self.inputs(count, first=first))

    def prompt(self, question: str, picture_number: int | None = 0) -> list[int]:
        """Token ids of a prompt; without an image for a picture that is None."""
        tokens = 0 if picture_number is None else self.processor.image(picture(picture_number)).tokens
        return self.processor.prompt_ids(question, tokens)

    @staticmethod
    def picture(number: int) -> Image.Image:
        return picture(number)

    def encode(self, text: str) -> list[int]:
        return self.processor.encode(text)


def picture(number: int) -> Image.Image:
    """A smooth made-up picture; each has another content and another shape."""
    rng = np.random.default_rng(number)
    small = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    return small.resize([(90, 60), (48, 48), (40, 90)][number % 3], Image.Resampling.BICUBIC)


def tiny_config(form: str, candidates: int, size: int, ids: dict[str, int], vocabulary: int) -> UniBiomedConfig:
    places = (ids[IMAGE_TOKEN], ids["[SEG]"], ids["<|im_end|>"])
    if form == "nano":
        config = nano_config(vocabulary, *places, image_size=size, width=32, hidden_size=64, layers=2)
        grounding: Any = config.grounding_config
        grounding.mask_decoder_config.num_multimask_outputs = candidates
        if candidates > 1:  # one variant has an encoder of another shape too
            grounding.vision_config.backbone_config.stages = THIN_STAGES
            grounding.vision_config.backbone_config.fusion = [8, 12, 20]
            grounding.vision_config.backbone_channel_list = [32, 20, 12, 8]
            grounding.vision_config.fpn_top_down_levels = [2, 3]
            config.region_summary = config.fine_masks = config.context_match = True
        return config
    side = size // 16
    return UniBiomedConfig(
        mllm_config={
            "vision_config": {
                "model_type": "internvl_vision",
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "intermediate_size": 64,
                "image_size": [56, 56],
                "patch_size": [14, 14],
                "attention_bias": True,
            },
            "text_config": {
                "model_type": "qwen2",
                "vocab_size": vocabulary,
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "tie_word_embeddings": False,
                "eos_token_id": places[2],
                "bos_token_id": None,
            },
            "image_token_id": places[0],
            "image_seq_length": 4,
            "downsample_ratio": 0.5,
            "tie_word_embeddings": False,
        },
        grounding_config={
            "model_type": "sam2",
            "vision_config": {
                "model_type": "sam2_vision_model",
                "backbone_config": {
                    "model_type": "sam2_hiera_det_model",
                    "hidden_size": 16,
                    "blocks_per_stage": [1, 1, 2, 1],
                    "embed_dim_per_stage": [16, 32, 64, 128],
                    "num_attention_heads_per_stage": [1, 2, 4, 8],
                    "window_size_per_stage": [8, 4, 4, 2],
                    "global_attention_blocks": [3],
                    "image_size": [size, size],
                },
                "backbone_channel_list": [128, 64, 32, 16],
                "backbone_feature_sizes": [[4 * side, 4 * side], [2 * side, 2 * side], [side, side]],
                "fpn_hidden_size": 32,
            },
            "prompt_encoder_config": {"hidden_size": 32, "image_size": size, "patch_size": 16},
            "mask_decoder_config": {
                "hidden_size": 32,
                "mlp_dim": 64,
                "num_attention_heads": 4,
                "iou_head_hidden_dim": 32,
                "num_multimask_outputs": candidates,
            },
        },
        seg_token_id=places[1],
        tie_word_embeddings=False,
    )


@torch.no_grad()
def enliven(model: UniBiomedModel) -> UniBiomedModel:
    """Weights under which what is said depends on the image and on every word; fresh ones barely look at either."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() > 1:
            words = "embed_tokens" in name or "lm_head" in name
            gain = 2.5 if "language_model" in name else 1.5
            parameter.copy_(noise * (0.3 if words else gain / math.sqrt(parameter[0].numel())))
        elif not any(part in name for part in ("norm", "lambda", "anchor")):
            parameter.copy_(0.1 * noise)
    return model.eval()


def make_tiny(name: str) -> Tiny:
    form, candidates, size = VARIANTS[name]
    tokenizer = train_tokenizer(TEXTS, 320)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in (IMAGE_TOKEN, "[SEG]", "<|im_end|>")}
    torch.manual_seed(0)
    model = enliven(UniBiomedModel(tiny_config(form, candidates, size, ids, len(tokenizer))))
    places = (size // 32) ** 2
    settings = (
        ProcessorSettings(size, 56, 4, 4) if form == "published" else ProcessorSettings(size, 0, 1, places, False)
    )
    return Tiny(name, model, UniBiomedProcessor(tokenizer, settings))


@pytest.fixture(scope="session", params=list(VARIANTS))
def tiny(request: pytest.FixtureRequest) -> Tiny:
    """Every variant in turn. Shared by all tests: one that changes the model must change it back, or copy it."""
    return make_tiny(request.param)
