"""Export of samples as JSON lines, for programs that compute predictions outside of this package."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from unibiomed.data.index import replacing, writing
from unibiomed.errors import DataError

from .samples import Case

__all__ = ["write_samples"]

MAX_NAME_LENGTH = 180


def write_samples(cases: Iterable[Case], root: Path, path: Path, *, unreadable: dict[str, str] | None = None) -> int:
    """Write every sample as a line of JSON and return the number of samples.

    Images that are perturbed or have no file of their own are written as PNG to ``samples/`` next to `path`.

    Parameters
    ----------
    cases : iterable of Case
    root : Path
        Folder of the data sets. Paths of images in it are written relative to it, all others as absolute paths.
    path : Path
        Output file.
    unreadable : dict of str to str, optional
        Receives the key of each image that cannot be read and the reason. Its lines contain no image.

    Raises
    ------
    DataError
        An image cannot be read and `unreadable` is None.
    OutputError
        A file cannot be written.
    """
    count = 0
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for case in cases:
            record = case.record
            exported = case.perturbation is not None or not isinstance(record.image, Path)
            image: Path | None
            if exported:
                try:
                    image = _write_image(case, path.resolve().parent / "samples")
                except DataError as error:
                    if unreadable is None:
                        raise
                    unreadable[record.key], image = str(error), None
            else:
                image = Path(str(record.image))
                if image.is_relative_to(root):
                    image = image.relative_to(root)
            for sample in case.samples:
                line = {
                    "sample": sample.id,
                    "image": None if image is None else str(image),
                    "slice": None if exported else record.slice_index,
                    "channel": None if exported else record.channel,
                    "perturbation": case.perturbation,
                    "task": sample.task,
                    "question": sample.question,
                    "target": sample.target or None,
                    "box": sample.box,
                }
                file.write(json.dumps({k: v for k, v in line.items() if v is not None}) + "\n")
                count += 1
    return count


def _write_image(case: Case, folder: Path) -> Path:
    """Write the image of a case as PNG and return the file."""
    dataset, name = case.record.dataset, case.record.key.removeprefix(f"{case.record.dataset}/")
    suffix = case.id_suffix
    # quoting keeps the names of different images different
    path = folder / quote(dataset, safe="") / f"{quote(name, safe=' ()+,=~')}{suffix}.png"
    if len(path.name) > MAX_NAME_LENGTH:
        path = path.with_name(f"{hashlib.sha256(case.record.key.encode()).hexdigest()}{suffix}.png")
    pixels = case.pixels()
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")
    return path
