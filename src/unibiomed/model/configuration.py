"""Sizes and switches of a UniBiomed model; everything the weights need to be understood."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec
from transformers.models.internvl import InternVLConfig

from . import backbone  # noqa: F401  (registers the small backbones with AutoConfig)
from .cut import CUTS


class MllmConfig(InternVLConfig):
    """InternVL's configuration, with any registered vision tower (InternVL's own class admits InternViT alone)."""

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
        The multi-modal language model: vision tower, projector, Qwen2.
    grounding_config : Sam2Config, Sam2VideoConfig or dict
        SAM2. The ``sam2_video`` form also holds the memory that carries a mask through a volume.
    seg_token_id : int
        Id of ``[SEG]``, whose hidden state prompts the mask decoder.
    shared_vision : bool
        The language model reads SAM2's image features instead of a vision tower of its own.
    region_summary : bool
        With ``shared_vision``, what a drawn box holds is added to the image tokens, see
        :class:`~unibiomed.model.region.RegionSummary`.
    fine_masks : bool
        Mask logits as fine as the input, in place of a quarter of its side, see
        :class:`~unibiomed.model.fine.FineMasks`.
    context_match : bool
        The presence score is at most the score of the target belonging to such an image, see
        :class:`~unibiomed.model.context.ContextMatch`.
    box_prompt : bool
        SAM2's box prompts were trained, so that a box gives the mask of what is in it.
    box_decoder : bool
        Boxes are decoded by a part of their own instead, see :class:`~unibiomed.model.box_decoder.BoxDecoder`.
    scores_trained : bool
        SAM2's IoU and object-score heads were trained. They were not in the released weights (only the best mask of
        three is chosen by them), so presence and mask scores are then computed from the mask's probabilities.
    presence_calibration : list of 2 or 3 float
        Scale of the presence logit, offset, and scale of the mask's peak (0 when left out), fitted on held-out data
        (after Platt, 1999): the presence score is the sigmoid of their sum.
    mask_calibration : list of 2 float
        Scale of the logit of the mask score, and offset.
    presence_threshold : float
        With trained scores, a target whose presence score is lower is reported absent; in [0, 1].
    finding_threshold : float
        Logit (``interpret.recognition.found_logit``: words and masks together) above which ``recognize`` names a
        finding. Training fits it on the validation split; the default is that of version 7 of `nano`.
    finding_thresholds : dict of str to float
        The same by modality, for those that have enough validation images; ``finding_threshold`` holds for all others.
    box_fit_weight : float
        Logits that ``classify`` adds to a name where the box of the target's mask is the drawn box and the target is
        surely present.
    something_else_offset : float
        Logits that ``classify`` adds to the answer "something else", which has no mask.
    mask_cut : str
        Where a mask ends, see :func:`~unibiomed.model.cut.mask_cut`; ``"half"`` is the published way.
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
    mask_cut: str = "half"

    def __post_init__(self, **kwargs: Any) -> None:
        self.presence_calibration = self.presence_calibration or [1.0, 0.0]
        self.mask_calibration = self.mask_calibration or [1.0, 0.0]
        if self.mask_cut not in CUTS:
            raise ValueError(f"mask_cut '{self.mask_cut}' is none of {', '.join(CUTS)}")
        self.finding_thresholds = self.finding_thresholds or {}
        for name, value in self.finding_thresholds.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"finding_thresholds of '{name}' is {value!r}: give a finite number")
        super().__post_init__(**kwargs)

    def finding_threshold_in(self, modality: str | None) -> float:
        """Threshold of ``recognize`` in images of a modality; the common one where it has none of its own."""
        assert self.finding_thresholds is not None
        return self.finding_thresholds.get(modality or "", self.finding_threshold)

    @property
    def image_size(self) -> int:
        """Side in pixels of the square that SAM2 reads."""
        return self.grounding_config.prompt_encoder_config.image_size  # type: ignore[union-attr]

    @property
    def hidden_size(self) -> int:
        """Width of the language model."""
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
    """Configuration of the small default model: one EfficientNet-Lite0 for both halves, a Qwen2 of a few million.

    Parameters
    ----------
    vocab_size, image_token_id, seg_token_id, eos_token_id : int
        Of the tokenizer.
    image_size : int
        Side in pixels of the square input, a multiple of 32.
    width : int
        Channels of SAM2's neck and mask decoder.
    hidden_size, layers : int
        Of the language model.
    fusion : bool
        Give the encoder a top-down path of its own, see
        :class:`~unibiomed.model.backbone.EfficientNetLiteConfig`, in place of most of the neck's.
    region_summary : bool
        Tell the language model what a drawn box holds.
    fine_masks : bool
        Mask logits at half of the input's side.
    context_match : bool
        Judge whether a target belongs to such an image, apart from whether it is there.
    box_prompt : bool
        SAM2's box prompts will be trained.
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
