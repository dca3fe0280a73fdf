"""What every form of the model must do: learn, be saved, and give an image the same answer in any company."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from unibiomed.model.configuration import UniBiomedConfig
from unibiomed.model.modeling import MaskPrediction, UniBiomedModel

QUESTIONS = ("Where is the liver?", "What is it, please?", "Is there a mass")
ANSWERS = ("It is [SEG].<|end|>", "No findings<|end|>", "<p> a mass </p> [SEG] and [SEG].<|end|>")


def rows(tiny: Any, count: int) -> dict[str, torch.Tensor]:
    """A padded batch: row i is about picture i; only the answers are labelled."""
    prompts = [tiny.prompt(QUESTIONS[i % 3], i) for i in range(count)]
    answers = [tiny.encode(ANSWERS[i % 3]) for i in range(count)]
    longest = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    ids = torch.full((count, longest), tiny.processor.tokenizer.pad_token_id)
    labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        end = len(prompt) + len(answer)
        ids[i, :end] = torch.tensor(prompt + answer)
        labels[i, len(prompt) : end] = torch.tensor(answer)
        mask[i, :end] = 1
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def prompts_like(tiny: Any, count: int) -> torch.Tensor:
    """Made-up outputs of the grounding head."""
    width = tiny.model.grounding_head[-1].out_features
    return torch.randn(count, width, generator=torch.Generator().manual_seed(1))


def assert_same(a: MaskPrediction, b: MaskPrediction, tolerance: float = 1e-3) -> None:
    # how a sum is rounded follows from the number of images, on some CPUs more than on others
    torch.testing.assert_close(a.logits, b.logits, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(a.predicted_iou, b.predicted_iou, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(a.presence_logits, b.presence_logits, atol=tolerance, rtol=tolerance)


# ---------------------------------------------------------------- shapes


def test_image_features(tiny: Any) -> None:
    side = tiny.processor.settings.grounding_size
    features = tiny.look(3)
    assert len(features) == 3
    expected = [tiny.processor.image(p).tokens for p in map(tiny.picture, range(3))]
    assert [len(tokens) for tokens in features.tokens] == expected
    fine = [(3, 16, side // 2, side // 2)] if tiny.model.config.fine_masks else []
    assert [tuple(m.shape) for m in features.maps] == [
        (3, 4, side // 4, side // 4),
        (3, 8, side // 8, side // 8),
        (3, 32, side // 16, side // 16),
        *fine,
    ]


def test_masks_have_the_configured_candidates(tiny: Any) -> None:
    side = tiny.processor.settings.grounding_size // (1 if tiny.model.config.fine_masks else 4)
    candidates = tiny.model.config.grounding_config.mask_decoder_config.num_multimask_outputs
    with torch.inference_mode():
        masks = tiny.model.decode_masks(tiny.look().maps, prompts_like(tiny, 5))
    assert masks.logits.shape == (5, candidates, side, side)
    assert masks.predicted_iou.shape == (5, candidates)
    assert masks.presence_logits.shape == (5,)
    assert masks.predicted_iou.min() >= 0 and masks.predicted_iou.max() <= 1
    for i, best in enumerate(masks.best()):
        assert torch.equal(best, masks.logits[i, int(masks.predicted_iou[i].argmax())])


def test_best_takes_the_candidate_of_highest_quality() -> None:
    logits = torch.arange(6.0).view(2, 3, 1, 1)
    prediction = MaskPrediction(logits=logits, predicted_iou=torch.tensor([[0.1, 0.9, 0.5], [0.3, 0.2, 0.1]]))
    assert prediction.best().flatten().tolist() == [1.0, 3.0]


def test_image_tokens_take_the_places_of_the_image(tiny: Any) -> None:
    features = tiny.look(2)
    ids = torch.tensor([tiny.prompt("Where?", 1)])
    with torch.inference_mode():
        embeds = tiny.model.embed(ids, [features.tokens[1]])[0]
        words = tiny.model.get_input_embeddings()(ids)[0]
    places = ids[0] == tiny.model.config.mllm_config.image_token_id
    assert torch.equal(embeds[places], features.tokens[1])
    assert torch.equal(embeds[~places], words[~places])


def test_wrong_number_of_image_tokens_is_not_taken(tiny: Any) -> None:
    ids = torch.tensor([tiny.prompt("Where?", 0)])
    with pytest.raises(AssertionError, match="image places"):
        tiny.model.embed(ids, [tiny.look().tokens[0][:-1]])


# ---------------------------------------------------------------- learning

# What no loss can reach, by what the names begin with. The model is prompted by [SEG] states, never by points or masks;
# and output 0 is SAM2's answer to an unambiguous prompt, which is not asked for (its token still takes part in the
# decoder's attention). The first are never computed with, the others are, but nothing of them is used.
# ``MaskDecoder`` leaves output 0 out.
NO_GRADIENT = ("grounding.prompt_encoder.mask_embed.", "grounding.mask_decoder.output_hypernetworks_mlps.0.")
ZERO_GRADIENT = ("grounding.prompt_encoder.point_embed.", "grounding.mask_decoder.output_hypernetworks_mlps.0.")


def test_loss_reaches_every_parameter(tiny: Any) -> None:
    model = copy.deepcopy(tiny.model).train()
    out = model(**rows(tiny, 3), **tiny.inputs(3))
    assert torch.isfinite(out.loss) and out.loss > 0
    assert out.seg_rows.tolist() == [0, 2, 2]
    masks = out.masks
    # uneven weights: a plain sum of logits would hide what cancels out
    target = torch.linspace(-1, 1, masks.logits.numel()).view_as(masks.logits)
    total = out.loss + (masks.logits - target).square().mean()
    total = total + (masks.predicted_iou - 0.3).square().mean() + masks.presence_logits.square().mean()
    total.backward()
    untouched = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert untouched and all(name.startswith(NO_GRADIENT) for name in untouched), untouched
    zero = {name for name, p in model.named_parameters() if p.grad is not None and not p.grad.any()}
    assert zero and all(name.startswith(ZERO_GRADIENT) for name in zero), zero
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_frozen_parameters_are_only_the_known_ones(tiny: Any) -> None:
    frozen = {name for name, p in tiny.model.named_parameters() if not p.requires_grad}
    assert frozen <= {"mllm.model.vision_tower.dtype_anchor"}


def test_a_step_along_the_gradient_lowers_the_loss(tiny: Any) -> None:
    model = copy.deepcopy(tiny.model)
    batch, images = rows(tiny, 3), tiny.inputs(3)
    before = model(**batch, **images).loss
    before.backward()
    scale = sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 1e-3 / scale * parameter.grad
    fall = float(before.detach() - model(**batch, **images).loss.detach())
    assert fall == pytest.approx(1e-3, rel=0.2)  # to first order the loss falls by step times squared gradient


@torch.inference_mode()
def test_loss_is_the_mean_over_labelled_tokens(tiny: Any) -> None:
    batch, features = rows(tiny, 3), tiny.look(3)
    out = tiny.model(**batch, features=features)
    full = tiny.model(batch["input_ids"], batch["attention_mask"], features=features)
    logs = full.logits.log_softmax(-1)
    picked = [
        -logs[row, column - 1, label]
        for row, line in enumerate(batch["labels"].tolist())
        for column, label in enumerate(line)
        if label != -100
    ]
    torch.testing.assert_close(out.loss, torch.stack(picked).mean(), atol=1e-4, rtol=1e-4)
    assert out.logits.shape == (len(picked), full.logits.shape[-1])


@torch.inference_mode()
def test_a_seg_of_the_question_asks_for_nothing(tiny: Any) -> None:
    ids = torch.tensor([tiny.encode("Where is [SEG]? It is [SEG].")])
    labels = ids.clone()
    labels[:, : int((ids[0] == tiny.model.config.seg_token_id).nonzero()[0]) + 1] = -100
    assert len(tiny.model(ids, labels=labels).seg_states) == 1
    assert len(tiny.model(ids).seg_states) == 2


@torch.inference_mode()
def test_text_alone(tiny: Any) -> None:
    ids = torch.tensor([tiny.encode("It is [SEG].")])
    out = tiny.model(ids, labels=ids)
    assert torch.isfinite(out.loss) and out.masks is None and len(out.seg_states) == 1
    out = tiny.model(torch.tensor([tiny.encode("No findings")]))
    assert out.masks is None and out.seg_states is None and len(out.seg_rows) == 0


@torch.inference_mode()
def test_masks_are_not_decoded_when_not_wanted(tiny: Any) -> None:
    out = tiny.model(**rows(tiny, 1), features=tiny.look(1), seg_prompts=False)
    assert out.masks is None and len(out.seg_states) == 1


# ---------------------------------------------------------------- company


@torch.inference_mode()
@pytest.mark.parametrize("count", [1, 4])
def test_a_row_does_not_depend_on_the_others(tiny: Any, count: int) -> None:
    batch = rows(tiny, count)
    together = tiny.model(batch["input_ids"], batch["attention_mask"], **tiny.inputs(count))
    for i in range(count):
        length = int(batch["attention_mask"][i].sum())
        alone = tiny.model(batch["input_ids"][i : i + 1, :length], **tiny.inputs(1, first=i))
        torch.testing.assert_close(together.logits[i, :length], alone.logits[0], atol=1e-3, rtol=1e-3)
        mine = together.seg_rows == i
        assert int(mine.sum()) == ANSWERS[i % 3].count("[SEG]")
        if mine.any():
            torch.testing.assert_close(together.seg_states[mine], alone.seg_states, atol=1e-3, rtol=1e-3)
            chosen = MaskPrediction(**{name: value[mine] for name, value in together.masks.items()})
            assert_same(chosen, alone.masks, 1e-3)


@torch.inference_mode()
def test_rows_may_share_an_image_or_have_none(tiny: Any) -> None:
    features = tiny.look(2)
    lines = [tiny.prompt("Where?", 1), tiny.prompt("Where?", None), tiny.prompt("Where?", 0)]
    longest = max(map(len, lines))
    pad = tiny.processor.tokenizer.pad_token_id
    ids = torch.tensor([line + [pad] * (longest - len(line)) for line in lines])
    mask = torch.tensor([[1] * len(line) + [0] * (longest - len(line)) for line in lines])
    out = tiny.model(ids, mask, features=features, image_index=torch.tensor([1, -1, 0]))
    for i, images in enumerate(([1], [], [0])):
        one = tiny.model(
            torch.tensor([lines[i]]),
            features=features if images else None,
            image_index=torch.tensor(images) if images else None,
        )
        torch.testing.assert_close(out.logits[i, : len(lines[i])], one.logits[0], atol=1e-3, rtol=1e-3)


@torch.inference_mode()
def test_masks_of_several_images_equal_one_by_one(tiny: Any) -> None:
    features, prompts = tiny.look(3), prompts_like(tiny, 4)
    index = torch.tensor([2, 0, 1, 0])
    together = tiny.model.decode_masks(features.maps, prompts, index)
    for i, image in enumerate(index.tolist()):
        maps = tuple(m[image : image + 1] for m in features.maps)
        alone = tiny.model.decode_masks(maps, prompts[i : i + 1])
        assert_same(MaskPrediction(**{name: value[i : i + 1] for name, value in together.items()}), alone)
    # the same prompt on other images gives other masks, or the index would not matter
    same = tiny.model.decode_masks(features.maps, prompts[:1].expand(3, -1), torch.arange(3))
    assert (same.logits[0] - same.logits[1]).abs().mean() > 0.1


@torch.inference_mode()
def test_all_masks_of_an_image_in_one_call(tiny: Any) -> None:
    calls: list[int] = []
    hook = tiny.model.grounding.mask_decoder.register_forward_hook(lambda *_: calls.append(1))
    features, prompts = tiny.look(), prompts_like(tiny, 3)
    try:
        together = tiny.model.decode_masks(features.maps, prompts)
        assert len(calls) == 1
    finally:
        hook.remove()
    assert_same(together, tiny.model.decode_masks(features.maps, prompts, torch.zeros(3, dtype=torch.long)))
    for i in range(3):
        alone = tiny.model.decode_masks(features.maps, prompts[i : i + 1])
        assert_same(MaskPrediction(**{name: value[i : i + 1] for name, value in together.items()}), alone)
    assert (together.logits[0] - together.logits[1]).abs().mean() > 0.1


@torch.inference_mode()
def test_a_batch_of_images_equals_one_by_one(tiny: Any) -> None:
    together = tiny.look(3)
    for i in range(3):
        alone = tiny.look(1, first=i)
        torch.testing.assert_close(together.tokens[i], alone.tokens[0], atol=1e-4, rtol=1e-4)
        for a, b in zip(together.maps, alone.maps, strict=True):
            torch.testing.assert_close(a[i], b[0], atol=1e-3, rtol=1e-3)


@torch.inference_mode()
def test_features_without_text(tiny: Any) -> None:
    inputs = tiny.inputs(2)
    features = tiny.model.encode_image(inputs["grounding_pixels"], text=False)
    assert features.tokens == []
    for a, b in zip(features.maps, tiny.look(2).maps, strict=True):
        assert torch.equal(a, b)


@torch.inference_mode()
def test_the_maps_are_what_sam2_itself_gives_its_decoder(tiny: Any) -> None:
    pixels = tiny.inputs(2)["grounding_pixels"]
    theirs = tiny.model.grounding.get_image_embeddings(pixels)
    for ours, other in zip(tiny.model.encode_image(pixels, text=False).maps[:3], theirs, strict=True):
        torch.testing.assert_close(ours, other, atol=1e-4, rtol=1e-4)


# ---------------------------------------------------------------- files and switches


def test_saved_and_loaded_it_is_the_same(tiny: Any, tmp_path: Path) -> None:
    tiny.model.save_pretrained(tmp_path)
    kinds = {path.suffix for path in tmp_path.iterdir()}
    assert kinds == {".json", ".safetensors"}
    again, report = UniBiomedModel.from_pretrained(tmp_path, local_files_only=True, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    state = again.state_dict()
    assert state.keys() == tiny.model.state_dict().keys()
    for name, value in tiny.model.state_dict().items():
        assert torch.equal(state[name], value), name
    tied = tiny.model.config.tie_word_embeddings
    assert tied is tiny.name.startswith("nano")
    for model in (tiny.model, again):
        assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) is tied
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert ("mllm.lm_head.weight" in file.keys()) is not tied  # noqa: SIM118
    assert again.config.image_size == tiny.processor.settings.grounding_size
    assert again.config.shared_vision is tiny.model.config.shared_vision
    with torch.inference_mode():
        batch, images = rows(tiny, 3), tiny.inputs(3)
        before, after = tiny.model(**batch, **images), again.eval()(**batch, **images)
    assert torch.equal(before.logits, after.logits)
    assert torch.equal(before.masks.logits, after.masks.logits)


@torch.inference_mode()
def test_eager_and_sdpa_agree(tiny: Any) -> None:
    config = copy.deepcopy(tiny.model.config)
    models = {}
    for kind in ("eager", "sdpa"):
        model = UniBiomedModel._from_config(copy.deepcopy(config), attn_implementation=kind)
        model.load_state_dict(tiny.model.state_dict())
        for part in (model.mllm.model.language_model, model.grounding.mask_decoder):
            assert part.config._attn_implementation == kind
        models[kind] = model.eval()
    batch, images = rows(tiny, 3), tiny.inputs(3)
    eager, sdpa = (models[kind](**batch, **images) for kind in ("eager", "sdpa"))
    torch.testing.assert_close(eager.logits, sdpa.logits, atol=1e-3, rtol=1e-3)
    assert_same(eager.masks, sdpa.masks, 1e-3)


@torch.inference_mode()
def test_half_precision_stays_close(tiny: Any) -> None:
    model = copy.deepcopy(tiny.model).bfloat16()
    features = model.encode_image(**tiny.inputs(2))
    assert all(m.dtype == torch.bfloat16 for m in features.maps)
    masks = model.decode_masks(features.maps, prompts_like(tiny, 2), torch.arange(2))
    exact = tiny.model.decode_masks(tiny.look(2).maps, prompts_like(tiny, 2), torch.arange(2))
    both = torch.stack([masks.logits.float().flatten(), exact.logits.flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.95


@pytest.mark.parametrize("tiny", ["nano", "nano-three-masks"], indirect=True)
def test_another_image_size_takes_the_same_weights(tiny: Any) -> None:
    model = copy.deepcopy(tiny.model)
    size = model.config.image_size
    for side in (size + 32, size):
        model.set_image_size(side)
        features = model.encode_image(torch.rand(2, 3, side, side))
        masks = model.decode_masks(features.maps, torch.rand(3, 32), torch.tensor([0, 1, 1]))
        stride = 1 if model.config.fine_masks else 4
        assert masks.logits.shape[-2:] == (side // stride, side // stride)
        assert features.tokens[0].shape[0] == (side // 32) ** 2 == model.config.mllm_config.image_seq_length
        again = UniBiomedModel(UniBiomedConfig.from_dict(model.config.to_dict()))
        again.load_state_dict(model.state_dict())
        assert again.grounding.prompt_encoder.image_embedding_size == (side // 16, side // 16)
    with pytest.raises(AssertionError, match="multiple of 32"):
        model.set_image_size(100)
