"""The tokenizer spells any text, special tokens are one id each, and it is the same every time."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from unibiomed.model.processing import END, IMAGE_TOKEN, ProcessorSettings, UniBiomedProcessor
from unibiomed.train.tokenizer import SPECIAL_TOKENS, train_tokenizer

TEXTS = [
    "Segment the liver in this CT scan.",
    "It is [SEG]. Liver tumour",
    "The liver is 12 mm wide.",
    "liver liver",
] * 5


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, 320)


def test_special_tokens_come_first(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.convert_tokens_to_ids(SPECIAL_TOKENS) == list(range(len(SPECIAL_TOKENS)))
    text = "".join(SPECIAL_TOKENS)
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == list(range(len(SPECIAL_TOKENS)))
    assert {"[SEG]", "<p>", "</p>", END, IMAGE_TOKEN, "<|user|>", "<|assistant|>"} <= set(SPECIAL_TOKENS)
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.pad_token == "<|endoftext|>"
    assert tokenizer.pad_token_id == 0  # what batches are padded with


def test_size_and_merges(tokenizer: PreTrainedTokenizerFast) -> None:
    assert 256 + len(SPECIAL_TOKENS) < len(tokenizer) <= 320
    assert len(tokenizer.tokenize(" liver")) == 1
    assert len(tokenizer.tokenize(" spleen")) > 1
    assert tokenizer.tokenize("2048") == ["2", "0", "4", "8"]
    assert len(train_tokenizer(["few"], 300)) == 256 + len(SPECIAL_TOKENS)


def test_the_same_texts_make_the_same_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    again = train_tokenizer(iter(TEXTS), 320)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


@settings(max_examples=100)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_comes_back(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = tokenizer(f"[SEG]{text}<p>", add_special_tokens=False)["input_ids"]
    assert ids[0] == SPECIAL_TOKENS.index("[SEG]") and ids[-1] == SPECIAL_TOKENS.index("<p>")
    assert tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) == f"[SEG]{text}<p>"


def test_saved_with_a_processor(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    settings_ = ProcessorSettings(grounding_size=64, tile_size=0, max_tiles=1, tokens_per_tile=4)
    UniBiomedProcessor(tokenizer, settings_).save_pretrained(tmp_path)
    again = UniBiomedProcessor.from_pretrained(tmp_path)
    assert again.settings == settings_
    for text in (*TEXTS, "Größe 3,5 µm <p> x </p> [SEG]"):
        assert again.encode(text) == tokenizer(text, add_special_tokens=False)["input_ids"]
        assert again.decode(again.encode(text)) == text
