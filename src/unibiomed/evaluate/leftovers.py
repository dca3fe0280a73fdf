"""What an earlier run wrote and this one did not is taken away; what a user put beside it stays."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from unibiomed.data.index import replacing, writing

__all__ = ["remove_leftovers"]

LIST = ".written"
"""Names of what was written into a folder, one a line."""


def remove_leftovers(folder: Path, written: Iterable[Path]) -> None:
    """Take away what the last call of this function knew and this one does not; no other file is touched.

    Parameters
    ----------
    folder : Path
        Where nothing was written and none ever was, it need not be there.
    written : iterable of Path
        Files in the folder that are of this run.

    Raises
    ------
    OutputError
        A file cannot be taken away, or the list of them not be written.
    """
    names, known = sorted({path.name for path in written}), folder / LIST
    with writing(known):
        last = known.read_text(encoding="utf-8", errors="replace").splitlines() if known.is_file() else []
        for name in set(last).difference(names):
            # a list that was tampered with reaches no other folder
            if Path(name).name == name and (folder / name).is_file():
                (folder / name).unlink(missing_ok=True)
    if names or last:
        with replacing(known) as fresh:
            fresh.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
