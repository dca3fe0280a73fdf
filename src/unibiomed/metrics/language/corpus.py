"""What all text metrics ask of their arguments: one answer, and one reference or more, for each image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from unibiomed.errors import InputError
from unibiomed.metrics.arguments import check_lengths

Tokenizer = Callable[[str], list[str]]
Words = list[str]


def tokenize_pairs(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], tokenize: Tokenizer
) -> list[tuple[Words, list[Words]]]:
    """Words of each answer and of its references.

    Raises
    ------
    InputError
        If the lengths differ, an answer has no reference or one string for a list of them, or something is no text.
    """
    check_lengths(hypotheses=hypotheses, references=references)
    pairs = []
    for hypothesis, several in zip(hypotheses, references, strict=True):
        if isinstance(several, str) or not len(several):
            raise InputError("each answer needs a list of one reference or more")
        if not all(isinstance(text, str) for text in (hypothesis, *several)):
            raise InputError("answers and references must be texts")
        pairs.append((tokenize(hypothesis), [tokenize(text) for text in several]))
    return pairs
