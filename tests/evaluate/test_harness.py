from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unibiomed.cli import main
from unibiomed.errors import DataError, InputError
from unibiomed.evaluate import harness, scoring
from unibiomed.evaluate.harness import evaluate
from unibiomed.evaluate.predictors import PredictorContext, make_predictor, predictor_name
from unibiomed.evaluate.predictors.files import FilesPredictor
from unibiomed.evaluate.suite import PairOptions, PerturbationOptions, Suite, read_suite

ENTRY = """
name = "toy"
licence = "CC0"
adapter = "images"
modality = "endoscopy"
site = "colon"
abnormal_known = true
split = { pattern = '^(train|test)' }
[[targets]]
name = "polyp"
abnormal = true
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six training and four test images with a bright disc, except the last one of each split."""
    root = tmp_path / "data"
    folder = root / "toy"
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    (folder / "dataset.toml").write_text(ENTRY)
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 4)):
        for i in range(count):
            y, x = np.mgrid[:40, :60]
            mask = (y - 20) ** 2 + (x - 20 - 3 * i) ** 2 < 80 if i < count - 1 else np.zeros((40, 60), dtype=bool)
            pixels = (rng.integers(0, 60, (40, 60)) + 150 * mask).astype(np.uint8)
            Image.fromarray(np.stack([pixels] * 3, 2)).save(folder / "images" / f"{split}_{i}.png")
            Image.fromarray(mask.astype(np.uint8)).save(folder / "masks" / f"{split}_{i}.png")
    return root


def masks_of(data: Path, out: Path, *, change=None) -> Path:
    """Write predictions that equal the ground truth, or the result of `change`."""
    for path in (data / "toy" / "masks").glob("test_*.png"):
        mask = np.asarray(Image.open(path))
        target = out / "toy" / path.stem / "polyp.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask if change is None else change(mask)).save(target)
    return out


SUITE = Suite("toy", tasks=["segment"], out_of_context=False, pairs=PairOptions())


def test_perfect_masks_and_baselines(data, tmp_path):
    folder = masks_of(data, tmp_path / "perfect")
    found = evaluate(SUITE, [f"files:{folder}"], data, tmp_path / "out", pictures=2, progress=False).results
    strict = found["models"]["perfect"]["segment"]["strict"]
    assert strict["dice"]["value"] == 1.0 and strict["dice"]["count"] == 3
    assert strict["false_masks"] == strict["false_masks"] | {"value": 0.0, "count": 1}
    assert found["models"]["perfect"]["failures"] == {}
    assert found["models"]["perfect"]["pairs"]["masks"]["set_accuracy"]["value"] == 1.0
    assert found["models"]["empty"]["segment"]["strict"]["dice"]["value"] == 0.0
    assert found["models"]["empty"]["segment"]["strict"]["dice_with_absent"]["value"] == 0.25
    assert 0 < found["models"]["mean-shape"]["segment"]["strict"]["dice"]["value"] < 1
    # the training split shows the same discs
    assert found["models"]["nearest-neighbor"]["segment"]["strict"]["dice"]["value"] == 1.0
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == found
    tables = (tmp_path / "out" / "tables" / "tables.md").read_text()
    assert "| perfect | 1.000" in tables and "mean-shape" in tables
    page = (tmp_path / "out" / "index.html").read_text()
    assert "perfect" in page and page.count("Not for clinical use without validation") == 1
    assert list((tmp_path / "out" / "figures").glob("*.svg"))
    # three images: the worst, the median and the best
    assert len(list((tmp_path / "out" / "examples" / "perfect").glob("*.png"))) == 3
    assert not (tmp_path / "out" / "examples" / "empty").exists()
    assert r"\begin{tabular}" in (tmp_path / "out" / "tables" / "segmentation.tex").read_text()


def test_every_sample_is_scored(data, tmp_path):
    folder = masks_of(data, tmp_path / "holes")
    (folder / "toy" / "test_0" / "polyp.png").unlink()
    Image.fromarray(np.ones((9, 9), np.uint8)).save(folder / "toy" / "test_1" / "polyp.png")
    Image.fromarray(np.ones((40, 60), np.uint8)).save(folder / "toy" / "unknown_polyp.png")
    found = evaluate(
        SUITE, [f"files:{folder}"], data, tmp_path / "out", baselines=False, pictures=0, progress=False
    ).results
    table = found["models"]["holes"]
    assert table["segment"]["strict"]["dice"]["value"] == pytest.approx(1 / 3)
    assert sum(table["failures"].values()) == 2
    assert any("no prediction" in reason for reason in table["failures"])
    assert table["unmatched_files"] == ["toy/unknown_polyp.png"]
    failures, unmatched = (
        (tmp_path / "out" / "tables" / f"{name}.md").read_text() for name in ("failures", "unmatched_files")
    )
    assert "no prediction" in failures and "unknown_polyp.png" not in failures and "unknown_polyp.png" in unmatched


def test_predictions_of_a_larger_run_are_unmatched(data, tmp_path):
    folder = masks_of(data, tmp_path / "m")
    for suite, unknown in ((SUITE, 0), (replace(SUITE, limit=2), 2)):
        found = evaluate(
            suite, [f"files:{folder}"], data, tmp_path / "out", baselines=False, pictures=0, progress=False
        )
        table = found.results["models"]["m"]
        # the stored predictions and the masks that they were read from
        assert table["unmatched_count"] == 2 * unknown and table["failures"] == {}
    assert "| no failures |" in (tmp_path / "out" / "tables" / "failures.md").read_text()
    assert found.results["limit"] == 2 and found.results["selection"].startswith("At most 2 images of each data set")
    assert found.results["models"]["m"]["fingerprint"] == "files"


def test_modified_files_are_read_again(data, tmp_path, monkeypatch):
    folder = masks_of(data, tmp_path / "m")
    missing = folder / "toy" / "test_2" / "polyp.png"
    content = missing.read_bytes()
    missing.unlink()
    predicted: list[str] = []
    original = FilesPredictor.predict

    def spy(self, case, pixels):
        predicted.extend(sample.id for sample in case.samples)
        return original(self, case, pixels)

    monkeypatch.setattr(FilesPredictor, "predict", spy)

    def dice(model):
        predicted.clear()
        found = evaluate(SUITE, [model], data, tmp_path / "out", baselines=False, pictures=0, progress=False).results
        return found["models"]["m"]["segment"]["strict"]["dice"]["value"]

    assert dice(f"files:{folder}") == pytest.approx(2 / 3) and len(predicted) == 4
    # only failures are repeated
    assert dice(f"files:{folder}") == pytest.approx(2 / 3) and predicted == ["toy/test_2#segment/polyp"]
    missing.write_bytes(content)
    assert dice(f"files:{folder}") == 1.0 and len(predicted) == 4
    assert dice(f"files:{folder}") == 1.0 and predicted == []
    other = masks_of(data, tmp_path / "other", change=np.zeros_like)
    assert dice(f"m=files:{other}") == 0.0 and len(predicted) == 4


def test_predictions_of_another_model_are_refused(data, tmp_path):
    folder = masks_of(data, tmp_path / "m")
    out = tmp_path / "out"
    evaluate(SUITE, [f"files:{folder}"], data, out, baselines=False, pictures=0, progress=False)
    about = json.loads((out / "predictions" / "m" / "model.json").read_text())
    assert about == {"schema": 2, "name": "m", "fingerprint": "files", "note": "read from files"}
    for processes in (1, 2):
        with pytest.raises(InputError, match="predictions of another model named 'm'"):
            evaluate(
                SUITE,
                ["m=baseline:nearest-neighbor"],
                data,
                out,
                baselines=False,
                processes=processes,
                pictures=0,
                progress=False,
            )


def test_paraphrases_are_for_models_that_read_text(data, tmp_path):
    suite = replace(SUITE, paraphrases={"segment": ["Where is the {target}?"]})
    masks, stored = masks_of(data, tmp_path / "masks"), tmp_path / "stored"
    first = evaluate(suite, [f"files:{masks}"], data, tmp_path / "out", pictures=0, progress=False)
    assert len(list((first.folder / "predictions" / "masks" / "toy").iterdir())) == 4
    for found in first.results["models"].values():
        assert "paraphrases" not in found and found["unmatched_files"] == []
    # stored predictions are separate for each question
    shutil.copytree(first.folder / "predictions" / "masks", stored)
    second = evaluate(suite, [f"files:{stored}"], data, tmp_path / "again", baselines=False, pictures=0, progress=False)
    assert second.results["models"]["stored"]["paraphrases"]["segment"]["agreement"]["value"] == 0


def test_two_models_are_compared_and_need_two_names(data, tmp_path):
    good = masks_of(data, tmp_path / "a" / "m")
    bad = masks_of(data, tmp_path / "b" / "m", change=lambda mask: np.roll(mask, 5, 1))
    for processes in (1, 2):
        with pytest.raises(InputError, match="two models have the name 'm'"):
            models = [f"files:{good}", f"files:{bad}"]
            evaluate(SUITE, models, data, tmp_path / "out", processes=processes, pictures=0, progress=False)
    with pytest.raises(InputError, match=f"two models have the name 'empty'.*--model other=files:{good}"):
        evaluate(SUITE, [f"empty=files:{good}"], data, tmp_path / "out", pictures=0, progress=False)
    # before any prediction
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="two models have the name"):
        # both would use the same folder
        evaluate(SUITE, [f"a_b=files:{good}", f"a b=files:{bad}"], data, tmp_path / "out", progress=False)
    models = [f"good=files:{good}", f"bad=files:{bad}"]
    found = evaluate(SUITE, models, data, tmp_path / "out", baselines=False, pictures=0, progress=False).results
    assert list(found["models"]) == ["good", "bad"]
    # three subjects are too few for a test
    assert found["comparisons"] == []


def test_command_line(data, tmp_path, capsys):
    folder = masks_of(data, tmp_path / "perfect")
    suite = tmp_path / "suite.toml"
    suite.write_text('name = "mine"\ntasks = ["segment"]\n')
    out = tmp_path / "out"
    command = ["evaluate", str(suite), "--data", str(data), "--out", str(out)]
    assert main([*command, "--samples-only"]) == 0
    lines = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert {line["sample"] for line in lines} >= {"toy/test_0#segment/polyp", "toy/test_3#segment/polyp"}
    assert lines[0]["image"] == "toy/images/test_0.png" and lines[0]["target"] == "polyp"
    capsys.readouterr()
    assert main([*command, "--model", f"files:{folder}", "--no-baselines", "--pictures", "0"]) == 0
    assert "| perfect |" in capsys.readouterr().out
    with pytest.warns(FutureWarning, match="--no-floors is deprecated .* use --no-baselines"):
        assert main([*command, "--model", f"files:{folder}", "--no-floors", "--pictures", "0"]) == 0
    assert "| empty |" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing.toml"], "suite 'nothing.toml' not found"),
        (["shared", "--datasets", "lost"], "'lost' is not under"),
        (["shared", "--model", "files:lost"], "is not a folder: give the folder of the predictions"),
        (["shared", "--model", "oracle:me"], "model 'oracle:me' not found"),
        (["shared", "--model", "baseline:cellar"], "baseline 'cellar' not found"),
        (["shared", "--tasks", "guess"], "task 'guess' is unknown"),
    ],
)
def test_errors_are_one_line(data, tmp_path, capsys, arguments, words):
    assert main(["evaluate", *arguments, "--data", str(data), "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr().err
    assert words in printed and printed.count("\n") == 1


def test_several_processes_give_the_same_results(data, tmp_path, monkeypatch):
    folder = masks_of(data, tmp_path / "m", change=lambda mask: np.roll(mask, 2, 1))
    (folder / "toy" / "unknown_polyp.png").write_bytes(b"")
    suite = replace(
        SUITE, out_of_context=True, tasks=["segment", "recognize"], perturbations=PerturbationOptions(["noise"], 2)
    )
    # two images to score for each process
    monkeypatch.setattr(scoring, "TASKS_PER_WORKER", 1)
    one, two = (
        evaluate(
            suite,
            [f"files:{folder}"],
            data,
            tmp_path / name,
            processes=processes,
            pictures=0,
            progress=False,
        )
        for name, processes in (("one", 1), ("two", 2))
    )
    assert one.results == two.results and one.results["models"]["m"]["unmatched_files"]
    scores = [{p.name: p.read_bytes() for p in (out / "scores").iterdir()} for out in (one.folder, two.folder)]
    assert scores[0] == scores[1] and len(scores[0]) == 5
    kept = [sorted(p.name for p in (out / "predictions" / "m" / "toy").iterdir()) for out in (one.folder, two.folder)]
    assert kept[0] == kept[1] and len(kept[0]) > 4
    with pytest.raises(InputError, match="--processes 0 is too small"):
        evaluate(SUITE, [f"files:{folder}"], data, tmp_path / "three", processes=0, pictures=0, progress=False)
    with pytest.raises(InputError, match="--ray -3 is too small"):
        evaluate(SUITE, [f"files:{folder}"], data, tmp_path / "three", ray=-3, pictures=0, progress=False)


@pytest.mark.slow
def test_accelerate_gives_the_same_results(data, tmp_path):
    pytest.importorskip("accelerate")
    folder = masks_of(data, tmp_path / "m", change=lambda mask: np.roll(mask, 2, 1))
    suite = tmp_path / "toy.toml"
    suite.write_text('name = "toy"\ntasks = ["segment"]\nout_of_context = false\n')
    one = evaluate(read_suite(str(suite)), [f"files:{folder}"], data, tmp_path / "one", baselines=False, pictures=0)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--module", "unibiomed", "evaluate", str(suite)]
    command += ["--data", str(data), "--out", str(tmp_path / "two"), "--model", f"files:{folder}"]
    done = subprocess.run(
        [*command, "--no-baselines", "--pictures", "0"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "two" / "results.json").read_text())
    assert found.pop("run")["command"].startswith("unibiomed evaluate toy.toml --data data --out two --model files:m ")
    assert found == {name: part for name, part in one.results.items() if name != "run"}
    # the first process prints the table
    assert done.stdout.count("| m |") == 1


@pytest.mark.slow
def test_ray_gives_the_same_results(data, tmp_path):
    pytest.importorskip("ray")
    folder = masks_of(data, tmp_path / "m", change=lambda mask: np.roll(mask, 2, 1))
    one = evaluate(SUITE, [f"files:{folder}"], data, tmp_path / "one", baselines=False, pictures=0, progress=False)
    two = evaluate(
        SUITE, [f"files:{folder}"], data, tmp_path / "two", baselines=False, ray=2, pictures=0, progress=False
    )
    assert one.results == two.results


def test_baselines_without_a_training_split(data, tmp_path, monkeypatch, capsys):
    for path in (data / "toy" / "images").glob("train_*"):
        path.unlink()
    for path in (data / "toy" / "masks").glob("train_*"):
        path.unlink()
    tried = []
    real = harness.suite_records

    def spy(suite, root, split=None):
        tried.append(split)
        return real(suite, root, split)

    monkeypatch.setattr(harness, "suite_records", spy)
    folder = masks_of(data, tmp_path / "m")
    command = ["evaluate", "shared", "--data", str(data), "--out", str(tmp_path / "out"), "--tasks", "segment"]
    assert main([*command, "--model", f"files:{folder}", "--pictures", "0"]) == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert tried == [None, "train"] and list(found["models"]) == ["m", "empty"]
    (note,) = found["notes"]
    assert note.startswith("baselines mean-shape, most-frequent, nearest-neighbor were left out") and "\n" not in note
    assert note in capsys.readouterr().out


def test_missing_data_sets_are_listed(data, tmp_path, capsys):
    folder, suite = masks_of(data, tmp_path / "m"), tmp_path / "s.toml"
    names = ["toy", *(f"set{n}" for n in range(7))]
    suite.write_text(f'name = "s"\ntasks = ["segment"]\noptional = true\ndatasets = {json.dumps(names)}\n')
    command = ["evaluate", str(suite), "--data", str(data), "--out", str(tmp_path / "out"), "--no-baselines"]
    assert main([*command, "--model", f"files:{folder}", "--pictures", "0"]) == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["missing_datasets"] == [[f"set{n}", "not found"] for n in range(7)] and found["notes"] == []
    printed = capsys.readouterr().out.splitlines()
    assert any(line.startswith("7 data sets were not evaluated: set0 (not found), ") for line in printed)
    assert any(line.endswith("and 2 more") for line in printed)


def test_only_the_first_unmatched_files_are_listed(data, tmp_path):
    folder = masks_of(data, tmp_path / "m")
    for n in range(1022):
        (folder / "toy" / f"unknown{n:04}_polyp.png").write_bytes(b"")
    found = evaluate(SUITE, [f"files:{folder}"], data, tmp_path / "out", baselines=False, pictures=0, progress=False)
    names = found.results["models"]["m"]["unmatched_files"]
    assert len(names) == 21 and names[0] == "toy/unknown0000_polyp.png" and names[-1] == "and 1,002 more"
    assert found.results["models"]["m"]["unmatched_count"] == 1022


@pytest.mark.parametrize("spec", ["files:{0}", "me=files:{0}", "baseline:nearest-neighbor", "files:{0}/../m"])
def test_names_are_checked_before_loading(data, tmp_path, spec):
    spec = spec.format(masks_of(data, tmp_path / "m"))
    assert predictor_name(spec) == make_predictor(spec, PredictorContext(list)).name
    assert predictor_name("nano") == predictor_name("models/nano/") == "nano"
    assert predictor_name("sam:some/nano") == "nano (box)" and predictor_name("me#2=sam:some/nano") == "me (box)#2"


def test_suite_without_samples_is_an_error(data, tmp_path):
    with pytest.raises(DataError, match="suite 'toy' has no samples: none of its images can be used for ask"):
        evaluate(replace(SUITE, tasks=["ask"]), [], data, tmp_path / "out", progress=False)
    with pytest.raises(InputError, match="--pictures -1 is too small"):
        evaluate(SUITE, [], data, tmp_path / "out", pictures=-1, progress=False)


def test_without_pictures_an_old_page_is_removed(data, tmp_path):
    out, folder = tmp_path / "out", masks_of(data, tmp_path / "m")
    for pictures in (2, 0):
        evaluate(SUITE, [f"files:{folder}"], data, out, pictures=pictures, progress=False)
        there = {path.suffix for path in out.rglob("*") if path.is_file() and path.name != ".written"}
        assert (out / "index.html").exists() == bool(pictures)
        assert there >= {".html", ".svg", ".png"} if pictures else not there & {".html", ".svg", ".png"}


@pytest.mark.parametrize("name", ["images/test_0.png", "masks/test_0.png"])
@pytest.mark.parametrize("tasks", [["segment"], ["segment", "recognize"]])
def test_unreadable_files_are_counted_and_listed(data, tmp_path, name, tasks):
    folder = masks_of(data, tmp_path / "m")
    (data / "toy" / name).write_bytes(b"nothing")
    suite = replace(SUITE, tasks=tasks, paraphrases={"segment": ["Where is the {target}?"]})
    one, two = (
        evaluate(
            suite,
            [f"files:{folder}"],
            data,
            tmp_path / f"out{processes}",
            processes=processes,
            pictures=3 * (processes == 1),
            progress=False,
        ).results
        for processes in (1, 2)
    )
    assert one == two and one["images"] == 4
    ((key, reason),) = one["unreadable"]
    assert key == "toy/test_0" and reason
    table = one["models"]["m"]
    assert table["segment"]["strict"]["dice"]["value"] == pytest.approx(2 / 3)
    assert table["segment"]["strict"]["dice"]["count"] == 3
    assert sum(table["failures"].values()) == 1
    assert one["models"]["empty"]["segment"]["strict"]["dice"]["count"] == 3
    page = (tmp_path / "out1" / "samples" / "001.html").read_text()
    assert "toy/test_0" not in page and "test_0#segment/polyp" in page
