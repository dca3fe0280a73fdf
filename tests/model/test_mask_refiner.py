"""Masks as fine as the input: SAM2's own before training, and lines that it cannot draw after it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers.models.sam2.modeling_sam2 import Sam2MaskDecoder

from unibiomed.model.configuration import nano_config
from unibiomed.model.mask_refiner import MaskRefiner
from unibiomed.model.modeling import UniBiomedModel

WIDTH = 32


def thin_lines(count: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures of bright lines two pixels wide, (count, 3, side, side), and where they are."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.zeros(count, side, side)
    for i in range(count):
        for row in torch.randperm(side // 8, generator=generator)[:3].tolist():
            truth[i, 8 * row + 2 : 8 * row + 4] = 1.0
    return truth[:, None].expand(-1, 3, -1, -1) + 0.1 * torch.randn(count, 3, side, side, generator=generator), truth


def nano(candidates: int = 1) -> UniBiomedModel:
    torch.manual_seed(0)
    config = nano_config(100, 1, 2, 3, image_size=64, width=WIDTH, hidden_size=64, layers=1, fine_masks=True)
    config.grounding_config.mask_decoder_config.num_multimask_outputs = candidates
    return UniBiomedModel(config).eval()


@pytest.mark.parametrize("candidates", [1, 3])
@torch.inference_mode()
def test_before_training_the_masks_are_sam2s(candidates: int) -> None:
    model = nano(candidates)
    pixels, prompts = torch.randn(2, 3, 64, 64), torch.randn(3, WIDTH)
    maps = model.encode_image(pixels, text=False).maps
    assert tuple(maps[3].shape) == (2, 16, 32, 32)
    ours = model.decode_masks(maps, prompts, torch.tensor([0, 1, 1]))
    # SAM2's own decoder with the same weights
    fine_decoder = model.grounding.mask_decoder
    model.grounding.mask_decoder = Sam2MaskDecoder(fine_decoder.config).eval()
    model.grounding.mask_decoder.load_state_dict(fine_decoder.state_dict())
    model.config.fine_masks = False
    own = model.decode_masks(maps[:3], prompts, torch.tensor([0, 1, 1]))
    enlarged = F.interpolate(own.logits, (64, 64), mode="bilinear", align_corners=False)
    assert ours.logits.shape == (3, candidates, 64, 64)
    for mine, theirs in (
        (ours.logits, enlarged),
        (ours.presence_logits, own.presence_logits),
        (ours.predicted_iou, own.predicted_iou),
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_many_prompts_of_one_image_are_each_as_alone() -> None:
    model = nano(3)
    for parameter in model.fine.parameters():
        nn.init.normal_(parameter, std=0.3)
    maps = model.encode_image(torch.randn(1, 3, 64, 64), text=False).maps
    prompts = torch.randn(4, WIDTH)
    together = model.decode_masks(maps, prompts)
    for i in range(4):
        alone = model.decode_masks(maps, prompts[i : i + 1])
        torch.testing.assert_close(alone.logits[0], together.logits[i], atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(alone.predicted_iou[0], together.predicted_iou[i], atol=1e-5, rtol=1e-5)
    assert together.logits[0].std() > 0 and not torch.allclose(together.logits[0], together.logits[1], atol=1e-2)


@torch.inference_mode()
def test_each_mask_sees_its_own_image() -> None:
    torch.manual_seed(0)
    fine = MaskRefiner(WIDTH).eval()
    looked = fine.image_features(torch.randn(2, 3, 32, 32))
    coarse = torch.randn(2, WIDTH // 8, 8, 8)
    logits, tokens, features = torch.randn(3, 2, 8, 8), torch.randn(3, 2, WIDTH), torch.randn(3, WIDTH // 8, 8, 8)
    index = [0, 1, 1]
    together = fine(logits, tokens, features, coarse[index], looked[index])
    for i, image in enumerate(index):
        own = slice(image, image + 1)
        alone = fine(logits[i : i + 1], tokens[i : i + 1], features[i : i + 1], coarse[own], looked[own])
        torch.testing.assert_close(alone[0], together[i], atol=1e-5, rtol=1e-5)
    assert together.shape == (3, 2, 32, 32)


def test_it_learns_lines_that_sam2s_masks_cannot_show_and_which_of_them_the_token_asks_for() -> None:
    torch.manual_seed(0)
    pixels, bright = thin_lines(4, 64)
    fine = MaskRefiner(WIDTH)
    fine.zero_init()
    optimizer = torch.optim.AdamW(fine.parameters(), lr=5e-3)
    tokens = torch.randn(2, WIDTH)[[0, 0, 0, 0, 1, 1, 1, 1]][:, None]
    truth = torch.cat([bright, 1 - bright])
    coarse, logits = torch.zeros(8, WIDTH // 8, 16, 16), torch.zeros(8, 1, 16, 16)
    for _ in range(120):
        drawn = fine(logits, tokens, coarse, coarse, fine.image_features(pixels).repeat(2, 1, 1, 1))[:, 0]
        loss = F.binary_cross_entropy_with_logits(drawn, truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found, there = drawn > 0, truth > 0.5
    for own in (slice(0, 4), slice(4, 8)):
        # at stride 4, a mask marks at least as much beside a line as on it
        assert 2 * (found & there)[own].sum() / (found[own].sum() + there[own].sum()) > 0.95
