"""Comparison of models: paired by subject, two tests with effect sizes, with Holm's correction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from unibiomed.evaluate.compare import compare
from unibiomed.evaluate.sample_scores import SampleScore, SampleScoreWriter
from unibiomed.metrics.statistics import holm


def segment(
    subject: int, image: int, dice: float, *, target_present: bool = True, kind: str = "in_context"
) -> SampleScore:
    name = f"set/{subject}_{image}{'' if target_present else '_absent'}"
    row = SampleScore(
        f"{name}#segment/liver",
        "segment",
        "set",
        "CT",
        f"set/{subject}",
        image,
        "liver",
        kind,
        target_present=target_present,
    )
    row.true_area = 1000 * target_present
    # without the target, Dice is 1 or 0
    row.predicted_area = 1000 if target_present else 1000 * (dice < 1)
    row.intersection, row.predicted_present = round(1000 * dice) if target_present else 0, bool(row.predicted_area)
    return row


def written(path: Path, rows: list[SampleScore]) -> Path:
    with SampleScoreWriter(path) as writer:
        for row in rows:
            writer.add(row)
    return path


@pytest.fixture
def scores(tmp_path: Path) -> dict[str, Path]:
    rng = np.random.default_rng(1)
    out = {}
    for name, quality in (("a", 0.7), ("b", 0.6), ("c", 0.65)):
        rows = []
        for subject in range(12):
            rows += [segment(subject, i, float(np.clip(quality + rng.normal(0, 0.1), 0, 1))) for i in range(3)]
            rows.append(segment(subject, 3, float(rng.random() < quality), target_present=False))
            rows.append(segment(subject, 4, 0.0, target_present=False, kind="out_of_context"))
        out[name] = written(tmp_path / f"{name}.jsonl", rows)
    return out


def test_both_dice_measures_are_compared_by_subject(scores):
    found = compare(scores)
    assert [(c["b"], c["measure"], c["count"]) for c in found] == [
        (b, measure, 12) for b in "bc" for measure in ("Dice", "Dice incl. absent targets")
    ]


def test_both_tests_have_effect_sizes_and_holm_correction(scores):
    found = compare(scores)
    for raw, adjusted in (("p_t", "p_adjusted"), ("p_wilcoxon", "p_wilcoxon_adjusted")):
        assert [c[adjusted] for c in found] == pytest.approx(list(holm([c[raw] for c in found])))
    assert all(-1 <= c["rank_biserial"] <= 1 for c in found)


def test_effects_match_their_definitions(tmp_path):
    higher = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    lower = [0.8, 0.6, 0.4, 0.2, 0.6, 0.35]
    paths = {
        name: written(tmp_path / f"{name}.jsonl", [segment(i, 0, d) for i, d in enumerate(values)])
        for name, values in (("x", higher), ("y", lower))
    }
    # without absent targets both Dice measures are equal and compared once
    (first,) = compare(paths)
    assert first["measure"] == "Dice"
    differences = np.subtract(higher, lower)
    assert first["difference"] == pytest.approx(differences.mean())
    assert first["effect"] == pytest.approx(differences.mean() / differences.std(ddof=1))
    assert first["p_t"] == pytest.approx(stats.ttest_rel(higher, lower).pvalue)
    ranks = stats.rankdata(np.abs(differences).round(6)) * np.sign(differences)
    assert first["rank_biserial"] == pytest.approx(ranks.sum() / np.abs(ranks).sum(), abs=0.06)
    assert first["p_wilcoxon_adjusted"] == first["p_wilcoxon"]


def test_single_model_has_no_comparison(scores):
    assert compare({"a": scores["a"]}) == []


def test_texts_and_masks_of_findings_are_compared(tmp_path):
    def rows(good: bool) -> list[SampleScore]:
        out = []
        for i in range(6):
            for task in ("describe", "report", "recognize"):
                out.append(
                    SampleScore(
                        f"set/{i}#{task}", task, "set", "CT", f"set/{i}", i, target_present=True, exact_match=False
                    )
                )
                out[-1].reference, out[-1].answer = "a polyp of the colon", "a polyp" if good or i else "nothing"
                out[-1].intersection, out[-1].predicted_area, out[-1].true_area = 5 + good * (i % 3), 10, 10
        return out

    found = compare({name: written(tmp_path / f"{name}.jsonl", rows(name == "a")) for name in "ab"})
    by_measure = {one["measure"]: one["difference"] for one in found}
    assert list(by_measure) == [
        "recognition accuracy",
        "recognition Dice",
        "region reports, ROUGE-L",
        "grounded reports, ROUGE-L",
    ]
    assert by_measure["recognition Dice"] == pytest.approx(0.1)
    assert by_measure["region reports, ROUGE-L"] == by_measure["grounded reports, ROUGE-L"] > 0


def test_predictors_with_true_box_are_not_compared_on_absent_targets(scores, tmp_path):
    rows = [segment(subject, image, 0.9, target_present=image < 3) for subject in range(12) for image in range(4)]
    for row in rows:
        row.true_box = True
    found = compare({"a": scores["a"], "box": written(tmp_path / "box.jsonl", rows)})
    assert [one["measure"] for one in found] == ["Dice"]
