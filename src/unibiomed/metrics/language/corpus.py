"""Validation and tokenisation of the arguments of text metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from unibiomed.errors import InputError
from unibiomed.metrics.arguments import check_lengths

Tokenizer = Callable[[str], list[str]]
Words = list[str]


def tokenize_pairs(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], tokenize: Tokenizer
) -> list[tuple[Words, list[Words]]]:
    """Return the words of each answer and of its references.

    Raises
    ------
    InputError
        The lengths differ, an answer has no list of references, or a text is not a string.
    """
    check_lengths(hypotheses=hypotheses, references=references)
    pairs = []
    for hypothesis, several in zip(hypotheses, references, strict=True):
        if isinstance(several, str) or not len(several):
            raise InputError("an answer has no references: give a list of one or more for each answer")
        if not all(isinstance(text, str) for text in (hypothesis, *several)):
            raise InputError("an answer or reference is not a string: give texts")
        pairs.append((tokenize(hypothesis), [tokenize(text) for text in several]))
    return pairs
