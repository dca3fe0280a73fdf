"""Removal of files that an earlier run wrote and the current run did not; files of the user are not touched."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from unibiomed.data.index import replacing, writing

__all__ = ["remove_stale_files"]

MANIFEST = ".written"
"""File in each output folder with the names of the files that were written, one per line."""


def remove_stale_files(folder: Path, written: Iterable[Path]) -> None:
    """Remove the files that the previous call recorded for a folder and that are not in `written`.

    Parameters
    ----------
    folder : Path
        Output folder. It need not exist if nothing was ever written to it.
    written : iterable of Path
        Files in the folder that the current run wrote.

    Raises
    ------
    OutputError
        A file cannot be removed, or the manifest cannot be written.
    """
    names, manifest = sorted({path.name for path in written}), folder / MANIFEST
    with writing(manifest):
        previous = manifest.read_text(encoding="utf-8", errors="replace").splitlines() if manifest.is_file() else []
        for name in set(previous).difference(names):
            # a manifest that was edited must not delete files outside of this folder
            if Path(name).name == name and (folder / name).is_file():
                (folder / name).unlink(missing_ok=True)
    if names or previous:
        with replacing(manifest) as temporary:
            temporary.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
