"""Masks at twice SAM2's resolution: SAM2's own before training, and lines that it cannot draw after it."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from unibiomed.model.configuration import nano_config
from unibiomed.model.fine import FineMasks
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


def test_before_training_the_masks_are_sam2s() -> None:
    torch.manual_seed(0)
    config = nano_config(100, 1, 2, 3, image_size=64, width=WIDTH, hidden_size=64, layers=1, fine_masks=True)
    model = UniBiomedModel(config).eval()
    pixels, prompts = torch.randn(2, 3, 64, 64), torch.randn(3, WIDTH)
    with torch.inference_mode():
        maps = model.encode_image(pixels, text=False).maps
        assert tuple(maps[3].shape) == (2, 16, 32, 32)
        ours = model.decode_masks(maps, prompts, torch.tensor([0, 1, 1]))
        model.config.fine_masks = False
        own = model.decode_masks(maps[:3], prompts, torch.tensor([0, 1, 1]))
        enlarged = F.interpolate(own.logits, (32, 32), mode="bilinear", align_corners=False)
    assert torch.equal(ours.logits, enlarged)
    assert torch.equal(ours.presence_logits, own.presence_logits) and torch.equal(ours.quality, own.quality)


def test_each_mask_weighs_the_channels_of_its_own_image() -> None:
    torch.manual_seed(0)
    fine = FineMasks(WIDTH).eval()
    coarse = torch.randn(2, WIDTH // 8, 8, 8)
    with torch.inference_mode():
        looked = fine.look(torch.randn(2, 3, 32, 32), coarse)
        logits, tokens = torch.randn(3, 2, 8, 8), torch.randn(3, 2, WIDTH)
        together = fine(logits, tokens, looked[[0, 1, 1]])
        for i, image in enumerate((0, 1, 1)):
            alone = fine(logits[i : i + 1], tokens[i : i + 1], looked[image : image + 1])
            torch.testing.assert_close(alone[0], together[i])
    assert together.shape == (3, 2, 16, 16)


def test_it_learns_lines_that_sam2s_masks_cannot_show() -> None:
    torch.manual_seed(0)
    pixels, truth = thin_lines(4, 64)
    fine = FineMasks(WIDTH)
    fine.start_as_nothing()
    optimizer = torch.optim.AdamW(fine.parameters(), lr=1e-2)
    coarse, tokens, logits = torch.zeros(4, WIDTH // 8, 16, 16), torch.ones(4, 1, WIDTH), torch.zeros(4, 1, 16, 16)
    wanted = F.interpolate(truth[:, None], (32, 32), mode="area")
    for _ in range(60):
        drawn = fine(logits, tokens, fine.look(pixels, coarse))
        loss = F.binary_cross_entropy_with_logits(drawn, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found, there = drawn > 0, wanted > 0.5
    # at stride 4, a mask marks at least as much beside a line as on it
    assert 2 * (found & there).sum() / (found.sum() + there.sum()) > 0.95
