from __future__ import annotations

import importlib.util
import logging
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import MPEG4HP41, DeflatedExplicitVRLittleEndian, JPEGLSLossless

from unibiomed.errors import InputError
from unibiomed.images import read_image

RAMP = np.arange(0, 2000, 2, dtype=np.int16).reshape(20, 50)


def shipped(name: str) -> Path:
    """A file that comes with pydicom itself; nothing is downloaded."""
    return Path(str(get_testdata_file(name, download=False)))


def item(**elements) -> Dataset:
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.mark.parametrize(
    ("name", "modality", "shape", "window"),
    [
        ("CT_small.dcm", "CT", (128, 128), None),
        ("693_J2KI.dcm", "CT", (512, 512), (40.0, 100.0)),
        ("J2K_pixelrep_mismatch.dcm", "CT", (512, 512), (40.0, 100.0)),
        ("MR_small.dcm", "MRI", (64, 64), (600.0, 1600.0)),
        ("MR_small_RLE.dcm", "MRI", (64, 64), (600.0, 1600.0)),
        ("MR_small_bigendian.dcm", "MRI", (64, 64), (600.0, 1600.0)),
        ("MR_small_implicit.dcm", "MRI", (64, 64), (600.0, 1600.0)),
        ("MR_small_jp2klossless.dcm", "MRI", (64, 64), (600.0, 1600.0)),
        ("MR_small_padded.dcm", "MRI", (64, 64), (600.0, 1600.0)),
        ("examples_overlay.dcm", "MRI", (300, 484), (450.0, 790.0)),
        ("examples_palette.dcm", "ultrasound", (350, 800), None),
        ("examples_rgb_color.dcm", "ultrasound", (240, 320), None),
        ("examples_jpeg2k.dcm", "ultrasound", (480, 640), None),
        ("image_dfl.dcm", None, (512, 512), None),
        ("JPEG2000.dcm", None, (1024, 256), None),
        ("SC_rgb_rle_16bit.dcm", None, (100, 100), None),
        ("SC_rgb_small_odd.dcm", None, (3, 3), None),
        ("SC_ybr_full_422_uncompressed.dcm", None, (100, 100), None),
    ],
)
def test_files_of_pydicom_are_read(name, modality, shape, window):
    image = read_image(shipped(name))
    assert image.modality == modality
    assert image.pixels.shape == (*shape, 3)
    assert image.details["window"] == window
    assert image.pixels.std() > 5, "there is something to see"


def test_every_encoding_of_one_image_gives_the_same_pixels():
    expected = read_image(shipped("MR_small.dcm")).pixels
    for name in ("RLE", "bigendian", "expb", "implicit", "jp2klossless", "padded"):
        assert (read_image(shipped(f"MR_small_{name}.dcm")).pixels == expected).all(), name


@pytest.mark.parametrize(
    "name",
    [
        "SC_rgb_dcmtk_+eb+cr.dcm",
        "SC_rgb_dcmtk_+eb+cy+n1.dcm",
        "SC_rgb_dcmtk_+eb+cy+np.dcm",
        "SC_rgb_dcmtk_+eb+cy+s4.dcm",
        "SC_rgb_gdcm_KY.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",
        "SC_rgb_rle.dcm",
        "SC_rgb_rle_16bit.dcm",
        "SC_rgb_rle_32bit.dcm",
        "SC_ybr_full_422_uncompressed.dcm",
    ],
)
def test_colour_bars_have_their_colours(name):
    pixels = read_image(shipped(name)).pixels.astype(int)
    # The picture has ten bars of 10 rows: red, green, blue, then paler ones; middle rows avoid the edges.
    for row, color in ((5, (255, 0, 0)), (25, (0, 255, 0)), (45, (0, 0, 255)), (65, (0, 0, 0)), (95, (255, 255, 255))):
        assert np.abs(pixels[row, 50] - color).max() <= 6, (name, row)


def test_multi_frame_needs_a_slice():
    path = shipped("examples_ybr_color.dcm")
    with pytest.raises(InputError, match="30 frames: choose one with the slice option, 0 to 29"):
        read_image(path)
    first, last = read_image(path, slice_index=0), read_image(path, slice_index=29)
    assert first.pixels.shape == (240, 320, 3)
    assert (first.pixels != last.pixels).any()
    assert last.details["slice"] == 29 and last.details["slices"] == 30
    for wrong in (30, -1):
        with pytest.raises(InputError, match="choose 0 to 29"):
            read_image(path, slice_index=wrong)
    with pytest.raises(InputError, match="single image"):
        read_image(shipped("CT_small.dcm"), slice_index=0)


@pytest.mark.parametrize("name", ["rtplan.dcm", "rtstruct.dcm", "test-SR.dcm", "reportsi.dcm", "waveform_ecg.dcm"])
def test_files_without_pixels_say_so(name):
    with pytest.raises(InputError, match="holds no pixels"):
        read_image(shipped(name))


def test_damaged_files_say_so():
    with pytest.raises(InputError, match="truncated or damaged"):
        read_image(shipped("MR_truncated.dcm"))


@pytest.mark.parametrize("name", ["liver_1frame.dcm", "rtdose_1frame.dcm", "badVR.dcm"])
def test_segmentations_and_doses_are_no_pictures(name):
    with pytest.raises(InputError, match=r"is a (segmentation|dose distribution).*give the image that it belongs to"):
        read_image(shipped(name))


def test_missing_decoders_are_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("unibiomed.images.dicom_values.pixel_array", _no_decoder)
    with pytest.raises(InputError, match=r'cannot decode JPEG-LS .*pip install "unibiomed\[dicom\]"'):
        read_image(shipped("JPEGLSNearLossless_16.dcm"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    with pytest.raises(InputError, match="damaged or not supported"):
        read_image(shipped("JPEGLSNearLossless_16.dcm"))


def _no_decoder(*args, **kwargs):
    raise RuntimeError("no plugin; patient Secret^Patient")


def test_videos_are_refused(make_dicom):
    path = make_dicom(RAMP)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = MPEG4HP41
    dataset.PixelData = pydicom.encaps.encapsulate([b"no video"])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    with pytest.raises(InputError, match="video"):
        read_image(path)


def test_rescale_then_the_window_asked_for(make_dicom):
    path = make_dicom(RAMP, RescaleSlope=2, RescaleIntercept=-1024, WindowCenter=0, WindowWidth=10)
    hounsfield = RAMP * 2.0 - 1024
    image = read_image(path, window="lung")
    assert (image.pixels[:, :, 0] == np.rint(np.clip((hounsfield + 1350) / 1500, 0, 1) * 255)).all()
    assert image.details["window"] == (-600.0, 1500.0)
    assert read_image(path, window=(40, 400)).details["window"] == (40.0, 400.0)


def test_the_window_of_the_header_is_used(make_dicom):
    image = read_image(
        make_dicom(RAMP, RescaleSlope=1, RescaleIntercept=-1000, WindowCenter=[40, 0], WindowWidth=[401, 9])
    )
    expected = np.rint(np.clip((RAMP - 1000.0 - 39.5) / 400 + 0.5, 0, 1) * 255)
    assert (image.pixels[:, :, 0] == expected).all()
    assert image.details["window"] == (40.0, 401.0)
    exact = read_image(make_dicom(RAMP, WindowCenter=40, WindowWidth=400, VOILUTFunction="LINEAR_EXACT"))
    assert (exact.pixels[:, :, 0] == np.rint(np.clip((RAMP + 160.0) / 400, 0, 1) * 255)).all()


def test_a_useless_window_in_the_header_is_passed_over(make_dicom):
    image = read_image(make_dicom(RAMP, WindowCenter=40, WindowWidth=0))
    assert image.details["window"] is None and image.details["scaling"] == "percentile"
    assert image.pixels.min() == 0 and image.pixels.max() == 255


def test_the_voi_lut_comes_before_the_window(make_dicom):
    table = [4095 - 2 * k for k in range(2000)]
    lut = item(LUTDescriptor=[2000, 0, 12], LUTData=table)
    for element, vr in (("LUTDescriptor", "US"), ("LUTData", "US")):
        lut[element].VR = vr
    path = make_dicom(RAMP, VOILUTSequence=Sequence([lut]), WindowCenter=40, WindowWidth=400)
    image = read_image(path)
    assert image.details["scaling"] == "VOI LUT"
    assert (image.pixels[:, :, 0] == np.rint((4095.0 - 2 * RAMP) / 4095 * 255)).all()
    assert read_image(path, window="40,400").details["scaling"] == "window"


def test_monochrome1_is_inverted(make_dicom):
    plain = read_image(make_dicom(RAMP, WindowCenter=1000, WindowWidth=2000)).pixels
    for options in ({"WindowCenter": 1000, "WindowWidth": 2000}, {}):
        inverted = read_image(make_dicom(RAMP, PhotometricInterpretation="MONOCHROME1", **options)).pixels
        assert inverted[0, 0, 0] > 250 > 5 > inverted[-1, -1, 0]
        assert not inverted.flags.writeable
    asked = read_image(make_dicom(RAMP, PhotometricInterpretation="MONOCHROME1"), window=(1000, 1999))
    assert np.abs(asked.pixels.astype(int) - (255 - plain.astype(int))).max() <= 1


def test_8_bits_without_a_window_stay_as_they_are(make_dicom):
    grey = np.arange(50, 150, dtype=np.uint8).reshape(10, 10)
    assert (read_image(make_dicom(grey, Modality="US")).pixels[:, :, 0] == grey).all()


def test_padding_does_not_set_the_range(make_dicom):
    values = RAMP - 1000
    values[:10] = -3024
    low, _ = read_image(make_dicom(values, PixelPaddingValue=-3024)).details["range"]
    assert low >= -1000


def test_spacing_and_modality(make_dicom):
    assert read_image(make_dicom(RAMP, PixelSpacing=[0.5, 0.25])).spacing == (0.5, 0.25)
    assert read_image(make_dicom(RAMP, ImagerPixelSpacing=[0.2, 0.1], Modality="DX")).spacing == (0.2, 0.1)
    assert read_image(make_dicom(RAMP, PixelSpacing=[0, 0.25])).spacing is None
    assert read_image(make_dicom(RAMP)).spacing is None
    for code, modality in {"DX": "X-ray", "PT": "PET", "XC": None, "ES": "endoscopy"}.items():
        assert read_image(make_dicom(RAMP, Modality=code)).modality == modality
    assert read_image(make_dicom(RAMP, Modality=None)).modality is None


def test_named_windows_are_for_ct(make_dicom):
    with pytest.raises(InputError, match="is for CT and this is MRI"):
        read_image(make_dicom(RAMP, Modality="MR"), window="lung")
    assert read_image(make_dicom(RAMP, Modality="MR"), window="500,1000").details["scaling"] == "window"


def test_enhanced_frames_have_their_own_values(make_dicom):
    frames = np.stack([RAMP, RAMP])
    shared = item(PixelMeasuresSequence=Sequence([item(PixelSpacing=[0.5, 0.5])]))
    per_frame = [
        item(
            PixelValueTransformationSequence=Sequence([item(RescaleSlope=1, RescaleIntercept=-1000 * k)]),
            FrameVOILUTSequence=Sequence([item(WindowCenter=100, WindowWidth=401)]),
        )
        for k in range(2)
    ]
    path = make_dicom(
        frames,
        SharedFunctionalGroupsSequence=Sequence([shared]),
        PerFrameFunctionalGroupsSequence=Sequence(per_frame),
    )
    for k in range(2):
        image = read_image(path, slice_index=k)
        assert image.spacing == (0.5, 0.5)
        expected = np.rint(np.clip((RAMP - 1000.0 * k - 99.5) / 400 + 0.5, 0, 1) * 255)
        assert (image.pixels[:, :, 0] == expected).all()


def test_colour_needs_no_window(make_dicom):
    colors = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    path = make_dicom(colors, Modality="ES")
    image = read_image(path)
    assert (image.pixels == colors).all() and image.modality == "endoscopy"
    with pytest.raises(InputError, match="has colours"):
        read_image(path, window="40,400")


def test_files_without_preamble(make_dicom, tmp_path):
    path = make_dicom(RAMP, WindowCenter=40, WindowWidth=400)
    expected = read_image(path).pixels
    whole = path.read_bytes()
    bare = tmp_path / "bare"
    bare.write_bytes(whole[132:])
    assert (read_image(bare).pixels == expected).all()
    meta_length = 12 + int.from_bytes(whole[140:144], "little")
    bare.write_bytes(whole[132 + meta_length :])
    assert (read_image(bare).pixels == expected).all()


def test_a_damaged_size_is_refused_before_decoding(make_dicom):
    with pytest.raises(InputError, match="60000x60000"):
        read_image(make_dicom(RAMP, Rows=60000, Columns=60000))
    with pytest.raises(InputError, match="the image is empty"):
        read_image(make_dicom(RAMP, Rows=0))
    with pytest.raises(InputError, match="damaged"):
        read_image(make_dicom(RAMP, Rows=None))


def test_deflated_bombs_are_refused(make_dicom, monkeypatch):
    path = make_dicom(RAMP)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path)
    assert read_image(path).height == 20
    monkeypatch.setattr("unibiomed.images.dicom_header.MAX_BYTES", 1500)
    with pytest.raises(InputError, match="inflate"):
        read_image(path)


@pytest.mark.parametrize("keyword", ["FloatPixelData", "DoubleFloatPixelData"])
def test_nan_in_floats_is_background(make_float_dicom, keyword):
    values = np.linspace(1, 2, RAMP.size).reshape(RAMP.shape)
    values[:5] = np.nan
    image = read_image(make_float_dicom(values, keyword))
    assert (image.pixels[:5] == 0).all()
    assert 1.2 < image.details["range"][0] < 1.3 < 1.99 < image.details["range"][1] <= 2
    inverted = read_image(make_float_dicom(values, keyword, PhotometricInterpretation="MONOCHROME1"))
    assert (inverted.pixels[:5] == 0).all() and inverted.pixels[6, 0, 0] > inverted.pixels[-1, -1, 0]
    values[0, 0] = np.inf
    with pytest.raises(InputError, match="infinite"):
        read_image(make_float_dicom(values, keyword))


def test_patient_data_goes_nowhere(make_dicom, capfd, caplog):
    path = make_dicom(RAMP)
    whole = path.read_bytes()
    broken = [
        whole,
        whole[:600],
        whole[:-100],
        whole.replace(b"19700101", b"Secret!!"),
        whole.replace(b"DA\x08\0", b"DS\x08\0"),
        whole.replace(b"CT\0\0", b"Secr"),
        whole.replace(b"US\x02\0", b"IS\x02\0"),
    ]
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings():
        warnings.simplefilter("error")
        for data in broken:
            path.write_bytes(data)
            try:
                said = repr(read_image(path))
            except InputError as error:
                said = str(error)
            assert "secret" not in said.lower() and "1970" not in said
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_library_logging_is_restored(make_dicom):
    level = logging.getLogger("pydicom").level
    read_image(make_dicom(RAMP))
    assert logging.getLogger("pydicom").level == level


def test_jpeg_ls_is_read_where_its_decoder_is_installed():
    if not any(importlib.util.find_spec(name) for name in ("gdcm", "jpeg_ls", "libjpeg")):
        pytest.skip("no decoder for JPEG-LS is installed")
    path = shipped("MR_small_jpeg_ls_lossless.dcm")
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == JPEGLSLossless
    assert (read_image(path).pixels == read_image(shipped("MR_small.dcm")).pixels).all()


def test_12_bit_jpeg_names_its_decoder(monkeypatch):
    monkeypatch.setattr("unibiomed.images.dicom_values.pixel_array", _no_decoder)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "libjpeg" else object())
    with pytest.raises(InputError, match=r"cannot decode JPEG Extended .*pylibjpeg-libjpeg, whose licence is GPL-3\.0"):
        read_image(shipped("JPGExtended.dcm"))


def test_lossless_jpeg_is_read_where_its_decoder_is_installed():
    if not any(importlib.util.find_spec(name) for name in ("gdcm", "libjpeg")):
        pytest.skip("no decoder for lossless JPEG is installed")
    bars = read_image(shipped("SC_rgb_jpeg_gdcm.dcm")).pixels
    # lossless: the middle rows of the bars have exactly their colours
    assert [bars[row, 50].tolist() for row in (5, 25, 45)] == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
