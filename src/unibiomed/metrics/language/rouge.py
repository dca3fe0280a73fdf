"""ROUGE-L (Lin, 2004), as pycocoevalcap counts it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

from unibiomed.errors import InputError

from .corpus import Tokenizer, tokenize_pairs
from .tokens import ptb_words


def rouge_l(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    beta: float = 1.2,
    tokenize: Tokenizer = ptb_words,
) -> float:
    """Mean over the answers of the F of the longest common subsequence.

    With several references, precision is the highest that any gives and recall is the highest that any gives.

    Parameters
    ----------
    hypotheses : sequence of str
        One answer for each image.
    references : sequence of sequence of str
        One reference or more for each image.
    beta : float
        Weight of recall, above 0; pycocoevalcap has 1.2, google's rouge_score has 1.
    tokenize : callable
        From a text to its words; ``str.split`` for texts that are tokenised already.

    Returns
    -------
    float
        In [0, 1]; published tables give it times 100. NaN for no answers.

    Raises
    ------
    InputError
        If the lengths differ, an answer has no reference, or something is no text.
    """
    if not (math.isfinite(beta) and beta > 0):
        raise InputError(f"beta is {beta}; give a number above 0")
    pairs = tokenize_pairs(hypotheses, references, tokenize)
    scores = []
    for words, several in pairs:
        shares = [lcs_shares(words, reference) for reference in several]
        precision, recall = (max(column) for column in zip(*shares, strict=True))
        both = recall + beta**2 * precision
        scores.append((1 + beta**2) * precision * recall / both if both else 0.0)
    return sum(scores) / len(scores) if scores else math.nan


def lcs_shares(words: Sequence[str], reference: Sequence[str]) -> tuple[float, float]:
    """Precision and recall, in [0, 1], of the longest common subsequence; both 1 for two empty texts, 0 for one."""
    if not words or not reference:
        same = float(not words and not reference)
        return same, same
    common = lcs_length(words, reference)
    return common / len(words), common / len(reference)


def lcs_length(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Length of the longest row of items that both have in this order, with gaps or without."""
    row = [0] * (len(b) + 1)
    for item in a:
        before = 0
        for j, other in enumerate(b, 1):
            above = row[j]
            row[j] = before + 1 if item == other else max(above, row[j - 1])
            before = above
    return row[-1]
