"""CIDEr of a corpus (Vedantam et al., 2015), as pycocoevalcap counts it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from .bleu import ngrams
from .corpus import Tokenizer, tokenize_pairs
from .tokens import ptb_words

LONGEST, SIGMA = 4, 6.0

Vector = dict[tuple[str, ...], float]


def cider(hypotheses: Sequence[str], references: Sequence[Sequence[str]], *, tokenize: Tokenizer = ptb_words) -> float:
    """Mean likeness of answers and references as weighted n-grams of 1 to 4 words.

    An n-gram weighs more the fewer images' references have it. Frequencies are those of the references given here: it
    cannot be compared between corpora, and is 0 for a single image. What pycocoevalcap calls CIDEr clips counts and
    has a penalty of lengths with σ = 6, which its paper calls CIDEr-D.

    Parameters
    ----------
    hypotheses : sequence of str
        One answer for each image.
    references : sequence of sequence of str
        One reference or more for each image.
    tokenize : callable
        From a text to its words; ``str.split`` for texts that are tokenised already.

    Returns
    -------
    float
        In [0, 10]; published tables give it as it is, or times 10 or 100. NaN for no answers.

    Raises
    ------
    InputError
        If the lengths differ, an answer has no reference, or something is no text.
    """
    pairs = tokenize_pairs(hypotheses, references, tokenize)
    if not pairs:
        return math.nan
    seen: Counter[tuple[str, ...]] = Counter()
    for _, several in pairs:
        seen.update({gram for words in several for n in range(1, LONGEST + 1) for gram in ngrams(words, n)})
    scores = [
        sum(_likeness(words, reference, seen, len(pairs)) for reference in several) / len(several)
        for words, several in pairs
    ]
    return 10 * sum(scores) / len(scores)


def _likeness(words: Sequence[str], reference: Sequence[str], seen: Mapping[tuple[str, ...], int], texts: int) -> float:
    # lengths are counted in pairs of words, as in the original: a text of one word is as long as one of none
    away = max(len(words) - 1, 0) - max(len(reference) - 1, 0)
    total = 0.0
    for n in range(1, LONGEST + 1):
        a, b = _weigh(words, n, seen, texts), _weigh(reference, n, seen, texts)
        size = math.hypot(*a.values()) * math.hypot(*b.values())
        if size:
            total += sum(min(weight, b.get(gram, 0.0)) * b.get(gram, 0.0) for gram, weight in a.items()) / size
    return total / LONGEST * math.exp(-(away**2) / (2 * SIGMA**2))


def _weigh(words: Sequence[str], n: int, seen: Mapping[tuple[str, ...], int], texts: int) -> Vector:
    return {gram: count * (math.log(texts) - math.log(max(seen[gram], 1))) for gram, count in ngrams(words, n).items()}
