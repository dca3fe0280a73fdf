"""ROUGE-L (Lin, 2004) as in pycocoevalcap."""

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
    """Compute the mean over answers of the F-score of the longest common subsequence.

    With several references, the highest precision and the highest recall are used.

    Parameters
    ----------
    hypotheses : sequence of str
        One answer per image.
    references : sequence of sequence of str
        One or more references per image.
    beta : float
        Weight of recall, above 0: 1.2 in pycocoevalcap, 1 in rouge_score of Google.
    tokenize : callable
        Function from a text to its words. Use ``str.split`` for tokenised texts.

    Returns
    -------
    float
        In [0, 1]; published tables usually show values times 100. NaN without answers.

    Raises
    ------
    InputError
        The lengths differ, an answer has no reference, or a text is not a string.
    """
    if not (math.isfinite(beta) and beta > 0):
        raise InputError(f"beta is {beta}: give a number above 0")
    pairs = tokenize_pairs(hypotheses, references, tokenize)
    scores = []
    for words, several in pairs:
        pairs_of_scores = [lcs_precision_recall(words, reference) for reference in several]
        precision, recall = (max(column) for column in zip(*pairs_of_scores, strict=True))
        both = recall + beta**2 * precision
        scores.append((1 + beta**2) * precision * recall / both if both else 0.0)
    return sum(scores) / len(scores) if scores else math.nan


def lcs_precision_recall(words: Sequence[str], reference: Sequence[str]) -> tuple[float, float]:
    """Return precision and recall of the longest common subsequence; both are 1 for two empty texts, 0 for one."""
    if not words or not reference:
        same = float(not words and not reference)
        return same, same
    common = lcs_length(words, reference)
    return common / len(words), common / len(reference)


def lcs_length(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Return the length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for item in a:
        before = 0
        for j, other in enumerate(b, 1):
            above = row[j]
            row[j] = before + 1 if item == other else max(above, row[j - 1])
            before = above
    return row[-1]
