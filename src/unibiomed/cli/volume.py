"""``unibiomed interpret`` of whole volumes."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, UniBiomedError

if TYPE_CHECKING:
    from ..export.dicom import DicomOptions, DicomSource
    from ..images import Volume
    from ..interpret import Interpreter

__all__ = ["interpret_studies", "parse_slices", "studies"]


def parse_slices(text: str) -> tuple[int, int]:
    """Read ``A:B``: slices A to B - 1, counted from 0."""
    found = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text.strip())
    if not found or int(found[1]) >= int(found[2]):
        raise argparse.ArgumentTypeError(f"'{text}' is not FIRST:END, such as 10:40 for slices 10 to 39")
    return int(found[1]), int(found[2])


def studies(options: argparse.Namespace) -> list[str]:
    """Paths that are read as whole volumes: those that are volumes, where nothing asks for a single picture.

    Raises
    ------
    InputError
        ``--slices`` or ``--series`` is given and no path is a volume.
    """
    from ..images.study import is_volume
    from ..tasks import VOLUME_TASKS

    single = options.slice is not None or options.box is not None or options.ask is not None
    if single or options.task not in (None, *VOLUME_TASKS):
        found = []
    else:
        found = [path for path in options.images if is_volume(path)]
    if not found and (options.slices is not None or options.series is not None):
        option = "--slices" if options.slices is not None else "--series"
        raise InputError(f"{option} is for whole volumes: leave it out, or give a volume")
    return found


def interpret_studies(
    options: argparse.Namespace,
    model: Interpreter,
    paths: Sequence[str],
    dicom: DicomOptions | None,
    warn: Callable[[str], None],
) -> int:
    """Interpret volumes one after the other; what is wrong with one is printed, and the others still run.

    Parameters
    ----------
    options : argparse.Namespace
        Of ``unibiomed interpret``.
    model : Interpreter
    paths : sequence of str
    dicom : DicomOptions or None
        Whether and how a SEG and SR are written.
    warn : callable
        Prints a line on stderr.

    Returns
    -------
    int
        Number of volumes that failed.
    """
    from ..images.limits import shown
    from ..interpret.batch import unique
    from ..interpret.result import default_stem

    failed, taken = 0, set[str]()
    for path in paths:
        folder = options.out / unique(default_stem(Path(path).resolve().name), taken)
        try:
            _interpret(options, model, path, folder, dicom)
        except UniBiomedError as error:
            failed += 1
            name = shown(Path(path).resolve().name)
            warn(f"{path}: {str(error).removeprefix(f'{name}: ')}")
        except MemoryError:
            failed += 1
            warn(f"{path}: this needs more memory than there is: choose fewer slices with --slices")
    return failed


def _interpret(
    options: argparse.Namespace, model: Interpreter, path: str, folder: Path, dicom: DicomOptions | None
) -> None:
    """Read a volume, answer, write the files and print."""
    from ..export.volume import write_volume
    from ..images import read_volume
    from ..interpret.volume import interpret_volume
    from ..interpret.volume_store import SliceStore
    from ..interpret.volume_view import volume_window

    volume = read_volume(path, series=options.series)
    if dicom is not None:
        # what forbids a SEG or SR is found before the work
        with _source(path, volume):
            pass
    kept = folder / "slices"
    result = interpret_volume(
        model,
        volume,
        options.task,
        threshold=model.score_threshold,
        targets=options.target,
        modality=options.modality,
        window=options.window,
        slices=options.slices,
        allow_unknown=options.allow_unknown,
        folder=kept,
        progress=sys.stderr.isatty(),
    )
    window = volume_window(volume, result.provenance["modality"], options.window)
    files = write_volume(folder, result, volume.grid, lambda index: volume.slice_image(index, window))
    notes = list(result.notes)
    if dicom is not None:
        from ..export.dicom import contents_of_volume, write_dicom

        with _source(path, volume) as source:
            written = write_dicom(
                folder, "findings", source, contents_of_volume(result), grid=volume.grid, options=dicom
            )
        files |= written.files
        notes += written.notes
    SliceStore(kept).clear()
    if options.json:
        names = {name: str(file) for name, file in files.items()}
        print(json.dumps(result.to_dict() | {"files": names}), flush=True)
        return
    first, end = result.provenance["slices_read"]
    print(f"{path}: slices {first} to {end - 1} of {len(volume)}, {volume.plane}")
    for sentence in result.sentences:
        print(sentence.text)
    if result.searched:
        from ..export.formatting import percent

        print(f"Looked for: {', '.join(f'{one.label} {percent(one.presence)}' for one in result.searched)}")
    for note in notes:
        print(f"Note: {note}.")
    print(flush=True)


@contextmanager
def _source(path: str, volume: Volume) -> Iterator[DicomSource]:
    """The DICOM images of a volume; those of a zip file are unpacked meanwhile."""
    from ..export.dicom import open_source
    from ..images.archive import unpacked

    files = volume.details.get("files")
    if not str(volume.details["format"]).startswith("DICOM"):
        raise InputError(f"{volume.source}: a DICOM SEG or SR refers to DICOM images: leave out --dicom")
    if files is None:
        yield open_source(path)
    elif Path(path).is_dir():
        yield open_source(path, files=files)
    else:
        with unpacked(Path(path), volume.source) as (folder, names):
            members = {member: name for name, member in names.items()}
            yield open_source(folder, files=[members[file] for file in files])
