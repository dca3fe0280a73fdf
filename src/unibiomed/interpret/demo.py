"""The main job on a real photograph of the back of an eye."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from unibiomed.errors import OutputError
from unibiomed.images import MedicalImage, read_image

from .interpreter import Interpreter
from .result import Result

TARGETS = ("optic disc", "optic cup", "retinal vessel")


def demo_file() -> bytes:
    """A fundus photograph that scikit-image ships (CC0; M. Häggström, Medical gallery 2014), as the bytes of a JPEG."""
    return (files("skimage") / "data" / "retina.jpg").read_bytes()


def run_demo(model: Interpreter, out: Path) -> list[Result]:
    """Ask for three targets and for the modality; write the photograph and the results into `out`.

    Raises
    ------
    OutputError
        If `out` cannot be written.
    """
    path = out / "retina.jpg"
    try:
        path.write_bytes(demo_file())
    except OSError as error:
        raise OutputError(f"cannot write '{path}': {error.strerror}; choose another folder with --out") from error
    image = read_image(path)
    seen = model.encode(MedicalImage(image.pixels, modality="fundus", source=image.source, details=image.details))
    segmented = model.interpret(seen, "segment", targets=TARGETS)
    segmented.save(out, "retina")
    asked = model.interpret(seen, "ask", question="Which imaging modality is this?")
    return [segmented, asked]
