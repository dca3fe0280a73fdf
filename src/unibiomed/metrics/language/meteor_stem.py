"""A METEOR of exact words and stems only, in pure Python: not METEOR 1.5, whose synonyms and paraphrases it lacks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

from unibiomed.metrics.arguments import load_library

from .corpus import Tokenizer, tokenize_pairs
from .tokens import ptb_words

ALPHA, BETA, GAMMA = 0.9, 3.0, 0.5  # Lavie and Agarwal, 2007
BEAM = 40  # as wide as METEOR 1.5's


def meteor_exact_stem(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], *, tokenize: Tokenizer = ptb_words
) -> float:
    """Mean over the answers of METEOR (Banerjee and Lavie, 2005) with two of its stages, exact words and stems.

    Words are aligned so that as many as can be are, and then in as few rows ("chunks") as a search of 40 ways finds.
    The weights are those of Lavie and Agarwal (2007). Of several references the best one counts. It cannot be compared
    with published values of METEOR 1.5, which come from `meteor`.

    Parameters
    ----------
    hypotheses : sequence of str
        One answer for each image.
    references : sequence of sequence of str
        One reference or more for each image.
    tokenize : callable
        From a text to its words; ``str.split`` for texts that are tokenised already. Case does not count.

    Returns
    -------
    float
        In [0, 1]; NaN for no answers.

    Raises
    ------
    InputError
        If the lengths differ, an answer has no reference, something is no text, or snowballstemmer is not installed.
    """
    stem = _stemmer()
    scores = []
    for words, several in tokenize_pairs(hypotheses, references, tokenize):
        stems = [stem(word.lower()) for word in words]
        wanted = [[stem(word.lower()) for word in reference] for reference in several]
        scores.append(max(fragmented_f(*align(stems, other), len(stems), len(other)) for other in wanted))
    return sum(scores) / len(scores) if scores else math.nan


def fragmented_f(
    matched: int,
    chunks: int,
    length: int,
    wanted: int,
    *,
    alpha: float = ALPHA,
    beta: float = BETA,
    gamma: float = GAMMA,
) -> float:
    """METEOR of an alignment, in [0, 1].

    Parameters
    ----------
    matched, chunks : int
        Words aligned, and in how many rows that both texts have.
    length, wanted : int
        Words of the answer and of the reference.
    alpha, beta, gamma : float
        Weight of precision in the mean; steepness and height of the penalty for chunks.
    """
    if not matched:
        return float(not length and not wanted)
    precision, recall = matched / length, matched / wanted
    mean = precision * recall / (alpha * precision + (1 - alpha) * recall)
    return mean * (1 - gamma * (chunks / matched) ** beta)


def align(words: Sequence[str], reference: Sequence[str]) -> tuple[int, int]:
    """Number of words aligned with equal ones, each once, as many as can be; and the fewest chunks that were found.

    The beam search keeps the `BEAM` ways with the fewest chunks so far, words that lie near each other first.
    """
    places: dict[str, list[int]] = {}
    for j, word in enumerate(reference):
        places.setdefault(word, []).append(j)
    # equal words are interchangeable, so that it is known beforehand how many stay alone
    spare = Counter(words) - Counter(reference)
    matched = len(words) - spare.total()
    # a way: chunks, distance, place after the last word (-1: a new chunk must begin), places used, words left alone
    ways: set[tuple[int, float, int, int, tuple[tuple[str, int], ...]]] = {(0, 0.0, -1, 0, ())}
    for i, word in enumerate(words):
        if word not in places:
            ways = {(chunks, far, -1, used, alone) for chunks, far, _, used, alone in ways}
            continue
        further = set()
        for chunks, far, after, used, alone in ways:
            left = dict(alone)
            if left.get(word, 0) < spare[word]:
                skipped = tuple(sorted((left | {word: left.get(word, 0) + 1}).items()))
                further.add((chunks, far, -1, used, skipped))
            for j in places[word]:
                if not used >> j & 1:
                    away = far + abs(i / len(words) - j / len(reference))
                    further.add((chunks + (j != after), away, j + 1, used | 1 << j, alone))
        ways = set(sorted(further)[:BEAM])
    return matched, min(ways)[0]


def _stemmer() -> Callable[[str], str]:
    library = load_library("snowballstemmer", "unibiomed[evaluate]", "METEOR's stage of stems")
    return library.stemmer("english").stemWord
