"""The inputs of public bug reports in the shared folder: each has a README that says what is right."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unibiomed.errors import InputError
from unibiomed.images import read_image, read_volume


@pytest.fixture(scope="module")
def cases(shared_data: Path) -> Path:
    folder = shared_data.parent / "cases"
    if not folder.is_dir():
        pytest.skip(f"no cases: {folder} is not a folder")
    return folder


def expected(case: Path) -> np.ndarray:
    return np.asarray(Image.open(case / "expected.png").convert("RGB")).astype(int)


@pytest.mark.parametrize(
    ("name", "most", "mean"),
    [
        # chroma is stored at half the width, so that edges differ
        ("dicom-compressed-planar-1/baseline.dcm", 16, 2),
        ("colours-16-bit-low/rgb16.dcm", 0, 0),
        ("colours-16-bit-low/rgba12.png", 1, 0.5),
        ("dicom-intercept-without-slope/slice.dcm", 0, 0),
        ("dicom-slope-zero/slice.dcm", 0, 0),
        ("dicom-high-bits-compressed/overlay_j2k16.dcm", 0, 0),
        ("dicom-padding/a_us_for_signed.dcm", 0, 0),
        ("dicom-padding/b_range.dcm", 0, 0),
        ("dicom-palette-8-in-16/one_entry_a_word.dcm", 0, 0),
        ("tiff-planar-16/rgb16_planar.tif", 0, 0),
    ],
)
def test_pictures_are_those_expected(cases, name, most, mean):
    path = cases / name
    pixels = read_image(path).pixels.astype(int)
    wanted = expected(path.parent)
    assert pixels.shape == wanted.shape
    apart = np.abs(pixels - wanted)
    assert apart.max() <= most and apart.mean() <= mean


def test_unused_bits_after_jpeg_ls(cases):
    if not any(importlib.util.find_spec(name) for name in ("gdcm", "jpeg_ls", "libjpeg")):
        pytest.skip("no decoder for JPEG-LS is installed")
    path = cases / "dicom-high-bits-compressed" / "overlay_jpegls.dcm"
    assert (read_image(path).pixels == expected(path.parent)).all()


@pytest.mark.parametrize("name", ["slope_empty", "no_samples", "no_bitsstored", "no_pixelrepresentation"])
def test_missing_elements_are_completed(cases, name):
    image = read_image(cases / "dicom-rescale-empty" / f"{name}.dcm")
    assert image.pixels.std() > 30 and image.details["window"] == (40.0, 400.0)
    assert any("signed" in note for note in image.notes) == (name == "no_pixelrepresentation")


def test_a_slope_of_zero_is_noted(cases):
    assert any("RescaleSlope is 0" in note for note in read_image(cases / "dicom-slope-zero" / "slice.dcm").notes)


def test_padding_of_a_series(cases):
    volume = read_volume(cases / "dicom-padding" / "c_series_explicit")
    assert volume.details["padding"] == (-2000.0, -2000.0)
    assert volume.range_window[0] - volume.range_window[1] / 2 > -1100


def test_the_size_at_the_detector_is_divided_by_the_magnification(cases):
    spacing = read_image(cases / "spacing-at-detector" / "xa.dcm").spacing
    assert spacing == pytest.approx((0.3 * 750 / 1100,) * 2)


def test_an_unknown_orientation_is_noted(cases):
    path = cases / "nifti-geometry-unknown" / "no_orientation.nii"
    for image in (read_image(path), read_volume(path).slice_image(0)):
        assert any("left and right" in note for note in image.notes)


def test_a_background_of_nan(cases):
    path = cases / "nifti-nan-background" / "nan.nii.gz"
    image, volume = read_image(path), read_volume(path)
    assert image.pixels.std() > 30 and image.modality == "CT" == volume.modality
    assert (volume.slice_image(2).pixels == image.pixels).all()


def test_a_stack_with_one_directory(cases):
    path = cases / "tiff-imagej-one-ifd" / "stack.tif"
    with pytest.raises(InputError, match="5 planes: choose one with the slice option, 0 to 4"):
        read_image(path)
    tifffile = pytest.importorskip("tifffile")
    planes = tifffile.imread(path)
    for index, plane in enumerate(planes):
        window = (1000, 1999)
        grey = read_image(path, slice_index=index, window=window).pixels[..., 0]
        assert (grey == np.rint(np.clip((plane.astype(float) - 0.5) / 1999, 0, 1) * 255)).all()


def test_what_is_no_picture_or_not_whole(cases):
    with pytest.raises(InputError, match=r"a segmentation \(SEG\), not an image"):
        read_image(cases / "segmentation-as-image" / "seg.dcm")
    with pytest.raises(InputError, match=r"image \(CT\) is truncated before its pixels"):
        read_image(cases / "dicom-cut-in-header" / "ct.dcm")


def test_the_localizer_is_named(cases):
    with pytest.raises(InputError, match=r"/IM000: this image has another orientation than most images of its series"):
        read_volume(cases / "series-localizer-first")
