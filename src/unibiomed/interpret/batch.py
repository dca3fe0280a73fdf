"""Many images: one that fails is named and counted, the others still run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from unibiomed.errors import OutputError, UniBiomedError

from .interpreter import Interpreter
from .result import Result, default_stem


@dataclass(frozen=True)
class BatchItem:
    """What became of one image: a result, or the error that names what is wrong with it."""

    path: str
    result: Result | None = None
    error: UniBiomedError | None = None
    files: dict[str, Path] | None = None


def interpret_batch(
    model: Interpreter,
    paths: Sequence[str],
    out: Path | None = None,
    *,
    progress: bool = False,
    **question: Any,
) -> Iterator[BatchItem]:
    """Interpret images one after the other.

    Parameters
    ----------
    model : Interpreter
    paths : sequence of str
        Image files. Two of the same name get a number each in the output folder.
    out : Path, optional
        Where results are written; None writes nothing.
    progress : bool
        Show a progress bar.
    **question
        As for :meth:`Interpreter.interpret`.

    Yields
    ------
    BatchItem
        In the order of `paths`. Memory and disk errors of one image are its own errors.
    """
    taken: set[str] = set()
    for path in tqdm(paths, desc="interpreting", unit="image", disable=not progress):
        try:
            result = model.interpret(path, **question)
            files = None
            if out is not None:
                stem = unique(default_stem(path), taken)
                files = result.save(out, stem)
            yield BatchItem(path, result, files=files)
        except UniBiomedError as error:
            yield BatchItem(path, error=error)
        except MemoryError:
            yield BatchItem(path, error=OutputError(f"'{Path(path).name}' needs more memory than there is: scale it down"))


def unique(stem: str, taken: set[str]) -> str:
    """`stem`, or with a number behind it if it is taken; the answer is taken afterwards."""
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}-{number}", number + 1
    taken.add(name)
    return name


def check_output(out: Path) -> None:
    """Make the output folder, so that an unwritable one is found before the work.

    Raises
    ------
    OutputError
        If it cannot be made or written.
    """
    probe = out / ".unibiomed-write-test"
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(f"cannot write to '{out}': {error.strerror or error}; choose another folder with --out") from error
