"""The published model at its full size, on torch's meta device: every count of the paper, no memory."""

from __future__ import annotations

import pytest
import torch

from unibiomed.model.configuration import UniBiomedConfig
from unibiomed.model.modeling import UniBiomedModel
from unibiomed.model.official import official_config

# the release's sizes, as its config.json gives them; SAM2 is not in it
RELEASE = {
    "model_type": "sa2va_chat",
    "downsample_ratio": 0.5,
    "ps_version": "v2",
    "select_layer": -1,
    "vision_config": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "image_size": 448,
        "patch_size": 14,
        "qkv_bias": True,
        "layer_norm_eps": 1e-6,
    },
    "llm_config": {
        "model_type": "qwen2",
        "hidden_size": 896,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "intermediate_size": 4864,
        "rope_theta": 1000000.0,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "sliding_window": 32768,
        "max_window_layers": 21,
        "vocab_size": 151679,
    },
}

COUNTS = {
    "": 1_163_665_458,
    "mllm.model.vision_tower": 304_012_288,
    "mllm.model.multi_modal_projector": 4_482_816,
    "grounding_head": 1_033_344,
    "grounding": 224_430_130,
    "grounding.vision_encoder": 212_703_280,
    "grounding.mask_decoder": 4_215_109,
    "grounding.prompt_encoder": 6_220,
    "grounding.memory_attention": 5_922_304,
    "grounding.memory_encoder": 1_384_608,
}


@pytest.fixture(scope="module")
def config() -> UniBiomedConfig:
    return official_config(RELEASE)


@pytest.fixture(scope="module")
def model(config: UniBiomedConfig) -> UniBiomedModel:
    with torch.device("meta"):
        return UniBiomedModel(config)


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("part", COUNTS)
def test_parameters(model: UniBiomedModel, part: str) -> None:
    assert parameters(model.get_submodule(part)) == COUNTS[part]


def test_language_model_is_untied(model: UniBiomedModel) -> None:
    inner = model.mllm.model.language_model
    assert parameters(inner) + parameters(model.mllm.lm_head) == 629_706_880
    assert model.mllm.lm_head.weight is not inner.embed_tokens.weight


def test_lora_of_the_paper(model: UniBiomedModel) -> None:
    rank, names = 128, ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    layers = [m for n, m in model.mllm.model.language_model.named_modules() if n.endswith(names)]
    lora = sum(rank * (m.in_features + m.out_features) for m in layers)  # type: ignore[operator]
    assert lora == 70_385_664
    assert COUNTS[""] + lora == 1_234_051_122


def test_special_tokens_and_sizes(config: UniBiomedConfig) -> None:
    assert config.seg_token_id == 151674
    assert config.mllm_config.image_token_id == 151667
    assert config.mllm_config.text_config.eos_token_id == 151645
    assert config.mllm_config.image_seq_length == 256
    assert config.image_size == 1024
    assert config.mllm_config.text_config.rope_parameters["rope_theta"] == 1e6
    assert config.mllm_config.vision_config.attention_bias is True
    assert not config.tie_word_embeddings
    assert not config.mllm_config.tie_word_embeddings
    assert not config.mllm_config.text_config.tie_word_embeddings


def test_hiera_large_by_default(config: UniBiomedConfig) -> None:
    trunk = config.grounding_config.vision_config.backbone_config
    assert trunk.hidden_size == 144
    assert trunk.num_attention_heads == 2
    assert trunk.blocks_per_stage == [2, 6, 36, 4]
    assert trunk.embed_dim_per_stage == [144, 288, 576, 1152]
    assert trunk.num_attention_heads_per_stage == [2, 4, 8, 16]
    assert trunk.window_size_per_stage == [8, 4, 16, 8]
    assert trunk.global_attention_blocks == [23, 33, 43]
    assert trunk.window_positional_embedding_background_size == [7, 7]
    assert config.grounding_config.vision_config.backbone_channel_list == [1152, 576, 288, 144]
