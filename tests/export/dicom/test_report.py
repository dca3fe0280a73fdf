"""The SR says what was found, where, and what was looked for; it keeps the standard and refers to the SEG."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

pytest.importorskip("highdicom", reason="highdicom is not installed (extra dicom)")

import highdicom as hd

from unibiomed.errors import InputError, OutputError
from unibiomed.export.dicom import (
    Algorithm,
    Contents,
    DicomOptions,
    LookedFor,
    Measurement,
    Segment,
    contents_of,
    open_source,
    write_dicom,
    write_report,
    write_segmentation,
)
from unibiomed.findings import Finding, Interpretation, SearchedTarget
from unibiomed.images import read_volume

Make = Callable[..., Path]
Check = Callable[[Path], list[str]]
ALGORITHM = Algorithm("unibiomed nano", "0.1.0")


def items(root: Dataset, meaning: str) -> list[Dataset]:
    """All content items below with a concept name."""
    found = []
    for item in root.get("ContentSequence") or []:
        if item.ConceptNameCodeSequence[0].CodeMeaning == meaning:
            found.append(item)
        found += items(item, meaning)
    return found


def value(item: Dataset) -> Any:
    if item.ValueType == "CODE":
        return item.ConceptCodeSequence[0].CodeMeaning
    if item.ValueType == "NUM":
        measured = item.MeasuredValueSequence[0]
        return float(measured.NumericValue), measured.MeasurementUnitsCodeSequence[0].CodeValue
    return item.get("TextValue") or item.get("UID")


@pytest.fixture
def volume_report(make_series: Make, tmp_path: Path) -> dict[str, Path]:
    """SEG and SR of two findings of a volume, with all that can be said of them."""
    folder = make_series()
    volume = read_volume(folder)
    tumor = np.zeros(volume.grid.shape, bool)
    tumor[1:3, 2:5, 1:4] = True
    spleen = np.zeros(volume.grid.shape, bool)
    spleen[3, 1:3, 4:6] = True
    contents = Contents(
        (
            Segment(
                "kidney tumor",
                tumor,
                probability=0.913,
                side="left",
                measurements=(
                    Measurement("volume", 25.2),
                    Measurement("long axis", 3.0),
                    Measurement("short axis", 2.0),
                ),
                sentences=("There is a tumor in the left kidney.", "It measures 3 mm."),
                tracking_id="kidney tumor 1",
            ),
            Segment("spleen", spleen, tracking_id="spleen"),
        ),
        (
            LookedFor("pneumothorax", 0.02),
            LookedFor("polyp", 0.0, searched=False),
            LookedFor("liver", 0.8, present=True),
        ),
        "There is a tumor in the left kidney. It measures 3 mm.",
        ALGORITHM,
    )
    return write_dicom(tmp_path / "out", "study", open_source(folder), contents, grid=volume.grid).files


def test_the_report_of_a_volume(volume_report: dict[str, Path]) -> None:
    seg, report = dcmread(volume_report["seg"]), dcmread(volume_report["sr"])
    assert report.SOPClassUID.name == "Comprehensive SR Storage"
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    assert str(report.PatientName) == "Müller^Jürgen"
    assert report.StudyInstanceUID == seg.StudyInstanceUID
    groups = items(report, "Measurement Group")
    assert [group.ContentTemplateSequence[0].TemplateIdentifier for group in groups] == ["1411", "1411"]
    tumor = groups[0]
    said = {name: [value(item) for item in items(tumor, name)] for name in ("Finding", "Finding Site", "Comment")}
    assert said == {
        "Finding": ["Kidney tumor"],
        "Finding Site": ["Kidney"],
        "Comment": ["There is a tumor in the left kidney.", "It measures 3 mm."],
    }
    assert value(items(items(tumor, "Finding Site")[0], "Laterality")[0]) == "Left"
    sizes = {
        name: value(items(tumor, name)[0]) for name in ("Volume", "Long axis", "Short axis", "Certainty of Finding")
    }
    assert sizes == {
        "Volume": (25.2, "mm3"),
        "Long axis": (3.0, "mm"),
        "Short axis": (2.0, "mm"),
        "Certainty of Finding": (91.3, "%"),
    }
    assert value(items(tumor, "Algorithm Name")[0]) == "unibiomed nano"
    assert value(items(tumor, "Algorithm Version")[0]) == "0.1.0"


def test_segments_and_groups_belong_together(volume_report: dict[str, Path]) -> None:
    seg, report = dcmread(volume_report["seg"]), dcmread(volume_report["sr"])
    for number, group in enumerate(items(report, "Measurement Group"), start=1):
        described = seg.SegmentSequence[number - 1]
        assert value(items(group, "Tracking Unique Identifier")[0]) == described.TrackingUID
        assert value(items(group, "Tracking Identifier")[0]) == described.TrackingID
        reference = items(group, "Referenced Segment")[0].ReferencedSOPSequence[0]
        assert reference.ReferencedSOPInstanceUID == seg.SOPInstanceUID
        assert reference.ReferencedSegmentNumber == number
        # the images on which the segment has pixels, and no others
        sources = {
            item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
            for item in items(group, "Source Image for Segmentation")
        }
        frames = [
            frame
            for frame in seg.PerFrameFunctionalGroupsSequence
            if frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number
        ]
        assert sources == {
            frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID for frame in frames
        }
    evidence = {
        instance.ReferencedSOPInstanceUID
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    assert seg.SOPInstanceUID in evidence
    assert len(evidence) == 6


def test_what_was_looked_for(volume_report: dict[str, Path]) -> None:
    evaluations = items(dcmread(volume_report["sr"]), "Qualitative Evaluations")[0]
    said = [(item.ConceptNameCodeSequence[0].CodeMeaning, value(item)) for item in evaluations.ContentSequence]
    assert said == [
        ("Pneumothorax", "Absent"),
        ("Polyp", "Not done"),
        ("Liver", "Present"),
        ("Comment", "There is a tumor in the left kidney. It measures 3 mm."),
    ]


def test_validators_find_no_error(volume_report: dict[str, Path], errors_of: Check) -> None:
    assert errors_of(volume_report["seg"]) == []
    assert errors_of(volume_report["sr"]) == []


def test_highdicom_parses_the_report(volume_report: dict[str, Path]) -> None:
    report = hd.sr.srread(volume_report["sr"])
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == ["kidney tumor 1", "spleen"]
    assert groups[0].finding_sites[0].laterality.meaning == "Left"


def test_dcmqi_parses_the_report(volume_report: dict[str, Path], dcmqi: Any, tmp_path: Path) -> None:
    dcmqi("tid1500reader", "--inputDICOM", volume_report["sr"], "--outputMetadata", tmp_path / "sr.json")
    told = json.loads((tmp_path / "sr.json").read_text())
    tumor = told["Measurements"][0]
    assert tumor["Finding"]["CodeValue"] == "126880001"
    assert tumor["FindingSite"]["CodeMeaning"] == "Kidney"
    assert tumor["Laterality"]["CodeMeaning"] == "Left"
    assert tumor["TrackingIdentifier"] == "kidney tumor 1"
    assert tumor["segmentationSOPInstanceUID"] == dcmread(volume_report["seg"]).SOPInstanceUID
    assert tumor["measurementItems"][0]["value"] == "25.2"
    assert len(told["imageLibrary"]) == 5


PIXELMED = Path("/usr/share/java/pixelmed.jar")


@pytest.mark.slow
def test_pixelmed_finds_no_error(volume_report: dict[str, Path]) -> None:
    if shutil.which("java") is None or not PIXELMED.exists():
        pytest.skip("PixelMed is not installed (Debian package libpixelmed-java, and Java)")
    others = ("vecmath", "hsqldb", "commons-codec", "javax.activation")
    jars = ":".join(str(path) for path in (PIXELMED, *(PIXELMED.with_name(f"{name}.jar") for name in others)))
    # Java 17 limits XPath expressions to fewer operators than the rules of the validator have
    limits = [f"-Djdk.xml.{name}=0" for name in ("xpathExprGrpLimit", "xpathExprOpLimit", "xpathTotalOpLimit")]
    words = ["java", *limits, "-cp", jars, "com.pixelmed.validate.DicomSRValidator", str(volume_report["sr"])]
    run = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "IOD validation complete" in run.stdout
    assert "Found Root Template TID_1500" in run.stdout
    assert [line for line in run.stdout.splitlines() if line.startswith("Error")] == []


def test_nothing_was_found(make_series: Make, errors_of: Check, tmp_path: Path) -> None:
    folder = make_series()
    contents = Contents((), (LookedFor("pneumothorax", 0.01), LookedFor("new thing")), "No findings.", ALGORITHM)
    source = open_source(folder)
    (tmp_path / "s_seg.dcm").write_text("of an earlier run")
    written = write_dicom(tmp_path, "s", source, contents)
    assert set(written.files) == {"sr"}
    assert not (tmp_path / "s_seg.dcm").exists()
    assert "new thing" in written.notes[0]
    report = dcmread(written.files["sr"])
    assert items(report, "Measurement Group") == []
    assert value(items(report, "Pneumothorax")[0]) == "Absent"
    assert value(items(report, "new thing")[0]) == "Absent"
    assert errors_of(written.files["sr"]) == []


def test_an_empty_seg_on_request(make_series: Make, errors_of: Check, tmp_path: Path) -> None:
    folder = make_series()
    grid = read_volume(folder).grid
    contents = Contents((), (LookedFor("pneumothorax"), LookedFor("polyp", searched=False), LookedFor("liver")))
    options = DicomOptions(empty_seg=True)
    written = write_dicom(tmp_path, "s", open_source(folder), contents, grid=grid, options=options)
    seg = dcmread(written.files["seg"])
    assert [item.SegmentLabel for item in seg.SegmentSequence] == ["pneumothorax", "liver"]
    assert not seg.pixel_array.any()
    assert errors_of(written.files["seg"]) == []
    with pytest.raises(InputError, match="not known what was looked for"):
        write_dicom(tmp_path, "t", open_source(folder), Contents(), grid=grid, options=options)
    assert not (tmp_path / "t_sr.dcm").exists()


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("count", [1, 2])
def test_the_report_of_one_image(kind: Any, count: int, radiograph: Path, errors_of: Check, tmp_path: Path) -> None:
    masks = [np.zeros((8, 9), bool) for _ in range(2)]
    masks[0][2:4, 3:8] = masks[1][6:, :2] = True
    findings = [
        Finding.from_mask("pleural effusion", m, phrase="an effusion", presence=0.9, spacing=(0.2, 0.2)) for m in masks
    ]
    interpretation = Interpretation(
        task="report",
        question="",
        text="There is an effusion.",
        raw_text="",
        findings=tuple(findings[:count]),
        height=8,
        width=9,
        spacing=(0.2, 0.2),
        model="nano",
        searched=(SearchedTarget("pleural effusion", 0.9), SearchedTarget("pneumothorax", 0.1)),
    )
    contents = contents_of(interpretation)
    assert contents.algorithm.name == "unibiomed nano"
    written = write_dicom(tmp_path, "x", open_source(radiograph), contents, options=DicomOptions(kind))
    seg, report = dcmread(written.files["seg"]), dcmread(written.files["sr"])
    groups = items(report, "Measurement Group")
    assert [group.ContentTemplateSequence[0].TemplateIdentifier for group in groups] == ["1410"] * count
    for number, group in enumerate(groups, start=1):
        reference = items(group, "Referenced Segmentation Frame")[0].ReferencedSOPSequence[0]
        assert reference.ReferencedSOPInstanceUID == seg.SOPInstanceUID
        frames = seg.pixel_array.reshape(-1, 8, 9)
        if kind == "LABELMAP":
            assert reference.ReferencedSegmentNumber == number
            assert np.array_equal(frames[0] == number, masks[number - 1])
        else:
            assert np.array_equal(frames[reference.ReferencedFrameNumber - 1], masks[number - 1])
        area = round(0.04 * int(masks[number - 1].sum()), 6)
        assert value(items(group, "Area")[0]) == (area, "mm2")
        assert value(items(group, "Comment")[0]) == "an effusion"
        image = items(group, "Source Image for Segmentation")[0].ReferencedSOPSequence[0]
        assert image.ReferencedSOPInstanceUID == dcmread(radiograph).SOPInstanceUID
    assert value(items(report, "Pneumothorax")[0]) == "Absent"
    # the SOP class of label maps is younger than the dciodvfy of Debian 12
    unknown = "ReferencedSegmentNumber(0062,000b)> - Shall not be present for Referenced SOP Class"
    assert [line for line in errors_of(written.files["sr"]) if unknown not in line or kind != "LABELMAP"] == []


def test_one_frame_of_several(captured_frames: Path, errors_of: Check, tmp_path: Path) -> None:
    mask = np.zeros((8, 9), bool)
    mask[2:4, 3:8] = True
    source = open_source(captured_frames, frame=2)
    written = write_dicom(tmp_path, "x", source, Contents((Segment("polyp", mask),)))
    report = dcmread(written.files["sr"])
    image = items(report, "Source Image for Segmentation")[0].ReferencedSOPSequence[0]
    assert image.ReferencedFrameNumber == 3
    assert errors_of(written.files["sr"]) == []


def test_contents_of_an_interpretation() -> None:
    mask = np.zeros((8, 9), bool)
    empty = mask.copy()
    mask[1, 1] = True
    interpretation = Interpretation(
        task="segment",
        question="",
        text="",
        raw_text="",
        findings=(
            Finding.from_mask("liver", mask, presence=0.9),
            Finding.from_mask("spleen", empty, presence=0.1),
            Finding.from_mask("polyp", empty, presence=0.0, searched=False),
            Finding("cancer", "a cancer", confidence=0.7),
            Finding.from_mask("No findings", empty),
        ),
        height=8,
        width=9,
        searched=(SearchedTarget("Liver", 0.9), SearchedTarget("kidney", 0.2)),
    )
    contents = contents_of(interpretation)
    assert [segment.label for segment in contents.segments] == ["liver"]
    assert contents.looked_for == (
        LookedFor("spleen", 0.1),
        LookedFor("polyp", 0.0, searched=False),
        LookedFor("cancer", 0.7, present=True),
        LookedFor("kidney", 0.2),
    )


def test_patient_data_stays_in_the_objects(make_series: Make, tmp_path: Path, caplog: Any, capfd: Any) -> None:
    """A name that is not valid makes highdicom warn and quote it; an invalid sex or date must not stop the export."""
    folder = make_series(PatientName="SECRET", PatientSex="X", PatientBirthDate="", StudyDate=None, StudyTime="")
    grid = read_volume(folder).grid
    mask = np.ones(grid.shape, bool)
    source = open_source(folder)
    written = write_dicom(tmp_path, "s", source, Contents((Segment("liver", mask),)), grid=grid)
    told = "".join([*capfd.readouterr(), caplog.text, repr(source), repr(written)])
    assert "SECRET" not in told
    assert str(dcmread(written.files["sr"]).PatientName) == "SECRET"


def test_a_folder_that_cannot_be_written(radiograph: Path, tmp_path: Path) -> None:
    source = open_source(radiograph)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another output folder"):
        write_report(tmp_path / "file" / "sr.dcm", source, Contents())
    with pytest.raises(OutputError, match="choose another output folder"):
        write_segmentation(tmp_path / "file" / "s.dcm", source, [Segment("polyp", np.ones((8, 9), bool))])
