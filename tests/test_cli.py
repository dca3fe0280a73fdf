"""The command line: output, files, and errors."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

import unibiomed
import unibiomed.interpret.demo
from unibiomed import interpret
from unibiomed.cli import NOTICE, main
from unibiomed.findings import Interpretation
from unibiomed.images import mask_to_slice
from unibiomed.interpret.vocabulary import ModelVocabulary
from unibiomed.tasks import TASKS

HEIGHT, WIDTH = 61, 97
PATIENT = ("Mustermann", "Erika", "PID-98765", "19510203", "Charite-Nord")


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    path = Path(__file__).parent / "interpret" / "tiny.py"
    spec = importlib.util.spec_from_file_location("tiny_interpreter", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def model(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def loaded(model: Path) -> interpret.Interpreter:
    return interpret.load(model, device="cpu")


@pytest.fixture
def script(tiny: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    return tiny.Script().install(monkeypatch)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with ``eye.png`` of 61 x 97 pixels."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("eye.png")
    return tmp_path


@dataclass
class Run:
    code: int
    out: str
    err: str


Command = Callable[..., Run]


@pytest.fixture
def command(here: Path, capfd: pytest.CaptureFixture[str]) -> Command:
    """``unibiomed ...`` in this process."""

    def run(*words: str) -> Run:
        capfd.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as end:
            code = int(end.code or 0)
        return Run(code, *capfd.readouterr())

    return run


@pytest.fixture
def ask(command: Command, loaded: interpret.Interpreter, monkeypatch: pytest.MonkeyPatch) -> Command:
    """``unibiomed interpret ...`` with the tiny model, which is loaded already."""
    monkeypatch.setattr(interpret, "load", lambda *_, **__: loaded)
    return lambda *words: command("interpret", *words)


def below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def refused(run: Run, pattern: str, before: set[str], folder: Path) -> None:
    """Check exit code 2, one line on stderr, no output, and no files."""
    assert run.code == 2
    assert run.out == ""
    assert run.err.startswith("unibiomed: ") and run.err.endswith("\n") and run.err.count("\n") == 1, run.err
    assert re.search(pattern, run.err), run.err
    assert "Traceback" not in run.err and len(run.err) < 600
    assert below(folder) == before


# ---------------------------------------------------------------- tasks


ANSWERS = {
    "segment": ("It is [SEG].", ["liver"], "liver: found"),
    "recognize": ("It is [SEG]. Liver tumor", ["Liver tumor"], "Liver tumor"),
    "report": ("<p> A mass </p> [SEG] on the left.", ["A mass"], "A mass on the left"),
    "classify": ("liver in abdomen CT", ["liver"], "liver in abdomen CT"),
    "describe": ("A round nodule.", ["region"], "A round nodule."),
    "ask": ("Computed tomography.", [], "Computed tomography."),
    "outline": ("", ["region in box"], "Outlined the region in the box."),
}


@pytest.mark.parametrize("task", TASKS)
def test_every_task(ask, script, here, loaded, monkeypatch, task):
    monkeypatch.setattr(loaded.model.config, "box_prompt", True)
    answer, labels, text = ANSWERS[task]
    script.says = [answer]
    needs = TASKS[task]
    words = ["eye.png", "--task", task, "--out", "out"]
    words += ["--target", "liver"] if needs.needs_target else []
    words += ["--box", "10,20,40,50"] if needs.needs_box else []
    words += ["--ask", "What is it?"] if needs.needs_question else []
    run = ask(*words)
    assert (run.code, run.err) == (0, "")
    assert run.out.startswith(f"eye.png\n{text}") and NOTICE in run.out and "Results written to out." in run.out
    result = Interpretation.from_dict(json.loads((here / "out" / "eye_findings.json").read_text()))
    assert result.task == task and [f.label for f in result.findings] == labels
    assert (result.height, result.width, result.model) == (HEIGHT, WIDTH, "tiny")
    masks = [f for f in result.findings if f.mask is not None]
    assert len(below(here / "out")) == 2 + len(masks)
    assert Image.open(here / "out" / "eye_overlay.png").width >= WIDTH
    for label in labels:
        assert label in run.out
    assert ("#  finding  " in run.out) == bool(labels), "a table only if there are findings"


@pytest.mark.parametrize(
    ("words", "task"),
    [
        ([], "recognize"),
        (["--target", "liver"], "segment"),
        (["--box", "1,2,30,40"], "classify"),
        (["--ask", "Is there a mass?"], "ask"),
        (["--ask", "What is in the box?", "--box", "1,2,30,40"], "ask"),
    ],
)
def test_the_task_follows_from_what_is_given(ask, script, words, task):
    script.says = ["It is [SEG]."]
    run = ask("eye.png", *words, "--json")
    assert run.code == 0 and json.loads(run.out)["task"] == task


def test_many_targets_and_an_absent_one(ask, script, here):
    script.says, script.presence = ["It is [SEG]."] * 3, [4.0, -4.0, 4.0]
    run = ask("eye.png", "--target", "optic disc", "--target", "optic cup", "--target", "retinal vessel")
    assert run.code == 0 and "optic disc: found; optic cup: not found; retinal vessel: found" in run.out
    rows = [line for line in run.out.splitlines() if re.match(r"\d  ", line)]
    assert [("not found" in row) for row in rows] == [False, True, False]
    assert "98.2 %" in rows[0] and "1.8 %" in rows[1] and "75.0 %" in rows[0]
    out = here / "unibiomed-results"
    mask = np.asarray(Image.open(out / "eye_1_optic-disc.png"))
    assert mask.shape == (HEIGHT, WIDTH) and set(np.unique(mask)) == {0, 255}
    assert not np.asarray(Image.open(out / "eye_2_optic-cup.png")).any()


def test_no_findings(ask, script, here):
    script.says = ["No findings."]
    run = ask("eye.png", "--out", "out")
    assert run.code == 0 and "No findings" in run.out
    document = json.loads((here / "out" / "eye_findings.json").read_text())
    assert [f["present"] for f in document["findings"]] == [False]
    assert not np.asarray(Image.open(here / "out" / "eye_1_no-findings.png")).any()


def test_notes_are_printed(ask, script):
    script.says, script.finished = ["It is a long"], False
    assert "Note: the answer was cut at its longest length.\n" in ask("eye.png", "--ask", "What?").out


def test_unknown_targets_are_searched_only_with_allow_unknown(ask, script, loaded, monkeypatch):
    script.says = ["It is [SEG]."]
    monkeypatch.setattr(loaded, "vocabulary", ModelVocabulary({"liver": ()}))
    out = ask("eye.png", "--target", "livr", "--modality", "CT").out
    assert out.splitlines()[1] == "livr: not searched" and "Closest known terms: liver" in out
    out = ask("eye.png", "--target", "livr", "--modality", "CT", "--allow-unknown").out
    assert "livr: found" in out and "searched as typed" in out


def test_searched_targets_are_printed(ask, script, loaded, monkeypatch):
    script.says = lambda question: "It is [SEG]." if "segment the" in question else "No findings"
    script.presence = [-6.0]
    monkeypatch.setattr(loaded, "vocabulary", ModelVocabulary({}, {}, {}, {"endoscopy": ["polyp"]}))
    monkeypatch.setattr(loaded.model.config, "presence_calibration", [1.0, 0.0])
    run = ask("eye.png", "--task", "report", "--modality", "endoscopy")
    assert "Searched: polyp 0.2 %\n" in run.out


def test_the_modality_is_part_of_the_question(ask, script):
    script.says = ["It is [SEG]."]
    assert ask("eye.png", "--target", "optic disc", "--modality", "fundus").code == 0
    assert script.questions == ["Please segment the optic disc in the fundus image."]


# ---------------------------------------------------------------- pixel grids


def test_dicom_gives_areas_in_square_millimetres(ask, script, here):
    path = get_testdata_file("CT_small.dcm")
    script.says = ["It is [SEG]."]
    run = ask(path, "--target", "spine", "--out", "out")
    assert run.code == 0 and run.err == "" and "mm²" in run.out
    header = pydicom.dcmread(path)
    mask = np.asarray(Image.open(here / "out" / "CT_small_1_spine.png")) > 0
    assert mask.shape == (header.Rows, header.Columns)
    document = json.loads((here / "out" / "CT_small_findings.json").read_text())
    assert document["findings"][0]["area_mm2"] == pytest.approx(mask.sum() * np.prod(header.PixelSpacing))


@pytest.fixture
def volume(here: Path) -> str:
    values = np.random.default_rng(0).normal(-400, 300, (33, 47, 5)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([2.0, 1.5, 4.0, 1.0])), here / "volume.nii.gz")
    return "volume.nii.gz"


@pytest.mark.parametrize("window", ["lung", "-600,1500"])
def test_a_slice_of_a_volume(ask, script, here, volume, window):
    script.says = ["It is [SEG]."]
    run = ask(volume, "--target", "lung", "--slice", "0", "--window", window, "--out", "out")
    assert run.code == 0 and run.err == "", "a window that starts with a minus sign is not an option"
    assert np.asarray(Image.open(here / "out" / "volume_s000_1_lung.png")).shape == (47, 33)


def test_the_slice_is_printed(ask, script, here, volume):
    script.says = ["It is [SEG]."]
    run = ask(volume, "--target", "lung", "--slice", "2", "--out", "out")
    assert run.out.splitlines()[0] == "volume.nii.gz: slice 2 of 0 to 4, axial"
    document = json.loads((here / "out" / "volume_s002_findings.json").read_text())
    details = document["details"]
    assert (details["slice"], details["slices"], details["plane"]) == (2, 5, "axial")
    # The mask can be inserted into the volume.
    mask = Interpretation.from_dict(document).findings[0].mask
    assert mask_to_slice(mask, details).shape == (33, 47, 1)[: mask_to_slice(mask, details).ndim]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_to_a_full_disk(here):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "unibiomed", "info"]
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert run.returncode == 2 and run.stderr.startswith("unibiomed: the output cannot be written (No space")
    assert run.stderr.count("\n") == 1


def test_no_patient_data_in_output_and_files(ask, script, here):
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    dataset.PatientName, dataset.PatientID = f"{PATIENT[0]}^{PATIENT[1]}", PATIENT[2]
    dataset.PatientBirthDate, dataset.InstitutionName = PATIENT[3], PATIENT[4]
    dataset.save_as(here / "ct.dcm")
    (here / "cut.dcm").write_bytes((here / "ct.dcm").read_bytes()[:-5000])
    del dataset.PixelData
    dataset.save_as(here / "empty.dcm")
    script.says = ["It is [SEG]."]
    texts = []
    for extra in ([], ["--json"]):
        run = ask("ct.dcm", "cut.dcm", "empty.dcm", "--target", "spine", "--out", "out", *extra)
        assert run.code == 3 and run.err.count("\n") == 2
        texts += [run.out, run.err]
    contents = [path.read_bytes() for path in (here / "out").iterdir()]
    assert len(contents) == 3
    for secret in PATIENT:
        assert not any(secret in text for text in texts)
        assert not any(secret.encode() in content for content in contents)


# ---------------------------------------------------------------- JSON and several images


def test_json_output_is_one_object_per_line(ask, script, here):
    shutil.copy("eye.png", "second.png")
    script.says = ["It is [SEG].", "It is [SEG]."]
    run = ask("eye.png", "second.png", "--target", "optic disc", "--target", "optic cup", "--json", "--out", "out")
    assert run.code == 0 and run.err == ""
    lines = run.out.splitlines()
    assert len(lines) == 2
    for line, stem in zip(lines, ("eye", "second"), strict=True):
        document = json.loads(line)
        assert Interpretation.from_dict(document).image == f"{stem}.png"
        assert set(document["files"]) == {"overlay", "mask_1", "mask_2", "findings"}
        for path in document["files"].values():
            assert Path(path).is_file() and Path(path).name.startswith(f"{stem}_")


@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_one_damaged_image_of_several(ask, script, here, extra):
    (here / "broken.png").write_bytes((here / "eye.png").read_bytes()[:300])
    (here / "deep").mkdir()
    shutil.copy("eye.png", "deep/eye.png")
    script.says = ["No findings."]
    run = ask("eye.png", "broken.png", "deep/eye.png", "--out", "out", *extra)
    assert run.code == 3
    assert run.err.count("\n") == 1 and run.err.startswith("unibiomed: broken.png: ") and "truncated" in run.err
    assert len(run.out.splitlines()) == 2 if extra else run.out.count("eye.png\nNo findings") == 2
    names = {path.name for path in (here / "out").iterdir()}
    assert {"eye_findings.json", "eye-2_findings.json"} < names and not any("broken" in name for name in names)


def test_all_images_missing(ask, script, here):
    before = below(here)
    run = ask("a.png", "b.png", "--out", "out")
    assert run.code == 2 and run.out == ""
    assert run.err.splitlines() == [f"unibiomed: {name}: no such file: check the path" for name in ("a.png", "b.png")]
    assert below(here) == before


def test_a_box_outside_an_image_names_the_image(ask, script, here):
    Image.new("L", (20, 20)).save("small.png")
    script.says = ["liver"]
    run = ask("small.png", "eye.png", "--box", "10,10,50,50")
    assert run.code == 3 and run.err.startswith("unibiomed: small.png: the box 10,10,50,50 extends outside")


def test_a_progress_bar_only_on_a_terminal(ask, script, monkeypatch):
    script.says = ["No findings."]
    shutil.copy("eye.png", "second.png")
    assert ask("eye.png", "second.png").err == ""
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda self: True)
    run = ask("eye.png", "second.png", "--json")
    assert "2/2" in run.err and len([json.loads(line) for line in run.out.splitlines()]) == 2
    assert ask("eye.png").err == "", "no progress bar for one image"


def test_an_interruption_keeps_finished_results(ask, script, here):
    def says(question: str) -> str:
        if len(script.questions) > 1:
            raise KeyboardInterrupt
        return "No findings."

    script.says = says
    shutil.copy("eye.png", "second.png")
    run = ask("eye.png", "second.png", "--out", "out")
    assert run.code == 130 and run.err == "unibiomed: interrupted; finished results are kept\n"
    assert (here / "out" / "eye_findings.json").is_file() and not (here / "out" / "second_findings.json").exists()


def test_running_twice_replaces_the_results(ask, script, here):
    script.says = ["No findings."]
    ask("eye.png", "--out", "out")
    before = below(here)
    script.says = ["It is [SEG]. Drusen"]
    assert ask("eye.png", "--out", "out").code == 0
    assert "Drusen" in (here / "out" / "eye_findings.json").read_text()
    assert below(here) - before == {"out/eye_1_drusen.png"}


# ---------------------------------------------------------------- invalid images and options


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def giant_png(path: Path) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def infinite_nifti(path: Path) -> None:
    values = np.full((8, 8, 1), np.inf, np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)


def infinite_tiff(path: Path) -> None:
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    values[3, 3] = np.inf
    Image.fromarray(values).save(path)


BAD_IMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "words.png": (lambda path: path.write_text("I am not an image. " * 50), "not an image"),
    "cut.png": (lambda path: path.write_bytes(Path("eye.png").read_bytes()[:2000]), "truncated"),
    "empty.png": (lambda path: path.write_bytes(b""), "the file is empty"),
    "giant.png": (giant_png, "more than the limit of 100 million pixels: crop or downsample"),
    "inf.tif": (infinite_tiff, "infinite"),
    "inf.nii": (infinite_nifti, "infinite"),
    "plan.dcm": (lambda path: shutil.copy(get_testdata_file("rtplan.dcm"), path), "holds no pixels"),
    "cut.dcm": (
        lambda path: path.write_bytes(Path(get_testdata_file("MR_small.dcm")).read_bytes()[:-4000]),
        "truncated or damaged",
    ),
    "cut.nii.gz": (lambda path: path.write_bytes(b"\x1f\x8b\x08\0" + b"x" * 50), "contains no NIfTI volume"),
    "folder": (lambda path: path.mkdir(), "the folder contains no DICOM images"),
    "nothing.png": (lambda path: None, "no such file"),
    "new\nline.png": (lambda path: path.write_bytes(b""), "the file is empty"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_an_invalid_image(ask, script, here, name):
    make, words = BAD_IMAGES[name]
    make(here / name)
    before = below(here)
    refused(ask(name, "--out", "out"), words, before, here)
    refused(ask(name, "--out", "out", "--json"), words, before, here)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--task", "diagnose"], "unknown task 'diagnose': choose one of segment, recognize"),
        (["--task", "segment"], "needs at least one target: give it with --target"),
        (["--target", ""], "needs at least one target"),
        (["--task", "classify"], "needs a box: give it with --box"),
        (["--task", "describe"], "needs a box: give it with --box"),
        (["--task", "outline"], "needs a box: give it with --box"),
        (["--task", "ask"], "needs a question: give it with --ask"),
        (["--ask", ""], "the question is empty"),
        (["--ask", " \t"], "the question is empty"),
        (["--box", "0,0,98,61"], "extends outside the image of 97x61 pixels: keep it within 0,0,97,61"),
        (["--box", "-1,0,10,10"], "extends outside"),
        (["--box", "1,2,3"], "give x0,y0,x1,y1"),
        (["--target", "liver", "--box", "1,2,30,40"], "is about the whole image: leave the box out"),
        (["--target", "liver", "--ask", "Where is it?"], "cannot be combined: give one of them"),
        (
            ["--task", "recognize", "--ask", "Where is it?"],
            "cannot be combined with --task recognize: leave one of them out",
        ),
        (["--out", ""], "the name is empty: give a name, or leave the option out"),
        (["--model", ""], "the name is empty: give a name, or leave the option out"),
        (["--box", "a,b,c,d"], "give x0,y0,x1,y1"),
        (["--box", "9,9,9,20"], "has no area"),
        (["--window", "kitchen"], "window"),
        (["--window", "40,-400"], "width of the window"),
        (["--slice", "2"], "slice"),
        (["--modality", "smell"], "unknown modality: choose one of CT"),
        (["--slice", "two"], "invalid int value"),
        (["--colour", "red"], "unrecognized arguments"),
        (["--target"], "expected one argument"),
        (["--out", "eye.png"], "a file is in its place; choose another folder"),
        (["--out", "eye.png/below"], "choose another folder"),
        (["--target", "a"] * 65, "at most 64"),
    ],
)
def test_invalid_options(ask, script, here, words, complaint):
    script.says = ["No findings."]
    refused(ask("eye.png", *words), complaint, below(here), here)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_an_output_folder_that_is_not_writable(ask, script, here):
    refused(ask("eye.png", "--out", "/proc/unibiomed"), "cannot write to '/proc/unibiomed'", below(here), here)


@pytest.mark.parametrize("number", ["5", "-1"])
def test_a_slice_that_does_not_exist(ask, script, here, volume, number):
    refused(ask(volume, "--slice", number), "does not exist: choose 0 to 4", below(here), here)


def test_options_are_checked_before_the_model_is_loaded(command, here, monkeypatch):
    def never(*_: Any, **__: Any) -> None:
        pytest.fail("the model was loaded")

    monkeypatch.setattr(interpret, "load", never)
    wrong = (["--task", "x"], ["--box", "1"], ["--window", "x"], ["--modality", "x"], ["--out", "eye.png"])
    for words in (*wrong, ["--slices", "1:2"], ["--slices", "2:1"]):
        assert command("interpret", "eye.png", *words).code == 2


# ---------------------------------------------------------------- invalid models


def without(folder: Path, name: str, content: bytes | None = None) -> None:
    """Delete or replace a file; the files are links to the intact model and are never written to."""
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)


INVALID_MODELS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (shutil.rmtree, "not a folder"),
    "empty": (lambda folder: [path.unlink() for path in folder.iterdir()], "no config.json"),
    "no config": (lambda folder: without(folder, "config.json"), "no config.json"),
    "no weights": (lambda folder: without(folder, "model.safetensors"), "model.safetensors"),
    "no tokenizer": (lambda folder: without(folder, "tokenizer.json"), "tokenizer"),
    "truncated weights": (
        lambda folder: without(folder, "model.safetensors", (folder / "model.safetensors").read_bytes()[:100_000]),
        "is truncated or damaged",
    ),
    "garbage config": (lambda folder: without(folder, "config.json", b'{"model_type": '), "config.json"),
    "another model": (lambda folder: without(folder, "config.json", b'{"model_type": "bert"}'), "bert"),
    "garbage tokenizer": (lambda folder: without(folder, "tokenizer.json", b"{}"), "tokenizer"),
    "garbage settings": (lambda folder: without(folder, "unibiomed_processor.json", b"[1, 2"), "settings"),
    "settings of another kind": (
        lambda folder: without(folder, "unibiomed_processor.json", b'{"grounding_size": "large"}'),
        "settings",
    ),
}


@pytest.mark.parametrize("name", INVALID_MODELS)
def test_an_invalid_model_folder(command, model, here, name):
    damage, pattern = INVALID_MODELS[name]
    shutil.copytree(model, here / "model", copy_function=os.link)
    damage(here / "model")
    refused(command("interpret", "eye.png", "--model", "model"), pattern, below(here), here)


@pytest.mark.parametrize(("option", "value"), [("--device", "abacus"), ("--device", "cuda:99"), ("--dtype", "int8")])
def test_an_unavailable_device_or_dtype(command, model, here, option, value):
    run = command("interpret", "eye.png", "--model", model, option, value)
    refused(run, f"{option.strip('-')} '{value}' is not (available|supported)", below(here), here)


def test_the_presence_threshold(command, here, loaded, monkeypatch, script):
    seen = []
    monkeypatch.setattr(interpret, "load", lambda *_, **__: loaded)
    monkeypatch.setattr(loaded, "presence_threshold", loaded.presence_threshold)
    monkeypatch.setattr(loaded, "interpret", lambda *_, **__: seen.append(loaded.presence_threshold) or 1 / 0)
    own = loaded.presence_threshold
    for option in ([], ["--presence-threshold", "0.25"], ["--presence-threshold", "0"]):
        with pytest.raises(ZeroDivisionError):
            command("interpret", "eye.png", "--target", "optic disc", *option)
    assert seen == [own, 0.25, 0.0]
    for value in ("1.5", "-0.1", "nan", "half"):
        run = command("interpret", "eye.png", f"--presence-threshold={value}")
        assert run.code == 2 and f"'{value}' is not valid: give a number from 0 to 1" in run.err


# ---------------------------------------------------------------- other commands


def test_the_demo(command, here, script, loaded, monkeypatch):
    Image.open("eye.png").save("small.jpg")
    monkeypatch.setattr(interpret.demo, "demo_file", lambda: here / "small.jpg")
    monkeypatch.setattr(interpret, "load", lambda *_, **__: loaded)
    script.says = lambda question: "fundus" if "modality" in question else "It is [SEG]."
    run = command("demo", "--out", "shown")
    assert (run.code, run.err) == (0, "")
    assert "retinal vessel: found" in run.out and "\nfundus\n" in run.out and NOTICE in run.out
    assert (here / "shown" / "retina_overlay.png").is_file()
    refused(command("demo", "--out", "eye.png"), "choose another folder", below(here), here)


def test_info(command):
    run = command("info")
    assert run.code == 0 and f"version: {unibiomed.__version__}" in run.out and NOTICE in run.out
    assert run.err == "" and all(task in run.out for task in TASKS)
    # The vocabulary has one line per entry.
    assert "    polyp: " in run.out and "{" not in run.out


def test_convert_and_train_report_errors_in_one_line(command, here):
    before = below(here)
    refused(command("convert", "nowhere", "there"), "nowhere", before, here)
    refused(command("train", "nowhere.yaml", "--data", "."), "nowhere.yaml", before, here)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "required: COMMAND; see unibiomed --help"),
        (["operate"], "invalid choice: 'operate'"),
        (["interpret"], "required: IMAGE; see unibiomed interpret --help"),
        (["convert", "a"], "required: DST"),
        (["train", "a"], "required: --data"),
    ],
)
def test_invalid_commands(command, here, words, complaint):
    refused(command(*words), complaint, below(here), here)


def test_help_lists_the_exit_codes(command):
    for words in (["--help"], ["interpret", "--help"]):
        run = command(*words)
        assert run.code == 0 and "exit codes:" in run.out and "130" in run.out and NOTICE in run.out
    assert command("--version").out == f"unibiomed {unibiomed.__version__}\n"


# ---------------------------------------------------------------- as a separate process


def test_info_as_json_does_not_import_torch():
    code = (
        "import sys; from unibiomed.cli import main; code = main(['info', '--json']);"
        "print(code, sorted({'torch', 'transformers', 'skimage'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr == "0 []\n"
    facts = json.loads(done.stdout)
    assert facts["version"] == unibiomed.__version__ and set(facts["tasks"]) == set(TASKS)
    assert len(facts["modalities"]) == 10 and "lung" in facts["windows"]


def test_a_closed_pipe_is_not_an_error():
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-m", "unibiomed", "info"]
    done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_warning_is_one_line_without_its_location():
    code = (
        "import warnings; from unibiomed import cli\n"
        "cli.run_info = lambda options: warnings.warn('no image in \\'a\\nb\\'') or 0\n"
        "cli.main(['info']); warnings.warn('of others')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    own, other = done.stderr.splitlines()[:2]
    assert own == "unibiomed: warning: no image in 'a b'" and "UserWarning: of others" in other


def test_interpret_as_a_process_with_an_ascii_terminal(model, here):
    """Without mocks, with the tiny model: no error although the terminal cannot show the rules of the table."""
    words = [sys.executable, "-m", "unibiomed", "interpret", "eye.png", "--target", "optic disc", "--model", str(model)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "optic disc" in done.stdout and done.stdout.isascii()
    assert (here / "unibiomed-results" / "eye_1_optic-disc.png").is_file()
