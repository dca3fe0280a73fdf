"""Small data sets made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from unibiomed.data import Record, load_records


class Toy:
    """A data set ``toy`` in a data root of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "toy"
        self.folder.mkdir()

    def entry(self, adapter: str, more: str = "", *, modality: str | None = "CT", site: str | None = "abdomen") -> None:
        """Write ``dataset.toml``."""
        lines = ['name = "toy"', 'licence = "CC0"', f'adapter = "{adapter}"']
        lines += [f'modality = "{modality}"'] if modality else []
        lines += [f'site = "{site}"'] if site else []
        (self.folder / "dataset.toml").write_text("\n".join([*lines, more]))

    def image(self, name: str, value: int = 7, size: tuple[int, int] = (6, 8)) -> Path:
        """Write a grey picture of (height, width)."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full(size, value, dtype=np.uint8)).save(path)
        return path

    def volume(self, name: str, values: np.ndarray, affine: np.ndarray | None = None) -> Path:
        """Write a NIfTI volume."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(values, np.diag([1.0, 1, 3, 1]) if affine is None else affine), path)
        return path

    def text(self, name: str, words: str) -> None:
        """Write a text file."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(words)

    def read(self) -> dict[str, Record]:
        """Records by their name in the data set."""
        return {record.key.removeprefix("toy/"): record for record in load_records(self.root, ["toy"])}


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path)


@pytest.fixture
def refused(toy: Toy) -> Callable[[str], None]:
    """Check that reading the data set fails in one line with these words in it."""
    from unibiomed.errors import DataError

    def check(words: str) -> None:
        with pytest.raises(DataError, match=words) as caught:
            toy.read()
        assert "\n" not in str(caught.value)

    return check
