"""Records refuse what is invalid, and regions read masks as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unibiomed.data.records import NO_FINDINGS, QuestionAnswer, Record, Region, summarise
from unibiomed.errors import DataError

VALID: dict[str, Any] = {
    "key": "set/one",
    "image": Path("one.png"),
    "dataset": "set",
    "modality": "CT",
    "site": "abdomen",
    "group": "p1",
    "split": "train",
}


def save(path: Path, numbers: np.ndarray) -> Path:
    Image.fromarray(numbers).save(path)
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"key": "other/one"}, "key"),
        ({"key": "set/"}, "key"),
        ({"modality": "sonar"}, "modality"),
        ({"split": "validation"}, "split"),
        ({"site": " "}, "site"),
        ({"group": ""}, "group"),
        ({"image": None}, "neither image nor text"),
        ({"image": None, "text": "x", "regions": (Region("liver", None),)}, "without an image"),
        ({"label": ""}, "label"),
        ({"regions": (Region("liver", None), Region("liver", None))}, "twice"),
        ({"spacing": (1.0, 0.0)}, "spacing"),
        ({"spacing": (float("nan"), 1.0)}, "spacing"),
    ],
)
def test_record_refuses(change: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        Record(**{**VALID, **change})
    assert "\n" not in str(caught.value)
    named = "set/one" if change.get("image", "") is None else "one.png"
    assert named in str(caught.value)


@pytest.mark.parametrize("change", [{"question": " "}, {"answer": ""}, {"kind": "yes"}])
def test_question_refuses(change: dict[str, str]) -> None:
    with pytest.raises(DataError, match="question 7"):
        QuestionAnswer(**{"question": "Where?", "answer": "Here", "kind": "open", "qid": "7", **change})


def test_region_refuses() -> None:
    with pytest.raises(DataError, match="no target"):
        Region(" ", None)
    with pytest.raises(DataError, match="positive"):
        Region("liver", Path("m.png"), values=(0, 1))
    with pytest.raises(DataError, match="first"):
        Region("liver", None, further_masks=(Path("m.png"),))


@pytest.mark.parametrize(
    "rle",
    [{"nonsense": 1}, {"size": [2, 2]}, {"size": [0, 2], "counts": "4"}, {"size": [2, 2], "counts": [4]}],
)
def test_region_refuses_what_is_no_run_lengths(rle: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="the RLE mask of 'liver' is broken") as caught:
        Region("liver", rle)
    assert "\n" not in str(caught.value)


def test_values_select_classes(tmp_path: Path) -> None:
    numbers = np.array([[0, 1, 2], [2, 2, 0]], dtype=np.uint8)
    path = save(tmp_path / "m.png", numbers)
    assert np.array_equal(Region("cup", path, values=(2,)).load(), numbers == 2)
    assert np.array_equal(Region("disc", path, values=(1, 2)).load((2, 3)), numbers > 0)
    assert np.array_equal(Region("any", path).load(), numbers > 0)


def test_sixteen_bit_and_one_bit_masks(tmp_path: Path) -> None:
    numbers = np.array([[0, 300], [1, 0]], dtype=np.uint16)
    assert np.array_equal(Region("nucleus", save(tmp_path / "a.png", numbers)).load(), numbers > 0)
    assert np.array_equal(Region("nucleus", tmp_path / "a.png", values=(300,)).load(), numbers == 300)
    mask = Region("lesion", save(tmp_path / "b.png", numbers > 0)).load()
    assert mask.dtype == bool
    assert np.array_equal(mask, numbers > 0)


def test_a_gif_holds_the_numbers_of_its_palette(tmp_path: Path) -> None:
    numbers = np.array([[0, 1, 1], [2, 3, 0]], dtype=np.uint8)
    picture = Image.new("P", (3, 2))
    picture.putdata(numbers.ravel().tolist())
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 255, 255, 255])
    picture.save(tmp_path / "m.gif")
    assert np.array_equal(Region("vessel", tmp_path / "m.gif").load((2, 3)), numbers > 0)
    assert np.array_equal(Region("vessel", tmp_path / "m.gif", values=(2, 3)).load(), numbers > 1)


def test_numbered_objects_that_touch_stay_apart(tmp_path: Path) -> None:
    numbers = np.zeros((6, 8), dtype=np.uint16)
    numbers[1:4, 1:3], numbers[1:4, 3:5], numbers[5, 7] = 300, 7, 2
    path = save(tmp_path / "a.png", numbers)
    labels = Region("nucleus", path, objects=True).load_labels((6, 8))
    assert labels.dtype == np.int32 and np.array_equal(labels, numbers)
    # without numbers of objects: connected parts
    assert Region("nucleus", path).load_labels().max() == 2
    assert Region("nucleus", None, objects=True).load_labels((6, 8)).max() == 0
    with pytest.raises(DataError, match="numbers objects"):
        Region("nucleus", path, values=(1,), objects=True)
    with pytest.raises(DataError, match="make them equal"):
        Region("nucleus", path, objects=True).load_labels((6, 9))


def test_files_of_one_object_each_are_numbered_on(tmp_path: Path) -> None:
    paths = []
    for place in range(3):
        mask = np.zeros((4, 9), dtype=np.uint8)
        mask[:, 3 * place : 3 * place + 4] = 255
        paths.append(save(tmp_path / f"{place}.png", mask))
    labels = Region("nucleus", paths[0], further_masks=tuple(paths[1:]), objects=True).load_labels()
    assert labels[0].tolist() == [1, 1, 1, 1, 2, 2, 2, 3, 3]


def test_union_of_files(tmp_path: Path) -> None:
    one, two = np.eye(4, dtype=np.uint8) * 255, np.fliplr(np.eye(4, dtype=np.uint8)) * 255
    region = Region("tube", save(tmp_path / "a.png", one), further_masks=(save(tmp_path / "b.png", two),))
    assert np.array_equal(region.load(), (one | two) > 0)
    save(tmp_path / "b.png", np.zeros((4, 5), dtype=np.uint8))
    with pytest.raises(DataError, match=r"b\.png.*5 x 4"):
        region.load()


def test_absent_region_is_empty_of_the_asked_size() -> None:
    mask = Region("liver", None).load((3, 5))
    assert mask.shape == (3, 5)
    assert not mask.any()
    with pytest.raises(DataError, match="height and width"):
        Region("liver", None).load()


def test_broken_masks_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.png"
    with pytest.raises(DataError, match=r"m\.png.*missing"):
        Region("liver", path).load()
    save(path, np.ones((64, 64), dtype=np.uint8))
    with pytest.raises(DataError, match="make them equal"):
        Region("liver", path).load((64, 65))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 30])
    with pytest.raises(DataError, match=r"m\.png.*cannot be read"):
        Region("liver", path).load()
    path.write_bytes(b"hello")
    with pytest.raises(DataError, match="cannot be read"):
        Region("liver", path).load()
    save(path, np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    with pytest.raises(DataError, match="one channel"):
        Region("liver", path).load()
    save(path, np.ones((4, 4), dtype=np.uint8))
    monkeypatch.setattr("unibiomed.data.mask_files.MAX_MASK_PIXELS", 15)
    with pytest.raises(DataError, match="too large"):
        Region("liver", path).load()


def test_diagnosis() -> None:
    slice_ = Record(**VALID, label="Glioma", label_needs_finding=True, abnormal_known=True)
    assert slice_.diagnosis(True) == "Glioma"
    assert slice_.diagnosis(False) == NO_FINDINGS
    assert Record(**VALID, label="Glioma", label_needs_finding=True).diagnosis(False) is None
    assert Record(**VALID, label="Glioma", abnormal_known=True).diagnosis(False) == "Glioma"
    assert Record(**VALID).diagnosis(False) is None


def test_summary_counts() -> None:
    records = [
        Record(**VALID, regions=(Region("liver", Path("m.png")), Region("kidney", None))),
        Record(**{**VALID, "key": "set/two", "split": "test"}, regions=(Region("liver", None),)),
    ]
    line = summarise(records).splitlines()[1].split()
    assert line[:7] == ["set", "CT", "1", "0", "1", "1", "0"]
    assert " ".join(line[7:]) == "liver 1/2, kidney 0/1"
