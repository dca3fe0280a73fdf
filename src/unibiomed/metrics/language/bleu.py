"""BLEU of a corpus (Papineni et al., 2002) as in pycocoevalcap."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from unibiomed.errors import InputError

from .corpus import Tokenizer, tokenize_pairs
from .tokens import ptb_words

# smoothing constants of pycocoevalcap, which keep BLEU defined if no n-gram matches
_TINY, _SMALL = 1e-15, 1e-9


def bleu(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    max_n: int = 4,
    tokenize: Tokenizer = ptb_words,
) -> tuple[float, ...]:
    """Compute BLEU-1 to BLEU-`max_n` of a corpus from the sums of n-gram counts and lengths over all answers.

    There is no smoothing except for the small constants of pycocoevalcap.

    Parameters
    ----------
    hypotheses : sequence of str
        One answer per image.
    references : sequence of sequence of str
        One or more references per image. The length closest to that of the answer is used, the shorter in a tie.
    max_n : int
        Length of the longest n-gram, 1 or more.
    tokenize : callable
        Function from a text to its words. Use ``str.split`` for tokenised texts.

    Returns
    -------
    tuple of float
        In [0, 1]; published tables usually show values times 100. NaN without answers.

    Raises
    ------
    InputError
        The lengths differ, an answer has no reference, or a text is not a string.
    """
    if max_n < 1:
        raise InputError(f"max_n is {max_n}: give 1 or more")
    pairs = tokenize_pairs(hypotheses, references, tokenize)
    if not pairs:
        return (math.nan,) * max_n
    lengths = [(len(words), closest_length(len(words), [len(r) for r in several])) for words, several in pairs]
    length, reference_length = (sum(column) for column in zip(*lengths, strict=True))
    ratio = (length + _TINY) / (reference_length + _SMALL)
    penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    scores, product = [], 1.0
    for n in range(1, max_n + 1):
        counts = [clipped_ngrams(words, several, n) for words, several in pairs]
        matches, total = (sum(column) for column in zip(*counts, strict=True))
        product *= (matches + _TINY) / (total + _SMALL)
        scores.append(product ** (1 / n) * penalty)
    return tuple(scores)


def clipped_ngrams(words: Sequence[str], references: Sequence[Sequence[str]], n: int) -> tuple[int, int]:
    """Count the n-grams of an answer that occur in a reference, clipped to their count in a reference, and all n-grams.

    Their ratio is the modified n-gram precision of Papineni et al.
    """
    own, most = ngrams(words, n), Counter[tuple[str, ...]]()
    for reference in references:
        most |= ngrams(reference, n)
    return (own & most).total(), own.total()


def brevity_penalty(length: int, reference_length: int) -> float:
    """Return the brevity penalty in [0, 1]: exp(1 − reference_length / length) for short answers, else 1."""
    if length >= reference_length:
        return 1.0
    return math.exp(1 - reference_length / length) if length else 0.0


def closest_length(length: int, lengths: Sequence[int]) -> int:
    """Return the reference length that is closest to the length of an answer, the shorter one in a tie."""
    return min(lengths, key=lambda other: (abs(other - length), other))


def ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    """Count the n-grams of a text."""
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
