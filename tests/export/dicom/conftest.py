"""Sources of every kind, made on the spot, and readers of what is written that know nothing of this package."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

PATIENT = "Müller^Jürgen"
PATIENT_ID = "SECRET-0815"
AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
SAGITTAL = ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0))
TURNED = ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0))
OBLIQUE = ((0.8, 0.6, 0.0), (-0.36, 0.48, 0.8))

Vector = tuple[float, float, float]
Points = dict[int, set[tuple[int, int, int]]]


def base(sop_class: UID, modality: str, pixels: np.ndarray) -> Dataset:
    """A data set with the patient, the study and the pixels, the same study every time."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["series", modality])
    dataset.PatientName, dataset.PatientID = PATIENT, PATIENT_ID
    dataset.PatientBirthDate, dataset.PatientSex = "19700101", "O"
    dataset.StudyDate, dataset.StudyTime = "20240229", "120000"
    dataset.AccessionNumber, dataset.StudyID = "A1", "S1"
    dataset.ReferringPhysicianName = "Doctor^A"
    dataset.Modality = modality
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    return dataset


def save(dataset: Dataset, path: Path) -> Path:
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)
    return path


def picture(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1000, shape).astype(np.int16)


@pytest.fixture
def make_series(tmp_path: Path) -> Callable[..., Path]:
    """``make_series(planes, places=, spacing=, compressed=, **elements)`` writes a CT series of 5 slices of 6 x 7."""

    def make(
        directions: tuple[Vector, Vector] = AXIAL,
        *,
        places: Sequence[float] = (0, 2.5, 5, 7.5, 10),
        lean: Vector = (0, 0, 0),
        spacing: tuple[float, float] = (0.8, 0.7),
        compressed: bool = False,
        size: tuple[int, int] = (6, 7),
        name: str = "series",
        **elements: Any,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        normal = np.cross(*directions) + np.array(lean)
        pixels = picture(len(places), *size)
        for k, place in enumerate(places):
            dataset = base(CTImageStorage, "CT", pixels[k])
            dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
            dataset.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame of reference"])
            dataset.PositionReferenceIndicator = ""
            dataset.ImagePositionPatient = [round(float(x), 6) for x in np.array([-50, 20, -100]) + place * normal]
            dataset.ImageOrientationPatient = [x for direction in directions for x in direction]
            dataset.PixelSpacing = list(spacing)
            dataset.SliceThickness = 2.5
            dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, -1024, "HU"
            dataset.InstanceNumber = k + 1
            for keyword, value in elements.items():
                if value is None:
                    delattr(dataset, keyword)
                else:
                    setattr(dataset, keyword, value)
            if compressed:
                dataset.compress(RLELossless)
            # the order of the names says nothing of the order of the slices
            save(dataset, folder / f"{(3 * k) % len(places)}_{k}.dcm")
        return folder

    return make


@pytest.fixture
def radiograph(tmp_path: Path) -> Path:
    """A single X-ray image, which has no place in the patient."""
    dataset = base(DigitalXRayImageStorageForPresentation, "DX", picture(8, 9).astype(np.uint16))
    dataset.ImagerPixelSpacing = [0.2, 0.2]
    dataset.PatientOrientation = ["L", "F"]
    return save(dataset, tmp_path / "chest.dcm")


@pytest.fixture
def secondary_capture(tmp_path: Path) -> Path:
    dataset = base(SecondaryCaptureImageStorage, "OT", picture(8, 9).astype(np.uint8))
    dataset.ConversionType = "WSD"
    return save(dataset, tmp_path / "capture.dcm")


@pytest.fixture
def captured_frames(tmp_path: Path) -> Path:
    """Several frames without a place, of a file that is at hand as a video is."""
    dataset = base(MultiFrameGrayscaleByteSecondaryCaptureImageStorage, "OT", picture(4, 8, 9).astype(np.uint8))
    dataset.NumberOfFrames = 4
    dataset.ConversionType = "WSD"
    return save(dataset, tmp_path / "video.dcm")


@pytest.fixture
def enhanced(tmp_path: Path) -> Path:
    """An enhanced CT of four oblique frames that are stored from head to feet."""
    dataset = base(EnhancedCTImageStorage, "CT", picture(4, 8, 9))
    dataset.NumberOfFrames = 4
    dataset.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame of reference"])
    dataset.PositionReferenceIndicator = ""
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.8, 0.7], 2.0
    orientation.ImageOrientationPatient = [x for direction in OBLIQUE for x in direction]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    dataset.SharedFunctionalGroupsSequence = [shared]
    normal = np.cross(*OBLIQUE)
    groups = []
    for k in range(4):
        group, position = Dataset(), Dataset()
        position.ImagePositionPatient = [round(float(x), 6) for x in np.array([5, 6, 7]) - 2.0 * k * normal]
        group.PlanePositionSequence = [position]
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = groups
    return save(dataset, tmp_path / "enhanced.dcm")


@pytest.fixture
def segment_points() -> Callable[[Path], Points]:
    return _segment_points


@pytest.fixture
def mask_points() -> Callable[[np.ndarray, np.ndarray], set[tuple[int, int, int]]]:
    return _mask_points


def _segment_points(path: Path) -> Points:
    """Centres of the pixels of each segment in the patient, in 0.01 mm (LPS), by the rules of the standard."""
    dataset = dcmread(path)
    frames = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    spacing = [float(x) for x in shared.PixelMeasuresSequence[0].PixelSpacing]
    turned = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float).reshape(2, 3)
    found: dict[int, set[tuple[int, int, int]]] = {}
    for frame, group in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        origin = np.array(group.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        for number in np.unique(frame[frame > 0]):
            identified = group.get("SegmentIdentificationSequence") or shared.get("SegmentIdentificationSequence")
            segment = int(identified[0].ReferencedSegmentNumber) if identified else int(number)
            rows, columns = np.nonzero(frame == number)
            points = origin + np.outer(columns, turned[0]) * spacing[1] + np.outer(rows, turned[1]) * spacing[0]
            found.setdefault(segment, set()).update(map(tuple, np.rint(points * 100).astype(int).tolist()))
    return found


def _mask_points(mask: np.ndarray, affine: np.ndarray) -> set[tuple[int, int, int]]:
    """Centres of the voxels of a mask of a volume in the patient, in 0.01 mm (LPS)."""
    points = np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]
    return set(map(tuple, np.rint(points * [-100, -100, 100]).astype(int).tolist()))


@pytest.fixture
def errors_of() -> Callable[[Path], list[str]]:
    """What dciodvfy of dicom3tools calls an error of a file; the test is skipped where it is not installed."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian package dicom3tools)")

    def check(path: Path) -> list[str]:
        run = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False)
        lines = (run.stdout + run.stderr).splitlines()
        assert any(line in ("Segmentation", "ComprehensiveSR") for line in lines), lines
        return [line for line in lines if line.startswith(("Error", "Abort"))]

    return check


@pytest.fixture
def dcmqi() -> Callable[..., None]:
    """Runs a program of dcmqi; the test is skipped where it is not installed."""
    pytest.importorskip("dcmqi", reason="dcmqi is not installed (pip install dcmqi)")
    import dcmqi as package

    folder = Path(package.__file__).parent / "bin"

    def run(program: str, *words: str | os.PathLike[str]) -> None:
        done = subprocess.run([folder / program, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    return run
