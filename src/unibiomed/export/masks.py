"""Result files: the overlay, one mask image per finding, and all findings as JSON."""

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
"""Maximum size in bytes of a findings file of an earlier run that is read."""


def write_interpretation(
    out_dir: str | os.PathLike[str], pixels: np.ndarray, interpretation: Interpretation, *, stem: str
) -> dict[str, Path]:
    """Write the overlay, the masks and the findings of an interpretation: either all files or none.

    Existing files with the same names are replaced, and masks of an earlier interpretation with the same stem are
    deleted. If writing fails, the previous files are restored.

    Parameters
    ----------
    out_dir : path-like
        Output folder; created if it does not exist.
    pixels : numpy.ndarray
        The image as the model received it, uint8 of shape (height, width, 3).
    interpretation : Interpretation
        The interpretation, of the same height and width.
    stem : str
        Prefix of all file names, usually the name of the image without its extension.

    Returns
    -------
    dict of str to Path
        ``"overlay"``: ``STEM_overlay.png``. ``"mask_K"`` for finding number K, counted from 1, if it has a mask:
        ``STEM_K_LABEL.png``, uint8 of shape (height, width), 255 inside and 0 outside, all 0 for an absent target.
        ``"findings"``: ``STEM_findings.json`` with `Interpretation.to_dict` and the names of the other files.

    Raises
    ------
    InputError
        If `stem` is not a plain file name, or `pixels` does not have the size of the interpretation.
    OutputError
        If the folder or a file cannot be written.
    """
    _check_stem(stem)
    names = {"overlay": f"{stem}_overlay.png"}
    contents = {"overlay": _png(draw_overlay(pixels, interpretation))}
    for number, finding in enumerate(interpretation.findings, start=1):
        if finding.mask is not None:
            names[f"mask_{number}"] = f"{stem}_{number}_{slug(finding.label)}.png"
            contents[f"mask_{number}"] = _png(Image.fromarray(finding.mask.astype(np.uint8) * 255))
    document = {**interpretation.to_dict(), "files": dict(names)}
    # The JSON file is written last: a program that waits for it finds the other files complete.
    names["findings"] = f"{stem}_findings.json"
    contents["findings"] = (json.dumps(document, indent=1, allow_nan=False) + "\n").encode("ascii")

    folder = Path(out_dir)
    left = _written(folder, stem) - set(names.values())
    try:
        write_files(folder, {names[key]: contents[key] for key in names})
        for name in left:
            (folder / name).unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "invalid path"
        where = ascii(str(folder)[:200])
        raise OutputError(f"cannot write results to {where} ({reason}): choose another output folder") from error
    return {key: folder / name for key, name in names.items()}


def holds_other_image(folder: str | os.PathLike[str], interpretation: Interpretation, stem: str) -> bool:
    """Whether the folder already has a findings file for this stem that belongs to another image.

    Parameters
    ----------
    folder : path-like
        Output folder.
    interpretation : Interpretation
        The new interpretation; images are compared by their checksum, ``pixels`` in `Interpretation.details`.
    stem : str
        Prefix of the file names.
    """
    path = Path(folder) / f"{stem}_findings.json"
    return path.exists() and _read(path).get("details", {}).get("pixels") != interpretation.details.get("pixels")


def _written(folder: Path, stem: str) -> set[str]:
    """Names of masks and overlay that an earlier findings file of this stem lists; other names are ignored."""
    files = _read(folder / f"{stem}_findings.json").get("files")
    names = files.values() if isinstance(files, dict) else ()
    ours = re.compile(rf"{re.escape(stem)}_(\d+_[a-z0-9-]+|overlay)\.png")
    return {name for name in names if isinstance(name, str) and ours.fullmatch(name)}


def _read(path: Path) -> dict[str, Any]:
    """Content of a findings file; empty if it is not one."""
    try:
        document = json.loads(path.read_bytes()) if path.stat().st_size <= MAX_READ else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) and isinstance(document.get("details", {}), dict) else {}


def slug(label: str) -> str:
    """Convert a label to a part of a file name: lower-case ASCII letters, digits and ``-``.

    Parameters
    ----------
    label : str
        Any text.

    Returns
    -------
    str
        1 to ``LONGEST_SLUG`` characters; ``"finding"`` if no character is left.
    """
    ascii_label = unicodedata.normalize("NFKD", label[:1000]).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_label.lower())[:LONGEST_SLUG].strip("-") or "finding"


def _check_stem(stem: str) -> None:
    plain = bool(stem) and stem.isprintable() and not set(stem) & set('/\\:*?"<>|') and stem.strip(". ") != ""
    if not plain:
        raise InputError(
            'the stem of the output files is not a plain file name: leave out folders and any of /\\:*?"<>|'
        )


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    """Write all files to a folder, which is created if needed; on failure restore the previous state.

    Parameters
    ----------
    folder : Path
        Output folder.
    files : dict of str to bytes
        Content of each file, by name.

    Raises
    ------
    OSError
        If the folder or a file cannot be written.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "it is a file")
        folder.mkdir(parents=True, exist_ok=True)
        # The temporary folder is on the same file system, so that moving a file is a rename.
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
    """Write a file and flush it to the disk, so that a full disk is detected here."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _move_all(work: Path, folder: Path, names: list[str]) -> None:
    """Move the finished files to the output folder; on failure restore the previous files."""
    old = work / "old"
    old.mkdir()
    for name in names:
        if (folder / name).is_dir():
            raise IsADirectoryError(errno.EISDIR, "a folder has the name of an output file")
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
