"""CIDEr of a corpus (Vedantam et al., 2015) as in pycocoevalcap."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from .bleu import ngrams
from .corpus import Tokenizer, tokenize_pairs
from .tokens import ptb_words

MAX_N, SIGMA = 4, 6.0

Vector = dict[tuple[str, ...], float]


def cider(hypotheses: Sequence[str], references: Sequence[Sequence[str]], *, tokenize: Tokenizer = ptb_words) -> float:
    """Compute the mean similarity of answers and references as TF-IDF vectors of n-grams with 1 to 4 words.

    Document frequencies are those of the given references, so that values of different corpora cannot be compared; for
    a single image it is 0. As in pycocoevalcap, counts are clipped and there is a length penalty with σ = 6, which the
    paper calls CIDEr-D.

    Parameters
    ----------
    hypotheses : sequence of str
        One answer per image.
    references : sequence of sequence of str
        One or more references per image.
    tokenize : callable
        Function from a text to its words. Use ``str.split`` for tokenised texts.

    Returns
    -------
    float
        In [0, 10]; published tables show it as it is, or times 10 or 100. NaN without answers.

    Raises
    ------
    InputError
        The lengths differ, an answer has no reference, or a text is not a string.
    """
    pairs = tokenize_pairs(hypotheses, references, tokenize)
    if not pairs:
        return math.nan
    frequencies: Counter[tuple[str, ...]] = Counter()
    for _, several in pairs:
        frequencies.update({gram for words in several for n in range(1, MAX_N + 1) for gram in ngrams(words, n)})
    scores = [
        sum(_similarity(words, reference, frequencies, len(pairs)) for reference in several) / len(several)
        for words, several in pairs
    ]
    return 10 * sum(scores) / len(scores)


def _similarity(
    words: Sequence[str], reference: Sequence[str], frequencies: Mapping[tuple[str, ...], int], texts: int
) -> float:
    # as in pycocoevalcap, the length is the number of bigrams
    difference = max(len(words) - 1, 0) - max(len(reference) - 1, 0)
    total = 0.0
    for n in range(1, MAX_N + 1):
        a, b = _vector(words, n, frequencies, texts), _vector(reference, n, frequencies, texts)
        norm = math.hypot(*a.values()) * math.hypot(*b.values())
        if norm:
            total += sum(min(weight, b.get(gram, 0.0)) * b.get(gram, 0.0) for gram, weight in a.items()) / norm
    return total / MAX_N * math.exp(-(difference**2) / (2 * SIGMA**2))


def _vector(words: Sequence[str], n: int, frequencies: Mapping[tuple[str, ...], int], texts: int) -> Vector:
    return {
        gram: count * (math.log(texts) - math.log(max(frequencies[gram], 1)))
        for gram, count in ngrams(words, n).items()
    }
