"""Made-up records on disk, small enough that whole builds of shards take moments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unibiomed.data.records import QuestionAnswer, Record, Region

MakeRecords = Callable[..., list[Record]]


@pytest.fixture(scope="session")
def make_records() -> MakeRecords:
    """``make_records(folder, dataset, count, modality, split)``: pictures of 24 x 16 pixels, each with two targets."""

    def make(
        folder: Path,
        dataset: str = "toy",
        count: int = 10,
        modality: str = "CT",
        split: str = "train",
        *,
        questions: bool = False,
        external: bool = False,
    ) -> list[Record]:
        place = folder / dataset
        place.mkdir(parents=True, exist_ok=True)
        records = []
        for number in range(count):
            rng = np.random.default_rng([number, len(dataset), len(split)])
            stem = f"{split}_{number:04d}"
            Image.fromarray(rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)).save(place / f"{stem}.png")
            mask = np.zeros((16, 24), dtype=np.uint8)
            mask[2 : 3 + number % 9, 5:9] = 1
            mask[12:, 20:] = 2
            Image.fromarray(mask).save(place / f"{stem}_mask.png")
            asked = (QuestionAnswer("What is it?", f"Number {number}", "open", str(number)),)
            records.append(
                Record(
                    key=f"{dataset}/{stem}",
                    image=place / f"{stem}.png",
                    dataset=dataset,
                    modality=modality,
                    site="abdomen",
                    group=f"p{number // 3}",
                    split=split,
                    regions=()
                    if questions
                    else (
                        Region("liver", place / f"{stem}_mask.png", values=(1,)),
                        Region("tumour", place / f"{stem}_mask.png", values=(2,), abnormal=True),
                        Region("spleen", None),
                    ),
                    questions=asked if questions else (),
                    label=None if questions else "Glioma",
                    licence="CC0",
                    external=external,
                    spacing=(0.5, 0.25),
                )
            )
        return records

    return make
