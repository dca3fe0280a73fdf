"""Answers: the same alone, in company and in a plain loop without a cache; each [SEG] with a state of its own."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from unibiomed.model.generation import Answer, generate
from unibiomed.model.modeling import ImageFeatures, UniBiomedModel

QUESTIONS = ("Where?", "What is in the green box of this image?", "Where is it")


class Biased(nn.Module):
    """The model's own next-token scores, with some tokens made likelier."""

    def __init__(self, head: nn.Module, bias: dict[int, float]) -> None:
        super().__init__()
        self.head, self.bias = head, bias

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = self.head(hidden).clone()
        for token, more in self.bias.items():
            logits[..., token] += more
        return logits


class Scripted(nn.Module):
    """Next-token scores that spell out one script a row, whatever the model thinks."""

    def __init__(self, scripts: Sequence[Sequence[int]], vocabulary: int) -> None:
        super().__init__()
        self.scripts, self.vocabulary, self.step = scripts, vocabulary, 0

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(len(hidden), self.vocabulary)
        for row, script in enumerate(self.scripts):
            logits[row, script[min(self.step, len(script) - 1)]] = 50.0
        self.step += 1
        return logits


@contextmanager
def head(model: UniBiomedModel, replacement: nn.Module) -> Iterator[None]:
    own = model.mllm.lm_head
    model.mllm.lm_head = replacement
    try:
        yield
    finally:
        model.mllm.lm_head = own


@pytest.fixture
def talkative(tiny: Any) -> Iterator[Any]:
    """A model that writes [SEG] often, and never stops by itself."""
    seg, eos = tiny.model.config.seg_token_id, tiny.model.config.mllm_config.text_config.eos_token_id
    end = tiny.encode("<|end|>")[0]
    with head(tiny.model, Biased(tiny.model.mllm.lm_head, {seg: 5.0, eos: -100.0, end: -100.0})):
        yield tiny


@torch.inference_mode()
def plain_greedy(
    model: UniBiomedModel, features: ImageFeatures | None, prompt: list[int], image: int | None, count: int
) -> tuple[list[int], list[float], torch.Tensor]:
    """Ids, probabilities and [SEG] prompts, each step by one full pass over everything so far."""
    ids: list[int] = []
    probabilities: list[float] = []
    index = None if image is None else torch.tensor([image])
    for _ in range(count):
        logits = model(torch.tensor([prompt + ids]), features=features, image_index=index, seg_prompts=False).logits
        best, chosen = logits[0, -1].float().softmax(-1).max(-1)
        ids.append(int(chosen))
        probabilities.append(float(best))
    out = model(torch.tensor([prompt + ids]), features=features, image_index=index, seg_prompts=False)
    states = out.seg_states if out.seg_states is not None else torch.zeros(0, model.grounding_head[-1].out_features)
    return ids, probabilities, states


def assert_same(answer: Answer, other: Answer) -> None:
    assert answer.ids == other.ids
    assert answer.text == other.text
    assert answer.finished == other.finished
    assert answer.probabilities == pytest.approx(other.probabilities, abs=1e-4)
    torch.testing.assert_close(answer.prompts, other.prompts, atol=1e-4, rtol=1e-4)


def run_script(tiny: Any, scripts: Sequence[Sequence[int]], **options: Any) -> list[Answer]:
    """Make the model write `scripts`, one for each of as many questions of different lengths."""
    prompts = [tiny.prompt(QUESTIONS[i % 3]) for i in range(len(scripts))]
    vocabulary = tiny.model.config.mllm_config.text_config.vocab_size
    with head(tiny.model, Scripted(scripts, vocabulary)):
        return generate(tiny.model, tiny.processor, tiny.look(), prompts, **options)


def full_pass_states(tiny: Any, prompt: list[int], ids: list[int]) -> torch.Tensor:
    """[SEG] prompts of one pass over a prompt and its answer."""
    with torch.inference_mode():
        return tiny.model(torch.tensor([prompt + ids]), features=tiny.look(), seg_prompts=False).seg_states


# ---------------------------------------------------------------- the same as without a cache


def test_equals_a_loop_without_cache(talkative: Any) -> None:
    features = talkative.look(3)
    states = 0
    for image, question in enumerate(QUESTIONS):
        prompt = talkative.prompt(question, image)
        answer = generate(talkative.model, talkative.processor, features, [prompt], [image], max_new_tokens=10)[0]
        ids, probabilities, prompts = plain_greedy(talkative.model, features, prompt, image, 10)
        assert answer.ids == ids
        assert answer.probabilities == pytest.approx(probabilities, abs=1e-4)
        torch.testing.assert_close(answer.prompts, prompts, atol=1e-4, rtol=1e-4)
        states += len(prompts)
    assert states >= 2, "the comparison of [SEG] states says nothing when there are none"


def test_without_an_image(talkative: Any) -> None:
    prompts = [talkative.prompt(question, None) for question in QUESTIONS]
    together = generate(talkative.model, talkative.processor, None, prompts, max_new_tokens=8)
    for prompt, answer in zip(prompts, together, strict=True):
        ids, probabilities, states = plain_greedy(talkative.model, None, prompt, None, 8)
        assert answer.ids == ids
        assert answer.probabilities == pytest.approx(probabilities, abs=1e-4)
        torch.testing.assert_close(answer.prompts, states, atol=1e-4, rtol=1e-4)


def test_the_answer_depends_on_image_and_question(talkative: Any) -> None:
    features = talkative.look(2)
    asked = [(0, "Where?"), (1, "Where?"), (0, "Why?")]
    answers = [
        generate(
            talkative.model, talkative.processor, features, [talkative.prompt(q, image)], [image], max_new_tokens=6
        )[0]
        for image, q in asked
    ]
    # a tiny model may write the same words about both pictures; how sure it is of them differs
    assert len({tuple(round(p, 4) for p in answer.probabilities) for answer in answers}) == 3
    assert len({tuple(answer.ids) for answer in answers}) > 1


# ---------------------------------------------------------------- the same in company


def test_questions_of_one_image(talkative: Any) -> None:
    features = talkative.look()
    prompts = [talkative.prompt(question) for question in (*QUESTIONS, QUESTIONS[0])]
    assert len({len(p) for p in prompts}) > 2
    together = generate(talkative.model, talkative.processor, features, prompts, max_new_tokens=10)
    for prompt, answer in zip(prompts, together, strict=True):
        alone = generate(talkative.model, talkative.processor, features, [prompt], max_new_tokens=10)[0]
        assert_same(answer, alone)
    assert_same(together[0], together[3])


def test_questions_of_several_images(talkative: Any) -> None:
    features = talkative.look(3)
    index = [2, 0, 1, 0]
    prompts = [talkative.prompt(QUESTIONS[i % 3], image) for i, image in enumerate(index)]
    together = generate(talkative.model, talkative.processor, features, prompts, index, max_new_tokens=10)
    for prompt, image, answer in zip(prompts, index, together, strict=True):
        alone = generate(talkative.model, talkative.processor, features, [prompt], [image], max_new_tokens=10)[0]
        assert_same(answer, alone)


def test_questions_with_and_without_the_image(talkative: Any) -> None:
    features = talkative.look()
    prompts = [talkative.prompt(QUESTIONS[0], None), talkative.prompt(QUESTIONS[1], 0), talkative.prompt("Why?", None)]
    for order in ([0, 1, 2], [1, 0, 2]):
        asked = [prompts[i] for i in order]
        together = generate(talkative.model, talkative.processor, features, asked, max_new_tokens=8)
        for prompt, answer in zip(asked, together, strict=True):
            alone = generate(talkative.model, talkative.processor, features, [prompt], max_new_tokens=8)[0]
            assert_same(answer, alone)


def test_prompts_that_share_no_beginning(talkative: Any) -> None:
    prompts = [talkative.encode(text) for text in ("abc", "It is the liver in this image", "x")]
    together = generate(talkative.model, talkative.processor, None, prompts, max_new_tokens=8)
    for prompt, answer in zip(prompts, together, strict=True):
        assert_same(answer, generate(talkative.model, talkative.processor, None, [prompt], max_new_tokens=8)[0])


def test_the_image_may_be_inside_the_question(talkative: Any) -> None:
    features = talkative.look()
    prompts = [talkative.prompt("In <image> where?"), talkative.prompt("In <image> where is the liver?")]
    together = generate(talkative.model, talkative.processor, features, prompts, max_new_tokens=6)
    for prompt, answer in zip(prompts, together, strict=True):
        assert answer.ids == plain_greedy(talkative.model, features, prompt, 0, 6)[0]


def test_the_image_is_encoded_once(tiny: Any) -> None:
    model = tiny.model
    counts = {"sam2": 0, "tower": 0}

    def count(name: str) -> Any:
        def hook(*_: Any) -> None:
            counts[name] += 1

        return hook

    hooks = [
        model.grounding.vision_encoder.register_forward_hook(count("sam2")),
        model.mllm.model.vision_tower.register_forward_hook(count("tower")),
    ]
    try:
        features = tiny.look()
        seg = model.config.seg_token_id
        with head(model, Scripted([[seg, seg, 5]] * 3, model.config.mllm_config.text_config.vocab_size)):
            answers = generate(model, tiny.processor, features, [tiny.prompt(q) for q in QUESTIONS], max_new_tokens=3)
        with torch.inference_mode():
            masks = model.decode_masks(features.maps, torch.cat([a.prompts for a in answers]))
        assert len(masks.logits) == 6
        assert counts == {"sam2": 1, "tower": 1}
    finally:
        for hook in hooks:
            hook.remove()


def test_eager_and_sdpa_agree(talkative: Any) -> None:
    features = talkative.look(2)
    # different lengths, so that padding is masked; the second list shares no beginning at all
    cases = [
        ([talkative.prompt(q, i) for i, q in enumerate(QUESTIONS[:2])], [0, 1]),
        ([talkative.encode("abc"), talkative.encode("It is the liver")], [0, 0]),
    ]
    answers = {}
    for kind in ("eager", "sdpa"):
        model = UniBiomedModel._from_config(copy.deepcopy(talkative.model.config), attn_implementation=kind)
        own = talkative.model.mllm.lm_head
        with head(talkative.model, own.head):
            model.load_state_dict(talkative.model.state_dict())
        model.eval()
        with head(model, Biased(model.mllm.lm_head, own.bias)):
            answers[kind] = [
                answer
                for prompts, index in cases
                for answer in generate(model, talkative.processor, features, prompts, index, max_new_tokens=8)
            ]
    for a, b in zip(answers["eager"], answers["sdpa"], strict=True):
        assert_same(a, b)


# ---------------------------------------------------------------- where it stops


def test_stops_at_the_end_token(tiny: Any) -> None:
    eos = tiny.model.config.mllm_config.text_config.eos_token_id
    words = tiny.encode("It is")
    answer = run_script(tiny, [[*words, eos, *words]])[0]
    assert answer.ids == [*words, eos] and answer.finished
    assert answer.text == "It is<|im_end|>"
    assert len(answer.probabilities) == len(answer.ids)


def test_stops_at_the_end_mark_in_any_tokenization(tiny: Any) -> None:
    words = tiny.encode("liver é")
    spelled = [tiny.processor.tokenizer.convert_tokens_to_ids(letter) for letter in "<|end|>"]
    assert len(spelled) == 7 and tiny.processor.decode(spelled) == "<|end|>"
    for end in (spelled, tiny.encode("<|end|>")):
        answer = run_script(tiny, [[*words, *end, *words]])[0]
        assert answer.ids == [*words, *end] and answer.finished
        assert answer.text == "liver é<|end|>"


def test_does_not_stop_at_half_an_end_mark(tiny: Any) -> None:
    almost = [tiny.processor.tokenizer.convert_tokens_to_ids(letter) for letter in "<|end|"]
    answer = run_script(tiny, [[*almost, *tiny.encode("x")]], max_new_tokens=9)[0]
    assert not answer.finished and len(answer.ids) == 9


@pytest.mark.parametrize("limit", [1, 4])
def test_stops_at_the_limit(tiny: Any, limit: int) -> None:
    words = tiny.encode("abcdefgh")
    answer = run_script(tiny, [words], max_new_tokens=limit)[0]
    assert answer.ids == words[:limit] and not answer.finished


def test_an_end_at_the_limit_is_an_end(tiny: Any) -> None:
    eos = tiny.model.config.mllm_config.text_config.eos_token_id
    assert run_script(tiny, [[5, 6, eos]], max_new_tokens=3)[0].finished


def test_rows_end_independently(tiny: Any) -> None:
    eos, seg = tiny.model.config.mllm_config.text_config.eos_token_id, tiny.model.config.seg_token_id
    a, b = tiny.encode("a")[0], tiny.encode("b")[0]
    # after its end a row is fed on with the others: a [SEG] there belongs to nobody
    scripts = [[a, eos, seg, seg, seg], [b, seg, b, seg, eos], [seg, a, a, eos, seg]]
    answers = run_script(tiny, scripts)
    assert [answer.ids for answer in answers] == [[a, eos], [b, seg, b, seg, eos], [seg, a, a, eos]]
    assert all(answer.finished for answer in answers)
    for i, answer in enumerate(answers):
        assert len(answer.prompts) == answer.ids.count(seg)
        if len(answer.prompts):
            expected = full_pass_states(tiny, tiny.prompt(QUESTIONS[i]), answer.ids)
            torch.testing.assert_close(answer.prompts, expected, atol=1e-4, rtol=1e-4)


def test_no_questions(tiny: Any) -> None:
    assert generate(tiny.model, tiny.processor, tiny.look(), []) == []


# ---------------------------------------------------------------- [SEG]


def test_states_equal_those_of_one_full_pass(tiny: Any) -> None:
    ids = tiny.encode("<p> a mass </p> [SEG] and [SEG][SEG].<|end|>")
    answer = run_script(tiny, [ids])[0]
    assert answer.ids == ids
    assert answer.text == "<p> a mass </p> [SEG] and [SEG][SEG].<|end|>"
    expected = full_pass_states(tiny, tiny.prompt(QUESTIONS[0]), ids)
    assert expected.shape == (3, tiny.model.grounding_head[-1].out_features)
    torch.testing.assert_close(answer.prompts, expected, atol=1e-4, rtol=1e-4)
    # each [SEG] has a state of its own, or their order would not matter
    assert torch.cdist(expected, expected)[0, 1:].min() > 0.01


@pytest.mark.parametrize("others", [[], [[7, 8, 9, 10]]])
def test_seg_as_the_last_token_of_all_has_its_state(tiny: Any, others: list[list[int]]) -> None:
    ids = tiny.encode("It is [SEG]")
    answer = run_script(tiny, [ids, *others], max_new_tokens=len(ids))[0]
    assert answer.ids == ids and not answer.finished
    expected = full_pass_states(tiny, tiny.prompt(QUESTIONS[0]), ids)
    torch.testing.assert_close(answer.prompts, expected, atol=1e-4, rtol=1e-4)


def test_no_seg_no_prompts(tiny: Any) -> None:
    width = tiny.model.grounding_head[-1].out_features
    answers = run_script(tiny, [tiny.encode("No findings<|end|>"), tiny.encode("[SEG]<|end|>")])
    assert answers[0].prompts.shape == (0, width)
    assert answers[1].prompts.shape == (1, width)
    assert torch.cat([answer.prompts for answer in answers]).shape == (1, width)


def test_a_seg_spelled_with_other_tokens_is_ignored(tiny: Any) -> None:
    spelled = [tiny.processor.tokenizer.convert_tokens_to_ids(letter) for letter in "[SEG]"]
    answer = run_script(tiny, [[*spelled, *tiny.encode(" [SEG]<|end|>")]])[0]
    assert len(answer.prompts) == 1
    assert answer.text == "SEG [SEG]<|end|>"


def test_a_seg_in_the_question_has_no_mask(tiny: Any) -> None:
    prompt = tiny.processor.prompt_ids("Where is [SEG]?", 0)
    vocabulary = tiny.model.config.mllm_config.text_config.vocab_size
    with head(tiny.model, Scripted([tiny.encode("here<|end|>")], vocabulary)):
        answer = generate(tiny.model, tiny.processor, None, [prompt])[0]
    assert len(answer.prompts) == 0
