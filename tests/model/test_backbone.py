"""The small vision modules against plain convolutions, padding and batch normalisation."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModel

from unibiomed.model.backbone import (
    EfficientNetLiteConfig,
    EfficientNetLiteModel,
    SameConv2d,
    SharedVisionConfig,
    SharedVisionModel,
    fold_efficientnet_lite,
)

EPSILON = 1e-3
SMALL = {
    "stem_channels": 4,
    "stages": [[1, 3, 1, 1, 4], [2, 3, 2, 2, 6], [1, 5, 2, 2, 8], [1, 3, 2, 2, 8], [1, 5, 1, 2, 10], [1, 5, 2, 2, 12]],
    "outputs": [1, 2, 4, 5],
}


# ---------------------------------------------------------------- padding


def tensorflow_same(x: torch.Tensor, weight: torch.Tensor, stride: int, groups: int = 1) -> torch.Tensor:
    """Convolution with TensorFlow's "SAME" padding as its documentation has it; the odd pixel goes at the end."""
    kernel = weight.shape[-1]

    def pads(size: int) -> tuple[int, int]:
        along = max(kernel - (size % stride or stride), 0)
        return along // 2, along - along // 2

    (top, bottom), (left, right) = pads(x.shape[-2]), pads(x.shape[-1])
    padded = x.new_zeros(*x.shape[:2], x.shape[2] + top + bottom, x.shape[3] + left + right)
    padded[:, :, top : top + x.shape[2], left : left + x.shape[3]] = x
    return F.conv2d(padded, weight, stride=stride, groups=groups)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 8), (7, 7), (9, 6), (1, 2), (5, 12)])
@pytest.mark.parametrize("groups", [1, 2])
def test_padding_equals_that_of_tensorflow(kernel: int, stride: int, size: tuple[int, int], groups: int) -> None:
    torch.manual_seed(0)
    conv = SameConv2d(4, 4, kernel, stride, groups=groups)
    x = torch.randn(2, 4, *size)
    out = conv(x)
    assert out.shape[-2:] == (math.ceil(size[0] / stride), math.ceil(size[1] / stride))
    expected = tensorflow_same(x, conv.weight, stride, groups) + conv.bias[:, None, None]  # type: ignore[index]
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


def test_padding_at_stride_two_is_asymmetric() -> None:
    conv = SameConv2d(1, 1, 3, 2, bias=False)
    torch.nn.init.zeros_(conv.weight)
    conv.weight.data[0, 0, 0, 0] = 1  # picks the top left of each window, which starts on the image, not before it
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert conv(x).flatten().tolist() == [0, 2, 8, 10]


def test_under_autocast_the_gradient_is_that_of_float32() -> None:
    torch.manual_seed(0)
    convs = [SameConv2d(8, 8, 1), SameConv2d(8, 8, 5, 2, groups=8), SameConv2d(8, 8, 3, groups=8)]
    x = torch.randn(2, 8, 12, 12).contiguous(memory_format=torch.channels_last)

    def gradients() -> list[torch.Tensor]:
        y = x
        for conv in convs:
            y = conv(y)
        y.float().square().mean().backward()
        found = [conv.weight.grad for conv in convs]
        for conv in convs:
            conv.weight.grad = None
        return [grad for grad in found if grad is not None]

    whole = gradients()
    with torch.autocast("cpu", torch.bfloat16):
        assert convs[0](x).dtype == torch.bfloat16
        assert convs[1](convs[0](x)).dtype == torch.float32  # depthwise: half precision is slow there
        half = gradients()
    for a, b in zip(half, whole, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, atol=0.02 * float(b.abs().max()), rtol=0.02)


# ---------------------------------------------------------------- batch normalisation, folded


def source_state() -> dict[str, torch.Tensor]:
    """Made-up weights under the names of the PyTorch port, with batch statistics far from neutral.

    In double precision: sixteen blocks of made-up weights magnify what single precision rounds.
    """
    generator = torch.Generator().manual_seed(0)
    state: dict[str, torch.Tensor] = {}

    def conv(name: str, out: int, into: int, kernel: int) -> None:
        noise = torch.randn(out, into, kernel, kernel, generator=generator, dtype=torch.double)
        state[f"{name}.weight"] = noise * math.sqrt(2 / (into * kernel**2))

    def norm(name: str, channels: int) -> None:
        noise = torch.rand(4, channels, generator=generator, dtype=torch.double)
        state[f"{name}.weight"] = 0.5 + noise[0]
        state[f"{name}.bias"] = noise[1] - 0.3
        state[f"{name}.running_mean"] = noise[2] - 0.5
        state[f"{name}.running_var"] = 0.2 + 2 * noise[3]

    conv("_conv_stem", 32, 3, 3)
    norm("_bn0", 32)
    number, channels = 0, 32
    stages = EfficientNetLiteConfig().stages
    assert stages is not None
    for repeats, kernel, _stride, expansion, out in stages:
        for _ in range(repeats):
            block, width = f"_blocks.{number}.", channels * expansion
            if expansion > 1:
                conv(block + "_expand_conv", width, channels, 1)
                norm(block + "_bn0", width)
            conv(block + "_depthwise_conv", width, 1, kernel)
            norm(block + "_bn1", width)
            conv(block + "_project_conv", out, width, 1)
            norm(block + "_bn2", out)
            number, channels = number + 1, out
    # the classifier, which is to be left out
    conv("_conv_head", 1280, channels, 1)
    norm("_bn1", 1280)
    state["_fc.weight"], state["_fc.bias"] = torch.zeros(10, 1280), torch.zeros(10)
    return state


def unfolded(state: dict[str, torch.Tensor], x: torch.Tensor) -> list[torch.Tensor]:
    """Output of each stage, convolutions and batch normalisation one after the other."""

    def layer(x: torch.Tensor, conv: str, norm: str, stride: int = 1, groups: int = 1) -> torch.Tensor:
        x = tensorflow_same(x, state[f"{conv}.weight"], stride, groups)
        statistics = (state[f"{norm}.running_mean"], state[f"{norm}.running_var"])
        return F.batch_norm(x, *statistics, state[f"{norm}.weight"], state[f"{norm}.bias"], eps=EPSILON)

    x = F.relu6(layer(x, "_conv_stem", "_bn0", 2))
    number, outputs = 0, []
    for repeats, _kernel, stride, expansion, _out in EfficientNetLiteConfig().stages or []:
        for i in range(repeats):
            block, y = f"_blocks.{number}.", x
            if expansion > 1:
                y = F.relu6(layer(y, block + "_expand_conv", block + "_bn0"))
            y = F.relu6(layer(y, block + "_depthwise_conv", block + "_bn1", stride if i == 0 else 1, groups=y.shape[1]))
            y = layer(y, block + "_project_conv", block + "_bn2")
            x = x + y if i > 0 else y
            number += 1
        outputs.append(x)
    return outputs


def folded(state: dict[str, torch.Tensor]) -> EfficientNetLiteModel:
    model = EfficientNetLiteModel(EfficientNetLiteConfig()).eval().double()
    model.load_state_dict(fold_efficientnet_lite(state))  # strict: every weight, and none of the classifier's
    return model


def pixels(height: int, width: int) -> torch.Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.double)


@torch.no_grad()
def test_folded_equals_unfolded() -> None:
    state, image = source_state(), pixels(64, 96)
    features, stages = folded(state)(image).intermediate_hidden_states, unfolded(state, image)
    for feature, number in zip(features, (1, 2, 4, 6), strict=True):
        expected = stages[number].permute(0, 2, 3, 1)
        assert expected.std() > 0.1
        torch.testing.assert_close(feature, expected, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_folded_equals_the_pytorch_port() -> None:
    port = pytest.importorskip("efficientnet_lite_pytorch")
    network = port.EfficientNet.from_name("efficientnet-lite0").eval().double()
    state = source_state()
    missing, unexpected = network.load_state_dict({k: v for k, v in state.items() if k[:3] != "_fc"}, strict=False)
    assert not unexpected and all(name.startswith("_fc") for name in missing if "num_batches" not in name)
    last: list[torch.Tensor] = []  # block, before the classifier's own convolution
    network._blocks[-1].register_forward_hook(lambda _module, _inputs, output: last.append(output))
    image = pixels(224, 224)  # the size that the port's padding is made for
    network.extract_features(image)
    ours = folded(state)(image).last_hidden_state
    torch.testing.assert_close(ours, last[0].permute(0, 2, 3, 1), atol=1e-6, rtol=1e-6)


def test_epsilon_is_added_to_the_variance() -> None:
    state = source_state()
    a, b = fold_efficientnet_lite(state), fold_efficientnet_lite(state, eps=1e-5)
    difference = (a["stem.weight"] / b["stem.weight"] - 1).abs().flatten(1).amax(1)
    variance = state["_bn0.running_var"]
    expected = 1 - ((variance + 1e-5) / (variance + 1e-3)).sqrt()
    torch.testing.assert_close(difference, expected, atol=1e-9, rtol=1e-6)


# ---------------------------------------------------------------- modules


@pytest.mark.parametrize("size", [(64, 64), (96, 32), (65, 31)])
def test_features_at_four_strides(size: tuple[int, int]) -> None:
    model = EfficientNetLiteModel(EfficientNetLiteConfig(**SMALL))
    out = model(torch.randn(2, 3, *size))
    shapes = [tuple(f.shape) for f in out.intermediate_hidden_states]
    assert shapes == [
        (2, math.ceil(size[0] / s), math.ceil(size[1] / s), c) for s, c in ((4, 6), (8, 8), (16, 10), (32, 12))
    ]
    assert out.last_hidden_state is out.intermediate_hidden_states[-1]


@torch.no_grad()
def test_with_fusion_fine_levels_depend_on_the_whole_image() -> None:
    torch.manual_seed(0)
    plain = EfficientNetLiteModel(EfficientNetLiteConfig(**SMALL))
    fused = EfficientNetLiteModel(EfficientNetLiteConfig(**SMALL, fusion=[5, 7, 9]))
    for parameter in (*plain.parameters(), *fused.parameters()):
        torch.nn.init.normal_(parameter, std=0.3)
    image = torch.rand(1, 3, 128, 128)
    other = image.clone()
    other[..., 28:, 28:] = 1 - other[..., 28:, 28:]
    changed = []
    for model in (plain, fused):
        first, second = (model(pixel_values=x).intermediate_hidden_states for x in (image, other))
        changed.append(float((first[0] - second[0])[:, 0, 0].abs().max()))
    assert [level.shape[1:] for level in first] == [(32, 32, 5), (16, 16, 7), (8, 8, 9), (4, 4, 12)]
    assert changed[0] == 0 and changed[1] > 0


def test_backbone_saved_and_loaded(tmp_path: object) -> None:
    model = EfficientNetLiteModel(EfficientNetLiteConfig(**SMALL)).eval()
    model.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path, local_files_only=True)
    assert isinstance(again, EfficientNetLiteModel)
    assert again.config.stages == SMALL["stages"]
    image = torch.randn(1, 3, 32, 32)
    assert torch.equal(model(image).last_hidden_state, again(image).last_hidden_state)


def test_configurations_are_found_by_name() -> None:
    assert isinstance(AutoConfig.for_model("unibiomed_efficientnet_lite"), EfficientNetLiteConfig)
    assert isinstance(AutoConfig.for_model("unibiomed_shared_vision"), SharedVisionConfig)


def test_default_lists_are_not_shared() -> None:
    EfficientNetLiteConfig().stages[0][0] = 99  # type: ignore[index]
    assert EfficientNetLiteConfig().stages[0][0] == 1  # type: ignore[index]


def test_shared_vision_keeps_every_place() -> None:
    model = SharedVisionModel(SharedVisionConfig(hidden_size=3))
    features = torch.randn(2, 3, 2, 4)
    tokens = model(features).last_hidden_state
    assert tokens.shape == (2, 9, 3)
    assert not tokens[:, 0].any()
    for y in range(2):
        for x in range(4):
            assert torch.equal(tokens[:, 1 + 4 * y + x], features[:, :, y, x])
    assert not any(p.requires_grad for p in model.parameters())


def test_shared_vision_has_the_precision_of_the_model() -> None:
    assert SharedVisionModel(SharedVisionConfig()).bfloat16().dtype == torch.bfloat16
