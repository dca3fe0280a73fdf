"""Configuration of a UniBiomed model: sizes, optional modules, and calibration of its scores."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec
from transformers.models.internvl import InternVLConfig

from . import backbone  # noqa: F401  (registers the small backbones with AutoConfig)
from .mask_threshold import THRESHOLD_RULES


class MllmConfig(InternVLConfig):
    """InternVL's configuration with any registered vision tower; InternVL's own class accepts only InternViT."""

    model_type = "unibiomed_mllm"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="qwen2"),
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="internvl_vision"),
    }


class UniBiomedConfig(PreTrainedConfig):
    """Configuration of :class:`~unibiomed.model.modeling.UniBiomedModel`.

    Parameters
    ----------
    mllm_config : MllmConfig or dict
        The multimodal language model: vision tower, projector and Qwen2.
    grounding_config : Sam2Config, Sam2VideoConfig or dict
        SAM2. The ``sam2_video`` form also has the memory modules that propagate a mask through a volume.
    seg_token_id : int
        Id of ``[SEG]``, whose hidden state prompts the mask decoder.
    shared_vision : bool
        Whether the language model reads SAM2's image features instead of having a vision tower of its own.
    region_summary : bool
        Whether the features of a drawn box are added to the image tokens, see
        :class:`~unibiomed.model.region.RegionSummary`; needs ``shared_vision``.
    fine_masks : bool
        Whether mask logits are refined to the input resolution (otherwise: a quarter of its side), see
        :class:`~unibiomed.model.mask_refiner.MaskRefiner`.
    context_match : bool
        Whether the presence score is limited by the image–target match, see
        :class:`~unibiomed.model.context.ContextMatch`.
    box_prompt : bool
        Whether SAM2's box prompts were trained, so that a box can be segmented without words.
    box_decoder : bool
        Whether boxes are decoded by a separate module, see :class:`~unibiomed.model.box_decoder.BoxDecoder`.
    scores_trained : bool
        Whether SAM2's IoU and object-score heads were trained. In the released weights they were not: the IoU head only
        selects one of three masks. Presence and mask scores are then computed from the mask probabilities.
    presence_calibration : list of 2 or 3 float
        Scale of the presence logit, offset, and scale of the peak mask logit (default: 0), fitted on the validation
        split (Platt, 1999). The presence score is the sigmoid of their sum.
    mask_calibration : list of 2 float
        Scale and offset of the logit of the predicted IoU.
    presence_threshold : float
        Presence score, in [0, 1], below which a target is reported as absent. Used only if the scores were trained.
    finding_threshold : float
        Threshold of the logit that combines text and masks; above it, ``recognize`` reports a finding. Fitted on the
        validation split; the default is that of `nano` version 7.
    finding_thresholds : dict of str to float
        The same threshold by modality, for modalities with enough validation images.
    box_fit_weight : float
        Weight of the mask evidence in ``classify``: the logit that is added to a name if the bounding box of its mask
        equals the given box and its presence score is 1.
    something_else_offset : float
        Logit that ``classify`` adds to the answer "something else", for which there is no mask evidence.
    mask_threshold : str
        Rule for the threshold of mask logits, see :func:`~unibiomed.model.mask_threshold.mask_threshold`; ``"half"`` is
        the rule of the paper. Configuration files of older models call it ``mask_cut``.

    Raises
    ------
    ValueError
        If `mask_threshold` is unknown, or an entry of `finding_thresholds` is not a finite number.
    """

    model_type = "unibiomed"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
        "mllm_config": MllmConfig,
        "grounding_config": SubConfigSpec(config_class=AutoConfig, model_type="sam2"),
    }

    mllm_config: dict | PreTrainedConfig | None = None
    grounding_config: dict | PreTrainedConfig | None = None
    seg_token_id: int = 151674
    shared_vision: bool = False
    region_summary: bool = False
    fine_masks: bool = False
    context_match: bool = False
    box_prompt: bool = False
    box_decoder: bool = False
    scores_trained: bool = False
    presence_calibration: list[float] | None = None
    mask_calibration: list[float] | None = None
    presence_threshold: float = 0.5
    finding_threshold: float = 3.25
    finding_thresholds: dict[str, float] | None = None
    box_fit_weight: float = 10.0
    something_else_offset: float = 0.0
    mask_threshold: str = "half"

    def __post_init__(self, **kwargs: Any) -> None:
        self.presence_calibration = self.presence_calibration or [1.0, 0.0]
        self.mask_calibration = self.mask_calibration or [1.0, 0.0]
        # Models that were saved before the rename, the shipped one among them.
        self.mask_threshold = kwargs.pop("mask_cut", self.mask_threshold)
        if self.mask_threshold not in THRESHOLD_RULES:
            rules = ", ".join(THRESHOLD_RULES)
            raise ValueError(f"unknown mask_threshold '{self.mask_threshold}': choose one of {rules}")
        self.finding_thresholds = self.finding_thresholds or {}
        for name, value in self.finding_thresholds.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"finding_thresholds of '{name}' is {value!r}: give a finite number")
        super().__post_init__(**kwargs)

    def finding_threshold_in(self, modality: str | None) -> float:
        """Threshold of ``recognize`` for a modality; `finding_threshold` if it has none of its own."""
        assert self.finding_thresholds is not None
        return self.finding_thresholds.get(modality or "", self.finding_threshold)

    @property
    def image_size(self) -> int:
        """Side of SAM2's square input, in pixels."""
        return self.grounding_config.prompt_encoder_config.image_size  # type: ignore[union-attr]

    @property
    def hidden_size(self) -> int:
        """Hidden size of the language model."""
        return self.mllm_config.text_config.hidden_size  # type: ignore[union-attr]


AutoConfig.register(MllmConfig.model_type, MllmConfig)
AutoConfig.register(UniBiomedConfig.model_type, UniBiomedConfig)


def nano_config(
    vocab_size: int,
    image_token_id: int,
    seg_token_id: int,
    eos_token_id: int,
    *,
    image_size: int = 256,
    width: int = 256,
    hidden_size: int = 256,
    layers: int = 6,
    fusion: bool = False,
    region_summary: bool = False,
    fine_masks: bool = False,
    context_match: bool = False,
    box_prompt: bool = False,
) -> UniBiomedConfig:
    """Configuration of a small model: a shared EfficientNet-Lite0 encoder and a Qwen2 with a few million parameters.

    Parameters
    ----------
    vocab_size, image_token_id, seg_token_id, eos_token_id : int
        Vocabulary size and special tokens of the tokenizer.
    image_size : int
        Side of the square input in pixels, a multiple of 32.
    width : int
        Channels of SAM2's neck and mask decoder.
    hidden_size, layers : int
        Hidden size and number of layers of the language model.
    fusion : bool
        Add a top-down path to the encoder, see :class:`~unibiomed.model.backbone.EfficientNetLiteConfig`; it replaces
        most of the top-down path of SAM2's neck.
    region_summary : bool
        Add features of a drawn box to the image tokens.
    fine_masks : bool
        Refine mask logits to the input resolution.
    context_match : bool
        Limit presence scores by the image–target match.
    box_prompt : bool
        SAM2's box prompts will be trained.

    Returns
    -------
    UniBiomedConfig
    """
    side = image_size // 16
    encoder: dict[str, Any] = {"model_type": "unibiomed_efficientnet_lite"}
    channels = [320, 112, 40, 24]
    if fusion:
        encoder["fusion"] = [48, 64, 128]
        channels = [320, 128, 64, 48]
    return UniBiomedConfig(
        mllm_config={
            "vision_config": {"model_type": "unibiomed_shared_vision", "hidden_size": width},
            "text_config": {
                "model_type": "qwen2",
                "vocab_size": vocab_size,
                "hidden_size": hidden_size,
                "intermediate_size": 4 * hidden_size,
                "num_hidden_layers": layers,
                "num_attention_heads": hidden_size // 64,
                "num_key_value_heads": hidden_size // 64,
                "max_position_embeddings": 2048,
                "tie_word_embeddings": True,
                "eos_token_id": eos_token_id,
                "bos_token_id": None,
                "use_sliding_window": False,
            },
            "image_token_id": image_token_id,
            "image_seq_length": (image_size // 32) ** 2,
            "downsample_ratio": 0.5,
            "tie_word_embeddings": True,
        },
        grounding_config={
            "model_type": "sam2",
            "vision_config": {
                "model_type": "sam2_vision_model",
                "backbone_config": encoder,
                "backbone_channel_list": channels,
                "backbone_feature_sizes": [[4 * side, 4 * side], [2 * side, 2 * side], [side, side]],
                "fpn_hidden_size": width,
                "fpn_top_down_levels": [2, 3] if fusion else [0, 1, 2, 3],
            },
            "prompt_encoder_config": {"hidden_size": width, "image_size": image_size, "patch_size": 16},
            "mask_decoder_config": {
                "hidden_size": width,
                "mlp_dim": 4 * width,
                "num_attention_heads": 8,
                "iou_head_hidden_dim": width,
                "num_multimask_outputs": 1,
            },
        },
        seg_token_id=seg_token_id,
        shared_vision=True,
        region_summary=region_summary,
        fine_masks=fine_masks,
        context_match=context_match,
        box_prompt=box_prompt,
        scores_trained=True,
        tie_word_embeddings=True,
    )
