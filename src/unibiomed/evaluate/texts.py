"""Scores of whole texts against their references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    from unibiomed.metrics.language import language_scores

    answers = ["" if row.failure is not None else row.answer or "" for row in rows]
    return language_scores(answers, [[row.reference or ""] for row in rows]) | {"count": len(rows)}
