"""The authors' checkpoint format: conversion of its configuration and tensors to those of this package.

The published checkpoint consists of InternVL2.5 (``vision_model``, ``mlp1``, ``language_model``), SAM2
(``grounding_encoder.sam2_model``) and the grounding head (``text_hidden_fcs``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError

from unibiomed.errors import ModelError

from .configuration import UniBiomedConfig
from .official_names import GAUSSIAN, POINT, SAM2, clean_name, our_names

Shapes = Mapping[str, tuple[int, ...]]

# Token ids of the released tokenizer, for checkpoints without tokenizer files.
PUBLISHED_TOKEN_IDS = {"<|im_end|>": 151645, "<IMG_CONTEXT>": 151667, "[SEG]": 151674}

# Settings of Hiera that do not follow from the shapes of its tensors (Ravi et al., "SAM 2", 2024), by (width, blocks
# per stage) of the tiny, small, base-plus and large model: heads of the first stage, window size per stage, and the
# blocks with global attention.
HIERA: dict[tuple[int, tuple[int, ...]], tuple[int, list[int], list[int]]] = {
    (96, (1, 2, 7, 2)): (1, [8, 4, 14, 7], [5, 7, 9]),
    (96, (1, 2, 11, 2)): (1, [8, 4, 14, 7], [7, 10, 13]),
    (112, (2, 3, 16, 3)): (2, [8, 4, 14, 7], [12, 16, 20]),
    (144, (2, 6, 36, 4)): (2, [8, 4, 16, 8], [23, 33, 43]),
}
HIERA_LARGE = (144, (2, 6, 36, 4))

# Fields of Qwen2's configuration that affect the computation; other fields of `llm_config` are ignored.
TEXT_FIELDS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size",
    "hidden_act", "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling", "attention_dropout",
    "initializer_range", "bos_token_id", "eos_token_id", "pad_token_id", "use_sliding_window", "sliding_window",
    "max_window_layers",
)  # fmt: skip
# Name in the authors' configuration -> name in transformers.
VISION_FIELDS = {
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_hidden_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "num_channels": "num_channels",
    "image_size": "image_size",
    "patch_size": "patch_size",
    "qkv_bias": "attention_bias",
    "qk_normalization": "use_qk_norm",
    "norm_type": "norm_type",
    "hidden_act": "hidden_act",
    "layer_norm_eps": "layer_norm_eps",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_dropout",
    "initializer_range": "initializer_range",
}
REQUIRED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")

# ---------------------------------------------------------------- configuration


def official_config(
    config: Mapping[str, Any], shapes: Shapes | None = None, token_ids: Mapping[str, int] | None = None
) -> UniBiomedConfig:
    """Convert the configuration of a checkpoint in the authors' format.

    Parameters
    ----------
    config : mapping
        The checkpoint's ``config.json``: ``vision_config``, ``llm_config``, ``downsample_ratio``, ``select_layer``.
        Sizes of SAM2 may be given under ``grounding_config``, in the form of ``transformers``' ``Sam2VideoConfig``.
    shapes : mapping, optional
        Shapes of the tensors by their names in the authors' format. They give sizes that `config` lacks, mainly those
        of SAM2 (default: Hiera-large), and the size of the vocabulary, which `config` understates.
    token_ids : mapping, optional
        Ids of the special tokens; default: those of the published tokenizer.

    Returns
    -------
    UniBiomedConfig

    Raises
    ------
    ModelError
        If `config` is not that of an InternVL chat model with Qwen2, or a value is missing or not valid.
    """
    found = {clean_name(name): tuple(shape) for name, shape in (shapes or {}).items()}
    ids = PUBLISHED_TOKEN_IDS | dict(token_ids or {})
    vision, text = config.get("vision_config"), config.get("llm_config")
    if not isinstance(vision, Mapping) or not isinstance(text, Mapping):
        raise ModelError(
            "config.json has no 'vision_config' or no 'llm_config', so it is not in the authors' format: "
            "download the model folder again"
        )
    kind = text.get("model_type") or "".join(text.get("architectures") or ["qwen2"])
    if not str(kind).lower().startswith("qwen2"):
        raise ModelError(f"the language model {kind!r} is not supported: use a checkpoint with Qwen2")
    if config.get("ps_version", "v2") != "v2":
        raise ModelError(f"ps_version {config['ps_version']!r} is not supported: use a checkpoint with 'v2'")
    try:
        vision_config = _vision_config(vision, found)
        text_config = _text_config(text, found) | {"eos_token_id": ids["<|im_end|>"]}
        ratio = float(config.get("downsample_ratio", 0.5))
        side = int(vision_config["image_size"]) // int(vision_config["patch_size"])
        result = UniBiomedConfig(
            mllm_config={
                "vision_config": vision_config,
                "text_config": text_config,
                "image_token_id": ids["<IMG_CONTEXT>"],
                "image_seq_length": int(side * ratio) ** 2,
                "downsample_ratio": ratio,
                "vision_feature_layer": config.get("select_layer", -1),
                "tie_word_embeddings": False,
            },
            grounding_config=_grounding_config(config.get("grounding_config"), found),
            seg_token_id=ids["[SEG]"],
            tie_word_embeddings=False,
        )
    except (TypeError, ValueError, KeyError, AttributeError, ZeroDivisionError, StrictDataclassError) as error:
        raise ModelError(
            f"config.json is not valid ({_one_line(error)}): download it again from the release"
        ) from error
    vocabulary = result.mllm_config.text_config.vocab_size  # type: ignore[union-attr]
    if too_big := [token for token in PUBLISHED_TOKEN_IDS if not 0 <= ids[token] < vocabulary]:
        raise ModelError(
            f"the vocabulary of {vocabulary} tokens lacks {', '.join(too_big)}: add the tokenizer files of the release"
        )
    return result


def official_settings(config: Mapping[str, Any]) -> dict[str, int]:
    """Image preprocessing settings of a ``config.json`` in the authors' format, as settings of the processor.

    Parameters
    ----------
    config : mapping
        The checkpoint's ``config.json``.

    Returns
    -------
    dict
        ``tile_size`` and ``tokens_per_tile`` of a tile, and ``max_tiles``.

    Raises
    ------
    ModelError
        If a value is not valid.
    """
    try:
        vision = config["vision_config"]
        side, patch = int(vision.get("image_size", 448)), int(vision.get("patch_size", 14))
        tokens = int(side // patch * float(config.get("downsample_ratio", 0.5))) ** 2
        tiles = int(config.get("max_dynamic_patch", 12))
        if min(side, tokens, tiles) < 1:
            raise ValueError("a size is not positive")
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ModelError(
            f"config.json is not valid ({_one_line(error)}): download it again from the release"
        ) from error
    return {"tile_size": side, "tokens_per_tile": tokens, "max_tiles": tiles}


def _vision_config(given: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    result: dict[str, Any] = {"model_type": "internvl_vision", "attention_bias": True}
    patch = shapes.get("vision_model.embeddings.patch_embedding.weight")
    places = shapes.get("vision_model.embeddings.position_embedding")
    hidden = shapes.get("vision_model.encoder.layers.0.mlp.fc1.weight")
    if patch and places and hidden:
        side = round((places[1] - 1) ** 0.5) * patch[-1]
        result |= {"hidden_size": patch[0], "num_channels": patch[1], "patch_size": patch[-1], "image_size": side}
        result |= {
            "intermediate_size": hidden[0],
            "num_hidden_layers": _count(shapes, "vision_model.encoder.layers."),
            "attention_bias": "vision_model.encoder.layers.0.attn.qkv.bias" in shapes,
        }
    result |= {ours: given[name] for name, ours in VISION_FIELDS.items() if given.get(name) is not None}
    _require(result, (*REQUIRED, "image_size", "patch_size"), "vision_config")
    return result


def _text_config(given: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    result: dict[str, Any] = {"model_type": "qwen2"}
    table = shapes.get("language_model.model.embed_tokens.weight")
    gate = shapes.get("language_model.model.layers.0.mlp.gate_proj.weight")
    if table and gate:
        result |= {"hidden_size": table[1], "intermediate_size": gate[0]}
        result["num_hidden_layers"] = _count(shapes, "language_model.model.layers.")
    result |= {name: given[name] for name in TEXT_FIELDS if given.get(name) is not None}
    if table:
        result["vocab_size"] = table[0]
    _require(result, (*REQUIRED, "vocab_size"), "llm_config")
    key = shapes.get("language_model.model.layers.0.self_attn.k_proj.weight")
    if key and "num_key_value_heads" not in result:
        result["num_key_value_heads"] = key[0] * result["num_attention_heads"] // result["hidden_size"]
    # The release stores the output matrix even if Qwen2's configuration ties it to the input matrix.
    return result | {"tie_word_embeddings": False}


def _grounding_config(given: Any, shapes: Shapes) -> dict[str, Any]:
    result: dict[str, Any] = {
        "model_type": "sam2_video",
        "enable_occlusion_spatial_embedding": f"{SAM2}no_obj_embed_spatial" in shapes,
        "enable_temporal_pos_encoding_for_object_pointers": f"{SAM2}obj_ptr_tpos_proj.weight" in shapes,
    }
    if slots := shapes.get(f"{SAM2}maskmem_tpos_enc"):
        result |= {"num_maskmem": slots[0], "memory_encoder_output_channels": slots[-1]}
    if isinstance(given, Mapping):
        return result | dict(given)
    width, blocks, dims = _hiera_layout(shapes)
    if (width, blocks) not in HIERA:
        raise ValueError(
            f"SAM2's encoder has width {width} and {list(blocks)} blocks, which is none of the four published sizes: "
            "give its sizes under 'grounding_config'"
        )
    heads, windows, whole = HIERA[width, blocks]
    background = shapes.get(f"{SAM2}image_encoder.trunk.pos_embed", (1, width, 7, 7))
    vision = {
        "model_type": "sam2_vision_model",
        "backbone_channel_list": dims[::-1],
        "backbone_config": {
            "model_type": "sam2_hiera_det_model",
            "hidden_size": width,
            "num_attention_heads": heads,
            "blocks_per_stage": list(blocks),
            "embed_dim_per_stage": dims,
            "num_attention_heads_per_stage": [heads << i for i in range(len(blocks))],
            "window_size_per_stage": windows,
            "global_attention_blocks": whole,
            "window_positional_embedding_background_size": list(background[2:]),
        },
    }
    return result | {"vision_config": vision}


def _hiera_layout(shapes: Shapes) -> tuple[int, tuple[int, ...], list[int]]:
    """Width of the first stage, number of blocks of each stage, width of each stage."""
    trunk = f"{SAM2}image_encoder.trunk.blocks."
    count = _count(shapes, trunk)
    if not count:
        width, large = HIERA_LARGE
        return width, large, [width << i for i in range(len(large))]
    # The first block of each stage increases the width.
    starts = [0, *(i for i in range(1, count) if f"{trunk}{i}.proj.weight" in shapes)]
    blocks = tuple(b - a for a, b in zip(starts, [*starts[1:], count], strict=True))
    dims = [shapes[f"{trunk}{i}.attn.proj.weight"][0] for i in starts]
    return dims[0], blocks, dims


def _count(shapes: Shapes, prefix: str) -> int:
    return len({name[len(prefix) :].split(".")[0] for name in shapes if name.startswith(prefix)})


def _require(values: Mapping[str, Any], names: Iterable[str], where: str) -> None:
    if missing := [name for name in names if name not in values]:
        raise ValueError(f"{where} lacks {', '.join(missing)}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


# ---------------------------------------------------------------- tensors

_LORA = re.compile(r"\.lora_([AB])(?:\.\w+)?\.weight$")
Factors = dict[str, str]


def official_name_map(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Names in this package for each name in the authors' format; LoRA factors map to their matrix."""
    return {name: our_names(_LORA.sub(".weight", name)) for name in names}


def convert_official(
    state: Mapping[str, torch.Tensor] | Iterable[tuple[str, torch.Tensor]],
    expected: Shapes | None = None,
    *,
    lora_alpha: float | None = None,
) -> dict[str, torch.Tensor]:
    """State dict of :class:`UniBiomedModel` from one in the authors' format; see :func:`stream_official`."""
    return dict(stream_official(state if isinstance(state, Mapping) else dict(state), expected, lora_alpha=lora_alpha))


def stream_official(
    state: Mapping[str, torch.Tensor], expected: Shapes | None = None, *, lora_alpha: float | None = None
) -> Iterator[tuple[str, torch.Tensor]]:
    """Convert tensors from the authors' format one at a time; each tensor of `state` is read when it is needed.

    Parameters
    ----------
    state : mapping
        Tensors by their names in the authors' format.
    expected : mapping, optional
        Expected shapes by the names in this package. Names are checked before the first tensor is read, shapes as the
        tensors are read.
    lora_alpha : float, optional
        α of the LoRA scale α / r, for checkpoints with unmerged LoRA weights, which are merged here.

    Yields
    ------
    tuple of str and torch.Tensor
        Name in this package and tensor. Tensors of the wrong shape are omitted and reported in one error at the end.

    Raises
    ------
    ModelError
        If tensors are missing, unexpected or of the wrong shape, or α is needed and not given.
    """
    sources, factors, unexpected = _sources(state)
    points = sorted(name for name in sources if POINT.match(name))
    produced = {ours for name in sources for ours in our_names(name)}
    if expected is not None:
        unexpected += [sources[name] for name in sources if not set(our_names(name)) <= set(expected)]
        missing = sorted(set(expected) - produced)
    else:
        missing = []
    unexpected += [sources[name] for name in sources if not our_names(name)]
    if missing or unexpected:
        raise ModelError(mismatch_message(missing, unexpected))
    if factors and lora_alpha is None:
        raise ModelError(
            "the weights contain unmerged LoRA factors, and config.json lacks their scale: "
            'add "lora_alpha" (256 in the published training) to config.json'
        )
    wrong_shape: list[str] = []
    for name, official in sources.items():
        names = our_names(name)
        if name in points[1:]:
            continue
        tensor = torch.cat([state[sources[p]] for p in points]) if name in points else state[official]
        if name in factors:
            assert lora_alpha is not None
            tensor = _merge(tensor, state[factors[name]["A"]], state[factors[name]["B"]], lora_alpha, official)
        whole = len(names) == 1 or name == GAUSSIAN or tensor.ndim == 0
        parts = (tensor,) * len(names) if whole else tensor.tensor_split(len(names))
        for ours, part in zip(names, parts, strict=True):
            shape = tuple(part.shape) if expected is None else tuple(expected[ours])
            if tuple(part.shape) != shape:
                wrong_shape.append(f"{official}: {tuple(part.shape)}, not {shape}")
            elif not part.is_floating_point():
                wrong_shape.append(f"{official}: {str(part.dtype).removeprefix('torch.')}, not floating point")
            else:
                yield ours, part
    if wrong_shape:
        raise ModelError(mismatch_message(wrong_shape=wrong_shape))


def mismatch_message(
    missing: Iterable[str] = (), unexpected: Iterable[str] = (), wrong_shape: Iterable[str] = ()
) -> str:
    """One-line message about tensors that do not match the configuration, with the first few names of each kind."""
    parts = []
    for what, names in (("missing", missing), ("unexpected", unexpected), ("of the wrong shape", wrong_shape)):
        if names := sorted(names):
            more = ", …" if len(names) > 3 else ""
            parts.append(f"{len(names)} {what} ({', '.join(names[:3])}{more})")
    return (
        f"the tensors do not match config.json, {'; '.join(parts)}: "
        "download all files of the model folder from the same release"
    )


def _sources(state: Mapping[str, torch.Tensor]) -> tuple[dict[str, str], dict[str, Factors], list[str]]:
    """Stored names by cleaned name, stored names of LoRA factors by their matrix, and unused stored names."""
    sources: dict[str, str] = {}
    factors: dict[str, Factors] = {}
    left_over: list[str] = []
    originals: list[str] = []
    for official in state:
        name = clean_name(official)
        if match := _LORA.search(name):
            factors.setdefault(_LORA.sub(".weight", name), {})[match[1]] = official
        elif ".original_module." in name:
            originals.append(official)
        elif name in sources:
            left_over.append(official)
        else:
            sources[name] = official
    for name, pair in factors.items():
        if len(pair) < 2 or name not in sources or len(our_names(name)) > 1:
            left_over += pair.values()
    # PEFT keeps an untrained copy of modules that are trained without LoRA.
    left_over += [name for name in originals if clean_name(name).replace(".original_module.", ".") not in sources]
    return sources, factors, left_over


def _merge(matrix: torch.Tensor, a: torch.Tensor, b: torch.Tensor, alpha: float, name: str) -> torch.Tensor:
    rank = len(a) if a.ndim == 2 else 0
    if not rank or matrix.ndim != 2 or tuple(b.shape) != (len(matrix), rank) or a.shape[1] != matrix.shape[1]:
        shapes = ", ".join(str(tuple(t.shape)) for t in (matrix, a, b))
        raise ModelError(mismatch_message(wrong_shape=[f"{name} and its LoRA: {shapes}"]))
    return (matrix.float() + (alpha / rank) * (b.float() @ a.float())).to(matrix.dtype)
