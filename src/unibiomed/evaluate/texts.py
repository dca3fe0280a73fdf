"""Scores of whole texts against their references."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from unibiomed.errors import InputError

from .score import Row

__all__ = ["CHEST", "text_scores"]

CHEST = "chest findings F1 (rule-based)"
"""Micro F1 of CheXpert's 14 findings between X-ray answers and references; see `unibiomed.metrics.chest_labels`."""


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
    agreement = _chest([row.modality == "X-ray" for row in rows], answers, [given[0] for given in references])
    return {**scores, **({} if math.isnan(agreement) else {CHEST: agreement}), "count": len(rows)}


def _chest(xray: Sequence[bool], answers: Sequence[str], references: Sequence[str]) -> float:
    """Agreement on those X-ray images whose reference tells any chest finding; NaN where none does."""
    from unibiomed.metrics.chest_labels import chest_label_agreement, findings_told

    told = [
        (answer, given)
        for seen, answer, given in zip(xray, answers, references, strict=True)
        if seen and findings_told(given)
    ]
    return chest_label_agreement([a for a, _ in told], [r for _, r in told]).micro_f1
