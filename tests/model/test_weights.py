"""Names, shapes and folders of the authors' checkpoints; loading; everything that can be wrong with a folder."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from unibiomed.errors import InputError, ModelError, OutputError
from unibiomed.model import weights
from unibiomed.model.configuration import nano_config
from unibiomed.model.modeling import UniBiomedModel
from unibiomed.model.official import HIERA, SAM2, convert_official, official_config, official_name_map
from unibiomed.model.processing import ProcessorSettings, UniBiomedProcessor
from unibiomed.model.weights import convert, is_official, load_model, load_official

Shapes = dict[str, tuple[int, ...]]
State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def expected(official_json_text: str, token_ids: dict[str, int]) -> Shapes:
    with torch.device("meta"):
        model = UniBiomedModel(official_config(json.loads(official_json_text), token_ids=token_ids))
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.fixture(scope="module")
def unique(official_shapes: Shapes) -> State:
    """Every number of every tensor is its own: where it lands says where it came from."""
    state, start = {}, 0
    for name, shape in official_shapes.items():
        count = int(torch.tensor(shape).prod())
        state[name] = torch.arange(start, start + count, dtype=torch.float64).view(shape)
        start += count
    return state


@pytest.fixture(scope="module")
def converted(unique: State, expected: Shapes) -> State:
    return convert_official(unique, expected)


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


# ---------------------------------------------------------------- names and tensors


def test_our_names_are_covered_exactly(converted: State, expected: Shapes) -> None:
    assert {name: tuple(tensor.shape) for name, tensor in converted.items()} == expected


def test_every_official_number_lands_once(converted: State, unique: State) -> None:
    gaussian = "grounding.prompt_encoder.shared_embedding.positional_embedding"
    landed = torch.cat([tensor.flatten() for name, tensor in converted.items() if name != gaussian])
    assert torch.equal(landed.sort().values, torch.cat([tensor.flatten() for tensor in unique.values()]))


def test_names_do_not_depend_on_the_order(unique: State, converted: State) -> None:
    backwards = convert_official(reversed(list(unique.items())))
    assert all(torch.equal(backwards[name], tensor) for name, tensor in converted.items())


G = "grounding."
DECODER = "sam_mask_decoder."
LANDS = {
    # vision tower
    "vision_model.embeddings.class_embedding": "mllm.model.vision_tower.embeddings.cls_token",
    "vision_model.embeddings.position_embedding": "mllm.model.vision_tower.embeddings.position_embeddings",
    "vision_model.embeddings.patch_embedding.bias": (
        "mllm.model.vision_tower.embeddings.patch_embeddings.projection.bias"
    ),
    "vision_model.encoder.layers.1.ls1": "mllm.model.vision_tower.encoder.layer.1.lambda_1",
    "vision_model.encoder.layers.1.ls2": "mllm.model.vision_tower.encoder.layer.1.lambda_2",
    "vision_model.encoder.layers.1.norm1.bias": "mllm.model.vision_tower.encoder.layer.1.layernorm_before.bias",
    "vision_model.encoder.layers.1.norm2.bias": "mllm.model.vision_tower.encoder.layer.1.layernorm_after.bias",
    "vision_model.encoder.layers.0.attn.proj.weight": (
        "mllm.model.vision_tower.encoder.layer.0.attention.projection_layer.weight"
    ),
    # projector, language model, head
    "mlp1.0.bias": "mllm.model.multi_modal_projector.layer_norm.bias",
    "mlp1.1.bias": "mllm.model.multi_modal_projector.linear_1.bias",
    "mlp1.3.bias": "mllm.model.multi_modal_projector.linear_2.bias",
    "language_model.model.embed_tokens.weight": "mllm.model.language_model.embed_tokens.weight",
    "language_model.model.layers.1.self_attn.k_proj.bias": "mllm.model.language_model.layers.1.self_attn.k_proj.bias",
    "language_model.lm_head.weight": "mllm.lm_head.weight",
    "text_hidden_fcs.0.bias": "grounding_head.0.bias",
    "text_hidden_fcs.2.bias": "grounding_head.2.bias",
    # mask prompts
    **{
        f"{SAM2}sam_prompt_encoder.mask_downscaling.{i}.{kind}": f"{G}prompt_encoder.mask_embed.{name}.{kind}"
        for i, name in {0: "conv1", 1: "layer_norm1", 3: "conv2", 4: "layer_norm2", 6: "conv3"}.items()
        for kind in ("weight", "bias")
    },
    f"{SAM2}sam_prompt_encoder.not_a_point_embed.weight": f"{G}prompt_encoder.not_a_point_embed.weight",
    f"{SAM2}sam_prompt_encoder.no_mask_embed.weight": f"{G}prompt_encoder.no_mask_embed.weight",
    # mask decoder: the heads, the biases of the keys
    **{
        f"{SAM2}{DECODER}{head}.layers.{i}.{kind}": f"{G}mask_decoder.{head}.{name}.{kind}"
        for head in (
            *(f"output_hypernetworks_mlps.{k}" for k in range(4)),
            "iou_prediction_head",
            "pred_obj_score_head",
        )
        for i, name in {0: "proj_in", 1: "layers.0", 2: "proj_out"}.items()
        for kind in ("weight", "bias")
    },
    **{
        f"{SAM2}{DECODER}transformer.{part}.{old}.bias": f"{G}mask_decoder.transformer.{part}.{new}.bias"
        for part in (
            *(
                f"layers.{i}.{attention}"
                for i in range(2)
                for attention in ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token")
            ),
            "final_attn_token_to_image",
        )
        for old, new in {"q_proj": "q_proj", "k_proj": "k_proj", "v_proj": "v_proj", "out_proj": "o_proj"}.items()
    },
    # memory
    f"{SAM2}maskmem_tpos_enc": f"{G}memory_temporal_positional_encoding",
    f"{SAM2}no_mem_embed": f"{G}no_memory_embedding",
    f"{SAM2}no_mem_pos_enc": f"{G}no_memory_positional_encoding",
    f"{SAM2}no_obj_ptr": f"{G}no_object_pointer",
    f"{SAM2}mask_downsample.weight": f"{G}mask_downsample.weight",
    f"{SAM2}obj_ptr_proj.layers.0.bias": f"{G}object_pointer_proj.proj_in.bias",
    f"{SAM2}obj_ptr_proj.layers.1.bias": f"{G}object_pointer_proj.layers.0.bias",
    f"{SAM2}obj_ptr_proj.layers.2.bias": f"{G}object_pointer_proj.proj_out.bias",
    **{
        f"{SAM2}memory_attention.layers.{i}.{old}.bias": f"{G}memory_attention.layers.{i}.{new}.bias"
        for i in range(4)
        for old, new in {
            **{f"norm{n}": f"layer_norm{n}" for n in (1, 2, 3)},
            **{f"linear{n}": f"linear{n}" for n in (1, 2)},
            **{
                f"{attention}.{a}": f"{attention}.{b}"
                for attention in ("self_attn", "cross_attn_image")
                for a, b in {"q_proj": "q_proj", "k_proj": "k_proj", "v_proj": "v_proj", "out_proj": "o_proj"}.items()
            },
        }.items()
    },
    f"{SAM2}memory_attention.norm.bias": f"{G}memory_attention.layer_norm.bias",
    **{
        f"{SAM2}memory_encoder.mask_downsampler.encoder.{i}.bias": f"{G}memory_encoder.mask_downsampler.{name}.bias"
        for i, name in {
            **{3 * k: f"layers.{k}.conv" for k in range(4)},
            **{3 * k + 1: f"layers.{k}.layer_norm" for k in range(4)},
            12: "final_conv",
        }.items()
    },
    f"{SAM2}memory_encoder.pix_feat_proj.bias": f"{G}memory_encoder.feature_projection.bias",
    f"{SAM2}memory_encoder.out_proj.bias": f"{G}memory_encoder.projection.bias",
    **{
        f"{SAM2}memory_encoder.fuser.layers.1.{old}": f"{G}memory_encoder.memory_fuser.layers.1.{new}"
        for old, new in {
            "g_weight": "scale",
            "dwconv.bias": "depthwise_conv.bias",
            "norm.bias": "layer_norm.bias",
            "pwconv1.bias": "pointwise_conv1.bias",
            "pwconv2.bias": "pointwise_conv2.bias",
        }.items()
    },
}


@pytest.mark.parametrize("official", LANDS)
def test_where_a_tensor_lands(official: str, unique: State, converted: State) -> None:
    assert torch.equal(converted[LANDS[official]], unique[official])
    assert official_name_map([official]) == {official: (LANDS[official],)}


def test_query_key_value_are_split_in_this_order(unique: State, converted: State) -> None:
    for layer in range(2):
        for kind in ("weight", "bias"):
            fused = unique[f"vision_model.encoder.layers.{layer}.attn.qkv.{kind}"]
            for i, part in enumerate("qkv"):
                ours = converted[f"mllm.model.vision_tower.encoder.layer.{layer}.attention.{part}_proj.{kind}"]
                assert torch.equal(ours, fused[32 * i : 32 * (i + 1)])


def test_point_embeddings_are_rows_in_order(unique: State, converted: State) -> None:
    for i in range(4):
        row = unique[f"{SAM2}sam_prompt_encoder.point_embeddings.{i}.weight"]
        assert torch.equal(converted["grounding.prompt_encoder.point_embed.weight"][i : i + 1], row)


def test_gaussian_matrix_stands_in_both_places(unique: State, converted: State) -> None:
    matrix = unique[f"{SAM2}sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"]
    assert torch.equal(converted["grounding.shared_image_embedding.positional_embedding"], matrix)
    assert torch.equal(converted["grounding.prompt_encoder.shared_embedding.positional_embedding"], matrix)


def test_missing_unexpected_and_misshapen_are_all_told(unique: State, expected: Shapes) -> None:
    state = dict(unique)
    del state["mlp1.0.bias"]
    state["vision_model.encoder.layers.9.ls1"] = torch.zeros(32)
    state["something_else.weight"] = torch.zeros(3)
    with pytest.raises(ModelError) as error:
        convert_official(state, expected)
    message = one_line(error)
    assert "1 missing (mllm.model.multi_modal_projector.layer_norm.bias)" in message
    assert "2 unexpected (something_else.weight, vision_model.encoder.layers.9.ls1)" in message

    state = dict(unique) | {
        "text_hidden_fcs.0.bias": torch.zeros(65),
        "vision_model.encoder.layers.0.ls1": torch.zeros(()),
    }
    with pytest.raises(
        ModelError, match=r"2 of the wrong shape \(text_hidden_fcs\.0\.bias: \(65,\), not \(64,\), vision"
    ) as error:
        convert_official(state, expected)
    one_line(error)


def test_a_missing_or_extra_point_embedding_is_told(unique: State, expected: Shapes) -> None:
    state = dict(unique)
    del state[f"{SAM2}sam_prompt_encoder.point_embeddings.2.weight"]
    with pytest.raises(ModelError, match=r"point_embeddings.*\(3, 256\), not \(4, 256\)"):
        convert_official(state, expected)


def test_many_misfits_are_counted_and_the_first_named(unique: State, expected: Shapes) -> None:
    state = {name: tensor for name, tensor in unique.items() if not name.startswith("vision_model.")}
    with pytest.raises(ModelError, match=r"40 missing \([^,]+, [^,]+, [^,]+, …\)"):
        convert_official(state, expected)


def test_quantized_numbers_are_refused(unique: State, expected: Shapes) -> None:
    state = dict(unique) | {"mlp1.0.bias": torch.zeros(128, dtype=torch.int8)}
    with pytest.raises(ModelError, match=r"mlp1\.0\.bias: int8, not floating point"):
        convert_official(state, expected)


# ---------------------------------------------------------------- LoRA


def with_lora(state: State, rank: int = 3) -> tuple[State, State]:
    """A training checkpoint's names, with LoRA on every matrix of the language model's layers; and the merged state."""
    generator = torch.Generator().manual_seed(0)
    wrapped, merged = {}, dict(state)
    for name, tensor in state.items():
        if not name.startswith("language_model."):
            wrapped[name] = tensor
            continue
        peft = name.replace("language_model.", "language_model.base_model.model.", 1)
        if "_proj." in name:
            wrapped[peft.replace("_proj.", "_proj.base_layer.")] = tensor
        elif "embed_tokens" in name:
            wrapped[peft.replace("embed_tokens.", "embed_tokens.original_module.")] = tensor + 1
            wrapped[peft.replace("embed_tokens.", "embed_tokens.modules_to_save.default.")] = tensor
        else:
            wrapped[peft] = tensor
        if name.endswith("_proj.weight"):
            a = torch.randn(rank, tensor.shape[1], generator=generator)
            b = torch.randn(tensor.shape[0], rank, generator=generator)
            wrapped[peft.replace(".weight", ".lora_A.default.weight")] = a
            wrapped[peft.replace(".weight", ".lora_B.default.weight")] = b
            merged[name] = tensor + 2.0 * b @ a
    return wrapped, merged


def test_lora_is_merged_at_alpha_over_rank(official_state: State, expected: Shapes) -> None:
    wrapped, merged = with_lora(official_state)
    assert len(wrapped) == len(official_state) + 2 * 14 + 1
    ours, theirs = convert_official(wrapped, expected, lora_alpha=6), convert_official(merged, expected)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in expected)


def test_lora_without_a_scale_is_refused(official_state: State, expected: Shapes) -> None:
    with pytest.raises(ModelError, match="lora_alpha") as error:
        convert_official(with_lora(official_state)[0], expected)
    one_line(error)


def test_half_a_lora_pair_is_refused(official_state: State, expected: Shapes) -> None:
    wrapped, _ = with_lora(official_state)
    name = next(name for name in wrapped if "lora_B" in name)
    del wrapped[name]
    with pytest.raises(ModelError, match=r"1 unexpected \(.*lora_A"):
        convert_official(wrapped, expected, lora_alpha=6)


def test_misshapen_lora_is_refused(official_state: State, expected: Shapes) -> None:
    wrapped, _ = with_lora(official_state)
    name = next(name for name in wrapped if "lora_B" in name)
    wrapped[name] = wrapped[name][:-1]
    with pytest.raises(ModelError, match="and its LoRA"):
        convert_official(wrapped, expected, lora_alpha=6)


def test_the_scale_is_read_from_the_configuration(
    official_folder: Path, official_json: dict[str, Any], official_state: State
) -> None:
    wrapped, merged = with_lora(official_state)
    save_file(wrapped, official_folder / "model.safetensors")
    for addition in ({"lora_alpha": 6}, {"use_llm_lora": 3}):
        (official_folder / "config.json").write_text(json.dumps(official_json | addition))
        model = load_official(official_folder)
        name = "language_model.model.layers.0.mlp.up_proj.weight"
        ours = model.mllm.model.language_model.layers[0].mlp.up_proj.weight
        assert torch.allclose(ours, merged[name], atol=1e-6)


# ---------------------------------------------------------------- configuration


def test_sizes_come_from_the_tensors_where_the_file_is_silent(
    official_json: dict[str, Any], official_shapes: Shapes, token_ids: dict[str, int]
) -> None:
    full = official_config(official_json, official_shapes, token_ids)
    for name in ("hidden_size", "num_hidden_layers", "intermediate_size"):
        del official_json["vision_config"][name], official_json["llm_config"][name]
    for name in ("image_size", "patch_size", "qkv_bias", "num_channels"):
        del official_json["vision_config"][name]
    for name in ("num_key_value_heads", "vocab_size"):
        del official_json["llm_config"][name]
    silent = official_config(official_json, official_shapes, token_ids)
    assert silent.to_dict() == full.to_dict()
    with pytest.raises(ModelError, match="vision_config lacks hidden_size, intermediate_size") as error:
        official_config(official_json, None, token_ids)
    one_line(error)


def test_the_vocabulary_is_that_of_the_tensors(
    official_json: dict[str, Any], official_shapes: Shapes, token_ids: dict[str, int]
) -> None:
    official_json["llm_config"]["vocab_size"] = 200
    config = official_config(official_json, official_shapes, token_ids)
    assert config.mllm_config.text_config.vocab_size == 267


def test_rope_and_norm_are_read(official_json: dict[str, Any], token_ids: dict[str, int]) -> None:
    official_json["llm_config"] |= {"rope_theta": 12345.0, "rms_norm_eps": 1e-4}
    text = official_config(official_json, token_ids=token_ids).mllm_config.text_config
    assert text.rope_parameters["rope_theta"] == 12345.0
    assert text.rms_norm_eps == 1e-4


def hiera_shapes(width: int, blocks: tuple[int, ...], background: int) -> Shapes:
    """Names and shapes of a Hiera trunk, as far as its layout shows in them."""
    trunk, shapes, number = f"{SAM2}image_encoder.trunk.", {}, 0
    shapes[f"{trunk}pos_embed"] = (1, width, background, background)
    for stage, count in enumerate(blocks):
        dim = width << stage
        for i in range(count):
            shapes[f"{trunk}blocks.{number}.attn.proj.weight"] = (dim, dim)
            if stage and not i:
                shapes[f"{trunk}blocks.{number}.proj.weight"] = (dim, dim // 2)
            number += 1
    return shapes


@pytest.mark.parametrize(("width", "blocks"), HIERA)
def test_each_published_sam2_is_known_by_its_shapes(
    width: int, blocks: tuple[int, ...], official_json: dict[str, Any], token_ids: dict[str, int]
) -> None:
    del official_json["grounding_config"]
    config = official_config(official_json, hiera_shapes(width, blocks, 14), token_ids)
    trunk = config.grounding_config.vision_config.backbone_config
    assert trunk.blocks_per_stage == list(blocks)
    assert trunk.embed_dim_per_stage == [width, 2 * width, 4 * width, 8 * width]
    assert trunk.window_positional_embedding_background_size == [14, 14]
    assert config.grounding_config.vision_config.backbone_channel_list[0] == 8 * width
    assert max(trunk.global_attention_blocks) < sum(blocks[:3])


def test_an_unknown_sam2_is_refused(official_json: dict[str, Any], official_shapes: Shapes, token_ids: Any) -> None:
    del official_json["grounding_config"]
    with pytest.raises(ModelError, match=r"width 16 and \[1, 1, 2, 1\] blocks.*grounding_config"):
        official_config(official_json, official_shapes, token_ids)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision_config": None}, "not in the authors' format"),
        ({"llm_config": "qwen2"}, "not in the authors' format"),
        ({"llm_config": {"model_type": "internlm2"}}, "use a checkpoint with Qwen2"),
        ({"llm_config": {"architectures": ["LlamaForCausalLM"]}}, "use a checkpoint with Qwen2"),
        ({"ps_version": "v1"}, "ps_version"),
        ({"downsample_ratio": "half"}, "is not valid"),
        ({"llm_config": {"hidden_size": "wide"}}, "is not valid|llm_config lacks"),
        ({"vision_config": {"hidden_size": 32}}, "vision_config lacks"),
        ({"grounding_config": {"vision_config": 5}}, "is not valid"),
    ],
)
def test_unusable_configurations_are_refused(
    change: dict[str, Any], message: str, official_json: dict[str, Any], token_ids: dict[str, int]
) -> None:
    with pytest.raises(ModelError, match=message) as error:
        official_config(official_json | change, token_ids=token_ids)
    one_line(error)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("llm_config", {"num_attention_heads": 5}),
        ("vision_config", {"num_attention_heads": 5}),
        ("llm_config", {"hidden_act": "nonsense"}),
        ("llm_config", {"hidden_size": 128}),
        ("llm_config", {"num_hidden_layers": 3}),
        ("llm_config", {"num_hidden_layers": 1}),
        ("llm_config", {"intermediate_size": 10**9}),
    ],
)
def test_a_configuration_that_does_not_fit_the_weights(
    part: str, change: dict[str, Any], official_folder: Path, official_json: dict[str, Any]
) -> None:
    official_json[part] |= change
    (official_folder / "config.json").write_text(json.dumps(official_json))
    with pytest.raises(ModelError, match=r"config\.json") as error:
        load_official(official_folder)
    one_line(error)


def test_a_small_vocabulary_without_token_ids_is_refused(official_json: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"267 tokens lacks .*\[SEG\]"):
        official_config(official_json)


# ---------------------------------------------------------------- folders in the authors' format


def same(model: UniBiomedModel, state: State) -> bool:
    ours = model.state_dict()
    return ours.keys() == state.keys() and all(torch.equal(ours[name], state[name]) for name in ours)


@pytest.fixture(scope="module")
def wanted(official_state: State, expected: Shapes) -> State:
    return convert_official(official_state, expected)


def test_one_safetensors_file(official_folder: Path, wanted: State, token_ids: dict[str, int]) -> None:
    assert is_official(official_folder)
    model = load_official(official_folder)
    assert same(model, wanted)
    assert not model.training
    assert model.dtype == torch.float32
    assert model.config.seg_token_id == token_ids["[SEG]"]
    assert model.config.mllm_config.image_token_id == token_ids["<IMG_CONTEXT>"]
    assert model.config.mllm_config.text_config.eos_token_id == token_ids["<|im_end|>"]


def test_buffers_that_no_file_holds_are_right(
    official_folder: Path, official_json: dict[str, Any], token_ids: Any
) -> None:
    fresh = UniBiomedModel(official_config(official_json, token_ids=token_ids))
    buffers = dict(load_official(official_folder).named_buffers())
    stored = set(fresh.state_dict())
    for name, buffer in fresh.named_buffers():
        assert name in stored or torch.equal(buffers[name], buffer)


def test_sharded_safetensors(official_folder: Path, official_state: State, wanted: State) -> None:
    (official_folder / "model.safetensors").unlink()
    shard(official_folder, official_state)
    assert same(load_official(official_folder), wanted)


def shard(folder: Path, state: State) -> None:
    names = sorted(state)
    table = {}
    for i, part in enumerate((names[::2], names[1::2])):
        file = f"model-0000{i + 1}-of-00002.safetensors"
        save_file({name: state[name] for name in part}, folder / file)
        table |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))


@pytest.mark.parametrize("file", ["pytorch_model.bin", "pytorch_model-00001-of-00001.bin", "iter_1000.pth"])
def test_pytorch_files(file: str, official_folder: Path, official_state: State, wanted: State) -> None:
    (official_folder / "model.safetensors").unlink()
    torch.save({"state_dict": official_state} if file.endswith("pth") else official_state, official_folder / file)
    assert same(load_official(official_folder), wanted)


def test_trainer_prefixes(official_folder: Path, official_state: State, wanted: State) -> None:
    renamed = {
        name if name.startswith(("grounding_encoder", "text_hidden")) else f"mllm.model.{name}": tensor
        for name, tensor in official_state.items()
    }
    save_file(renamed, official_folder / "model.safetensors")
    assert same(load_official(official_folder), wanted)


def test_dtype_is_as_stored_or_as_asked(official_folder: Path, official_state: State) -> None:
    half = {name: tensor.bfloat16() for name, tensor in official_state.items()}
    save_file(half, official_folder / "model.safetensors")
    model = load_official(official_folder)
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.bfloat16}
    assert torch.get_default_dtype() == torch.float32
    assert load_official(official_folder, "float32").dtype == torch.float32
    with pytest.raises(InputError, match="int8"):
        load_official(official_folder, "int8")


def test_mixed_dtypes_lose_nothing(official_folder: Path, official_state: State, wanted: State) -> None:
    sam2 = {n: t.bfloat16() if n.startswith("vision_model") else t for n, t in official_state.items()}
    save_file(sam2, official_folder / "model.safetensors")
    model = load_official(official_folder)
    assert model.dtype == torch.float32
    assert torch.equal(model.grounding_head[0].weight, wanted["grounding_head.0.weight"])


# ---------------------------------------------------------------- conversion and our own format


@pytest.fixture
def own_folder(official_folder: Path, tmp_path: Path) -> Path:
    return convert(official_folder, tmp_path / "own")


def test_convert_writes_what_load_model_reads(official_folder: Path, own_folder: Path, wanted: State) -> None:
    assert not is_official(own_folder)
    model, processor = load_model(own_folder)
    assert same(model, wanted)
    assert not model.training
    assert processor.settings.tile_size == 448
    assert processor.settings.max_tiles == 12
    with safe_open(own_folder / "model.safetensors", "pt") as file:
        assert len(list(file.keys())) == len(wanted)
    official, other = load_model(official_folder)
    assert same(official, wanted)
    assert other.settings == processor.settings
    text = "<|user|>\nü [SEG]<|end|>"
    assert other.encode(text) == processor.encode(text)
    assert processor.decode(processor.encode(text)) == text
    assert without_dtype(official.config.to_dict()) == without_dtype(model.config.to_dict())


def without_dtype(config: Any) -> Any:
    if not isinstance(config, dict):
        return config
    left_out = ("dtype", "_name_or_path", "architectures", "transformers_version")
    return {key: without_dtype(value) for key, value in config.items() if key not in left_out}


def test_both_formats_answer_alike(official_folder: Path, own_folder: Path, made_up: ModuleType) -> None:
    ids = torch.tensor([made_up.encode("What is it? [SEG] liver")])
    outputs = []
    for folder in (official_folder, own_folder):
        with torch.inference_mode():
            outputs.append(load_model(folder)[0](ids))
    assert torch.equal(outputs[0].logits, outputs[1].logits)
    assert torch.equal(outputs[0].seg_states, outputs[1].seg_states)


def test_convert_leaves_nothing_half_written(official_folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    def full(self: UniBiomedModel, folder: Path, **_: Any) -> None:
        (Path(folder) / "model.safetensors").write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(UniBiomedModel, "save_pretrained", full)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OutputError, match="no space left"):
        convert(official_folder, tmp_path / "own")
    assert sorted(tmp_path.iterdir()) == before


def test_convert_overwrites_nothing(official_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="exists"):
        convert(official_folder, tmp_path)


def test_the_small_model_with_tied_embeddings(official_folder: Path, tmp_path: Path, token_ids: dict[str, int]) -> None:
    ids = [token_ids[token] for token in ("<IMG_CONTEXT>", "[SEG]", "<|im_end|>")]
    model = UniBiomedModel(nano_config(267, *ids, image_size=64, width=32, hidden_size=64, layers=1)).eval()
    settings = ProcessorSettings(grounding_size=64, tile_size=0, tokens_per_tile=4, bfloat16_constants=False)
    processor = UniBiomedProcessor(UniBiomedProcessor.from_pretrained(official_folder).tokenizer, settings)
    model.save_pretrained(tmp_path / "nano")
    processor.save_pretrained(tmp_path / "nano")
    again, other = load_model(tmp_path / "nano")
    assert same(again, model.state_dict())
    assert again.mllm.lm_head.weight is again.mllm.model.language_model.embed_tokens.weight
    assert other.settings == settings


def test_device_and_dtype(own_folder: Path) -> None:
    model, _ = load_model(own_folder, device="cpu", dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    with pytest.raises(InputError, match="device 'nowhere'") as error:
        load_model(own_folder, device="nowhere")
    one_line(error)


def rewrite(folder: Path, **changes: torch.Tensor | None) -> None:
    state = load_file(folder / "model.safetensors")
    state.update({name: tensor for name, tensor in changes.items() if tensor is not None})
    kept = {name: tensor for name, tensor in state.items() if changes.get(name, tensor) is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def test_own_missing_tensor(own_folder: Path) -> None:
    rewrite(own_folder, **{"grounding_head.0.bias": None})
    with pytest.raises(ModelError, match=r"1 missing \(grounding_head\.0\.bias\)") as error:
        load_model(own_folder)
    one_line(error)


def test_own_unexpected_tensor(own_folder: Path) -> None:
    rewrite(own_folder, **{"grounding_head.7.bias": torch.zeros(2)})
    with pytest.raises(ModelError, match=r"1 unexpected \(grounding_head\.7\.bias\)"):
        load_model(own_folder)


def test_own_misshapen_tensor(own_folder: Path) -> None:
    rewrite(own_folder, **{"grounding_head.0.bias": torch.zeros(65)})
    with pytest.raises(ModelError, match=r"1 of the wrong shape \(grounding_head\.0\.bias: \(65,\), not \(64,\)\)"):
        load_model(own_folder)


def test_own_format_is_never_read_from_pickles(own_folder: Path) -> None:
    torch.save(load_file(own_folder / "model.safetensors"), own_folder / "pytorch_model.bin")
    (own_folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no model\.safetensors"):
        load_model(own_folder)


# ---------------------------------------------------------------- broken folders


@pytest.fixture(params=["official", "own"])
def any_folder(request: pytest.FixtureRequest, official_folder: Path) -> Path:
    return official_folder if request.param == "official" else convert(official_folder, official_folder.parent / "own")


@pytest.mark.parametrize("kept", [0, 5, 4000, -1, -100_000])
def test_truncated_weights(any_folder: Path, kept: int) -> None:
    file = any_folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ModelError, match="is truncated or damaged") as error:
        load_model(any_folder)
    assert "model.safetensors" in one_line(error)


@pytest.mark.parametrize("kept", [0, 100, -1, -5000])
def test_truncated_pytorch_file(official_folder: Path, official_state: State, kept: int) -> None:
    (official_folder / "model.safetensors").unlink()
    file = official_folder / "pytorch_model.bin"
    torch.save(official_state, file)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ModelError, match="is truncated or damaged") as error:
        load_model(official_folder)
    one_line(error)


class Nasty:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("executed",))


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_pickled_code_is_not_executed(writer: str, official_folder: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(official_folder)
    (official_folder / "model.safetensors").unlink()
    if writer == "torch":
        torch.save({"state_dict": {}, "meta": Nasty()}, "pytorch_model.bin")
    else:
        Path("pytorch_model.bin").write_bytes(pickle.dumps(Nasty()))
    with pytest.raises(ModelError) as error:
        load_model(official_folder)
    one_line(error)
    assert not Path("executed").exists()


def test_a_file_of_something_else(official_folder: Path) -> None:
    (official_folder / "model.safetensors").unlink()
    torch.save({"epoch": 3}, official_folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="not a dictionary of tensors"):
        load_model(official_folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("{", "cannot be read"),
        ("[1]", "not a JSON object"),
        ("\x00\x01", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("{}", "type 'None': give the folder of a UniBiomed"),
        ('{"model_type": "llama"}', "type 'llama': give the folder of a UniBiomed"),
        ('{"model_type": "unibiomed", "mllm_config": 3}', "cannot be (loaded|read)"),
        (
            '{"model_type": "unibiomed", "mllm_config": {"text_config": {"hidden_size": "x"}}}',
            "cannot be (loaded|read)",
        ),
        ('{"model_type": "unibiomed", "grounding_config": {"model_type": "nonsense"}}', "cannot be (loaded|read)"),
        ('{"model_type": "unibiomed"}', "describes a model with .* parameters"),
        ('{"model_type": "sa2va_chat", "llm_config": {}, "vision_config": {}}', "lacks"),
    ],
)
def test_broken_configurations(any_folder: Path, text: str, message: str) -> None:
    (any_folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match=message) as error:
        load_model(any_folder)
    one_line(error)


@pytest.mark.parametrize(
    ("file", "message"),
    [("config.json", "has no config.json"), ("model.safetensors", "has no weights"), ("tokenizer.json", "tokenizer")],
)
def test_missing_files(any_folder: Path, file: str, message: str) -> None:
    (any_folder / file).unlink()
    with pytest.raises(ModelError, match=message) as error:
        load_model(any_folder)
    one_line(error)


def test_missing_shard(official_folder: Path, official_state: State) -> None:
    shard(official_folder, official_state)
    (official_folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match="lacks 1 of 2 weight files"):
        load_model(official_folder)


@pytest.mark.parametrize("table", [{}, {"weight_map": {}}, {"weight_map": 3}, {"weight_map": {"a": "../secret.bin"}}])
def test_broken_index(official_folder: Path, table: dict[str, Any]) -> None:
    (official_folder / "model.safetensors.index.json").write_text(json.dumps(table))
    with pytest.raises(ModelError, match="lists no valid file names"):
        load_model(official_folder)


def test_broken_tokenizer_files(official_folder: Path) -> None:
    (official_folder / "tokenizer.json").write_text('{"added_tokens": [{"id": "x"}]}')
    with pytest.raises(ModelError, match="tokenizer") as error:
        load_model(official_folder)
    one_line(error)


# ---------------------------------------------------------------- names that are not folders


@pytest.mark.parametrize("name", ["nowhere", "./nowhere/at-all", "/nowhere/at-all", "a/b/c", "https://x.y/z", "../x"])
def test_only_organisation_and_model_reach_for_the_hub(name: str, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: pytest.fail("asked the hub"))
    with pytest.raises(ModelError, match="is not a folder") as error:
        load_model(name)
    one_line(error)


def test_a_slip_in_a_local_path_does_not_reach_for_the_hub(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: pytest.fail("asked the hub"))
    with pytest.raises(ModelError, match="is not a folder"):
        load_model("models/unibiomde")


def test_a_hub_name_is_downloaded(own_folder: Path, monkeypatch: Any, tmp_path: Path, wanted: State) -> None:
    monkeypatch.chdir(tmp_path)
    asked: list[tuple[str, list[str]]] = []

    def snapshot(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(own_folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert same(load_model("somebody/some-model")[0], wanted)
    assert asked == [("somebody/some-model", ["*.json", "*.safetensors", "*.txt"])]


def test_a_hub_that_does_not_answer(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="nor can it be downloaded") as error:
        weights.find_folder("somebody/no-such-model-xyz")
    one_line(error)
