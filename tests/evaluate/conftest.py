"""Two small data sets on disk: organs with masks, and questions with answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unibiomed.data.records import Record
from unibiomed.errors import InputError
from unibiomed.evaluate.record_selection import suite_records
from unibiomed.evaluate.samples import Case, make_cases
from unibiomed.evaluate.suite import Suite

SIZE = (20, 30)
ORGANS = """
name = "organs"
licence = "CC0"
adapter = "images"
modality = "CT"
site = "abdomen"
abnormal_known = true
split = { pattern = '^(train|test)' }
[[targets]]
name = "liver"
masks = ["masks/{stem}_liver.png"]
missing = "absent"
[[targets]]
name = "liver tumor"
masks = ["masks/{stem}_tumor.png"]
abnormal = true
missing = "absent"
"""
QUIZ = """
name = "quiz"
licence = "CC0"
adapter = "questions"
modality = "endoscopy"
site = "colon"
[[tables]]
file = "train.json"
key = "image"
split = "train"
[[tables]]
file = "test.json"
key = "image"
split = "test"
"""


@pytest.fixture(autouse=True)
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """METEOR 1.5 has its own tests: Java takes seconds to start, where it is there."""

    def missing(*_: object) -> None:
        raise InputError("no Java")

    monkeypatch.setattr("unibiomed.metrics.language.meteor", missing)


def disc(row: float, column: float, radius: float) -> np.ndarray:
    """(20, 30) bool."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return (y - row) ** 2 + (x - column) ** 2 < radius**2


def picture(number: int, liver: np.ndarray, tumor: np.ndarray) -> np.ndarray:
    """(20, 30, 3) uint8: noise of its own for each number, with the organs brighter."""
    noise = np.random.default_rng(number).integers(0, 60, SIZE)
    return np.stack([(noise + 100 * liver + 90 * tumor).astype(np.uint8)] * 3, 2)


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``organs``: of three test images one shows liver and tumor, one the liver alone, one nothing. ``quiz``: two."""
    root = tmp_path_factory.mktemp("toy")
    organs, quiz = root / "organs", root / "quiz"
    for folder in (organs / "images", organs / "masks", quiz / "images"):
        folder.mkdir(parents=True)
    (organs / "dataset.toml").write_text(ORGANS)
    (quiz / "dataset.toml").write_text(QUIZ)
    for split, count in (("train", 6), ("test", 3)):
        for i in range(count):
            liver, tumor = disc(10, 9 + i % 3, 6), disc(9, 10 + i % 3, 2)
            shown = {"liver": liver} if i % 3 < 2 else {}
            shown |= {"tumor": tumor} if i % 3 == 0 else {}
            for name, mask in shown.items():
                Image.fromarray(mask.astype(np.uint8)).save(organs / "masks" / f"{split}_{i}_{name}.png")
            nothing = np.zeros(SIZE, dtype=bool)
            pixels = picture(i, shown.get("liver", nothing), shown.get("tumor", nothing))
            Image.fromarray(pixels).save(organs / "images" / f"{split}_{i}.png")
        rows = [
            {"image": f"{split}_{i}", "question": question, "answer": answer}
            for i in range(2)
            for question, answer in (("Is there a polyp?", "Yes"), (f"What is shown in view {i}?", "a polyp"))
        ]
        for i in range(2):
            Image.fromarray(picture(i, disc(5, 5, 4), disc(5, 5, 2))).save(quiz / "images" / f"{split}_{i}.png")
        (quiz / f"{split}.json").write_text(json.dumps(rows))
    return root


@pytest.fixture(scope="session")
def toy_cases(toy_root: Path) -> Callable[..., list[Case]]:
    """``toy_cases(**fields)``: the cases of a suite with these fields over both data sets."""

    def cases(**values: object) -> list[Case]:
        suite = Suite("toy", **values)  # type: ignore[arg-type]
        return list(make_cases(suite, suite_records(suite, toy_root)))

    return cases


@pytest.fixture(scope="session")
def toy_training(toy_root: Path) -> Callable[[], list[Record]]:
    """What floors learn from."""
    return lambda: suite_records(Suite("toy"), toy_root, "train")


@pytest.fixture
def one_line() -> Callable[[BaseException], None]:
    """Check that an error is told in one line."""

    def check(error: BaseException) -> None:
        assert str(error) and "\n" not in str(error)

    return check


@pytest.fixture
def segment_case(toy_cases: Callable[..., list[Case]]) -> Iterator[Case]:
    """The image that shows liver and tumor, asked for both and for a target of another body part."""
    yield toy_cases(datasets=["organs"], tasks=["segment"])[0]
