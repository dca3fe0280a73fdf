"""Images and masks are squared once, and read from the files of the first time afterwards."""

from __future__ import annotations

import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unibiomed.data import records as records_module
from unibiomed.data.records import Record, Region
from unibiomed.errors import DataError, OutputError
from unibiomed.train.store import ImageStore


def save(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def two(tmp_path: Path) -> list[Record]:
    """A wide image with three regions, a report, and a tall image without regions."""
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, 20:] = (200, 100, 50)
    mask = np.zeros((20, 40), np.uint8)
    mask[:, 20:] = 1
    mask[:10, :20] = 2
    wide = Record(
        key="set/wide",
        image=save(tmp_path / "wide.png", pixels),
        dataset="set",
        modality="CT",
        site="abdomen",
        group="wide",
        split="train",
        regions=(
            Region("right half", save(tmp_path / "mask.png", mask), values=(1,)),
            Region("absent", None),
            Region("corner", tmp_path / "mask.png", values=(2,)),
            Region("empty", tmp_path / "mask.png", values=(9,)),
        ),
    )
    tall = replace(wide, key="set/tall", group="tall", regions=(), image=save(tmp_path / "tall.png", pixels[:, :10]))
    report = replace(wide, key="set/report", image=None, regions=(), text="Words.")
    return [wide, report, tall]


def test_squares(two: list[Record], tmp_path: Path) -> None:
    store = ImageStore(two, 16, tmp_path / "cache")
    assert len(store) == 2
    pixels, masks = store.load("set/wide")
    assert pixels.shape == (16, 16, 3) and pixels.dtype == np.uint8
    assert pixels[8, 1].tolist() == [0, 0, 0] and pixels[8, 14].tolist() == [200, 100, 50]
    assert sorted(masks) == [0, 2]  # neither the absent nor the empty one
    right = np.zeros((16, 16), np.uint8)
    right[:, 8:] = 255
    np.testing.assert_array_equal(masks[0], right)
    np.testing.assert_array_equal(masks[2][:8, :8], 255)
    assert masks[2].mean() == 255 / 4
    assert store.present("set/wide") == [0, 2]
    pixels, masks = store.load("set/tall")
    assert pixels.shape == (16, 16, 3) and not masks and store.present("set/tall") == []


def test_thin_targets_keep_their_weight(two: list[Record], tmp_path: Path) -> None:
    line = np.zeros((20, 40), np.uint8)
    line[:, 7] = 255
    record = replace(two[0], regions=(Region("vessel", save(tmp_path / "line.png", line)),))
    _, masks = ImageStore([record], 10, tmp_path / "cache").load("set/wide")
    assert masks[0].mean() / 255 == pytest.approx(1 / 40, rel=0.02)
    assert set(np.unique(masks[0])) == {0, 64}


def test_all_masks_of_a_region_are_joined(two: list[Record], tmp_path: Path) -> None:
    parts = np.zeros((2, 20, 40), np.uint8)
    parts[0, :, :10], parts[1, :, 30:] = 1, 1
    first, second = (save(tmp_path / f"part{i}.png", part) for i, part in enumerate(parts))
    record = replace(two[0], regions=(Region("lung", first, further_masks=(second,)),))
    _, masks = ImageStore([record], 8, tmp_path / "cache").load("set/wide")
    assert (masks[0][0] > 127).tolist() == [True, True, False, False, False, False, True, True]


def test_the_second_time_nothing_is_decoded(two: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ImageStore(two, 16, tmp_path / "cache")
    before = first.load("set/wide")

    def refuse(*_: object) -> None:
        raise AssertionError("an image was decoded again")

    monkeypatch.setattr(records_module, "load_picture", refuse)
    again = ImageStore(two, 16, tmp_path / "cache")
    pixels, masks = again.load("set/wide")
    np.testing.assert_array_equal(pixels, before[0])
    np.testing.assert_array_equal(masks[2], before[1][2])
    assert again.present("set/wide") == [0, 2]
    for size, records in ((32, two), (16, two[:1]), (16, [replace(two[0], regions=two[0].regions[:1]), *two[1:]])):
        with pytest.raises(AssertionError, match="decoded again"):
            ImageStore(records, size, tmp_path / "cache")


def test_a_broken_off_first_time_is_done_again(
    two: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = records_module.load_picture

    def stop(path: Path, *details: Any) -> object:
        if path.name == "tall.png":
            raise KeyboardInterrupt
        return real(path, *details)

    monkeypatch.setattr(records_module, "load_picture", stop)
    with pytest.raises(KeyboardInterrupt):
        ImageStore(two, 16, tmp_path / "cache")
    monkeypatch.setattr(records_module, "load_picture", real)
    pixels, _ = ImageStore(two, 16, tmp_path / "cache").load("set/wide")
    assert pixels[8, 14].tolist() == [200, 100, 50]


def test_what_cannot_be_stored(two: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ImageStore(two, 16, tmp_path / "cache")
    with pytest.raises(DataError, match="set/none"):
        store.load("set/none")
    wrong = replace(two[0], regions=(Region("liver", save(tmp_path / "small.png", np.ones((5, 5), np.uint8))),))
    with pytest.raises(DataError, match=r"small\.png"):
        ImageStore([wrong], 16, tmp_path / "cache")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written") as caught:
        ImageStore(two, 16, tmp_path / "file")
    assert "\n" not in str(caught.value)
    # a full disk is noticed before a memory map runs into it
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "total used free")(10, 10, 5000))
    with pytest.raises(OutputError, match="make room"):
        ImageStore(two, 33, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("images_33_*/pixels.npy"))


def test_no_masks_at_all(two: list[Record], tmp_path: Path) -> None:
    assert ImageStore(two[2:], 8, tmp_path / "cache").load("set/tall")[1] == {}
