"""The main job on a real photograph of the back of an eye."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

from unibiomed.images import MedicalImage

from .interpreter import Interpreter
from .result import Result

TARGETS = ("optic disc", "optic cup", "retinal vessel")


def demo_image() -> MedicalImage:
    """A fundus photograph that scikit-image ships (public domain, CC0; Häggström, "Medical gallery 2014")."""
    with (files("skimage") / "data" / "retina.jpg").open("rb") as file:
        pixels = np.asarray(Image.open(file).convert("RGB"))
    return MedicalImage(pixels, modality="fundus", source="retina.jpg", details={"format": "JPEG"})


def run_demo(model: Interpreter, out: Path) -> list[Result]:
    """Ask for three targets and for the modality, and write the results into `out`."""
    seen = model.encode(demo_image())
    segmented = model.interpret(seen, "segment", targets=TARGETS)
    segmented.save(out, "retina")
    asked = model.interpret(seen, "ask", question="Which imaging modality is this?")
    return [segmented, asked]
