"""Numbers of the benchmark programs on synthetic scores; run times are not tested."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from unibiomed.evaluate.predictors.specialists import Specialist, UNet, save_specialist
from unibiomed.evaluate.scoring import sample_scores_path

from .conftest import CHECKOUT


@pytest.fixture
def ratio(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(CHECKOUT / "benchmarks"))
    import ratio

    yield ratio
    for name in ("ratio", "results"):
        sys.modules.pop(name, None)


def test_counts_of_results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    monkeypatch.syspath_prepend(str(CHECKOUT / "benchmarks"))
    import counts

    (tmp_path / "scores").mkdir()
    rows = [
        row("liver", 0, 2, predicted_present=True),
        row("liver", 1, 0, predicted_present=False),
        row("liver", 2, 0, target_present=False, predicted_present=True),
        row("polyp", 3, 0, target_present=False, predicted_present=True, kind="out_of_context"),
        row("polyp", 4, 0, target_present=False, predicted_present=False, kind="out_of_context"),
        row("liver", 1, 0, predicted_present=False, perturbation=["blur", 1]),
        {"task": "classify", "true_labels": ["cyst"], "predicted_labels": ["polyp"], "exact_match": False},
        {
            "task": "recognize",
            "target_present": False,
            "predicted_present": True,
            "exact_match": False,
            "dataset": "set",
        },
        {"task": "recognize", "target_present": True, "predicted_present": True, "exact_match": True, "dataset": "set"},
    ]
    (tmp_path / "scores" / "m.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in rows))
    monkeypatch.setattr(sys, "argv", ["counts.py", str(tmp_path), "--model", "m"])
    counts.main()
    assert capsys.readouterr().out.splitlines() == [
        "present targets with an empty mask: 1 of 2 (50.0 %): liver 1",
        "false masks, in context: 1 of 1 (100.0 %): liver 1",
        "false masks, out of context: 1 of 2 (50.0 %): polyp 1",
        "all false masks: 2 of 3 (66.7 %)",
        "boxes with a wrong class: 1 of 1 (100.0 %): cyst as polyp 1",
        "images with correct findings: 1 of 2 (50.0 %)",
        "abnormal images with a finding: 1 of 1 (100.0 %): set 1",
        "normal images with a finding: 1 of 1 (100.0 %): set 1",
    ]
    sys.modules.pop("counts")


def row(target: str, number: int, intersection: int, **more: object) -> dict[str, object]:
    """Return a score with two predicted and two true pixels, so that Dice is half of `intersection`."""
    return {
        "id": f"set/{number}#segment/{target}",
        "task": "segment",
        "dataset": "set",
        "modality": "CT",
        "subject": f"set/{number}",
        "image_index": number,
        "target": target,
        "kind": "in_context",
        "target_present": True,
        "predicted_present": intersection > 0,
        "intersection": intersection,
        "predicted_area": 2,
        "true_area": 2,
        **more,
    }


def write_rows(out: Path, model: str, rows: list[dict[str, object]]) -> None:
    path = sample_scores_path(out, model)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))


def test_ratio_uses_common_samples(ratio: ModuleType, tmp_path: Path, monkeypatch) -> None:
    nets = tmp_path / "nets"
    for target in ("liver", "kidney"):
        save_specialist(UNet(), Specialist("set", target, 64, 100), nets)
    left_out = [
        row("liver", 8, 0, kind="out_of_context"),
        row("liver", 9, 0, perturbation="blur"),
        row("liver", 10, 0, paraphrase=1),
        row("spleen", 1, 0),
    ]
    absent = row("liver", 7, 0, target_present=False, true_area=0, predicted_present=False, predicted_area=0)
    ours = [row("liver", 1, 2), row("liver", 2, 1), row("kidney", 1, 1), absent]
    write_rows(tmp_path, "nano", [*ours, *left_out])
    # only nano has the second liver
    theirs = [row("liver", 1, 1), row("kidney", 1, 2), {**absent, "predicted_area": 2, "predicted_present": True}]
    write_rows(tmp_path, "nets", [*theirs, *left_out])
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- specialists: ratio -->\nold\n<!-- end -->\nafter\n")
    monkeypatch.setattr(sys, "argv", ["ratio.py", str(page), str(tmp_path), str(nets)])
    ratio.main()
    text = page.read_text()
    assert "old" not in text and text.startswith("before\n") and text.endswith("after\n")
    lines = {cells[1]: cells[2:-1] for line in text.splitlines() if len(cells := line.split("|")) > 3}
    stripped = {name.strip(): [cell.strip() for cell in cells] for name, cells in lines.items()}
    assert stripped["liver"] == ["1", "2", "100", "1.000", "0.500", "2.00", "1.000", "0.250", "4.00"]
    assert stripped["kidney"] == ["1", "1", "100", "0.500", "1.000", "0.50", "0.500", "1.000", "0.50"]
    mean = stripped["mean over 2"]
    assert mean[:5] == ["2", "3", "200", "0.750", "0.750"] and mean[5].startswith("1")
    assert mean[6:8] == ["0.750", "0.625"] and mean[8].startswith("1.2")
    assert "left out on both sides: 1." in text


def test_target_missing_in_a_resample_keeps_its_mean(ratio: ModuleType) -> None:
    groups = [(np.array([1.0, 0.0]), np.array([1.0, 1.0])), (np.array([0.6]), np.array([0.8]))]
    weights = np.array([[1, 1, 1], [2, 0, 1], [0, 2, 0]])
    wanted = [(0.5 + 0.6) / (1 + 0.8), (1 + 0.6) / (1 + 0.8), (0 + 0.6) / (1 + 0.8)]
    assert ratio.macro_ratio(weights, groups) == pytest.approx(wanted)


def test_no_common_samples_is_an_error(ratio: ModuleType, tmp_path: Path, monkeypatch, capsys) -> None:
    save_specialist(UNet(), Specialist("set", "spleen", 64, 100), tmp_path / "nets")
    write_rows(tmp_path, "nano", [row("liver", 1, 2)])
    write_rows(tmp_path, "nets", [row("liver", 1, 2)])
    page = tmp_path / "page.md"
    page.write_text("<!-- specialists: ratio -->\nold\n<!-- end -->\n")
    monkeypatch.setattr(sys, "argv", ["ratio.py", str(page), str(tmp_path), str(tmp_path / "nets")])
    with pytest.raises(SystemExit) as caught:
        ratio.main()
    assert caught.value.code == 2 and "no target that both models were evaluated on" in capsys.readouterr().err
    assert "old" in page.read_text()


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(CHECKOUT / "benchmarks"))
    import sources

    yield sources
    for name in ("sources", "ratio", "results"):
        sys.modules.pop(name, None)


def test_external_and_internal_sources(sources: ModuleType, tmp_path: Path, monkeypatch, capsys) -> None:
    absent = {"target_present": False, "true_area": 0, "predicted_present": True}
    left_out = [
        row("liver", 8, 0, kind="out_of_context"),
        row("liver", 9, 0, perturbation="blur"),
        row("liver", 10, 0, paraphrase=1),
    ]
    internal = [row("liver", 1, 2), row("liver", 2, 2), row("kidney", 1, 1), row("liver", 3, 0, **absent), *left_out]
    other = [row("liver", 1, 1), row("liver", 2, 1), row("kidney", 1, 1), row("spleen", 1, 2)]
    write_rows(tmp_path / "a", "nano", internal)
    write_rows(
        tmp_path / "b", "nano", [{**one, "dataset": "held", "subject": f"held/{i}"} for i, one in enumerate(other)]
    )
    page = tmp_path / "page.md"
    page.write_text("<!-- sources: sources -->\nold\n<!-- end -->\n")
    monkeypatch.setattr(sys, "argv", ["sources.py", str(tmp_path / "a"), str(tmp_path / "b"), "--page", str(page)])
    sources.main()
    printed = capsys.readouterr().out
    table = {
        cells[1].strip(): [c.strip() for c in cells[2:-1]]
        for line in printed.splitlines()
        if len(cells := line.split("|")) > 3
    }
    assert table["liver"][:5] == ["held", "2", "2", "1.000", "0.500"] and table["liver"][5].startswith("0.50")
    # including the absent target, which has a false mask
    assert table["liver"][6:8] == ["0.667", "0.500"] and table["liver"][8].startswith("0.75")
    assert table["kidney"][:5] == ["held", "1", "1", "0.500", "0.500"] and table["kidney"][5].startswith("1.00")
    assert table["mean over 2"][3:5] == ["0.750", "0.500"] and table["mean over 2"][5].startswith("0.67")
    assert "left out: spleen" in printed and "0.67" in page.read_text()


def test_sources_must_be_held_out(sources: ModuleType, tmp_path: Path, monkeypatch, capsys) -> None:
    write_rows(tmp_path / "a", "nano", [row("liver", 1, 2)])
    write_rows(tmp_path / "b", "nano", [row("liver", 2, 2)])
    write_rows(tmp_path / "c", "nano", [{**row("spleen", 2, 2), "dataset": "held"}])
    for other, words in (("b", "set: in both evaluations"), ("c", "no target in common")):
        monkeypatch.setattr(sys, "argv", ["sources.py", str(tmp_path / "a"), str(tmp_path / other)])
        with pytest.raises(SystemExit) as caught:
            sources.main()
        assert caught.value.code == 2 and words in capsys.readouterr().err
