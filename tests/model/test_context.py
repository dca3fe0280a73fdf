"""Image–target matching: a target is absent from images that cannot show it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from unibiomed.model.configuration import nano_config
from unibiomed.model.context import CHANNELS, ContextMatch, product_logit
from unibiomed.model.modeling import UniBiomedModel

WIDTH = 32
LOGITS = st.floats(-50, 50, width=32)


@given(LOGITS, LOGITS)
def test_product_logit_is_the_logit_of_the_product(first: float, second: float) -> None:
    a, b = torch.tensor([first], dtype=torch.float64), torch.tensor([second], dtype=torch.float64)
    found = product_logit(a, b)
    torch.testing.assert_close(found.sigmoid(), a.sigmoid() * b.sigmoid(), rtol=1e-6, atol=1e-30)
    assert bool((found <= torch.minimum(a, b)).all()) and torch.equal(found, product_logit(b, a))


def test_the_match_limits_the_presence() -> None:
    torch.manual_seed(0)
    config = nano_config(100, 1, 2, 3, image_size=64, width=WIDTH, hidden_size=64, layers=1, context_match=True)
    model = UniBiomedModel(config).eval()
    prompts = torch.randn(3, WIDTH)
    with torch.inference_mode():
        maps = model.encode_image(torch.randn(2, 3, 64, 64), text=False).maps
        index = torch.tensor([0, 1, 1])
        found = model.decode_masks(maps, prompts, index)
        allowed = model.context(model.context.embed_image(maps[2])[index], prompts)
        alone = model.decode_masks(tuple(m[1:] for m in maps), prompts[1:])
        model.config.context_match = False
        own = model.decode_masks(maps, prompts, index)
    torch.testing.assert_close(found.presence_logits, product_logit(own.presence_logits, allowed))
    torch.testing.assert_close(alone.presence_logits, found.presence_logits[1:])
    assert torch.equal(found.logits, own.logits) and torch.equal(found.predicted_iou, own.predicted_iou)


def test_it_learns_matching_pairs_without_gradients_for_features_and_prompts() -> None:
    torch.manual_seed(0)
    kinds, context = 4, ContextMatch(WIDTH)
    centres, prompts = torch.randn(kinds, WIDTH), torch.randn(kinds, WIDTH).requires_grad_()
    kind = torch.arange(32) % kinds
    features = (centres[kind] + 0.3 * torch.randn(32, WIDTH))[:, :, None, None].expand(-1, -1, 2, 2).requires_grad_()
    wanted = F.one_hot(kind, kinds).float()
    optimizer = torch.optim.AdamW(context.parameters(), lr=1e-2)
    for _ in range(60):
        embedding = context.embed_image(features)
        assert embedding.shape == (32, CHANNELS)
        logits = context(embedding[:, None], prompts[None])
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(logits, wanted).backward()
        optimizer.step()
    fresh = (centres + 0.3 * torch.randn(kinds, WIDTH))[:, :, None, None]
    assert torch.equal(
        context(context.embed_image(fresh)[:, None], prompts[None]) > 0, torch.eye(kinds, dtype=torch.bool)
    )
    assert features.grad is None and prompts.grad is None
