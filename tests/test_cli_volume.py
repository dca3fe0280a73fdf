"""``unibiomed interpret`` of whole volumes, with a reader that thresholds in place of a model."""

from __future__ import annotations

import csv
import importlib.util
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from unibiomed import interpret
from unibiomed.cli import main
from unibiomed.interpret import volume as volumes

TESTS = Path(__file__).parent
AFFINE = np.array([[0, 2.0, 0, -10], [-1.5, 0, 0, 4], [0, 0, 3.0, 20], [0, 0, 0, 1]])
ASK = ("--target", "bright", "--target", "dark", "--modality", "MRI", "--window", "127.5,255")


def module(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="session")
def thresholds() -> type:
    return module("volume_reading_tests", TESTS / "interpret" / "test_volume_reading.py").Thresholds


@pytest.fixture(scope="session")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> interpret.Interpreter:
    tiny = module("tiny_interpreter", TESTS / "interpret" / "tiny.py")
    return interpret.load(tiny.build(tmp_path_factory.mktemp("models") / "tiny"), device="cpu")


@pytest.fixture
def readers(thresholds: type, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """All readers that were made; ``stop_at`` of the class says after how many slices Ctrl-C is pressed."""
    made: list[Any] = []

    def make(*_: object) -> Any:
        reader = thresholds()
        reader.stop_at = getattr(thresholds, "stops", None)
        made.append(reader)
        return reader

    monkeypatch.setattr(volumes, "ModelReader", make)
    monkeypatch.setattr(thresholds, "stops", None, raising=False)
    return made


@pytest.fixture
def ask(
    tmp_path: Path,
    loaded: interpret.Interpreter,
    readers: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int, str, str]]:
    """``unibiomed interpret ...`` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(interpret, "load", lambda *_, **__: loaded)
    monkeypatch.setattr(loaded, "presence_threshold", 0.5)
    monkeypatch.setattr(loaded.model.config, "scores_trained", True)

    def run(*words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        try:
            code = main(["interpret", *map(str, words)])
        except SystemExit as end:
            code = int(end.code or 0)
        return (code, *capfd.readouterr())

    return run


@pytest.fixture
def phantom() -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 60, (12, 14, 16)).astype(np.int16)
    values[2:6, 7:11, 4:9] = 250
    values[8:11, 2:5, 7:14] = 100
    return values


@pytest.fixture
def study(tmp_path: Path, phantom: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(phantom, AFFINE), tmp_path / "study.nii.gz")
    return tmp_path / "study.nii.gz"


def test_a_volume_end_to_end(ask, study, phantom, tmp_path):
    code, out, err = ask("study.nii.gz", *ASK, "--out", "out")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "study.nii.gz: slices 0 to 15 of 16, axial"
    assert lines[1].startswith("Bright: one region of 720 mm³ on slices 4 to 8") and lines[2].startswith("Dark: one ")
    folder = tmp_path / "out" / "study"
    labels = nib.load(folder / "labels.nii.gz")
    assert np.allclose(labels.affine, AFFINE) and labels.header.get_xyzt_units()[0] == "mm"
    expected = np.where(phantom == 250, 1, np.where(phantom == 100, 2, 0))
    assert np.array_equal(np.asarray(labels.dataobj), expected)
    document = json.loads((folder / "findings.json").read_text())
    assert document["kind"] == "volume" and document["label_values"] == {"1": "bright", "2": "dark"}
    assert all((folder / name).is_file() for name in document["files"].values())
    bright = document["findings"][0]
    assert bright["volume_mm3"] == pytest.approx((phantom == 250).sum() * 9.0)
    assert f"{bright['longest_diameter_mm']:.1f} mm" in lines[1]
    with (folder / "measurements.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["label"], row["instance"]) for row in rows] == [
        ("bright", ""),
        ("bright", "1"),
        ("dark", ""),
        ("dark", "1"),
    ]
    assert float(rows[0]["volume_mm3"]) == pytest.approx(bright["volume_mm3"])
    pictures = sorted(folder.glob("slice_*.png"))
    assert len(pictures) == 2 and Image.open(pictures[0]).width >= 512
    assert {path.name for path in folder.iterdir()} == {*document["files"].values(), "findings.json"}


def test_json_and_several_studies(ask, study, phantom, tmp_path):
    (tmp_path / "b").mkdir()
    nib.save(nib.Nifti1Image(phantom * 0, AFFINE), tmp_path / "b" / "study.nii.gz")
    code, out, err = ask("study.nii.gz", "b/study.nii.gz", "missing.nii.gz", *ASK, "--out", "out", "--json")
    assert code == 3 and "missing.nii.gz: no such file" in err
    first, second = map(json.loads, out.splitlines())
    assert [f["present"] for f in first["findings"]] == [True, True]
    assert [f["present"] for f in second["findings"]] == [False, False]
    assert any("16 of 16 slices" in note for note in second["notes"])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"study", "study-2"}


def test_overlapping_findings_have_masks_of_their_own(ask, study, phantom, thresholds, monkeypatch, tmp_path):
    plain = thresholds._one

    def overlapping(self, image):
        reading = plain(self, image)
        return type(reading)(
            reading.presence, lambda indices: np.maximum(reading.decode([0]), reading.decode(list(indices)))
        )

    monkeypatch.setattr(thresholds, "_one", overlapping)
    code, _, _ = ask("study.nii.gz", *ASK, "--out", "out")
    folder = tmp_path / "out" / "study"
    assert code == 0 and (folder / "1_bright.nii.gz").is_file() and (folder / "2_dark.nii.gz").is_file()
    dark = np.asarray(nib.load(folder / "2_dark.nii.gz").dataobj)
    expected = (phantom == 100) | ((phantom == 250) & (np.arange(16) >= 7))
    assert set(np.unique(dark)) == {0, 1} and np.array_equal(dark > 0, expected)
    labels = np.asarray(nib.load(folder / "labels.nii.gz").dataobj)
    assert np.array_equal(labels == 1, phantom == 250), "where findings overlap, the first one counts"


def test_ctrl_c_and_the_same_command_again(ask, study, thresholds, readers, monkeypatch, tmp_path):
    ask("study.nii.gz", *ASK, "--out", "whole")
    monkeypatch.setattr(thresholds, "stops", 10)
    code, out, err = ask("study.nii.gz", *ASK, "--out", "out")
    assert (code, out, err) == (130, "", "unibiomed: interrupted; finished results are kept\n")
    folder = tmp_path / "out" / "study"
    kept = len(list((folder / "slices").glob("*.npz")))
    assert [path.name for path in folder.iterdir()] == ["slices"] and 4 <= kept <= 10
    monkeypatch.setattr(thresholds, "stops", None)
    code, out, _ = ask("study.nii.gz", *ASK, "--out", "out")
    assert code == 0 and readers[-1].seen == 16 - kept and not (folder / "slices").exists()
    for name in ("labels.nii.gz", "measurements.csv"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / "study" / name).read_bytes()


def test_one_slice_is_a_picture_as_before(ask, study, tmp_path, readers):
    code, _, _ = ask("study.nii.gz", *ASK, "--slice", "3", "--out", "out")
    assert code == 0 and not readers
    assert (tmp_path / "out" / "study_s003_findings.json").is_file()


def test_chosen_slices(ask, study, readers):
    code, out, _ = ask("study.nii.gz", *ASK, "--slices", "4:7")
    assert code == 0 and readers[0].seen == 3 and "study.nii.gz: slices 4 to 6 of 16" in out


# ---------------------------------------------------------------- what cannot be read


def series(folder: Path, change: Callable[[int], dict[str, object]] = lambda k: {}, count: int = 4) -> Path:
    folder.mkdir()
    uid = generate_uid()
    for k in range(count):
        one = Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = CTImageStorage
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = generate_uid()
        one.PatientName, one.PatientID, one.Modality = "Secret^Patient", "SECRET", "MR"
        one.SeriesInstanceUID = uid
        one.ImagePositionPatient, one.ImageOrientationPatient = [0, 0, 2.0 * k], [1, 0, 0, 0, 1, 0]
        one.PixelSpacing, one.Rows, one.Columns, one.SamplesPerPixel = [1.0, 1.0], 12, 14, 1
        one.PhotometricInterpretation, one.PixelRepresentation = "MONOCHROME2", 0
        one.BitsAllocated, one.BitsStored, one.HighBit = 16, 16, 15
        values = np.full((12, 14), 30, np.uint16)
        values[2:6, 3:7] = 250
        one.PixelData = values.tobytes()
        for keyword, value in change(k).items():
            setattr(one, keyword, value)
        one.save_as(folder / f"{k}.dcm", enforce_file_format=True)
    return folder


def packed(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)


def nifti(path: Path, values: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)


def infinite(path: Path) -> None:
    values = np.zeros((6, 6, 4), np.float32)
    values[1, 1, 2] = np.inf
    nifti(path, values)


BAD: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "a missing slice": (
        "s",
        lambda p: series(p, lambda k: {"ImagePositionPatient": [0, 0, 2 * k + (k > 1) * 2]}),
        "missing",
    ),
    "a slice twice": (
        "s",
        lambda p: series(p, lambda k: {"ImagePositionPatient": [0, 0, 2 * max(k, 1)]}),
        "same position",
    ),
    "orientations": (
        "s",
        lambda p: series(p, lambda k: {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0] if k else [0, 1, 0, 0, 0, -1]}),
        "another orientation",
    ),
    "two patients": ("s", lambda p: series(p, lambda k: {"PatientID": f"SECRET{k // 2}"}), "several patients"),
    "two series": (
        "s",
        lambda p: series(p, lambda k: {"SeriesInstanceUID": f"1.2.{k // 2}"}),
        "choose one with --series",
    ),
    "an empty folder": ("s", lambda p: p.mkdir(), "no DICOM images"),
    "a zip bomb": ("s.zip", lambda p: packed(p, {"a.dcm": bytes(50 * 2**20)}), "grow more than 200 times"),
    "a path that climbs": ("s.zip", lambda p: packed(p, {"../../a.dcm": b"DICM"}), "a path outside of it"),
    "a text": ("s.zip", lambda p: p.write_bytes(b"PK\x03\x04 and nothing more"), "damaged or encrypted"),
    "five dimensions": ("s.nii.gz", lambda p: nifti(p, np.zeros((4, 4, 3, 2, 2), np.int16)), "shape 4x4x3x2x2"),
    "5,200 slices": ("s.nii.gz", lambda p: nifti(p, np.zeros((3, 3, 5200), np.uint8)), "at most 5000"),
    "infinity": ("s.nii", infinite, "infinite values"),
    "half a file": ("s.nrrd", lambda p: p.write_bytes(b"NRRD0004\ntype: short\n"), "damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_exit_2(ask, tmp_path, name):
    file, make, words = BAD[name]
    make(tmp_path / file)
    before = {path for path in tmp_path.rglob("*")}
    code, out, err = ask(file, *ASK, "--out", "out")
    assert (code, out) == (2, "") and err.count("\n") == 1, err
    assert err.startswith(f"unibiomed: {file}: ") and words in err, err
    assert "Traceback" not in err and "SECRET" not in err and "Secret" not in err and len(err) < 400
    assert {path for path in tmp_path.rglob("*") if "out" not in path.parts} == before
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").rglob("*.json"))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["study.nii.gz", "--slices", "7:4"], "is not FIRST:END"),
        (["study.nii.gz", "--slices", "4"], "is not FIRST:END"),
        (["study.nii.gz", "--slices", "4:40"], "choose within 0:16"),
        (["eye.png", "--slices", "1:2"], "--slices is for whole volumes"),
        (["eye.png", "--series", "1"], "--series is for whole volumes"),
        (["study.nii.gz", "--slice", "1", "--slices", "1:2"], "--slices is for whole volumes"),
    ],
)
def test_options_of_volumes(ask, study, tmp_path, words, complaint):
    Image.new("RGB", (20, 20)).save(tmp_path / "eye.png")
    code, out, err = ask(*words, *ASK)
    assert (code, out) == (2, "") and complaint in err and err.count("\n") == 1


def test_a_series_and_its_zip(ask, tmp_path):
    folder = series(tmp_path / "ct")
    packed(tmp_path / "ct.zip", {f"IM/{path.name}": path.read_bytes() for path in folder.iterdir()})
    code, out, err = ask("ct", "ct.zip", *ASK, "--out", "out")
    assert (code, err) == (0, "")
    first, second = (np.asarray(nib.load(tmp_path / "out" / name / "labels.nii.gz").dataobj) for name in ("ct", "ct-2"))
    assert np.array_equal(first, second) and first.sum() == 4 * 4 * 4
    text = (tmp_path / "out" / "ct" / "findings.json").read_text()
    assert "SECRET" not in text + out and "Secret" not in text + out
