"""Masks as images of the image's own size, found by their names."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from unibiomed.data.pixels import MAX_MASK_PIXELS, load_mask
from unibiomed.errors import DataError

from ...samples import Case, Sample
from .base import MaskFiles
from .names import MaskSource, image_name

__all__ = ["MaskImages"]

JPEGS = (".jpg", ".jpeg")
DARK = 32
"""A JPEG whose brightest pixel is below this is an empty mask: compression leaves such traces."""
GREY = 8
"""Levels by which the channels of a grey JPEG may differ."""
OVERLAY = re.compile(r"masked_img_\d+$", re.IGNORECASE)
"""Pictures for people that LISA writes beside its masks."""


class MaskImages(MaskFiles):
    """The mask images under ``FOLDER/DATASET/``."""

    endings = (".png", ".bmp", ".tif", ".tiff", *JPEGS)

    def _take(self, path: Path, dataset: str | None, name: str) -> None:
        if not OVERLAY.search(name):
            super()._take(path, dataset, name)

    def find(self, case: Case, sample: Sample, label: str, number: int) -> list[Path]:
        """The masks of a target that say whose they are; there should be one at most.

        Parameters
        ----------
        case : Case
        sample : Sample
            One of the case's.
        label : str
            The target, or what the answer calls it.
        number : int
            Place of its ``[SEG]`` in the answer, from 0.
        """
        record, name = case.record, image_name(case)
        names = {f"{name} {label}", f"{name} {record.modality} {record.site} {label}"}
        names.add(f"{sample.id.removeprefix(f'{record.dataset}/')} mask {number}")
        if sample.task == "segment":
            names |= {f"{name} {label} mask 0", f"{label} {name} mask 0"}
        return self._named(record.dataset, names)

    def numbered(self, case: Case, number: int) -> list[Path]:
        """The masks that say only which image they belong to, and the place of their ``[SEG]``."""
        return self._named(case.record.dataset, {f"{image_name(case)} mask {number}"})


def image_source(path: Path) -> MaskSource:
    """A mask image as the place of a mask."""
    if path.suffix.lower() in JPEGS:
        return MaskSource(path.name, partial(_load_jpeg, path))
    return MaskSource(path.name, lambda size: load_mask(path, size, None, None))


def _load_jpeg(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Compression blurs the outline, so that inside is what has half the brightness of the brightest pixel."""
    try:
        with Image.open(path, formats=("JPEG",)) as image:
            width, height = image.size
            if width * height > MAX_MASK_PIXELS:
                raise DataError(f"{path.name}: mask of {width} x {height} pixels is too large; scale it down")
            if (height, width) != size:
                raise DataError(
                    f"{path.name}: mask is {width} x {height} pixels, its image {size[1]} x {size[0]}; make them equal"
                )
            if image.mode not in ("L", "RGB"):
                raise DataError(f"{path.name}: mask has mode {image.mode}: save it as grey values, best as PNG")
            values = np.asarray(image)
            if values.ndim == 3 and np.ptp(values.astype(np.int16), axis=2).max(initial=0) > GREY:
                raise DataError(f"{path.name}: mask has colours: save it as grey values, best as PNG")
            values = np.asarray(image.convert("L"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path.name}: cannot be read as a mask; save it again as PNG") from error
    top = int(values.max())
    return values > top / 2 if top >= DARK else np.zeros(size, dtype=bool)
