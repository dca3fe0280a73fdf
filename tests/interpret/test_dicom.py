"""``interpret --dicom``: a SEG and an SR beside the other files, of DICOM images only."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

pytest.importorskip("highdicom", reason="highdicom is not installed (extra dicom)")

import importlib.util

from unibiomed import interpret
from unibiomed.cli import main
from unibiomed.export.dicom import DicomOptions
from unibiomed.interpret import Interpreter
from unibiomed.interpret.batch import interpret_batch


@pytest.fixture
def radiograph(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str = "chest.dcm", **elements: Any) -> Path:
        pixels = np.random.default_rng(0).integers(0, 4000, (48, 64)).astype(np.uint16)
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
        dataset.SOPInstanceUID = generate_uid()
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
        dataset.PatientName, dataset.PatientID = "Secret^Patient", "SECRET-0815"
        dataset.Modality = "DX"
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
        dataset.ImagerPixelSpacing = [0.2, 0.2]
        dataset.PixelData = pixels.tobytes()
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
        path = tmp_path / name
        dataset.save_as(path, enforce_file_format=True)
        return path

    return make


@pytest.fixture
def run(
    shared_interpreter: Interpreter, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """``unibiomed interpret ...``: exit code, standard output, standard error."""
    monkeypatch.setattr(interpret, "load", lambda *_, **__: shared_interpreter)

    def command(*words: object) -> tuple[int, str, str]:
        code = main(["interpret", *map(str, words)])
        return code, *capfd.readouterr()

    return command


def test_seg_and_sr_beside_the_other_files(
    radiograph: Callable[..., Path], run: Any, script: Any, tmp_path: Path
) -> None:
    script.says = ["It is [SEG]."]
    path, out = radiograph(), tmp_path / "out"
    code, told, errors = run(path, "--target", "pleural effusion", "--dicom", "--out", out)
    assert (code, errors) == (0, "")
    assert "SECRET" not in told.upper()
    seg, report = dcmread(out / "chest_seg.dcm"), dcmread(out / "chest_sr.dcm")
    original = dcmread(path)
    for written in (seg, report):
        assert written.StudyInstanceUID == original.StudyInstanceUID
        assert written.PatientID == "SECRET-0815"
    findings = json.loads((out / "chest_findings.json").read_text())
    assert "SECRET" not in (out / "chest_findings.json").read_text().upper()
    from unibiomed.findings import rle_decode

    mask = rle_decode(findings["findings"][0]["mask"])
    assert mask.any()
    assert np.array_equal(seg.pixel_array.reshape(mask.shape), mask)
    assert seg.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Pleural effusion"


def test_not_found(radiograph: Callable[..., Path], run: Any, script: Any, tmp_path: Path) -> None:
    script.says, script.presence = ["It is [SEG]."], [-8.0]
    out = tmp_path / "out"
    words = (radiograph(), "--target", "pneumothorax", "--dicom", "--json", "--out", out)
    code, told, _ = run(*words)
    assert code == 0
    assert set(json.loads(told)["files"]) == {"overlay", "findings", "mask_1", "sr"}
    assert run(*words, "--empty-seg", "--seg-type", "fractional")[0] == 0
    assert dcmread(out / "chest_seg.dcm").SegmentationType == "FRACTIONAL"


def test_empty_identifiers(radiograph: Callable[..., Path], run: Any, script: Any, tmp_path: Path) -> None:
    path = radiograph(StudyInstanceUID="")
    code, told, errors = run(path, "--target", "pneumothorax", "--dicom", "--out", tmp_path / "out")
    assert (code, told) == (2, "")
    assert errors.startswith(f"unibiomed: {path}: StudyInstanceUID is empty")
    assert errors.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert script.questions == []  # it is found before the work


def test_other_images_are_refused(run: Any, script: Any, radiograph: Any, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("L", (40, 40), 30).save(tmp_path / "eye.png")
    code, _, errors = run(tmp_path / "eye.png", "--target", "liver", "--dicom", "--out", tmp_path / "out")
    assert code == 2
    assert "not a DICOM image" in errors
    assert "Traceback" not in errors
    script.says = ["It is [SEG]."]
    code, _, errors = run(tmp_path / "eye.png", radiograph(), "--target", "liver", "--dicom", "--out", tmp_path / "out")
    assert code == 3
    assert (tmp_path / "out" / "chest_seg.dcm").exists()


def test_options_without_dicom(run: Any, radiograph: Callable[..., Path], tmp_path: Path) -> None:
    for option in (["--empty-seg"], ["--seg-type", "binary"]):
        code, told, errors = run(radiograph(), *option, "--out", tmp_path / "out")
        assert (code, told) == (2, "")
        assert "add --dicom, or leave them out" in errors


def test_highdicom_is_missing(run: Any, radiograph: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "unibiomed.export.dicom.toolkit.find_spec", lambda name: None if name == "highdicom" else found(name)
    )
    code, told, errors = run(radiograph(), "--dicom", "--out", tmp_path / "out")
    assert (code, told) == (2, "")
    assert "pip install 'unibiomed[dicom]'" in errors


def test_labels_without_a_code_are_noted(
    interpreter: Interpreter, script: Any, radiograph: Callable[..., Path], tmp_path: Path
) -> None:
    script.says = ["It is [SEG]."]
    (item,) = interpret_batch(
        interpreter,
        [str(radiograph())],
        tmp_path / "out",
        dicom=DicomOptions(),
        task="segment",
        targets=["strange shadow"],
        allow_unknown=True,
    )
    assert item.error is None
    assert "99UNIBIOMED" in item.notes[0]


def test_a_real_series_with_identifiers_of_its_own(shared_data: Path, run: Any, script: Any, tmp_path: Path) -> None:
    """The real CT, compressed as JPEG 2000, whose identifiers were emptied, after giving it some."""
    folder = shared_data / "volumes" / "abdomen_ct" / "example_ct_dicom"
    original = sorted(folder.iterdir())[4]
    code, _, errors = run(original, "--target", "liver", "--dicom", "--out", tmp_path / "out")
    assert code == 2
    assert "SOPInstanceUID, StudyInstanceUID, SeriesInstanceUID are empty" in errors
    dataset = dcmread(original)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.save_as(tmp_path / "slice.dcm")
    script.says = ["It is [SEG]."]
    code, _, errors = run(tmp_path / "slice.dcm", "--target", "liver", "--dicom", "--out", tmp_path / "out")
    assert (code, errors) == (0, "")
    seg = dcmread(tmp_path / "out" / "slice_seg.dcm")
    position = seg.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient
    assert list(position) == list(dataset.ImagePositionPatient)
