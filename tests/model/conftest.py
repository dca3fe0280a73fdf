"""The tiny official model of the parity cases: names, weights, configuration, folders."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

PARITY = Path(__file__).resolve().parent.parent / "parity"
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def parity() -> Path:
    return PARITY


@pytest.fixture(scope="session")
def made_up() -> ModuleType:
    spec = importlib.util.spec_from_file_location("made_up_weights", PARITY / "made_up_weights.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def official_shapes() -> dict[str, tuple[int, ...]]:
    lines = (PARITY / "official_names.tsv").read_text().splitlines()
    rows = (line.split("\t") for line in lines if line)
    return {name: tuple(int(n) for n in shape.strip("()").split(",") if n.strip()) for name, shape in rows}


@pytest.fixture(scope="session")
def official_state(made_up: ModuleType, official_shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Read only: tests that change it make their own copy of the dict."""
    return {name: torch.from_numpy(made_up.tensor(name, shape)) for name, shape in official_shapes.items()}


@pytest.fixture(scope="session")
def official_json_text(made_up: ModuleType) -> str:
    """``config.json`` as the authors' code writes it, at the tiny size."""
    config = {
        "model_type": "sa2va_chat",
        "architectures": ["Sa2VAChatModel"],
        "downsample_ratio": 0.5,
        "ps_version": "v2",
        "select_layer": -1,
        "max_dynamic_patch": 12,
        "torch_dtype": "bfloat16",
        "vision_config": {
            **made_up.VISION,
            "model_type": "intern_vit_6b",
            "image_size": 448,
            "patch_size": 14,
            "num_channels": 3,
            "qkv_bias": True,
            "qk_normalization": False,
            "norm_type": "layer_norm",
            "layer_norm_eps": 1e-6,
            "hidden_act": "gelu",
            "use_flash_attn": True,
            "drop_path_rate": 0.0,
            "initializer_factor": 1.0,
        },
        # the release's text configuration still speaks of tied embeddings
        "llm_config": {**made_up.LLM, "model_type": "qwen2", "tie_word_embeddings": True, "rope_scaling": None},
        "grounding_config": {
            "vision_config": {
                "model_type": "sam2_vision_model",
                "backbone_channel_list": made_up.NECK_CHANNELS,
                "backbone_config": {"model_type": "sam2_hiera_det_model", **made_up.HIERA},
            }
        },
    }
    return json.dumps(config)


@pytest.fixture
def official_json(official_json_text: str) -> dict[str, Any]:
    """The same as a dict, to be changed at will."""
    return json.loads(official_json_text)


@pytest.fixture(scope="session")
def token_ids(made_up: ModuleType) -> dict[str, int]:
    return {token: 256 + i for i, token in enumerate(made_up.SPECIAL_TOKENS)}


@pytest.fixture
def official_folder(
    tmp_path: Path, official_json: dict[str, Any], official_state: dict[str, torch.Tensor], token_ids: dict[str, int]
) -> Path:
    """An official checkpoint in one safetensors file, with a tokenizer of bytes and the special tokens."""
    from safetensors.torch import save_file
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    folder = tmp_path / "official"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(official_json))
    save_file(official_state, folder / "model.safetensors")
    # bytes 0..255 in the order of their values, spelled as byte-level tokenizers spell them
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    spelled = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}
    tokenizer = Tokenizer(models.BPE(vocab={spelled[b]: b for b in range(256)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in token_ids])
    assert [tokenizer.token_to_id(token) for token in token_ids] == list(token_ids.values())
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
