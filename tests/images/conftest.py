"""Small files of every format, made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


@pytest.fixture
def make_dicom(tmp_path: Path) -> Callable[..., Path]:
    """Write uint8, uint16 or int16 pixels as DICOM; keywords set or, with None, remove elements."""

    def make(pixels: np.ndarray, **elements: Any) -> Path:
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.SOPClassUID = CTImageStorage
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
        dataset.PatientName = "Secret^Patient"
        dataset.PatientID = "SECRET-0815"
        dataset.PatientBirthDate = "19700101"
        dataset.Modality = "CT"
        color = pixels.shape[-1] == 3 and pixels.ndim > 2
        frames = pixels.ndim - color == 3
        if frames:
            dataset.NumberOfFrames = pixels.shape[0]
        dataset.Rows, dataset.Columns = pixels.shape[1:3] if frames else pixels.shape[:2]
        dataset.SamplesPerPixel = 3 if color else 1
        dataset.PhotometricInterpretation = "RGB" if color else "MONOCHROME2"
        if color:
            dataset.PlanarConfiguration = 0
        bits = 8 * pixels.dtype.itemsize
        dataset.BitsAllocated = dataset.BitsStored = bits
        dataset.HighBit = bits - 1
        dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
        dataset.PixelData = pixels.tobytes()
        dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
        for keyword, value in elements.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)
        path = tmp_path / "image.dcm"
        dataset.save_as(path, enforce_file_format=True)
        return path

    return make


@pytest.fixture
def make_float_dicom(make_dicom: Callable[..., Path]) -> Callable[..., Path]:
    """Write floats (height, width) as ``FloatPixelData`` or ``DoubleFloatPixelData``."""

    def make(values: np.ndarray, keyword: str = "FloatPixelData", **elements: Any) -> Path:
        path = make_dicom(np.zeros(values.shape, np.uint16), **elements)
        dataset = dcmread(path)
        for unused in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
            delattr(dataset, unused)
        kind = np.float32 if keyword == "FloatPixelData" else np.float64
        dataset.BitsAllocated = 8 * np.dtype(kind).itemsize
        setattr(dataset, keyword, values.astype(kind).tobytes())
        dataset.save_as(path)
        return path

    return make


@pytest.fixture
def make_nifti(tmp_path: Path) -> Callable[..., Path]:
    """Write a volume as NIfTI-1 in the given orientation, such as "LPS", with voxel sizes along the file's axes."""

    def make(
        volume: np.ndarray, orientation: str = "RAS", sizes: tuple[float, ...] = (1, 1, 1), name: str = "volume.nii"
    ) -> Path:
        affine = np.zeros((4, 4))
        affine[3, 3] = 1
        for axis, (letter, size) in enumerate(zip(orientation, sizes, strict=True)):
            row, sign = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}[letter]
            affine[row, axis] = sign * size
        image = nib.Nifti1Image(volume, affine)
        image.header.set_xyzt_units("mm")
        path = tmp_path / name
        nib.save(image, path)
        return path

    return make


@pytest.fixture
def make_series(tmp_path: Path, make_dicom: Callable[..., Path]) -> Callable[..., Path]:
    """Write (slices, rows, columns) as a series; ``change(k)`` gives further elements of slice ``k``."""

    def make(values: np.ndarray, change: Callable[[int], dict] = lambda k: {}, name: str = "series") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        series = generate_uid()
        for k, cut in enumerate(values):
            elements = {
                "SeriesInstanceUID": series,
                "ImagePositionPatient": [0.0, 0.0, 2.5 * k],
                "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
                "PixelSpacing": [0.8, 0.7],
                "RescaleSlope": 1,
                "RescaleIntercept": -1024,
                **change(k),
            }
            # The order of the names says nothing of the order of the slices.
            make_dicom(cut, **elements).rename(folder / f"{(7 * k) % len(values):03d}_{k}.dcm")
        return folder

    return make
