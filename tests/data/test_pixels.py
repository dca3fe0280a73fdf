"""Slices of volumes as pictures and masks."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from unibiomed.data import pixels
from unibiomed.data.pixels import default_window, is_turned, load_mask, load_picture, mask_numbers
from unibiomed.errors import DataError
from unibiomed.images import read_image, read_volume


def save(path: Path, values: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(values, np.diag([1.0, 1, 4, 1])), path)
    return path


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the volumes that were decoded, in order."""
    names: list[str] = []
    monkeypatch.setattr(
        pixels, "read_volume", lambda path, *channel: names.append(Path(path).name) or read_volume(path, *channel)
    )
    pixels._pictures.clear()
    pixels._labels.clear()
    return names


def test_a_volume_is_decoded_once_for_its_slices(tmp_path, decoded):
    image = save(tmp_path / "a.nii", np.random.default_rng(0).integers(0, 99, (5, 6, 4)).astype(np.int16))
    labels = [save(tmp_path / f"{name}.nii", np.ones((5, 6, 4), dtype=np.uint8)) for name in "bc"]
    for k in range(4):
        load_picture(image, "a", "MRI", k, None)
        for path in labels:
            assert load_mask(path, (6, 5), None, k).all()
    assert decoded == ["a.nii", "b.nii", "c.nii"]
    save(labels[0], np.zeros((5, 6, 4), dtype=np.uint8))
    os.utime(labels[0], ns=(1, 1))
    assert not load_mask(labels[0], None, None, 0).any()
    assert decoded[3:] == ["b.nii"]


def test_no_more_volumes_are_kept_than_there_is_memory_for(tmp_path, decoded, monkeypatch):
    paths = [save(tmp_path / f"{name}.nii", np.ones((5, 6, 4), dtype=np.uint8)) for name in "abc"]
    monkeypatch.setattr(pixels._labels, "_budget", 250)
    for path in (paths[0], paths[1], paths[0], paths[2], paths[0], paths[1]):
        load_mask(path, None, None, 0)
    assert decoded == ["a.nii", "b.nii", "c.nii", "b.nii"], "two of 120 bytes fit; the one used last stays"
    monkeypatch.setattr(pixels._labels, "_budget", 0)
    load_mask(paths[2], None, None, 0)
    load_mask(paths[2], None, None, 1)
    assert decoded[4:] == ["c.nii"], "the last one is always kept"


def test_values_and_sizes_of_labels(tmp_path):
    values = np.zeros((5, 6, 4), dtype=np.float32)
    values[1, 2, 3] = 2
    path = save(tmp_path / "a.nii.gz", values)
    assert load_mask(path, (6, 5), (2, 3), 3).sum() == 1
    assert not load_mask(path, (6, 5), (1,), 3).any()
    with pytest.raises(DataError, match=r"a\.nii\.gz: mask is 5 x 6 pixels, its image 6 x 5"):
        load_mask(path, (5, 6), None, 3)
    with pytest.raises(DataError, match="slice 4 does not exist"):
        load_mask(path, None, None, 4)
    with pytest.raises(DataError, match=r"none\.nii: volume is missing"):
        load_mask(tmp_path / "none.nii", None, None, 0)
    values[0, 0, 0] = 0.5
    with pytest.raises(DataError, match="fractions"):
        load_mask(save(tmp_path / "b.nii", values), None, None, 0)


def test_default_windows(tmp_path):
    ct = np.full((5, 6, 4), -1000, dtype=np.int16)
    ct[..., 1] = 300
    volume = read_volume(save(tmp_path / "ct.nii", ct))
    assert [default_window(volume, "CT", site) for site in ("Chest", "brain", "spine", "pelvis", "")] == [
        "lung",
        "brain",
        "bone",
        "abdomen",
        "abdomen",
    ]
    assert default_window(volume, "PET", "chest") == volume.range_window
    positive = read_volume(save(tmp_path / "p.nii", ct + 1000))
    assert default_window(positive, "CT", "chest") == positive.range_window, "no Hounsfield units"
    assert default_window(read_volume(save(tmp_path / "u.nii", ct.astype(np.uint8))), "CT", "chest") is None


def test_windows_of_the_record_go_first(tmp_path):
    ct = np.full((5, 6, 4), -1000, dtype=np.int16)
    ct[2:, ..., 1] = 40
    path = save(tmp_path / "ct.nii", ct)
    shown = load_picture(path, "a", "CT", 1, "lung", "abdomen")
    assert (shown == read_image(path, slice_index=1, window="lung").pixels).all()
    assert (load_picture(path, "a", "CT", 1, None, "lung") == shown).all()
    with pytest.raises(DataError, match="unknown window"):
        load_picture(path, "a", "CT", 1, "liver")


def packed(row: np.ndarray, bits: int) -> bytes:
    """Whole numbers, several a byte, the first in the highest bits."""
    each = 8 // bits
    groups = np.pad(row, (0, -len(row) % each)).reshape(-1, each)
    return bytes(sum(int(v) << bits * (each - 1 - i) for i, v in enumerate(group)) for group in groups)


def grey_png(path: Path, numbers: np.ndarray, bits: int) -> Path:
    """Write whole numbers as a grey PNG of 2 or 4 bits, which Pillow cannot."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = numbers.shape
    rows = b"".join(b"\0" + packed(row, bits) for row in numbers)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    return path


def grey_tiff(path: Path, numbers: np.ndarray, bits: int) -> Path:
    """The same as a TIFF of one strip."""
    height, width = numbers.shape
    strip = b"".join(packed(row, bits) for row in numbers)
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, 1), (273, 8), (277, 1), (278, height)]
    tags.append((279, len(strip)))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    start = 8 + len(strip)
    path.write_bytes(b"II*\0" + struct.pack("<I", start) + strip + struct.pack("<H", len(tags)) + entries + bytes(4))
    return path


@pytest.mark.parametrize("write", [grey_png, grey_tiff])
@pytest.mark.parametrize("bits", [2, 4])
def test_numbers_of_few_bits_are_those_that_are_stored(tmp_path, bits, write):
    numbers = np.random.default_rng(0).integers(0, 2**bits, (5, 7))
    path = write(tmp_path / "mask", numbers, bits)
    assert mask_numbers(path).tolist() == numbers.tolist()
    assert load_mask(path, (5, 7), (1,), None).tolist() == (numbers == 1).tolist()


@pytest.mark.parametrize(("turn", "turned"), [(None, False), (0, False), (1, False), (3, True), (6, True), (9, False)])
@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
def test_turned_pictures_are_known_by_their_tag(tmp_path, turn, turned, ending):
    exif = Image.Exif()
    if turn is not None:
        exif[0x0112] = turn
    Image.new("RGB", (4, 6)).save(path := tmp_path / f"picture.{ending}", exif=exif)
    assert is_turned(path) == turned
    path.write_bytes(b"broken")
    assert not is_turned(path)
