"""An interpretation together with the image it is about."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unibiomed.export import draw_overlay, findings_table, write_interpretation
from unibiomed.findings import Interpretation

IMAGE_SUFFIXES = {
    ".png",
    ".jpg",
    ".jpeg",
    ".tif",
    ".tiff",
    ".bmp",
    ".gif",
    ".webp",
    ".jp2",
    ".j2k",
    ".dcm",
    ".nii",
    ".gz",
    ".nrrd",
    ".nhdr",
    ".mha",
    ".mhd",
    ".zip",
}


@dataclass(frozen=True)
class Result(Interpretation):
    """What :meth:`.Interpreter.interpret` returns: an interpretation that can draw and write itself."""

    pixels: np.ndarray = field(default_factory=lambda: np.zeros((1, 1, 3), np.uint8), repr=False, compare=False)
    """(height, width, 3) uint8 RGB, as the model saw it."""

    def overlay(self, title: str | None = None) -> Image.Image:
        """The image with its findings drawn on it and a legend below."""
        return draw_overlay(self.pixels, self, title=title)

    def table(self) -> str:
        """The findings as a plain-text table."""
        return findings_table(self)

    def save(self, folder: str | os.PathLike[str], stem: str | None = None) -> dict[str, Path]:
        """Write the overlay, one mask PNG a finding, and the findings as JSON; all of them or none.

        Parameters
        ----------
        folder : path
            Made when it is not there.
        stem : str, optional
            How the file names begin; the image's name without its ending when left out.

        Returns
        -------
        dict of str to Path
            See :func:`unibiomed.export.write_interpretation`.

        Raises
        ------
        OutputError
            If the folder cannot be written.
        """
        return write_interpretation(folder, self.pixels, self, stem=stem or default_stem(self.image))

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pixels, JSON-ready; see :meth:`unibiomed.findings.Interpretation.to_dict`."""
        own = {f.name: getattr(self, f.name) for f in fields(Interpretation)}
        return Interpretation(**own).to_dict()


def default_stem(name: str) -> str:
    """File name without its endings, safe to begin other file names with and short enough for them."""
    stem = Path(name).name
    while (ending := Path(stem).suffix).lower() in IMAGE_SUFFIXES:
        stem = stem.removesuffix(ending)
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in stem).strip("._")
    # file systems count bytes, and cutting them may split a character
    return safe.encode("utf-8", "replace")[:120].decode("utf-8", "ignore") or "image"
