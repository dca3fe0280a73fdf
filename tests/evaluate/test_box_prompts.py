"""Segmentation from ground-truth boxes: samples, predictors, scores and tables."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from unibiomed.evaluate.harness import evaluate
from unibiomed.evaluate.predict import predict_case
from unibiomed.evaluate.predictions import Prediction, PredictionStore
from unibiomed.evaluate.predictors import PredictorContext, make_predictor, predictor_name, samples_for
from unibiomed.evaluate.predictors.baselines import FilledBox
from unibiomed.evaluate.predictors.box_prompts import BoxPredictor
from unibiomed.evaluate.predictors.unibiomed_model import UniBiomedPredictor
from unibiomed.evaluate.record_selection import suite_records
from unibiomed.evaluate.samples import make_cases
from unibiomed.evaluate.suite import Suite, read_suite
from unibiomed.images.geometry import mask_box
from unibiomed.interpret import load

SIZE = (20, 30)


class Shrunk(BoxPredictor):
    """Predicts the box without its border."""

    name = "shrunk (box)"

    def __init__(self) -> None:
        self.calls: list[list[tuple[int, int, int, int]]] = []

    def outline(self, pixels, boxes):
        self.calls.append(boxes)
        out = {}
        for x0, y0, x1, y1 in boxes:
            mask = np.zeros(pixels.shape[:2], bool)
            mask[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1] = True
            out[x0, y0, x1, y1] = mask, 0.5
        return out


@pytest.fixture(scope="module")
def boxed(toy_cases):
    return toy_cases(datasets=["organs"], tasks=["outline"])


def test_boxes_suite_has_the_task_outline_only():
    suite = read_suite("boxes")
    assert suite.tasks == ["outline"]
    # other suites have the tasks of the language model
    assert "outline" not in Suite("toy").tasks and len(Suite("toy").tasks) == 6


def test_each_present_region_has_its_tight_box(boxed):
    assert [[s.target for s in case.samples] for case in boxed] == [["liver", "liver tumor"], ["liver"]]
    for case in boxed:
        masks = case.masks(SIZE)
        for sample in case.samples:
            [truth] = case.truths(sample, masks, SIZE)
            assert sample.box == mask_box(truth) and sample.kind == "in_context" and sample.modality == "CT"
            assert sample.id == f"{case.record.key}#outline/{sample.target}"


def test_unreadable_image_keeps_its_samples(toy_root, monkeypatch):
    suite = Suite("toy", datasets=["organs"], tasks=["outline"])
    records = suite_records(suite, toy_root)
    broken = [replace(r, image=toy_root / "gone.png") if r.key.endswith("test_0") else r for r in records]
    unreadable: dict[str, str] = {}
    [first, *_] = make_cases(suite, broken, unreadable=unreadable)
    assert list(unreadable) == ["organs/test_0"] and {s.target for s in first.samples} == {"liver", "liver tumor"}


def test_filled_box(boxed):
    for prediction, sample in zip(
        predict_case(FilledBox(), boxed[0], boxed[0].pixels()), boxed[0].samples, strict=True
    ):
        x0, y0, x1, y1 = sample.box
        [mask] = prediction.decode(SIZE)
        assert mask.sum() == (x1 - x0) * (y1 - y0) and mask[y0:y1, x0:x1].all()


def test_both_tasks_use_the_same_boxes(toy_cases):
    [case, *_] = toy_cases(datasets=["organs"], tasks=["outline", "segment"], out_of_context=False)
    predictor = Shrunk()
    found = predict_case(predictor, case, case.pixels())
    assert [s.task for s in case.samples] == ["segment"] * 2 + ["outline"] * 2
    # the image is encoded once
    assert len(predictor.calls) == 1 and len(predictor.calls[0]) == 2
    assert [p.masks for p in found[:2]] == [p.masks for p in found[2:]]
    assert all(p.mask_scores == (0.5,) and p.scores == (None,) for p in found)


def test_unibiomed_model_supports_outline_with_box_prompts(boxed, monkeypatch):
    interpreter = load(device="cpu")
    # either way to segment a box, SAM2's box prompt or the box decoder, is sufficient
    monkeypatch.setattr(interpreter.model.config, "box_decoder", False)
    monkeypatch.setattr(interpreter.model.config, "box_prompt", False)
    predictor = UniBiomedPredictor(interpreter)
    assert "outline" not in predictor.tasks and samples_for(predictor, boxed[0].samples) == []
    monkeypatch.setattr(interpreter.model.config, "box_decoder", True)
    predictor = UniBiomedPredictor(interpreter)
    found = predict_case(predictor, boxed[0], boxed[0].pixels())
    assert [p.error for p in found] == [None, None]
    assert [p.labels for p in found] == [("liver",), ("liver tumor",)]
    assert all(p.scores == (None,) and 0 <= p.mask_scores[0] <= 1 for p in found)
    direct = interpreter.interpret(boxed[0].pixels(), "outline", box=boxed[0].samples[0].box)
    assert np.array_equal(found[0].decode(SIZE)[0], direct.findings[0].mask)


def test_predictor_names():
    assert predictor_name("medsam:lite") == "LiteMedSAM (box)"
    assert predictor_name("MedSAM=medsam:/tmp/lite_medsam.pth") == "MedSAM (box)"
    assert make_predictor("baseline:filled-box", PredictorContext(list)).tasks == {"outline"}


def test_full_evaluation(toy_root, toy_cases, tmp_path):
    suite = Suite("toy", datasets=["organs"], tasks=["outline"])
    folder = tmp_path / "perfect"
    store = PredictionStore(folder)
    for case in toy_cases(datasets=["organs"], tasks=["outline"]):
        masks = case.masks(SIZE)
        for sample in case.samples:
            store.write(Prediction.from_masks(sample.id, "", [sample.target], case.truths(sample, masks, SIZE)))
    out = tmp_path / "out"
    found = evaluate(suite, [f"files:{folder}"], toy_root, out, pictures=2, progress=False).results
    assert set(found["models"]) == {"perfect", "filled-box"}, "no other baseline supports this task"
    perfect, filled = (found["models"][name]["outline"]["strict"] for name in ("perfect", "filled-box"))
    assert perfect["dice"]["value"] == 1.0 and perfect["targets"]["liver"]["dice"]["count"] == 2
    assert 0.5 < filled["dice"]["value"] < 1.0
    tables = (out / "tables" / "tables.md").read_text()
    assert "Segmentation from a ground-truth box" in tables and "Dice from a ground-truth box by target" in tables
    row = next(line for line in (out / "tables" / "outline.md").read_text().splitlines() if "perfect" in line)
    assert "1.000" in row
    head, _, *lines = (line for line in (out / "tables" / "overview.md").read_text().splitlines() if line[:1] == "|")
    place = [cell.strip() for cell in head.split("|")].index("Dice, true box")
    assert lines[0].split("|")[place].strip().startswith("1.000")
    assert (out / "index.html").exists()
