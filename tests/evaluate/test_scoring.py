"""Scores do not depend on the number of processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unibiomed.errors import OutputError
from unibiomed.evaluate import distributed, scoring
from unibiomed.evaluate.predict import predict_cases
from unibiomed.evaluate.predictors import Predictor, PredictorContext, make_predictor
from unibiomed.evaluate.predictors.files import FilesPredictor
from unibiomed.evaluate.record_selection import suite_records
from unibiomed.evaluate.samples import Partition, make_cases
from unibiomed.evaluate.scoring import file_predictors, profile_of, sample_scores_path, score_cases, score_in_processes
from unibiomed.evaluate.suite import PerturbationOptions, Suite

SUITE = Suite(
    "toy", paraphrases={"segment": ["Where is the {target}?"]}, perturbations=PerturbationOptions(["flip", "noise"], 2)
)
IMAGES = 5


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """Folder of masks, one of which belongs to no image."""
    folder = tmp_path / "masks"
    for name in ("test_0_liver", "test_1_liver", "test_2_liver tumor", "unknown_liver"):
        path = folder / "organs" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 30), 255, np.uint8)).save(path)
    return folder


def made(masks: Path, toy_training) -> list[Predictor]:
    found = [
        make_predictor(spec, PredictorContext(toy_training))
        for spec in (f"files:{masks}", "baseline:empty", "baseline:nearest-neighbor")
    ]
    found[2].true_box = True  # type: ignore[attr-defined]
    return found


def paths_of(folder: Path, predictors: list[Predictor]) -> dict[str, Path]:
    return {p.name: sample_scores_path(folder, p.name) for p in predictors}


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 8])
def test_partitions_give_the_same_scores(toy_root, toy_training, masks, tmp_path, monkeypatch, parts):
    broken = toy_root / "organs" / "masks" / "test_1_liver.png"
    kept = broken.read_bytes()
    broken.write_bytes(b"nothing")
    try:
        whole, divided = made(masks, toy_training), made(masks, toy_training)
        predict_cases(make_cases(SUITE, suite_records(SUITE, toy_root), unreadable={}), whole, tmp_path, progress=False)
        unreadable: list[dict[str, str]] = [{}, {}]
        cases = make_cases(SUITE, suite_records(SUITE, toy_root), unreadable=unreadable[0])
        paths = paths_of(tmp_path, whole)
        known = score_cases(cases, list(map(profile_of, whole)), file_predictors(whole), tmp_path, paths, unreadable[0])
        rows = {path: path.read_bytes() for path in paths.values()}

        def no_model(*_: object) -> None:
            raise AssertionError("a model is loaded")

        monkeypatch.setattr(distributed, "make_predictor", no_model)
        monkeypatch.setattr(scoring, "TASKS_PER_WORKER", parts)
        # files of an interrupted run
        (tmp_path / "scores" / ".parts" / "0").mkdir(parents=True)
        again = score_in_processes(
            SUITE, toy_root, IMAGES, divided, tmp_path, paths, 1, unreadable=unreadable[1], progress=False
        )
    finally:
        broken.write_bytes(kept)
    assert again == known and len(known) > 50
    assert unreadable[0] == unreadable[1] and list(unreadable[0]) == ["organs/test_1"]
    assert all(rows.values()) and rows == {path: path.read_bytes() for path in (tmp_path / "scores").iterdir()}
    (first,), (second,) = file_predictors(whole), file_predictors(divided)
    assert first.unmatched() == second.unmatched() == ["organs/unknown_liver.png"]


def test_failure_keeps_the_old_scores(toy_root, toy_training, masks, tmp_path, monkeypatch):
    predictors = made(masks, toy_training)
    paths = paths_of(tmp_path, predictors)
    for path in paths.values():
        path.parent.mkdir(exist_ok=True)
        path.write_text("old")
    original, scored = scoring.score_case_or_fail, []

    def full(case, *more):
        scored.append(case.record.key)
        if case.record.dataset == "quiz":
            raise OutputError("'scores' cannot be written")
        return original(case, *more)

    monkeypatch.setattr(scoring, "score_case_or_fail", full)
    with pytest.raises(OutputError):
        score_in_processes(SUITE, toy_root, IMAGES, predictors, tmp_path, paths, 1, unreadable={}, progress=False)
    # some tasks were finished
    assert scored[0].startswith("organs") and sorted((tmp_path / "scores").iterdir()) == sorted(paths.values())
    assert all(path.read_text() == "old" for path in paths.values())


def test_progress_bar_counts_images(toy_root, toy_training, masks, tmp_path, monkeypatch, capsys):
    predictors = made(masks, toy_training)
    monkeypatch.setattr(scoring, "TASKS_PER_WORKER", 2)
    score_in_processes(SUITE, toy_root, IMAGES, predictors, tmp_path, paths_of(tmp_path, predictors), 1, unreadable={})
    assert "5/5" in capsys.readouterr().err


def test_blocks_are_consecutive():
    blocks = [[place for place in range(11) if Partition(rank, 3, 4).contains(place)] for rank in range(3)]
    assert blocks == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert [place for place in range(7) if Partition(1, 3).contains(place)] == [1, 4]


def test_matched_files_of_parts_add_up(toy_cases, masks):
    whole, gathered = FilesPredictor(masks), FilesPredictor(masks)
    for case in toy_cases(datasets=["organs"], tasks=["segment"]):
        whole.match(case)
        part = FilesPredictor(masks)
        part.match(case)
        gathered.matched.add(part.matched)
    assert gathered.matched == whole.matched and gathered.matched.files
