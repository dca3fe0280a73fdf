"""A byte-level BPE tokenizer made from the training texts."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from unibiomed.model.processing import END, IMAGE_END, IMAGE_START, IMAGE_TOKEN

# the published tokenizer spells <|user|> and its like in ordinary pieces; here each is one token of the same text
SPECIAL_TOKENS = [
    "<|endoftext|>",
    "<|im_end|>",
    END,
    "<|user|>",
    "<|assistant|>",
    IMAGE_START,
    IMAGE_END,
    IMAGE_TOKEN,
    "[SEG]",
    "<p>",
    "</p>",
    "<vp>",
    "</vp>",
]


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE (any text can be spelled) of exactly `vocab_size` tokens or fewer, special ones first.

    Parameters
    ----------
    texts : iterable of str
        Questions, answers and reports of the training split.
    vocab_size : int
        At least 269: the bytes and the special tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    # digits one by one: numbers are read by their places
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )
