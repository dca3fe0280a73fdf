"""Scores of whole texts against their references."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from unibiomed.errors import InputError

from .score import Row

__all__ = ["text_scores"]


def text_scores(rows: Sequence[Row]) -> dict[str, Any]:
    """Corpus scores in [0, 1] (CIDEr: in [0, 10]); a failure is an empty text.

    Parameters
    ----------
    rows : sequence of Row
        Of one task, at least one.

    Returns
    -------
    dict of str to float
        By the metric's name, with ``count``.
    """
    from unibiomed.metrics import language

    answers = ["" if row.failure is not None else row.answer or "" for row in rows]
    references = [[row.reference or ""] for row in rows]
    scores = {f"BLEU-{n}": value for n, value in enumerate(language.bleu(answers, references), 1)}
    scores |= {
        "ROUGE-L": language.rouge_l(answers, references),
        "CIDEr": language.cider(answers, references),
        "METEOR (exact, stem)": language.meteor_exact_stem(answers, references),
    }
    # without Java, or the wheel of pycocoevalcap, the column is missing
    with suppress(InputError):
        scores["METEOR 1.5"] = language.meteor(answers, references).score
    return {**scores, "count": len(rows)}
