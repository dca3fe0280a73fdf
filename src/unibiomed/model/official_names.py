"""Mapping of tensor names from the authors' format to :class:`~unibiomed.model.modeling.UniBiomedModel`."""

from __future__ import annotations

import re
from collections.abc import Callable

SAM2 = "grounding_encoder.sam2_model."

_MLP3 = {"0": "proj_in", "1": "layers.0", "2": "proj_out"}
_MLP2 = {"0": "proj_in", "1": "proj_out"}
_MASK_EMBED = {"0": "conv1", "1": "layer_norm1", "3": "conv2", "4": "layer_norm2", "6": "conv3"}
_UPSCALE = {"0": "upscale_conv1", "1": "upscale_layer_norm", "3": "upscale_conv2"}
_PROJECTOR = {"0": "layer_norm", "1": "linear_1", "3": "linear_2"}


def _downsampler(index: str) -> str:
    layer, part = divmod(int(index), 3)
    if index == "12":
        return "final_conv"
    return f"layers.{layer}.{('conv', 'layer_norm', 'activation')[part]}"


_Rule = tuple[str, str | Callable[[re.Match[str]], str]]
_VISION: list[_Rule] = [
    (r"^embeddings\.class_embedding$", "embeddings.cls_token"),
    (r"^embeddings\.position_embedding$", "embeddings.position_embeddings"),
    (r"^embeddings\.patch_embedding\.", "embeddings.patch_embeddings.projection."),
    (r"^encoder\.layers\.", "encoder.layer."),
    (r"\.attn\.proj\.", ".attention.projection_layer."),
    (r"\.attn\.(q_norm|k_norm)\.", r".attention.\1."),
    (r"\.ls([12])$", r".lambda_\1"),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
]
_GROUNDING: list[_Rule] = [
    (r"^no_mem_embed$", "no_memory_embedding"),
    (r"^no_mem_pos_enc$", "no_memory_positional_encoding"),
    (r"^maskmem_tpos_enc$", "memory_temporal_positional_encoding"),
    (r"^no_obj_ptr$", "no_object_pointer"),
    (r"^no_obj_embed_spatial$", "occlusion_spatial_embedding_parameter"),
    (r"^obj_ptr_tpos_proj\.", "temporal_positional_encoding_projection_layer."),
    (r"^obj_ptr_proj\.layers\.([012])\.", lambda m: f"object_pointer_proj.{_MLP3[m[1]]}."),
    # image encoder
    (r"^image_encoder\.trunk\.patch_embed\.proj\.", "vision_encoder.backbone.patch_embed.projection."),
    (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
    (r"^(vision_encoder\.backbone\.blocks\.\d+)\.norm([12])\.", r"\1.layer_norm\2."),
    (
        r"^(vision_encoder\.backbone\.blocks\.\d+)\.mlp\.layers\.([01])\.",
        lambda m: f"{m[1]}.mlp.{_MLP2[m[2]]}.",
    ),
    (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"vision_encoder.neck.convs.\1."),
    # prompt encoder
    (
        r"^sam_prompt_encoder\.mask_downscaling\.([01346])\.",
        lambda m: f"prompt_encoder.mask_embed.{_MASK_EMBED[m[1]]}.",
    ),
    (r"^sam_prompt_encoder\.", "prompt_encoder."),
    # mask decoder
    (
        r"^sam_mask_decoder\.transformer\.layers\.(\d+)\.mlp\.layers\.([01])\.",
        lambda m: f"mask_decoder.transformer.layers.{m[1]}.mlp.{_MLP2[m[2]]}.",
    ),
    (r"^sam_mask_decoder\.output_upscaling\.([013])\.", lambda m: f"mask_decoder.{_UPSCALE[m[1]]}."),
    (
        r"^sam_mask_decoder\.(output_hypernetworks_mlps\.\d+|iou_prediction_head|pred_obj_score_head)\.layers\.([012])\.",
        lambda m: f"mask_decoder.{m[1]}.{_MLP3[m[2]]}.",
    ),
    (r"^sam_mask_decoder\.", "mask_decoder."),
    (r"^(mask_decoder\.transformer)\.norm_final_attn\.", r"\1.layer_norm_final_attn."),
    # memory encoder
    (
        r"^memory_encoder\.mask_downsampler\.encoder\.(\d+)\.",
        lambda m: f"memory_encoder.mask_downsampler.{_downsampler(m[1])}.",
    ),
    (r"^memory_encoder\.pix_feat_proj\.", "memory_encoder.feature_projection."),
    (r"^memory_encoder\.out_proj\.", "memory_encoder.projection."),
    (r"^memory_encoder\.fuser\.", "memory_encoder.memory_fuser."),
    (r"^(memory_encoder\.memory_fuser\.layers\.\d+)\.(?:g_weight|gamma)$", r"\1.scale"),
    (r"^(memory_encoder\.memory_fuser\.layers\.\d+)\.dwconv\.", r"\1.depthwise_conv."),
    (r"^(memory_encoder\.memory_fuser\.layers\.\d+)\.pwconv([12])\.", r"\1.pointwise_conv\2."),
    (r"^(memory_encoder\.memory_fuser\.layers\.\d+)\.norm\.", r"\1.layer_norm."),
    # attention layers of the mask decoder and of the memory
    (r"^(mask_decoder\.transformer|memory_attention)\.(.*)out_proj\.", r"\1.\2o_proj."),
    (r"^((?:mask_decoder\.transformer|memory_attention)\.layers\.\d+)\.norm([1-4])\.", r"\1.layer_norm\2."),
    (r"^memory_attention\.norm\.", "memory_attention.layer_norm."),
]
_COMPILED = {
    "vision": [(re.compile(pattern), replacement) for pattern, replacement in _VISION],
    "grounding": [(re.compile(pattern), replacement) for pattern, replacement in _GROUNDING],
}
POINT = re.compile(rf"^{re.escape(SAM2)}sam_prompt_encoder\.point_embeddings\.(\d+)\.weight$")
GAUSSIAN = f"{SAM2}sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
_QKV = re.compile(r"^(vision_model\.encoder\.layers\.\d+\.attn)\.qkv\.(weight|bias)$")
_WRAPPERS = re.compile(r"^(?:module\.)?(?:base_model\.model\.)?(?:mllm\.model\.)?")


def clean_name(name: str) -> str:
    """Remove prefixes that training wrappers add to a name (PEFT, data parallelism, the trainer's module)."""
    name = _WRAPPERS.sub("", name)
    name = name.replace(".base_model.model.", ".").replace(".base_layer.", ".")
    return re.sub(r"\.modules_to_save\.\w+\.", ".", name)


def our_names(name: str) -> tuple[str, ...]:
    """Names in :class:`UniBiomedModel` for a tensor in the authors' format; empty if there is none.

    A fused query-key-value tensor is split into three tensors. SAM2's Gaussian matrix is copied to two tensors. The
    point embeddings are the rows of one tensor, whose name is returned for each of them.
    """
    name = clean_name(name)
    if name == GAUSSIAN:
        return (
            "grounding.shared_image_embedding.positional_embedding",
            "grounding.prompt_encoder.shared_embedding.positional_embedding",
        )
    if POINT.match(name):
        return ("grounding.prompt_encoder.point_embed.weight",)
    if match := _QKV.match(name):
        attention = _renamed(match[1] + ".", "vision_model.", "vision").replace(".attn.", ".attention.")
        return tuple(f"mllm.model.vision_tower.{attention}{part}_proj.{match[2]}" for part in "qkv")
    if match := re.match(r"^mlp1\.([013])\.(.*)$", name):
        return (f"mllm.model.multi_modal_projector.{_PROJECTOR[match[1]]}.{match[2]}",)
    for old, new, rules in (
        ("vision_model.", "mllm.model.vision_tower.", "vision"),
        ("language_model.model.", "mllm.model.language_model.", None),
        ("language_model.lm_head.", "mllm.lm_head.", None),
        ("text_hidden_fcs.", "grounding_head.", None),
        (SAM2, "grounding.", "grounding"),
    ):
        if name.startswith(old):
            return (new + _renamed(name, old, rules),)
    return ()


def _renamed(name: str, prefix: str, rules: str | None) -> str:
    name = name[len(prefix) :]
    for pattern, replacement in _COMPILED[rules] if rules else ():
        name = pattern.sub(replacement, name)
    return name
