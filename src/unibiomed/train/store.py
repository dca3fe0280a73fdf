"""Images and masks at the training size, decoded once and kept in two memory-mapped arrays."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from unibiomed.data.records import Record, Region
from unibiomed.errors import DataError, OutputError

from .checkpoint import writing
from .squares import region_mask, square_image, square_mask


def _mask_name(region: Region) -> str:
    """What stands for a region's mask in the stamp of the store."""
    name = region.mask.name if isinstance(region.mask, Path) else str(region.mask or region.box)
    return name if region.slice_index is None else f"{name}:{region.slice_index}"


class ImageStore:
    """Pixels and masks of records, squared to one size.

    Parameters
    ----------
    records : sequence of Record
        Those with an image; the order gives the row numbers.
    size : int
        Side in pixels of the square; the aspect ratio is not kept, as in the paper.
    folder : Path
        Where the arrays are kept; they are used again when records and size are the same.
    workers : int
        Threads that decode.
    progress : bool
        Show a progress bar, where there is a terminal.
    """

    def __init__(
        self, records: Sequence[Record], size: int, folder: Path, *, workers: int = 2, progress: bool = False
    ) -> None:
        self.records = [record for record in records if record.image is not None]
        self.size = size
        self.row = {record.key: i for i, record in enumerate(self.records)}
        self.first_mask = np.cumsum([0, *[len(record.regions) for record in self.records]])
        names = [(r.key, [(g.target, _mask_name(g), g.values) for g in r.regions]) for r in self.records]
        stamp = hashlib.sha256(json.dumps([size, names]).encode()).hexdigest()[:16]
        self.folder = folder / f"images_{size}_{stamp}"
        if not (self.folder / "done").exists():
            with writing(self.folder):
                self._build(workers, progress)
        self.pixels = np.load(self.folder / "pixels.npy", mmap_mode="r")
        self.masks = np.load(self.folder / "masks.npy", mmap_mode="r")
        self.areas = np.load(self.folder / "areas.npy")

    def _build(self, workers: int, progress: bool) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        side, count = self.size, len(self.records)
        # a disk that fills up under a memory map kills the process without a word
        needed = side * side * (3 * count + int(self.first_mask[-1]))
        if needed > shutil.disk_usage(self.folder).free:
            raise OutputError(f"'{self.folder}' needs {needed / 1e6:.0f} MB: make room or choose another --out")
        pixels = np.lib.format.open_memmap(self.folder / "pixels.npy", "w+", np.uint8, (count, side, side, 3))
        shape = (int(self.first_mask[-1]), side, side)
        masks = np.lib.format.open_memmap(self.folder / "masks.npy", "w+", np.uint8, shape)
        areas = np.zeros(shape[0])

        def read(i: int) -> None:
            record = self.records[i]
            image = record.load_image()
            pixels[i] = square_image(image, side)
            for j, region in enumerate(record.regions, self.first_mask[i]):
                mask = region_mask(region, image.shape[:2])
                if mask is None:
                    continue
                areas[j] = mask.sum()
                if areas[j]:
                    masks[j] = square_mask(mask, side)

        with ThreadPoolExecutor(workers) as pool:
            disable = None if progress else True
            made = pool.map(read, range(count))
            for _ in tqdm(made, total=count, desc="reading images", unit="image", disable=disable):
                pass
        pixels.flush()
        masks.flush()
        np.save(self.folder / "areas.npy", areas)
        (self.folder / "done").touch()

    def __len__(self) -> int:
        return len(self.records)

    def load(self, key: str) -> tuple[np.ndarray, dict[int, np.ndarray]]:
        """Pixels (size, size, 3) uint8 of a record, and its masks: region number to (size, size) uint8, 255 inside.

        Where only the box of a region is known, it is filled. Regions that are known to be absent are left out.
        """
        if key not in self.row:
            raise DataError(f"{key}: not among the images that were read")
        i = self.row[key]
        first, last = self.first_mask[i], self.first_mask[i + 1]
        present = {j - first: np.asarray(self.masks[j]) for j in range(first, last) if self.areas[j] > 0}
        return np.asarray(self.pixels[i]), present

    def present(self, key: str) -> list[int]:
        """Numbers of the regions of a record whose mask is not empty, without reading them."""
        i = self.row[key]
        first, last = self.first_mask[i], self.first_mask[i + 1]
        return [j - first for j in range(first, last) if self.areas[j] > 0]
