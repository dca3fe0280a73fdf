"""A folder in the authors' format around the made-up weights: sizes, weights, and a tokenizer of bytes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

PARITY = Path(__file__).resolve().parent


def load_made_up() -> ModuleType:
    """``made_up_weights.py``, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("made_up_weights", PARITY / "made_up_weights.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def official_shapes() -> dict[str, tuple[int, ...]]:
    """Shape of every official tensor."""
    lines = (PARITY / "official_names.tsv").read_text().splitlines()
    rows = (line.split("\t") for line in lines if line)
    return {name: tuple(int(n) for n in shape.strip("()").split(",") if n.strip()) for name, shape in rows}


def config_text(made_up: ModuleType) -> str:
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


def write_folder(folder: Path, config: str, state: dict[str, torch.Tensor], token_ids: dict[str, int]) -> Path:
    """An official checkpoint in one safetensors file, with a tokenizer of bytes and the special tokens."""
    folder.mkdir()
    (folder / "config.json").write_text(config)
    save_file(state, folder / "model.safetensors")
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
