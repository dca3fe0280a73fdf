"""Whatever the bytes, reading ends in an image or in one line of InputError."""

from __future__ import annotations

import gzip
import io
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.data import get_testdata_file

from unibiomed.errors import InputError
from unibiomed.images import read_image

MAGIC = [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"BM", b"\x1f\x8b\x08"]
MAGIC += [bytes(128) + b"DICM", b"\x08\0\x05\0CS", b"\x02\0\0\0UL", b"\0\x08\0\x05CS", bytes(344) + b"n+1\0"]


def attempt(data: bytes, **options) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(data)
        try:
            image = read_image(path, **options)
        except InputError as error:
            message = str(error)
            assert message and message.isprintable() and len(message) < 250
        else:
            assert image.pixels.dtype == np.uint8 and image.pixels.shape == (image.height, image.width, 3)


def picture(kind: str, mode: str) -> bytes:
    values = np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    stream = io.BytesIO()
    image = Image.fromarray(values) if mode == "RGB" else Image.fromarray(values[..., 0].astype(np.uint16) * 9)
    image.save(stream, kind)
    return stream.getvalue()


def nifti() -> bytes:
    volume = np.random.default_rng(0).integers(0, 999, (6, 7, 8), dtype=np.int16)
    return nib.Nifti1Image(volume, np.eye(4)).to_bytes()


def dicom(name: str) -> bytes:
    return Path(str(get_testdata_file(name, download=False))).read_bytes()


SEEDS = {
    "png": picture("PNG", "RGB"),
    "png16": picture("PNG", "I;16"),
    "jpeg": picture("JPEG", "RGB"),
    "tiff": picture("TIFF", "I;16"),
    "bmp": picture("BMP", "RGB"),
    "nifti": nifti(),
    "nifti.gz": gzip.compress(nifti()),
    "dicom": dicom("MR_small.dcm"),
    "dicom-rle": dicom("MR_small_RLE.dcm"),
    "dicom-jpeg": dicom("SC_rgb_small_odd_jpeg.dcm"),
    "dicom-j2k": dicom("MR_small_jp2klossless.dcm"),
    "dicom-palette": dicom("examples_palette.dcm")[:40000],
    "dicom-sr": dicom("test-SR.dcm"),
}


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(MAGIC), st.binary(max_size=400))
def test_random_bytes(magic, rest):
    attempt(magic + rest)


@pytest.mark.parametrize("name", SEEDS)
def test_seeds_can_be_truncated_anywhere(name):
    data = SEEDS[name]
    for length in np.unique(np.linspace(1, len(data) - 1, 40).astype(int)):
        attempt(data[:length])


@pytest.mark.parametrize("name", SEEDS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_seeds_can_be_damaged_anywhere(name, data):
    damaged = bytearray(SEEDS[name])
    for _ in range(data.draw(st.integers(1, 8))):
        # Headers decide how the rest is read, so that most of the damage is done there.
        reach = data.draw(st.sampled_from([64, 400, 2000, len(damaged)]))
        damaged[data.draw(st.integers(0, min(reach, len(damaged)) - 1))] = data.draw(st.integers(0, 255))
    options = data.draw(st.sampled_from([{}, {"slice_index": 0}, {"window": "40,400"}, {"window": "lung"}]))
    attempt(bytes(damaged), **options)
