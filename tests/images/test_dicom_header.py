"""Headers that scanners, converters and anonymisers leave incomplete or contradictory."""

from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from unibiomed.errors import InputError
from unibiomed.images import read_image, read_volume
from unibiomed.images.dicom_header import header_padding
from unibiomed.images.dicom_values import keep_stored_bits

RAMP = np.arange(2000, dtype=np.uint16).reshape(40, 50)
COLOURS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
WINDOW = {"WindowCenter": 0, "WindowWidth": 1000}


def rewrite(path, change):
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)
    return path


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, RLELossless])
def test_planar_configuration_is_ignored_for_compressed_pixels(make_dicom, syntax):
    if syntax == JPEG2000Lossless:
        pytest.importorskip("openjpeg")
    path = make_dicom(COLOURS, Modality="US")

    def compress(dataset):
        dataset.compress(syntax)
        dataset.PlanarConfiguration = 1

    assert (read_image(rewrite(path, compress)).pixels == COLOURS).all()


def test_planar_configuration_is_ignored_for_jpeg(make_dicom):
    flat = np.full((32, 32, 3), (200, 60, 20), np.uint8)
    flat[16:] = (10, 90, 220)
    stream = io.BytesIO()
    Image.fromarray(flat).save(stream, "JPEG", quality=95, subsampling=0)

    def compress(dataset):
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
        dataset.PhotometricInterpretation = "YBR_FULL_422"
        dataset.PlanarConfiguration = 1
        dataset.PixelData = encapsulate([stream.getvalue()])

    path = rewrite(make_dicom(flat, Modality="US"), compress)
    assert np.abs(read_image(path).pixels.astype(int) - flat).max() <= 6


@pytest.mark.parametrize(
    ("elements", "slope", "intercept"),
    [
        ({"RescaleIntercept": -1024}, 1, -1024),
        ({"RescaleSlope": 2}, 2, 0),
        ({"RescaleSlope": "", "RescaleIntercept": -1024}, 1, -1024),
        ({"RescaleSlope": 2, "RescaleIntercept": ""}, 2, 0),
        ({"RescaleSlope": 0, "RescaleIntercept": -1024}, 1, -1024),
        ({"RescaleSlope": "", "RescaleIntercept": ""}, 1, 0),
        ({"ModalityLUTSequence": [], "RescaleIntercept": -1024}, 1, -1024),
    ],
)
def test_a_rescale_may_be_incomplete(make_dicom, elements, slope, intercept):
    image = read_image(make_dicom(RAMP, **elements, **WINDOW))
    values = RAMP * float(slope) + intercept
    assert (image.pixels[..., 0] == np.rint(np.clip((values + 0.5) / 999 + 0.5, 0, 1) * 255)).all()
    assert any("RescaleSlope is 0" in note for note in image.notes) == (elements.get("RescaleSlope") == 0)


def test_a_series_may_have_an_incomplete_rescale(make_series):
    values = np.arange(3 * 16, dtype=np.uint16).reshape(3, 4, 4)
    for name, slope in (("empty", ""), ("zero", 0)):
        volume = read_volume(make_series(values, lambda k, slope=slope: {"RescaleSlope": slope}, name))
        assert volume.values.dtype == np.int16
        assert sorted(volume.values.ravel()) == list(range(-1024, -1024 + 48))
        assert any("RescaleSlope" in note for note in volume.slice_image(0).notes) == (slope == 0)


@pytest.mark.parametrize("keyword", ["SamplesPerPixel", "PhotometricInterpretation", "BitsStored", "HighBit"])
@pytest.mark.parametrize("value", [None, ""])
def test_elements_that_follow_from_others_may_be_missing(make_dicom, keyword, value):
    wanted = read_image(make_dicom(RAMP, BitsStored=12, HighBit=11, **WINDOW)).pixels
    path = make_dicom(RAMP, BitsStored=12, HighBit=11, **WINDOW)
    image = read_image(rewrite(path, lambda dataset: _clear(dataset, keyword, value)))
    assert (image.pixels == wanted).all()
    assert any("PhotometricInterpretation" in note for note in image.notes) == (keyword == "PhotometricInterpretation")


def _clear(dataset, keyword, value):
    if value is None:
        delattr(dataset, keyword)
    else:
        setattr(dataset, keyword, None)


@pytest.mark.parametrize(
    "keyword", ["SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "BitsAllocated", "BitsStored"]
)
def test_elements_of_colour_images_may_be_missing(make_dicom, keyword):
    path = rewrite(make_dicom(COLOURS, Modality="US"), lambda dataset: _clear(dataset, keyword, None))
    assert (read_image(path).pixels == COLOURS).all()


def test_an_unknown_sign_is_noted(make_dicom):
    path = rewrite(make_dicom(RAMP, **WINDOW), lambda dataset: _clear(dataset, "PixelRepresentation", None))
    assert any("signed" in note for note in read_image(path).notes)
    assert not any("signed" in note for note in read_image(make_dicom(RAMP, **WINDOW)).notes)


@given(
    st.integers(1, 16).flatmap(lambda bits: st.tuples(st.just(bits), st.integers(bits - 1, 15))),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_only_the_stored_bits_are_kept(place, signed, random):
    bits, high = place
    low = -(2 ** (bits - 1)) if signed else 0
    values = [random.randrange(low, low + 2**bits) for _ in range(20)]
    shift = high + 1 - bits
    mask = (2**bits - 1) << shift
    # A left-aligned value is told from a right-aligned one by bits above it, so that one has to use its highest bit.
    values[0] = low + 2**bits - 1 if not signed else low
    stored = [((value << shift) & mask) | (random.getrandbits(16) & ~mask & 0xFFFF) for value in values]
    words = np.array(stored, np.uint16).view(np.int16 if signed else np.uint16)
    kept = keep_stored_bits(words, bits, high)
    outside = words.min() < low or words.max() >= low + 2**bits
    if shift == 0 or outside:
        assert kept.tolist() == values and kept.dtype == words.dtype


def test_an_overlay_in_unused_bits_is_removed(make_dicom):
    wanted = read_image(make_dicom(RAMP, BitsStored=12, HighBit=11, **WINDOW)).pixels
    dirty = RAMP | np.where(np.arange(50) % 3 == 0, 0x8000, 0).astype(np.uint16)
    path = make_dicom(dirty, BitsStored=12, HighBit=11, **WINDOW)
    assert (read_image(path).pixels == wanted).all()
    pytest.importorskip("openjpeg")

    def compress(dataset):
        dataset.BitsStored, dataset.HighBit = 16, 15
        dataset.compress(JPEG2000Lossless)
        dataset.BitsStored, dataset.HighBit = 12, 11

    assert (read_image(rewrite(path, compress)).pixels == wanted).all()


def test_signed_values_without_sign_extension(make_dicom):
    signed = (RAMP.astype(np.int16) - 1000).astype(np.int16)
    wanted = read_image(make_dicom(signed, **WINDOW)).pixels
    cut = signed & 0x0FFF
    path = make_dicom(cut, BitsStored=12, HighBit=11, **WINDOW)
    assert (read_image(path).pixels == wanted).all()
    pytest.importorskip("openjpeg")

    def compress(dataset):
        dataset.BitsStored, dataset.HighBit = 16, 15
        dataset.compress(JPEG2000Lossless)
        dataset.BitsStored, dataset.HighBit = 12, 11

    assert (read_image(rewrite(path, compress)).pixels == wanted).all()


def test_left_aligned_values(make_dicom):
    wanted = read_image(make_dicom(RAMP, BitsStored=12, HighBit=11, **WINDOW)).pixels
    left = read_image(make_dicom(RAMP << 4, BitsStored=12, HighBit=15, **WINDOW))
    assert (left.pixels == wanted).all()
    wrong = read_image(make_dicom(RAMP, BitsStored=12, HighBit=15, **WINDOW))
    assert (wrong.pixels == wanted).all(), "values that fit are not left-aligned, whatever HighBit says"


def test_lossy_values_beyond_the_range_are_clipped():
    values = np.array([-3, 0, 4095, 4100], np.int32)
    assert keep_stored_bits(values.astype(np.uint16) & 0x1FFF, 12, 11).tolist() != [0, 0, 4095, 4095]
    over = np.array([0, 4095, 4100], np.uint16)
    assert keep_stored_bits(over, 12, 11, lossy=True).tolist() == [0, 4095, 4095]
    assert keep_stored_bits(over, 12, 11).tolist() == [0, 4095, 4]


SIGNED = (RAMP.astype(np.int16) - 1000).astype(np.int16)


def padded(dtype=np.int16) -> np.ndarray:
    values = SIGNED.astype(dtype)
    values[:10] = -2000
    return values


@pytest.mark.parametrize("vr", ["SS", "US"])
def test_padding_of_signed_pixels_in_either_vr(make_dicom, vr):
    path = make_dicom(padded())
    value = -2000 if vr == "SS" else 63536
    path = rewrite(path, lambda dataset: dataset.add_new("PixelPaddingValue", vr, value))
    assert read_image(path).details["range"][0] > -600


def test_padding_of_unsigned_pixels_as_signed(make_dicom):
    values = RAMP.copy()
    values[:10] = 63536
    path = rewrite(make_dicom(values), lambda dataset: dataset.add_new("PixelPaddingValue", "SS", -2000))
    assert read_image(path).details["range"][1] < 2000


@pytest.mark.parametrize("limit", [-1990, -2010])
def test_padding_may_be_a_range(make_dicom, limit):
    values = padded()
    values[0] = -1995 if limit > -2000 else -2005

    def add(dataset):
        dataset.add_new("PixelPaddingValue", "SS", -2000)
        dataset.add_new("PixelPaddingRangeLimit", "SS", limit)

    assert read_image(rewrite(make_dicom(values), add)).details["range"][0] > -600


@pytest.mark.parametrize("kind", ["Float", "DoubleFloat"])
def test_padding_of_floats(make_float_dicom, kind):
    values = np.linspace(1, 2, 2000).reshape(40, 50)
    values[:10] = -1e30
    path = make_float_dicom(values, f"{kind}PixelData", **{f"{kind}PixelPaddingValue": -1e30})
    image = read_image(path)
    assert image.details["range"][0] > 1.2 and len(np.unique(image.pixels)) > 100


def test_padding_of_a_series_in_implicit_vr(make_series):
    values = np.stack([padded()] * 3)
    windows = []
    for syntax in (None, ImplicitVRLittleEndian):
        change = {"PixelPaddingValue": -2000, "RescaleIntercept": 0}
        folder = make_series(values, lambda k: change, f"series{len(windows)}")  # noqa: B023
        for path in folder.iterdir() if syntax else ():
            dataset = pydicom.dcmread(path)
            dataset.file_meta.TransferSyntaxUID = syntax
            dataset.save_as(path, implicit_vr=True, little_endian=True)
        windows.append(read_volume(folder).range_window)
    assert windows[0] == windows[1] and windows[0][1] < 1600


def palette(dataset, table, depth, *, words):
    for number, colour in enumerate(("Red", "Green", "Blue")):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, depth])
        dataset[f"{colour}PaletteColorLookupTableDescriptor"].VR = "US"
        data = table[:, number].astype(words).tobytes()
        dataset.add_new(f"{colour}PaletteColorLookupTableData", "OW", data)
    dataset.PhotometricInterpretation = "PALETTE COLOR"
    dataset.SOPClassUID = SecondaryCaptureImageStorage


@pytest.mark.parametrize(
    ("depth", "words", "times"), [(8, "u1", 1), (8, "<u2", 1), (16, "<u2", 257), (16, "<u2", 1), (8, "<u2", 257)]
)
def test_palettes_of_bytes_and_words(make_dicom, depth, words, times):
    index = np.arange(256, dtype=np.uint8).reshape(16, 16)
    table = np.random.default_rng(1).integers(0, 256, (256, 3))
    table[0] = 255
    path = rewrite(make_dicom(index, Modality="US"), lambda d: palette(d, table * times, depth, words=words))
    assert (read_image(path).pixels == table[index]).all()


@pytest.mark.parametrize(("depth", "words"), [(8, "u1"), (8, ">u2"), (16, ">u2")])
def test_palettes_of_big_endian_files(make_dicom, depth, words):
    index = np.arange(256, dtype=np.uint8).reshape(16, 16)
    table = np.random.default_rng(1).integers(0, 256, (256, 3))
    path = make_dicom(index, Modality="US")
    dataset = pydicom.dcmread(path)
    palette(dataset, table * (257 if depth == 16 else 1), depth, words=words)
    if words == "u1":
        for colour in ("Red", "Green", "Blue"):
            name = f"{colour}PaletteColorLookupTableData"
            setattr(dataset, name, np.frombuffer(dataset.get(name), np.uint16).byteswap().tobytes())
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    dataset["PixelData"].VR = "OB"
    pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=False, force_encoding=True)
    assert (read_image(path).pixels == table[index]).all()


def test_palette_of_more_than_256_colours(make_dicom):
    index = np.arange(400, dtype=np.uint16).reshape(20, 20)
    table = np.arange(400) * 100

    def add(dataset):
        for colour in ("Red", "Green", "Blue"):
            dataset.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [400, 0, 16])
            dataset.add_new(f"{colour}PaletteColorLookupTableData", "OW", table.astype("<u2").tobytes())
        dataset.PhotometricInterpretation = "PALETTE COLOR"

    image = read_image(rewrite(make_dicom(index, Modality="US"), add))
    assert (image.pixels[..., 0] == np.rint(table[index] / 65535 * 255)).all()


@pytest.mark.parametrize(
    ("elements", "spacing", "noted"),
    [
        ({"EstimatedRadiographicMagnificationFactor": 1.8}, (0.2 / 1.8, 0.1 / 1.8), False),
        (
            {"DistanceSourceToDetector": 1100, "DistanceSourceToPatient": 750},
            (0.2 * 750 / 1100, 0.1 * 750 / 1100),
            False,
        ),
        ({"PixelSpacing": [0.2, 0.1], "EstimatedRadiographicMagnificationFactor": 2}, (0.1, 0.05), False),
        ({"PixelSpacing": [0.15, 0.075]}, (0.15, 0.075), False),
        (
            {"PixelSpacing": [0.2, 0.1], "PixelSpacingCalibrationType": "GEOMETRY"},
            (0.2, 0.1),
            False,
        ),
        ({}, (0.2, 0.1), True),
        ({"EstimatedRadiographicMagnificationFactor": 0}, (0.2, 0.1), True),
        ({"DistanceSourceToDetector": 1100, "DistanceSourceToPatient": ""}, (0.2, 0.1), True),
    ],
)
def test_the_spacing_at_the_detector(make_dicom, elements, spacing, noted):
    image = read_image(make_dicom(RAMP, Modality="MG", ImagerPixelSpacing=[0.2, 0.1], **elements, **WINDOW))
    assert image.spacing == pytest.approx(spacing)
    assert any("at the detector" in note for note in image.notes) == noted


@pytest.mark.parametrize("end", [500, 700, 760])
def test_a_file_that_ends_in_its_header_is_truncated(make_dicom, end):
    path = make_dicom(RAMP)
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(InputError, match="truncated"):
        read_image(path)


def test_a_truncated_file_of_a_series_is_named(make_series):
    folder = make_series(np.zeros((3, 4, 4), np.uint16))
    last = sorted(folder.iterdir())[-1]
    last.write_bytes(last.read_bytes()[:600])
    with pytest.raises(InputError, match=f"{last.name}.*truncated"):
        read_volume(folder)


def test_16_bit_colours_that_use_few_bits(make_dicom):
    wide = COLOURS.astype(np.uint16)
    low = read_image(make_dicom(wide, Modality="OP"))
    assert (low.pixels == COLOURS).all() and any("lowest 8 bits" in note for note in low.notes)
    full = read_image(make_dicom(wide * 257, Modality="OP"))
    assert (full.pixels == COLOURS).all() and full.notes == ()
    twelve = read_image(make_dicom(wide * 16, Modality="OP", BitsStored=12, HighBit=11))
    assert np.abs(twelve.pixels.astype(int) - COLOURS).max() <= 1 and twelve.notes == ()


def test_lookup_tables_with_one_entry_per_word(make_dicom):
    lut = pydicom.Dataset()
    lut.add_new("LUTDescriptor", "US", [2000, 0, 8])
    lut.add_new("LUTData", "OW", np.minimum(np.arange(2000) // 8, 255).astype("<u2").tobytes())
    image = read_image(make_dicom(RAMP, VOILUTSequence=Sequence([lut])))
    assert (image.pixels[..., 0] == RAMP // 8).all()
    modality = read_image(make_dicom(RAMP, ModalityLUTSequence=Sequence([lut]), WindowCenter=128, WindowWidth=256))
    assert np.abs(modality.pixels[..., 0].astype(int) - RAMP // 8).max() <= 1


@given(st.integers(2, 16), st.booleans(), st.data())
def test_padding_of_any_sign_is_converted_to_that_of_the_pixels(bits, signed, data):
    low = -(2 ** (bits - 1)) if signed else 0
    value = data.draw(st.integers(low, low + 2**bits - 1))
    dataset = pydicom.Dataset()
    dataset.BitsAllocated, dataset.BitsStored, dataset.PixelRepresentation = 16, bits, int(signed)
    # as the same 16 bits read with and without a sign
    for vr, written in (("US", value % 2**16), ("SS", (value + 2**15) % 2**16 - 2**15)):
        dataset.add_new("PixelPaddingValue", vr, written)
        assert header_padding(dataset) == (value, value)
