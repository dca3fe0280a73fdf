"""Many images: one that fails is named and counted, the others still run."""

from __future__ import annotations

import contextlib
import errno
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from unibiomed.errors import InputError, OutputError, UniBiomedError
from unibiomed.export import holds_other_image
from unibiomed.export.dicom import DicomOptions, contents_of, open_source, write_dicom
from unibiomed.images.limits import shown

from .interpreter import Interpreter
from .result import Result, default_stem


@dataclass(frozen=True)
class BatchItem:
    """What became of one image: a result, or the error that names what is wrong with it."""

    path: str
    result: Result | None = None
    error: UniBiomedError | None = None
    files: dict[str, Path] | None = None
    notes: tuple[str, ...] = ()
    """On the DICOM files that were written."""

    @property
    def problem(self) -> str:
        """The error with the path in front, which tells two files of one name apart."""
        reason = str(self.error)
        for name in (shown(self.path), shown(Path(self.path).name)):
            reason = reason.removeprefix(f"{name}: ")
        return f"{self.path}: {reason}"


def interpret_batch(
    model: Interpreter,
    paths: Sequence[str],
    out: Path | None = None,
    *,
    progress: bool = False,
    dicom: DicomOptions | None = None,
    **question: Any,
) -> Iterator[BatchItem]:
    """Interpret images one after the other.

    Parameters
    ----------
    model : Interpreter
    paths : sequence of str
        Image files. Two of the same name get a number each in the output folder.
    out : Path, optional
        Where results are written; None writes nothing. Results of the same picture are replaced, those of another
        one of the same name stay.
    progress : bool
        Show a progress bar.
    dicom : DicomOptions, optional
        Also write a DICOM SEG and SR of each image, which has to be DICOM, where results are written.
    **question
        As for :meth:`Interpreter.interpret`.

    Yields
    ------
    BatchItem
        In the order of `paths`. Memory and disk errors of one image are its own errors.
    """
    taken: set[str] = set()
    for path in tqdm(paths, desc="interpreting", unit="image", disable=not progress):
        yield _interpret_one(model, path, out, taken, dicom, question)


def _interpret_one(
    model: Interpreter,
    path: str,
    out: Path | None,
    taken: set[str],
    dicom: DicomOptions | None,
    question: dict[str, Any],
) -> BatchItem:
    try:
        # what forbids a SEG or SR is found before the work
        source = None if dicom is None else open_source(path, frame=question.get("slice_index"))
        result = model.interpret(path, **question)
        stem = default_stem(path)
        if question.get("slice_index") is not None:
            stem += f"_s{question['slice_index']:03d}"
        if out is None:
            return BatchItem(path, result)
        stem = unique(stem, taken, partial(holds_other_image, out, result))
        files = result.save(out, stem)
        if source is None:
            return BatchItem(path, result, files=files)
        written = write_dicom(out, stem, source, contents_of(result), options=dicom)
        return BatchItem(path, result, files=files | written.files, notes=written.notes)
    except UniBiomedError as error:
        return BatchItem(path, error=error)
    except (MemoryError, RuntimeError) as error:
        # of PyTorch's errors only the accelerators' have a class of their own
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        return BatchItem(path, error=InputError("this needs more memory than there is: shrink the image first"))


def unique(stem: str, taken: set[str], occupied: Callable[[str], bool] = lambda _: False) -> str:
    """`stem`, or with a number behind it if it is taken or occupied; the answer is taken afterwards."""
    name, number = stem, 2
    while name.casefold() in taken or occupied(name):  # some file systems do not tell case apart
        name, number = f"{stem}-{number}", number + 1
    taken.add(name.casefold())
    return name


def check_output(out: Path) -> None:
    """Find an unwritable output folder before the work; nothing is left behind, nor the folder if it was not there.

    Raises
    ------
    OutputError
        If it cannot be made or written.
    """
    made: list[Path] = []
    try:
        if out.exists() and not out.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "a file is in its place")
        made = [path for path in (out, *out.parents) if not path.exists()]
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"cannot write to '{out}': {reason}; choose another folder with --out") from error
    finally:
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()
