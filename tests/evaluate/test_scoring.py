"""Scores are the same however the work is divided."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unibiomed.errors import OutputError
from unibiomed.evaluate import scoring, spread
from unibiomed.evaluate.predictors import PredictorContext, Predictor, make_predictor
from unibiomed.evaluate.predictors.files import FilesPredictor
from unibiomed.evaluate.predict import predict_cases
from unibiomed.evaluate.samples import Partition, make_cases, suite_records
from unibiomed.evaluate.scoring import file_predictors, profile_of, sample_scores_path, score_cases, score_in_processes
from unibiomed.evaluate.suite import Perturbations, Suite

SUITE = Suite("toy", paraphrases={"segment": ["Where is the {target}?"]}, perturbations=Perturbations(["flip", "noise"], 2))
IMAGES = 5


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """A folder of masks, one of which is of no image."""
    folder = tmp_path / "masks"
    for name in ("test_0_liver", "test_1_liver", "test_2_liver tumor", "stranger_liver"):
        path = folder / "organs" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 30), 255, np.uint8)).save(path)
    return folder


def made(masks: Path, toy_training) -> list[Predictor]:
    found = [make_predictor(spec, PredictorContext(toy_training)) for spec in (f"files:{masks}", "floor:empty", "floor:nearest")]
    found[2].true_box = True  # type: ignore[attr-defined]
    return found


def paths_of(folder: Path, predictors: list[Predictor]) -> dict[str, Path]:
    return {p.name: sample_scores_path(folder, p.name) for p in predictors}


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 8])
def test_parts_give_the_rows_of_the_whole(toy_root, toy_training, masks, tmp_path, monkeypatch, parts):
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

        monkeypatch.setattr(spread, "make_predictor", no_model)
        monkeypatch.setattr(scoring, "PARTS_A_WORKER", parts)
        # what an earlier run left when it was killed
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
    assert first.unused() == second.unused() == ["organs/stranger_liver.png"]


def test_a_failure_leaves_no_part_and_the_old_scores(toy_root, toy_training, masks, tmp_path, monkeypatch):
    predictors = made(masks, toy_training)
    paths = paths_of(tmp_path, predictors)
    for path in paths.values():
        path.parent.mkdir(exist_ok=True)
        path.write_text("old")
    own, asked = scoring.rows_of, []

    def full(case, *more):
        asked.append(case.record.key)
        if case.record.dataset == "quiz":
            raise OutputError("'scores' cannot be written")
        return own(case, *more)

    monkeypatch.setattr(scoring, "score_case_or_fail", full)
    with pytest.raises(OutputError):
        score_in_processes(SUITE, toy_root, IMAGES, predictors, tmp_path, paths, 1, unreadable={}, progress=False)
    # some parts were done
    assert asked[0].startswith("organs") and sorted((tmp_path / "scores").iterdir()) == sorted(paths.values())
    assert all(path.read_text() == "old" for path in paths.values())


def test_the_bar_counts_images(toy_root, toy_training, masks, tmp_path, monkeypatch, capsys):
    predictors = made(masks, toy_training)
    monkeypatch.setattr(scoring, "PARTS_A_WORKER", 2)
    score_in_processes(SUITE, toy_root, IMAGES, predictors, tmp_path, paths_of(tmp_path, predictors), 1, unreadable={})
    assert "5/5" in capsys.readouterr().err


def test_blocks_follow_each_other():
    blocks = [[place for place in range(11) if Partition(rank, 3, 4).has(place)] for rank in range(3)]
    assert blocks == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert [place for place in range(7) if Partition(1, 3).has(place)] == [1, 4]


def test_claims_of_parts_add_up(toy_cases, masks):
    whole, gathered = FilesPredictor(masks), FilesPredictor(masks)
    for case in toy_cases(datasets=["organs"], tasks=["segment"]):
        whole.claim(case)
        part = FilesPredictor(masks)
        part.claim(case)
        gathered.claims.add(part.claims)
    assert gathered.claims == whole.claims and gathered.claims.files
