"""Masks as images of the size of the image."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from unibiomed.data.pixels import MAX_MASK_PIXELS, load_mask
from unibiomed.errors import DataError

from ...samples import Case, Sample
from .base import MaskFiles, MaskSource, image_name

__all__ = ["MaskImages", "image_source"]

JPEG_EXTENSIONS = (".jpg", ".jpeg")
MIN_JPEG_MAXIMUM = 32
"""A JPEG with a lower maximum is an empty mask with compression artefacts."""
MAX_CHANNEL_DIFFERENCE = 8
"""Difference of the channels of a grey JPEG due to compression."""
OVERLAY = re.compile(r"masked_img_\d+$", re.IGNORECASE)
"""Name of the visualisations that LISA writes beside its masks."""


class MaskImages(MaskFiles):
    """Mask images in ``FOLDER/DATASET/``."""

    extensions = (".png", ".bmp", ".tif", ".tiff", *JPEG_EXTENSIONS)

    def _add(self, path: Path, dataset: str | None, name: str) -> None:
        if not OVERLAY.search(name):
            super()._add(path, dataset, name)

    def find(self, case: Case, sample: Sample, label: str, number: int) -> list[Path]:
        """Return the masks of a target by its name; there should be at most one.

        Parameters
        ----------
        case : Case
        sample : Sample
            A sample of the case.
        label : str
            Target, or its name in the answer.
        number : int
            Index of its ``[SEG]`` in the answer, from 0.
        """
        record, name = case.record, image_name(case)
        names = {f"{name} {label}", f"{name} {record.modality} {record.site} {label}"}
        names.add(f"{sample.id.removeprefix(f'{record.dataset}/')} mask {number}")
        if sample.task == "segment":
            names |= {f"{name} {label} mask 0", f"{label} {name} mask 0"}
        return self._find(record.dataset, names)

    def numbered(self, case: Case, number: int) -> list[Path]:
        """Return the masks that are named after the image and the index of their ``[SEG]`` only."""
        return self._find(case.record.dataset, {f"{image_name(case)} mask {number}"})


def image_source(path: Path) -> MaskSource:
    """Return a mask image as the source of a mask."""
    if path.suffix.lower() in JPEG_EXTENSIONS:
        return MaskSource(path.name, partial(_load_jpeg, path))
    return MaskSource(path.name, lambda size: load_mask(path, size, None, None))


def _load_jpeg(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Load a JPEG mask with half of its maximum as the threshold, because compression blurs the boundary."""
    try:
        with Image.open(path, formats=("JPEG",)) as image:
            width, height = image.size
            if width * height > MAX_MASK_PIXELS:
                raise DataError(f"{path.name}: mask of {width} x {height} pixels is too large: scale it down")
            if (height, width) != size:
                raise DataError(
                    f"{path.name}: mask is {width} x {height} pixels, its image {size[1]} x {size[0]}: resize the mask"
                )
            if image.mode not in ("L", "RGB"):
                raise DataError(f"{path.name}: mask has mode {image.mode}: save it as grey values, preferably as PNG")
            values = np.asarray(image)
            if values.ndim == 3 and np.ptp(values.astype(np.int16), axis=2).max(initial=0) > MAX_CHANNEL_DIFFERENCE:
                raise DataError(f"{path.name}: mask has colours: save it as grey values, preferably as PNG")
            values = np.asarray(image.convert("L"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path.name}: cannot be read as a mask: save it again as PNG") from error
    maximum = int(values.max())
    return values > maximum / 2 if maximum >= MIN_JPEG_MAXIMUM else np.zeros(size, dtype=bool)
