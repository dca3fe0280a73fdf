from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from unibiomed.errors import InputError
from unibiomed.images import MODALITIES, MedicalImage, check_modality, from_array, modality_from_dicom
from unibiomed.images.limits import shown
from unibiomed.images.modality import looks_like_hounsfield


def rgb(height: int = 4, width: int = 5) -> np.ndarray:
    return np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)


def test_an_image_is_read_only_and_independent_of_its_source():
    pixels = rgb()
    image = MedicalImage(pixels)
    pixels[:] = 0
    assert image.pixels.max() > 0
    assert not image.pixels.flags.writeable and image.pixels.flags.c_contiguous
    with pytest.raises(ValueError, match="read-only"):
        image.pixels[0, 0, 0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        image.modality = "CT"
    assert (image.height, image.width) == (4, 5)


@pytest.mark.parametrize("pixels", [np.zeros((4, 5)), np.zeros((4, 5, 3)), np.zeros((4, 5, 4), dtype=np.uint8)])
def test_an_image_of_other_pixels_cannot_exist(pixels):
    with pytest.raises(InputError, match="uint8"):
        MedicalImage(pixels)


def test_from_array_takes_colour_as_it_is():
    image = from_array(rgb(), spacing=(0.5, 0.25), modality="mri")
    assert (image.pixels == rgb()).all()
    assert image.spacing == (0.5, 0.25)
    assert image.modality == "MRI"
    assert image.details["bits"] == 8


def test_from_array_does_not_touch_or_share_the_array():
    for array in (rgb(), rgb()[..., 0], rgb()[:, ::-1]):
        array = array if array.flags.owndata else array.copy()
        image = from_array(array)
        assert array.flags.writeable
        before = image.pixels.copy()
        array[:] = 0
        assert (image.pixels == before).all()


def test_from_array_repeats_grey():
    grey = np.array([[0, 100], [200, 255]], dtype=np.uint8)
    assert (from_array(grey).pixels == grey[:, :, None]).all()
    assert from_array(grey > 100).pixels[:, :, 0].tolist() == [[0, 0], [255, 255]]


def test_from_array_composites_alpha_on_black():
    array = np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 51]]], dtype=np.uint8)
    assert from_array(array).pixels.tolist() == [[[200, 100, 50], [0, 0, 0], [40, 20, 10]]]


def test_from_array_scales_16_bit_colour_and_floats():
    assert from_array(np.full((1, 1, 3), 65535, dtype=np.uint16)).pixels.tolist() == [[[255] * 3]]
    assert from_array(np.full((1, 1, 3), 0.2)).pixels.tolist() == [[[51] * 3]]
    assert from_array(np.full((1, 1, 3), 51.0, dtype=np.float16)).pixels.tolist() == [[[51] * 3]]
    for wrong in (np.full((1, 1, 3), 300.0), np.full((1, 1, 3), -1.0), np.zeros((1, 1, 3), dtype=np.int16)):
        with pytest.raises(InputError, match="colour values must be"):
            from_array(wrong)


def test_from_array_scales_16_bit_grey_by_percentiles_or_window():
    ramp = np.arange(1, 1001, dtype=np.uint16).reshape(20, 50)
    image = from_array(ramp)
    low, high = image.details["range"]
    assert (low, high) == pytest.approx((5.995, 995.005))
    grey = image.pixels[:, :, 0].ravel()
    assert grey[0] == 0 and grey[-1] == 255 and abs(int(grey[500]) - 128) <= 1
    windowed = from_array(ramp, window=(500, 2))
    assert windowed.pixels[:, :, 0].ravel()[[497, 500]].tolist() == [0, 255]
    assert windowed.details["window"] == (500.0, 2.0)


@pytest.mark.parametrize(
    ("shape", "bad"), [((4, 5), np.inf), ((4, 5), -np.inf), ((4, 5, 3), np.nan), ((4, 5, 3), np.inf)]
)
def test_from_array_refuses_infinity_and_colours_of_nan(shape, bad):
    values = np.zeros(shape)
    values[1, 1] = bad
    with pytest.raises(InputError, match="NaN" if np.isnan(bad) else "infinite"):
        from_array(values)
    with pytest.raises(InputError):
        from_array(np.full(shape, bad, dtype=np.float32))


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0, 3)])
def test_from_array_refuses_empty(shape):
    with pytest.raises(InputError, match="the image is empty"):
        from_array(np.zeros(shape, dtype=np.uint8))


@pytest.mark.parametrize("shape", [(), (5,), (5, 5, 2), (3, 5, 5), (1, 5, 5, 3)])
def test_from_array_refuses_other_shapes(shape):
    with pytest.raises(InputError, match="not one image"):
        from_array(np.zeros(shape, dtype=np.uint8))


def test_from_array_refuses_other_types():
    for array in (np.zeros((2, 2), dtype=complex), np.array([["a", "b"]]), np.array([[None, 1]])):
        with pytest.raises(InputError, match="real numbers"):
            from_array(array)
    with pytest.raises(InputError, match="ragged"):
        from_array([[1, 2], [3]])


def test_from_array_refuses_more_pixels_than_the_limit_without_touching_them():
    with pytest.raises(InputError, match="60000x60000"):
        from_array(np.broadcast_to(np.uint8(0), (60000, 60000)))


@pytest.mark.parametrize("spacing", [(0, 1), (1, -1), (1,), ("a", "b"), (float("nan"), 1), 3])
def test_spacing_must_be_two_positive_numbers(spacing):
    with pytest.raises(InputError, match="spacing"):
        from_array(rgb(), spacing=spacing)


def test_a_window_needs_grey_values_of_its_kind():
    with pytest.raises(InputError, match="grey images"):
        from_array(rgb(), window="40,400")
    with pytest.raises(InputError, match="8-bit grey values"):
        from_array(rgb()[..., 0], window="lung")
    with pytest.raises(InputError, match="unknown window"):
        from_array(rgb()[..., 0], window="lungs")
    assert from_array(rgb()[..., 0], window=(100, 10)).details["scaling"] == "window"


def test_from_array_takes_pil_images():
    image = from_array(Image.fromarray(rgb()), modality="CT")
    assert (image.pixels == rgb()).all()
    assert image.modality == "CT"


@given(
    hnp.arrays(
        st.sampled_from([np.bool_, np.uint8, np.int16, np.uint16, np.int32, np.float16, np.float32, np.float64]),
        hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5),
    )
)
def test_from_array_gives_an_image_or_input_error(array):
    try:
        image = from_array(array)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert image.pixels.shape == (*array.shape[:2], 3)
        assert image.pixels.dtype == np.uint8


def test_modalities():
    assert len(MODALITIES) == 10
    codes = {
        "CT": "CT",
        "MR": "MRI",
        "DX": "X-ray",
        "mg ": "X-ray",
        "US": "ultrasound",
        "ES": "endoscopy",
        "OP": "fundus",
    }
    codes |= {"OPT": "OCT", "SM": "pathology", "GM": "pathology", "PT": "PET"}
    assert {code: modality_from_dicom(code) for code in codes} == codes
    assert modality_from_dicom("XC") is modality_from_dicom(None) is modality_from_dicom(["CT"]) is None
    assert check_modality(" x-RAY") == "X-ray"
    with pytest.raises(InputError, match="choose one of CT, MRI"):
        check_modality("photo")


def test_hounsfield_units_are_recognised():
    body = np.full((64, 64), -1000.0)
    body[16:48, 16:48] = 40
    body[30:32, 30:32] = 900
    assert looks_like_hounsfield(body)
    generator = np.random.default_rng(0)
    assert not looks_like_hounsfield(generator.uniform(-1024, 3071, (64, 64)))
    assert not looks_like_hounsfield(generator.uniform(-4096, 4095, (64, 64)))
    assert not looks_like_hounsfield(body + 1024)
    assert not looks_like_hounsfield(np.full((8, 8), -1000.0))


def test_names_in_messages_stay_on_one_line():
    assert shown("a\nb\x1b[0m\udcff.png") == "a?b?[0m?.png"
    assert len(shown("x" * 500)) <= 80


def test_nan_is_background():
    ramp = np.linspace(5, 6, 400, dtype=np.float32).reshape(20, 20)
    plain = from_array(ramp[5:])
    ramp[:5] = np.nan
    image = from_array(ramp)
    assert (image.pixels[:5] == 0).all() and (image.pixels[5:] == plain.pixels).all()
    assert (from_array(ramp, window=(5.5, 1)).pixels[:5] == 0).all()
    empty = from_array(np.full((4, 5), np.nan))
    assert not empty.pixels.any() and any("same value" in note for note in empty.notes)


@pytest.mark.parametrize("alpha", [None, 65535])
def test_16_bit_colours_that_use_few_bits(alpha):
    colours = rgb().astype(np.uint16)
    values = colours if alpha is None else np.dstack([colours, np.full(colours.shape[:2], alpha, np.uint16)])
    image = from_array(values)
    assert (image.pixels == rgb()).all()
    assert any("lowest 8 bits" in note for note in image.notes)
    assert from_array(colours * 257).notes == ()


@pytest.mark.parametrize(
    ("values", "what"),
    [
        (np.zeros((30, 30)), "every pixel"),
        (np.full((30, 30, 3), 200, np.uint8), "every pixel"),
        (np.random.default_rng(0).integers(0, 15, (300, 400), dtype=np.uint8), "nearly all pixels"),
    ],
)
def test_a_picture_of_one_value_says_so(values, what):
    notes = from_array(values).notes
    assert len(notes) == 1 and what in notes[0]
    again = from_array(values)
    assert MedicalImage(again.pixels, notes=again.notes).notes == notes, "said once"


def test_a_guessed_range_says_so():
    ramp = np.linspace(0, 4000, 400).reshape(20, 20)
    assert any("grey levels were scaled from the values" in note for note in from_array(ramp).notes)
    assert from_array(ramp, window=(2000, 4000)).notes == ()
    assert from_array((ramp / 16).astype(np.uint8)).notes == ()
