"""Scores of whole texts against their references."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from unibiomed.errors import InputError

from .intervals import DRAWS, drawn_sums
from .rows import Row

__all__ = ["CHEST", "likeness", "text_scores"]

CHEST = "chest findings F1 (rule-based)"
"""Micro F1 of CheXpert's 14 findings between X-ray reports and references; see `unibiomed.metrics.chest_labels`."""

LONGEST = 4
"""N-grams of BLEU."""
TINY = 1e-9


def likeness(row: Row) -> float:
    """ROUGE-L of one answer, in [0, 1]; 0 for a failure."""
    from unibiomed.metrics.language import rouge_l

    return 0.0 if row.failure is not None else rouge_l([row.answer or ""], [[row.reference or ""]])


def text_scores(rows: Sequence[Row]) -> dict[str, Any]:
    """Corpus scores in [0, 1] (CIDEr: in [0, 10]); a failure is an empty text.

    Parameters
    ----------
    rows : sequence of Row
        Of one task, at least one.

    Returns
    -------
    dict of str to float
        By the metric's name, with ``count``, with ``problem`` where METEOR died, and, of those that are sums over
        texts, ``intervals``: ``low`` and ``high`` of the bootstrap by subject.
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
    problem: dict[str, str] = {}
    try:
        scores["METEOR 1.5"] = language.meteor(answers, references).score
    except language.MeteorMissingError:
        # without Java, or the wheel of pycocoevalcap, the column is missing
        pass
    except InputError as error:
        problem["problem"] = str(error)
    # a box has one finding, of which the classification of regions tells more
    whole = [row.task == "report" and row.modality == "X-ray" for row in rows]
    agreement = _chest(whole, answers, [given[0] for given in references])
    if not math.isnan(agreement):
        scores[CHEST] = agreement
    intervals = _intervals(answers, [given[0] for given in references], [row.subject for row in rows])
    return {**scores, "count": len(rows), **problem, **({"intervals": intervals} if intervals else {})}


def _intervals(answers: Sequence[str], references: Sequence[str], subjects: Sequence[str]) -> dict[str, Any]:
    """Of BLEU and ROUGE-L, which follow from one sum a text; none where all texts are one subject's."""
    from unibiomed.metrics.language import ptb_words, rouge_l
    from unibiomed.metrics.language.bleu import clipped_ngrams

    people = {name: i for i, name in enumerate(dict.fromkeys(subjects))}
    if len(people) < 2:
        return {}
    # of each subject: texts, words said, words wanted, ROUGE-L, then n-grams that hit and n-grams said
    sums = np.zeros((len(people), 4 + 2 * LONGEST))
    for answer, reference, subject in zip(answers, references, subjects, strict=True):
        said, wanted = ptb_words(answer), ptb_words(reference)
        grams = [count for n in range(1, LONGEST + 1) for count in clipped_ngrams(said, [wanted], n)]
        rouge = rouge_l([answer], [[reference]])
        sums[people[subject]] += [1, len(said), len(wanted), rouge, *grams]
    texts, said_words, wanted_words, rouges, *counts = drawn_sums(sums, DRAWS).T
    drawn = {"ROUGE-L": rouges / texts}
    penalty = np.exp(np.minimum(0.0, 1 - wanted_words / np.maximum(said_words, TINY)))
    product = np.ones(DRAWS)
    for n in range(1, LONGEST + 1):
        product = product * counts[2 * n - 2] / np.maximum(counts[2 * n - 1], 1)
        drawn[f"BLEU-{n}"] = penalty * product ** (1 / n)
    ends = {name: np.quantile(values, [0.025, 0.975]) for name, values in drawn.items()}
    return {name: {"low": round(float(low), 6), "high": round(float(high), 6)} for name, (low, high) in ends.items()}


def _chest(counted: Sequence[bool], answers: Sequence[str], references: Sequence[str]) -> float:
    """Agreement on those of the counted images whose reference tells any chest finding; NaN where none does."""
    from unibiomed.metrics.chest_labels import chest_label_agreement, findings_told

    told = [
        (answer, given)
        for seen, answer, given in zip(counted, answers, references, strict=True)
        if seen and findings_told(given)
    ]
    return chest_label_agreement([a for a, _ in told], [r for _, r in told]).micro_f1
