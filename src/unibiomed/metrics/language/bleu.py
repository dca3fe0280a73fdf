"""BLEU of a corpus (Papineni et al., 2002), as pycocoevalcap counts it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from unibiomed.errors import InputError

from .corpus import Tokenizer, tokenize_pairs
from .tokens import ptb_words

# keep a precision of 0 from making every longer BLEU undefined; the values are those of the original
_TINY, _SMALL = 1e-15, 1e-9


def bleu(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    longest: int = 4,
    tokenize: Tokenizer = ptb_words,
) -> tuple[float, ...]:
    """BLEU-1 to BLEU-`longest` of a corpus: n-grams and lengths are added up over all answers first.

    Not smoothed, but for what keeps a missing n-gram from dividing by nothing: then the score is above 0 by a hair.

    Parameters
    ----------
    hypotheses : sequence of str
        One answer for each image.
    references : sequence of sequence of str
        One reference or more for each image; the length nearest to the answer's counts, the shorter of two.
    longest : int
        Longest n-gram, 1 or more.
    tokenize : callable
        From a text to its words; ``str.split`` for texts that are tokenised already.

    Returns
    -------
    tuple of float
        In [0, 1]; published tables give them times 100. NaN for no answers.

    Raises
    ------
    InputError
        If the lengths differ, an answer has no reference, or something is no text.
    """
    if longest < 1:
        raise InputError(f"n-grams of {longest} words; give 1 or more")
    pairs = tokenize_pairs(hypotheses, references, tokenize)
    if not pairs:
        return (math.nan,) * longest
    lengths = [(len(words), closest_length(len(words), [len(r) for r in several])) for words, several in pairs]
    length, wanted = (sum(column) for column in zip(*lengths, strict=True))
    ratio = (length + _TINY) / (wanted + _SMALL)
    penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    scores, product = [], 1.0
    for n in range(1, longest + 1):
        counts = [clipped_ngrams(words, several, n) for words, several in pairs]
        hits, tried = (sum(column) for column in zip(*counts, strict=True))
        product *= (hits + _TINY) / (tried + _SMALL)
        scores.append(product ** (1 / n) * penalty)
    return tuple(scores)


def clipped_ngrams(words: Sequence[str], references: Sequence[Sequence[str]], n: int) -> tuple[int, int]:
    """N-grams of an answer that a reference has, each at most as often as one reference has it; and all of its n-grams.

    Their ratio is the modified n-gram precision of Papineni et al.
    """
    own, most = ngrams(words, n), Counter[tuple[str, ...]]()
    for reference in references:
        most |= ngrams(reference, n)
    return (own & most).total(), own.total()


def brevity_penalty(length: int, wanted: int) -> float:
    """Factor in [0, 1] for answers of fewer words than their references: exp(1 − wanted / length); 1 for no fewer."""
    if length >= wanted:
        return 1.0
    return math.exp(1 - wanted / length) if length else 0.0


def closest_length(length: int, lengths: Sequence[int]) -> int:
    """The one of the references' lengths that is nearest to an answer's, the shorter of two."""
    return min(lengths, key=lambda other: (abs(other - length), other))


def ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    """How often each row of `n` words is in a text."""
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
