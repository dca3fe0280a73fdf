"""Metrics of generated texts: BLEU, ROUGE-L, CIDEr, METEOR and chest X-ray findings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from unibiomed.errors import InputError
from unibiomed.metrics.intervals import RESAMPLES, bootstrap_sums

from .sample_scores import SampleScore

__all__ = ["CHEST_F1", "sample_rouge_l", "text_scores"]

CHEST_F1 = "chest findings F1 (rule-based)"
"""Micro F1 of CheXpert's 14 findings between X-ray reports and references; see `unibiomed.metrics.chest_labels`."""

MAX_NGRAM = 4
EPSILON = 1e-9


def sample_rouge_l(score: SampleScore) -> float:
    """Return the ROUGE-L of one answer in [0, 1]; 0 for a failure."""
    from unibiomed.metrics.language import rouge_l

    return 0.0 if score.failure is not None else rouge_l([score.answer or ""], [[score.reference or ""]])


def text_scores(samples: Sequence[SampleScore]) -> dict[str, Any]:
    """Compute corpus metrics in [0, 1] (CIDEr: in [0, 10]). A failure is an empty text.

    Parameters
    ----------
    samples : sequence of SampleScore
        At least one sample, all of one task.

    Returns
    -------
    dict
        Value of each metric, and ``count``. ``problem`` is the error message if METEOR 1.5 failed. ``intervals`` has
        ``low`` and ``high`` of the bootstrap by subject for BLEU and ROUGE-L.
    """
    from unibiomed.metrics import language

    answers = ["" if one.failure is not None else one.answer or "" for one in samples]
    references = [one.reference or "" for one in samples]
    nested = [[reference] for reference in references]
    values = {f"BLEU-{n}": value for n, value in enumerate(language.bleu(answers, nested), 1)}
    values |= {
        "ROUGE-L": language.rouge_l(answers, nested),
        "CIDEr": language.cider(answers, nested),
        "METEOR (exact, stem)": language.meteor_exact_stem(answers, nested),
    }
    problem: dict[str, str] = {}
    try:
        values["METEOR 1.5"] = language.meteor(answers, nested).score
    except language.MeteorMissingError:
        # Java or pycocoevalcap is not installed: the table has no such column
        pass
    except InputError as error:
        problem["problem"] = str(error)
    # the description of a box has at most one finding, which region classification evaluates
    included = [one.task == "report" and one.modality == "X-ray" for one in samples]
    agreement = _chest_f1(included, answers, references)
    if not math.isnan(agreement):
        values[CHEST_F1] = agreement
    intervals = _intervals(answers, references, [one.subject for one in samples])
    return {**values, "count": len(samples), **problem, **({"intervals": intervals} if intervals else {})}


def _intervals(answers: Sequence[str], references: Sequence[str], subjects: Sequence[str]) -> dict[str, Any]:
    """Return intervals of BLEU and ROUGE-L, which are functions of sums over texts; empty for a single subject."""
    from unibiomed.metrics.language import ptb_words, rouge_l
    from unibiomed.metrics.language.bleu import clipped_ngrams

    index = {name: i for i, name in enumerate(dict.fromkeys(subjects))}
    if len(index) < 2:
        return {}
    # per subject: texts, answer words, reference words, ROUGE-L, then matching and all n-grams for each n
    sums = np.zeros((len(index), 4 + 2 * MAX_NGRAM))
    for answer, reference, subject in zip(answers, references, subjects, strict=True):
        words, reference_words = ptb_words(answer), ptb_words(reference)
        ngrams = [count for n in range(1, MAX_NGRAM + 1) for count in clipped_ngrams(words, [reference_words], n)]
        rouge = rouge_l([answer], [[reference]])
        sums[index[subject]] += [1, len(words), len(reference_words), rouge, *ngrams]
    texts, all_answer_words, all_reference_words, rouges, *counts = bootstrap_sums(sums, RESAMPLES).T
    resampled = {"ROUGE-L": rouges / texts}
    penalty = np.exp(np.minimum(0.0, 1 - all_reference_words / np.maximum(all_answer_words, EPSILON)))
    product = np.ones(RESAMPLES)
    for n in range(1, MAX_NGRAM + 1):
        product = product * counts[2 * n - 2] / np.maximum(counts[2 * n - 1], 1)
        resampled[f"BLEU-{n}"] = penalty * product ** (1 / n)
    bounds = {name: np.quantile(values, [0.025, 0.975]) for name, values in resampled.items()}
    return {name: {"low": round(float(low), 6), "high": round(float(high), 6)} for name, (low, high) in bounds.items()}


def _chest_f1(included: Sequence[bool], answers: Sequence[str], references: Sequence[str]) -> float:
    """Return the micro F1 over included images whose reference mentions a chest finding; NaN without any."""
    from unibiomed.metrics.chest_labels import chest_label_agreement, mentioned_findings

    pairs = [
        (answer, reference)
        for include, answer, reference in zip(included, answers, references, strict=True)
        if include and mentioned_findings(reference)
    ]
    return chest_label_agreement([a for a, _ in pairs], [r for _, r in pairs]).micro_f1
