"""The main job on a real photograph of the back of an eye."""

from __future__ import annotations

import os
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from pathlib import Path

from unibiomed.errors import OutputError
from unibiomed.images import MedicalImage, read_image

from .interpreter import Interpreter
from .result import Result

TARGETS = ("retinal vessel",)


def demo_file() -> Traversable:
    """The fundus photograph of the demonstration, a JPEG; ``SOURCE.md`` beside it gives its source and CC0 licence."""
    return files("unibiomed.interpret") / "demo_image" / "retina.jpg"


def run_demo(model: Interpreter, out: Path) -> list[Result]:
    """Ask for the vessels and for the modality; write the results and the photograph into `out`.

    Raises
    ------
    OutputError
        If `out` cannot be written.
    """
    with as_file(demo_file()) as file:
        image = read_image(file)
    seen = model.encode(MedicalImage(image.pixels, modality="fundus", source=image.source, details=image.details))
    segmented = model.interpret(seen, "segment", targets=TARGETS)
    segmented.save(out, "retina")
    _copy(demo_file().read_bytes(), out / "retina.jpg")
    asked = model.interpret(seen, "ask", question="Which imaging modality is this?")
    return [segmented, asked]


def _copy(content: bytes, path: Path) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"cannot write '{path}': {error.strerror}; choose another folder with --out") from error
