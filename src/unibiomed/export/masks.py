"""Results as files: the picture, one mask a finding, and everything as JSON."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import shutil
import tempfile
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unibiomed.errors import InputError, OutputError
from unibiomed.export.overlay import draw_overlay
from unibiomed.findings import Interpretation

LONGEST_SLUG = 40
MAX_READ = 100_000_000
"""Bytes of a findings file of an earlier run that is looked at."""


def write_interpretation(
    out_dir: str | os.PathLike[str], pixels: np.ndarray, interpretation: Interpretation, *, stem: str
) -> dict[str, Path]:
    """Write the picture, the masks and the findings of one interpretation, all of them or none.

    Files of the same names are replaced, and masks that an earlier interpretation of the picture left under this stem
    taken away; when anything fails they are put back as they were.

    Parameters
    ----------
    out_dir : path
        Folder to write to; made when it is not there.
    pixels : np.ndarray
        (height, width, 3) uint8, the image as the model saw it.
    interpretation : Interpretation
        The answer; of the same height and width.
    stem : str
        How all file names begin, usually the image's name without its ending.

    Returns
    -------
    dict of str to Path
        ``"overlay"``: ``STEM_overlay.png``; ``"mask_K"`` for the K-th finding with a mask, from 1:
        ``STEM_K_LABEL.png``, (height, width) uint8, 0 outside and 255 inside, all 0 for an absent target;
        ``"findings"``: ``STEM_findings.json``, `Interpretation.to_dict` and the names of the other files.

    Raises
    ------
    InputError
        `stem` is not a plain file name, or `pixels` does not fit the interpretation.
    OutputError
        The folder or a file cannot be written.
    """
    _check_stem(stem)
    names = {"overlay": f"{stem}_overlay.png"}
    contents = {"overlay": _png(draw_overlay(pixels, interpretation))}
    for number, finding in enumerate(interpretation.findings, start=1):
        if finding.mask is not None:
            names[f"mask_{number}"] = f"{stem}_{number}_{slug(finding.label)}.png"
            contents[f"mask_{number}"] = _png(Image.fromarray(finding.mask.astype(np.uint8) * 255))
    document = {**interpretation.to_dict(), "files": dict(names)}
    # Last, so that whoever waits for the JSON finds the other files in place.
    names["findings"] = f"{stem}_findings.json"
    contents["findings"] = (json.dumps(document, indent=1, allow_nan=False) + "\n").encode("ascii")

    folder = Path(out_dir)
    left = _written(folder, stem) - set(names.values())
    try:
        write_all(folder, {names[key]: contents[key] for key in names})
        for name in left:
            (folder / name).unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "not a usable path"
        where = ascii(str(folder)[:200])
        raise OutputError(f"Cannot write results to {where}: {reason}; choose another output folder.") from error
    return {key: folder / name for key, name in names.items()}


def holds_another(folder: str | os.PathLike[str], interpretation: Interpretation, stem: str) -> bool:
    """Whether a folder holds, under a stem, the findings of another picture, or what is none of ours.

    Parameters
    ----------
    folder : path
    interpretation : Interpretation
        Known by the checksum of its picture, see `Interpretation.details`.
    stem : str
    """
    path = Path(folder) / f"{stem}_findings.json"
    return path.exists() and _read(path).get("details", {}).get("pixels") != interpretation.details.get("pixels")


def _written(folder: Path, stem: str) -> set[str]:
    """Names of the files that an earlier interpretation says it wrote; believed of masks and overlays of this stem."""
    files = _read(folder / f"{stem}_findings.json").get("files")
    names = files.values() if isinstance(files, dict) else ()
    ours = re.compile(rf"{re.escape(stem)}_(\d+_[a-z0-9-]+|overlay)\.png")
    return {name for name in names if isinstance(name, str) and ours.fullmatch(name)}


def _read(path: Path) -> dict[str, Any]:
    """A findings file, or nothing of it where it is none."""
    try:
        document = json.loads(path.read_bytes()) if path.stat().st_size <= MAX_READ else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) and isinstance(document.get("details", {}), dict) else {}


def slug(label: str) -> str:
    """Turn any label into part of a file name: ASCII letters in lower case, digits and ``-``; else ``"finding"``.

    Parameters
    ----------
    label : str
        Any text.

    Returns
    -------
    str
        1 to ``LONGEST_SLUG`` characters.
    """
    ascii_label = unicodedata.normalize("NFKD", label[:1000]).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_label.lower())[: LONGEST_SLUG + 1].strip("-")[:LONGEST_SLUG] or "finding"


def _check_stem(stem: str) -> None:
    plain = bool(stem) and stem.isprintable() and not set(stem) & set('/\\:*?"<>|') and stem.strip(". ") != ""
    if not plain:
        raise InputError("The stem of the output files must be a plain file name without folders or special signs.")


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def write_all(folder: Path, files: dict[str, bytes]) -> None:
    """Write all files or leave everything as it was.

    Parameters
    ----------
    folder : Path
        Made when it is not there.
    files : dict of str to bytes
        Contents by name.

    Raises
    ------
    OSError
        The folder or a file cannot be written.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "a file is in its place")
        folder.mkdir(parents=True, exist_ok=True)
        # Inside the destination, so that moving a file is a rename on one disk.
        work = Path(tempfile.mkdtemp(prefix=".unibiomed-", dir=folder))
        try:
            for name, content in files.items():
                _write(work / name, content)
            _move_all(work, folder, list(files))
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except BaseException:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


def _write(path: Path, content: bytes) -> None:
    """Write a file through to the disk, where a full disk shows at the latest."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _move_all(work: Path, folder: Path, names: list[str]) -> None:
    """Move finished files into place; on any failure bring back what was there before."""
    old = work / "old"
    old.mkdir()
    for name in names:
        if (folder / name).is_dir():
            raise IsADirectoryError(errno.EISDIR, "a folder is in the place of a file")
        if (folder / name).exists():
            shutil.copy2(folder / name, old / name)
    moved: list[str] = []
    try:
        for name in names:
            os.replace(work / name, folder / name)
            moved.append(name)
    except BaseException:
        for name in moved:
            if (old / name).exists():
                os.replace(old / name, folder / name)
            else:
                (folder / name).unlink(missing_ok=True)
        raise
