"""Intervals of text metrics: resampled sums give the same values as scoring each resample."""

from __future__ import annotations

import numpy as np
import pytest

from unibiomed.evaluate.sample_scores import SampleScore
from unibiomed.evaluate.text_metrics import _intervals, text_scores
from unibiomed.metrics.intervals import SEED
from unibiomed.metrics.language import bleu, rouge_l

ANSWERS = ["a large mass in the liver", "no mass", "the lungs are clear", "", "a small mass in the left kidney"]
REFERENCES = ["a large mass in the right liver", "no mass is seen", "the lungs are clear", "a cyst", "a mass"]


def test_intervals_match_scoring_every_resample(monkeypatch):
    monkeypatch.setattr("unibiomed.evaluate.text_metrics.RESAMPLES", 60)
    subjects = ["a", "a", "b", "c", "d"]
    found = _intervals(ANSWERS, REFERENCES, subjects)
    drawn = []
    for row in np.random.default_rng(SEED).multinomial(4, np.full(4, 1 / 4), size=60):
        picked = [i for i, s in enumerate(subjects) for _ in range(row["abcd".index(s)])]
        answers, references = [ANSWERS[i] for i in picked], [[REFERENCES[i]] for i in picked]
        drawn.append((*bleu(answers, references), rouge_l(answers, references)))
    for name, values in zip(("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L"), np.transpose(drawn), strict=True):
        ends = np.quantile(values, [0.025, 0.975])
        assert [found[name]["low"], found[name]["high"]] == pytest.approx(list(ends), abs=2e-4), name


def test_one_subject_has_no_interval():
    assert _intervals(ANSWERS, REFERENCES, ["a"] * 5) == {}


def test_identical_answers_have_a_narrow_interval():
    found = _intervals(["the lungs are clear"] * 4, ["the lungs are clear"] * 4, list("abcd"))
    assert found["BLEU-4"] == found["ROUGE-L"] == {"low": 1.0, "high": 1.0}


def test_values_lie_in_their_intervals():
    rows = [
        SampleScore(f"set/{i}#report", "report", "set", "CT", f"set/{i}", i, answer=a, reference=r)
        for i, (a, r) in enumerate(zip(ANSWERS, REFERENCES, strict=True))
    ]
    found = text_scores(rows)
    assert set(found["intervals"]) == {"BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L"}
    for name, ends in found["intervals"].items():
        assert ends["low"] - 1e-6 <= found[name] <= ends["high"] + 1e-6 or name in ("BLEU-3", "BLEU-4")
