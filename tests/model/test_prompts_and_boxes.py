"""Presence without masks, and masks of boxes: one image or several, each prompt as if it were alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from unibiomed.model.modeling import ImageFeatures, MaskPrediction

from .conftest import Tiny, make_tiny


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def fine() -> Tiny:
    """With fine masks and the match of context."""
    tiny = make_tiny("nano-three-masks")
    assert tiny.model.config.fine_masks and tiny.model.config.context_match
    return tiny


def prompts_for(tiny: Tiny, number: int) -> torch.Tensor:
    width = tiny.model.config.grounding_config.prompt_encoder_config.hidden_size
    return 3 * torch.randn(number, width, generator=torch.Generator().manual_seed(4))


def boxes_for(tiny: Tiny) -> torch.Tensor:
    """Three boxes in pixels of the square."""
    shares = [[0.1, 0.2, 0.6, 0.9], [0.5, 0.5, 0.9, 0.6], [0.0, 0.0, 0.98, 0.98]]
    return torch.tensor(shares) * tiny.model.config.image_size


def one_of(features: ImageFeatures, image: int) -> tuple[torch.Tensor, ...]:
    return tuple(m[image : image + 1] for m in features.maps)


def same(one: MaskPrediction, other: MaskPrediction, row: int = 0) -> None:
    for name in ("logits", "predicted_iou", "presence_logits"):
        torch.testing.assert_close(getattr(one, name)[0], getattr(other, name)[row], atol=1e-3, rtol=1e-3)


# ---------------------------------------------------------------- presence without masks


@pytest.mark.parametrize("context", [True, False])
def test_presence_is_that_of_the_masks(fine: Tiny, context: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fine.model.config, "context_match", context)
    prompts = prompts_for(fine, 5)
    maps = fine.look(1).maps
    quick = fine.model.presence_logits(maps, prompts)
    assert quick.shape == (5,) and quick.std() > 0
    torch.testing.assert_close(quick, fine.model.decode_masks(maps, prompts).presence_logits, atol=1e-5, rtol=1e-5)
    maps, image = fine.look(3).maps, torch.tensor([2, 0, 1, 1, 2])
    several = fine.model.presence_logits(maps, prompts, image)
    full = fine.model.decode_masks(maps, prompts, image).presence_logits
    torch.testing.assert_close(several, full, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(quick, several, atol=1e-3), "it depends on the image"


def test_the_context_limits_presence(fine: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    maps, prompts = fine.look(1).maps, prompts_for(fine, 5)
    limited = fine.model.presence_logits(maps, prompts)
    monkeypatch.setattr(fine.model.config, "context_match", False)
    alone = fine.model.presence_logits(maps, prompts)
    assert bool((limited < alone).all())


def test_other_decoders_cannot_stop_early(tiny: Tiny) -> None:
    if not tiny.model.config.fine_masks:
        with pytest.raises(AssertionError, match="fine masks"):
            tiny.model.presence_logits(tiny.look(1).maps, prompts_for(tiny, 1))


# ---------------------------------------------------------------- boxes


def test_boxes_of_one_image(tiny: Tiny) -> None:
    maps, boxes = tiny.look(1).maps, boxes_for(tiny)
    together = tiny.model.decode_masks(maps, boxes=boxes)
    assert together.logits is not None and together.predicted_iou is not None and together.presence_logits is not None
    assert len(together.logits) == len(together.predicted_iou) == len(together.presence_logits) == 3
    for i in range(3):
        same(tiny.model.decode_masks(maps, boxes=boxes[i : i + 1]), together, i)
    assert not torch.allclose(together.logits[0], together.logits[1], atol=1e-2)


def test_boxes_of_several_images(tiny: Tiny) -> None:
    features, boxes, image = tiny.look(2), boxes_for(tiny), [1, 0, 1]
    together = tiny.model.decode_masks(features.maps, boxes=boxes, image_index=torch.tensor(image))
    for i, own in enumerate(image):
        same(tiny.model.decode_masks(one_of(features, own), boxes=boxes[i : i + 1]), together, i)


def test_presence_of_boxes_is_not_limited_by_the_context(fine: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    maps, boxes = fine.look(1).maps, boxes_for(fine)
    with_context = fine.model.decode_masks(maps, boxes=boxes)
    monkeypatch.setattr(fine.model.config, "context_match", False)
    assert torch.equal(with_context.presence_logits, fine.model.decode_masks(maps, boxes=boxes).presence_logits)


def test_prompts_or_boxes(fine: Tiny) -> None:
    maps = fine.look(1).maps
    with pytest.raises(AssertionError, match="prompts or boxes"):
        fine.model.decode_masks(maps, prompts_for(fine, 3), boxes=boxes_for(fine))
    with pytest.raises(AssertionError, match="prompts or boxes"):
        fine.model.decode_masks(maps)
