"""Small vision modules, with which one convolutional encoder serves both the language model and SAM2.

The published model has two large encoders: InternViT for the language model and Hiera for SAM2. A small model can use
:class:`EfficientNetLiteModel` as SAM2's backbone and :class:`SharedVisionModel` instead of InternViT: it passes SAM2's
features at stride 16 to InternVL's projector.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.sam2.modeling_sam2 import Sam2HieraDetModelOutput


class EfficientNetLiteConfig(PreTrainedConfig):
    """EfficientNet-Lite (Tan and Le, ICML 2019; the "Lite" form has no squeeze-and-excitation and uses ReLU6).

    Parameters
    ----------
    stem_channels : int
        Channels of the first convolution, which has stride 2.
    stages : list of [repeats, kernel, stride, expansion, channels]
        One row per stage; the default is EfficientNet-Lite0.
    outputs : list of int
        Stages whose output SAM2's neck reads, from the highest resolution (stride 4) to the lowest (stride 32).
    fusion : list of int, optional
        Channels of a top-down path as in U-Net, one for each output but the last; None for no such path. It passes
        information from coarse to fine levels with a nonlinearity. SAM2's neck adds levels linearly, which suffices for
        a large encoder but not for a small one.
    """

    model_type = "unibiomed_efficientnet_lite"
    base_config_key = "backbone_config"

    stem_channels: int = 32
    stages: list[list[int]] | None = None
    outputs: list[int] | None = None
    fusion: list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.stages is None:
            self.stages = [
                [1, 3, 1, 1, 16],
                [2, 3, 2, 6, 24],
                [2, 5, 2, 6, 40],
                [3, 3, 2, 6, 80],
                [3, 5, 1, 6, 112],
                [4, 5, 2, 6, 192],
                [1, 3, 1, 6, 320],
            ]
        if self.outputs is None:
            self.outputs = [1, 2, 4, 6]
        super().__post_init__(**kwargs)


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's "same" padding, which the pretrained weights need; asymmetric at stride 2."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, channels, height, width) to (batch, channels, ceil(height / stride), ceil(width / stride))."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            if kernel == stride == self.groups == 1:
                # A matrix product avoids the copies of PyTorch's single-threaded convolution. Not used in float32,
                # where its rounding depends on the number of images.
                y = F.linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias)
                return y.permute(0, 3, 1, 2)
            if self.groups > 1:
                # In half precision, oneDNN's backward pass of depthwise convolutions is several times slower.
                with torch.autocast("cpu", enabled=False):
                    return self._convolve(x.to(self.weight.dtype))
        return self._convolve(x)

    def _convolve(self, x: torch.Tensor) -> torch.Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            return F.conv2d(x, self.weight, self.bias, 1, kernel // 2, 1, self.groups)
        pads = []
        for size in (x.shape[-1], x.shape[-2]):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, stride, 0, 1, self.groups)


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution and projection, with a residual connection if the shape does not change."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = in_channels * expansion
        self.expand = SameConv2d(in_channels, width, 1) if expansion > 1 else None
        self.depthwise = SameConv2d(width, width, kernel, stride, groups=width)
        self.project = SameConv2d(width, out_channels, 1)
        self.shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, in_channels, height, width) to (batch, out_channels, height / stride, width / stride)."""
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.shortcut else y


class Fusion(nn.Module):
    """Fuse one level of the encoder with the next coarser level."""

    def __init__(self, in_channels: int, coarse_channels: int, channels: int) -> None:
        super().__init__()
        self.lateral = SameConv2d(in_channels, channels, 1)
        self.coarse = SameConv2d(coarse_channels, channels, 1, bias=False)
        self.mix = SameConv2d(channels, channels, 3)

    def forward(self, x: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        """Fuse (batch, in_channels, height, width) with a level of half that size; (batch, channels, height, width)."""
        y = F.relu(self.lateral(x) + F.interpolate(self.coarse(coarse), size=x.shape[-2:], mode="nearest"))
        return y + F.relu(self.mix(y))


class EfficientNetLiteModel(PreTrainedModel):
    """EfficientNet-Lite with batch normalization folded into the convolutions.

    Folding keeps the statistics of the pretraining, because batches that mix ten modalities have no useful statistics.
    It also makes the encoder about a third faster.
    """

    config_class = EfficientNetLiteConfig
    base_model_prefix = "backbone"
    main_input_name = "pixel_values"
    # There is no attention in this module, so that any attention implementation is supported.
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__(config)
        assert config.stages is not None and config.outputs is not None
        self.stem = SameConv2d(3, config.stem_channels, 3, 2)
        self.stages = nn.ModuleList()
        channels = config.stem_channels
        for repeats, kernel, stride, expansion, out_channels in config.stages:
            blocks = nn.ModuleList()
            for i in range(repeats):
                blocks.append(InvertedResidual(channels, out_channels, kernel, stride if i == 0 else 1, expansion))
                channels = out_channels
            self.stages.append(blocks)
        self.fusion = nn.ModuleList()
        if config.fusion:
            assert len(config.fusion) == len(config.outputs) - 1, "one fusion for each output but the last"
            levels = [config.stages[i][-1] for i in config.outputs]
            for level, width, coarse in zip(levels[:-1], config.fusion, [*config.fusion[1:], levels[-1]], strict=True):
                self.fusion.append(Fusion(level, coarse, width))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def get_input_embeddings(self) -> nn.Module:
        """The first convolution."""
        return self.stem

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> Sam2HieraDetModelOutput:
        """Compute features at strides 4, 8, 16 and 32.

        Parameters
        ----------
        pixel_values : torch.Tensor
            (batch, 3, height, width).
        **kwargs
            Ignored.

        Returns
        -------
        Sam2HieraDetModelOutput
            ``intermediate_hidden_states`` has a tensor (batch, height / stride, width / stride, channels) per output.
        """
        x = F.relu6(self.stem(pixel_values.contiguous(memory_format=torch.channels_last)))
        features = []
        for i, stage in enumerate(self.stages):
            for block in stage:  # type: ignore[attr-defined]
                x = block(x)
            if i in self.config.outputs:
                features.append(x)
        for i in reversed(range(len(self.fusion))):
            features[i] = self.fusion[i](features[i], features[i + 1])
        levels = tuple(x.permute(0, 2, 3, 1) for x in features)
        return Sam2HieraDetModelOutput(last_hidden_state=levels[-1], intermediate_hidden_states=levels)


class SharedVisionConfig(PreTrainedConfig):
    """Configuration of a vision tower without weights, for a language model that reads SAM2's features.

    Parameters
    ----------
    hidden_size : int
        Channels of SAM2's stride-16 features (``fpn_hidden_size``).
    """

    model_type = "unibiomed_shared_vision"
    base_config_key = "vision_config"

    hidden_size: int = 256


class SharedVisionModel(PreTrainedModel):
    """Reshapes SAM2's features at stride 16 to the output format of InternVL's vision tower."""

    config_class = SharedVisionConfig
    base_model_prefix = "vision"
    main_input_name = "pixel_values"
    # There is no attention in this module, so that any attention implementation is supported.
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    def __init__(self, config: SharedVisionConfig) -> None:
        super().__init__(config)
        # transformers takes the dtype of a module from its parameters; a module without any would count as float32.
        self.dtype_anchor = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Map features (batch, channels, height, width) to tokens (batch, 1 + height * width, channels).

        The first token, a class token in InternVL, is zero.
        """
        tokens = pixel_values.flatten(2).transpose(1, 2)
        return BaseModelOutputWithPooling(last_hidden_state=F.pad(tokens, (0, 0, 1, 0)))


def fold_efficientnet_lite(state: dict[str, torch.Tensor], eps: float = 1e-3) -> dict[str, torch.Tensor]:
    """Convert weights of the common PyTorch port of EfficientNet-Lite0 and fold their batch normalization.

    Parameters
    ----------
    state : dict
        Tensors ``_conv_stem``, ``_bn0`` and ``_blocks.N._…``; those of the classifier (``_conv_head``, ``_bn1``,
        ``_fc``) are ignored.
    eps : float
        Epsilon of the batch normalization in the source.

    Returns
    -------
    dict
        State dict of :class:`EfficientNetLiteModel` with its default configuration.
    """

    def fold(conv: str, norm: str) -> tuple[torch.Tensor, torch.Tensor]:
        scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + eps).sqrt()
        bias = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
        return state[f"{conv}.weight"] * scale[:, None, None, None], bias

    out: dict[str, torch.Tensor] = {}
    out["stem.weight"], out["stem.bias"] = fold("_conv_stem", "_bn0")
    number = 0
    config = EfficientNetLiteConfig()
    assert config.stages is not None
    for s, (repeats, *_rest) in enumerate(config.stages):
        for b in range(repeats):
            old, new = f"_blocks.{number}.", f"stages.{s}.{b}."
            for norm, conv, name in (
                ("_bn0", "_expand_conv", "expand"),
                ("_bn1", "_depthwise_conv", "depthwise"),
                ("_bn2", "_project_conv", "project"),
            ):
                if f"{old}{conv}.weight" in state:
                    out[f"{new}{name}.weight"], out[f"{new}{name}.bias"] = fold(old + conv, old + norm)
            number += 1
    return out


AutoConfig.register(EfficientNetLiteConfig.model_type, EfficientNetLiteConfig)
AutoModel.register(EfficientNetLiteConfig, EfficientNetLiteModel)
AutoConfig.register(SharedVisionConfig.model_type, SharedVisionConfig)
AutoModel.register(SharedVisionConfig, SharedVisionModel)
