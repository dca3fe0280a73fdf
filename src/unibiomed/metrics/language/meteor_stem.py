"""METEOR with exact and stem matching only, in pure Python; METEOR 1.5 also matches synonyms and paraphrases."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

from unibiomed.metrics.arguments import load_library

from .corpus import Tokenizer, tokenize_pairs
from .tokens import ptb_words

ALPHA, BETA, GAMMA = 0.9, 3.0, 0.5  # Lavie and Agarwal, 2007
BEAM_SIZE = 40  # as in METEOR 1.5


def meteor_exact_stem(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], *, tokenize: Tokenizer = ptb_words
) -> float:
    """Compute the mean over answers of METEOR (Banerjee and Lavie, 2005) with exact and stem matching.

    The alignment has the maximum number of matches and the fewest chunks found by a beam search. The weights are those
    of Lavie and Agarwal (2007). With several references, the best one is used. Values cannot be compared with published
    ones of METEOR 1.5, which `meteor` computes.

    Parameters
    ----------
    hypotheses : sequence of str
        One answer per image.
    references : sequence of sequence of str
        One or more references per image.
    tokenize : callable
        Function from a text to its words. Use ``str.split`` for tokenised texts. Case is ignored.

    Returns
    -------
    float
        In [0, 1]; NaN without answers.

    Raises
    ------
    InputError
        The lengths differ, an answer has no reference, a text is not a string, or snowballstemmer is not installed.
    """
    stem = _stemmer()
    scores = []
    for words, several in tokenize_pairs(hypotheses, references, tokenize):
        stems = [stem(word.lower()) for word in words]
        reference_stems = [[stem(word.lower()) for word in reference] for reference in several]
        scores.append(max(fragmented_f(*align(stems, other), len(stems), len(other)) for other in reference_stems))
    return sum(scores) / len(scores) if scores else math.nan


def fragmented_f(
    matched: int,
    chunks: int,
    length: int,
    reference_length: int,
    *,
    alpha: float = ALPHA,
    beta: float = BETA,
    gamma: float = GAMMA,
) -> float:
    """Compute METEOR of an alignment, in [0, 1].

    Parameters
    ----------
    matched, chunks : int
        Number of aligned words and of contiguous chunks.
    length, reference_length : int
        Number of words of the answer and of the reference.
    alpha, beta, gamma : float
        Weight of precision in the harmonic mean; exponent and weight of the fragmentation penalty.
    """
    if not matched:
        return float(not length and not reference_length)
    precision, recall = matched / length, matched / reference_length
    mean = precision * recall / (alpha * precision + (1 - alpha) * recall)
    return mean * (1 - gamma * (chunks / matched) ** beta)


def align(words: Sequence[str], reference: Sequence[str]) -> tuple[int, int]:
    """Align equal words; return the maximum number of aligned words and the fewest chunks that were found.

    The beam search keeps the `BEAM_SIZE` alignments with the fewest chunks, preferring words at similar positions.
    """
    positions: dict[str, list[int]] = {}
    for j, word in enumerate(reference):
        positions.setdefault(word, []).append(j)
    # equal words are interchangeable, so the number of unaligned words is known in advance
    surplus = Counter(words) - Counter(reference)
    matched = len(words) - surplus.total()
    # state: chunks, distance, position after the last word (-1: new chunk), used positions, unaligned words
    states: set[tuple[int, float, int, int, tuple[tuple[str, int], ...]]] = {(0, 0.0, -1, 0, ())}
    for i, word in enumerate(words):
        if word not in positions:
            states = {(chunks, distance, -1, used, unaligned) for chunks, distance, _, used, unaligned in states}
            continue
        extended = set()
        for chunks, distance, after, used, unaligned in states:
            counts = dict(unaligned)
            if counts.get(word, 0) < surplus[word]:
                skipped = tuple(sorted((counts | {word: counts.get(word, 0) + 1}).items()))
                extended.add((chunks, distance, -1, used, skipped))
            for j in positions[word]:
                if not used >> j & 1:
                    total = distance + abs(i / len(words) - j / len(reference))
                    extended.add((chunks + (j != after), total, j + 1, used | 1 << j, unaligned))
        states = set(sorted(extended)[:BEAM_SIZE])
    return matched, min(states)[0]


def _stemmer() -> Callable[[str], str]:
    library = load_library("snowballstemmer", "unibiomed[evaluate]", "stem matching of METEOR")
    return library.stemmer("english").stemWord
