"""Scoring every prediction that is kept, in this process or in many: the rows of all predictors are the same.

Each image's truth is read once. A process that only scores loads no model.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tqdm import tqdm

from unibiomed.data.index import replacing

from .predictions import PredictionStore
from .predictors import Predictor, is_boxed, samples_for
from .predictors.files import Claims, FilesPredictor
from .rows import RowWriter
from .run import predictions_folder
from .samples import Case, Share, make_cases
from .score import Truth
from .spread import PARTS_A_WORKER, each_done, kept_records
from .suite import Suite
from .unreadable import rows_of

__all__ = ["Profile", "file_readers", "profile_of", "rows_path", "score_cases", "score_in_processes"]


@dataclass(frozen=True)
class Profile:
    """What scoring has to know of a predictor; see `Predictor`."""

    name: str
    tasks: frozenset[str]
    worded: frozenset[str]
    boxed: bool


def profile_of(predictor: Predictor) -> Profile:
    """The profile of a predictor."""
    return Profile(predictor.name, predictor.tasks, predictor.worded, is_boxed(predictor))


def file_readers(predictors: Iterable[Predictor]) -> list[FilesPredictor]:
    """Those that were given files: which of them belong to a sample is noted while scoring."""
    return [predictor for predictor in predictors if isinstance(predictor, FilesPredictor)]


def rows_path(out: Path, predictor: str) -> Path:
    """Where the rows of one predictor are kept."""
    return out / "scores" / f"{predictions_folder(out, predictor).name}.jsonl"


def score_cases(
    cases: Iterable[Case],
    profiles: Sequence[Profile],
    readers: Sequence[FilesPredictor],
    out: Path,
    paths: Mapping[str, Path],
    unreadable: dict[str, str],
) -> set[str]:
    """Write the rows of all predictors.

    Parameters
    ----------
    cases : iterable of Case
    profiles : sequence of Profile
        Of the predictors.
    readers : sequence of FilesPredictor
        Those of them that claim their files.
    out : Path
        Folder of the evaluation, with their predictions.
    paths : mapping of str to Path
        Predictor to the file that gets its rows.
    unreadable : dict of str to str
        Gets the key of each image whose truth cannot be read, and the reason.

    Returns
    -------
    set of str
        The ids of all samples.

    Raises
    ------
    OutputError
        A file cannot be written; all are as they were.
    """
    known: set[str] = set()
    stores = {one.name: PredictionStore(predictions_folder(out, one.name)) for one in profiles}
    with ExitStack() as files:
        writers = {one.name: files.enter_context(RowWriter(paths[one.name])) for one in profiles}
        for case in cases:
            known.update(sample.id for sample in case.samples)
            for reader in readers:
                reader.claim(case)
            truth = Truth(case)
            for one in profiles:
                for row in rows_of(case, samples_for(one, case.samples), stores[one.name], unreadable, truth):
                    row.boxed = one.boxed
                    writers[one.name].add(row)
    return known


@dataclass(frozen=True)
class ScorePart:
    """One part of the scoring: a block of images, the rows of which get files of their own.

    `folders` are those of predictors that read files.
    """

    suite: Suite
    data: Path
    out: Path
    profiles: tuple[Profile, ...]
    folders: tuple[Path, ...]
    share: Share
    images: int
    paths: dict[str, Path]


@dataclass(frozen=True)
class Told:
    """What the scoring of a part tells beside its rows; `claims` in the order of the part's folders."""

    images: int
    known: set[str]
    unreadable: dict[str, str]
    claims: list[Claims]


def score_part(part: ScorePart) -> Told:
    """Score one part."""
    readers = _readers(part.folders)
    for reader in readers:
        reader.claims = Claims()
    unreadable: dict[str, str] = {}
    cases = make_cases(part.suite, kept_records(part.suite, part.data), share=part.share, unreadable=unreadable)
    known = score_cases(cases, part.profiles, readers, part.out, part.paths, unreadable)
    return Told(part.images, known, unreadable, [reader.claims for reader in readers])


@lru_cache(maxsize=1)
def _readers(folders: tuple[Path, ...]) -> list[FilesPredictor]:
    """Folders stay read from one part to the next."""
    return [FilesPredictor(folder) for folder in folders]


def score_in_processes(
    suite: Suite,
    data: Path,
    images: int,
    predictors: Sequence[Predictor],
    out: Path,
    paths: Mapping[str, Path],
    workers: int,
    *,
    unreadable: dict[str, str],
    progress: bool = True,
) -> set[str]:
    """As `score_cases`, in processes of this machine: the same rows in the same order, and the same claims.

    Raises
    ------
    DataError
        A process was killed.
    OutputError
        A file cannot be written; all are as they were.
    """
    work = out / "scores" / ".parts"
    readers = file_readers(predictors)
    block = -(-images // (workers * PARTS_A_WORKER))
    count = -(-images // block)
    parts = [
        ScorePart(
            suite,
            data,
            out,
            tuple(map(profile_of, predictors)),
            tuple(reader.folder for reader in readers),
            # images that follow each other: the files of the parts need only be put together
            Share(number, count, block),
            min(block, images - number * block),
            {name: work / str(number) / path.name for name, path in paths.items()},
        )
        for number in range(count)
    ]
    known: set[str] = set()
    # a run that was killed leaves its parts
    shutil.rmtree(work, ignore_errors=True)
    try:
        with (
            tqdm(total=images, desc="scoring", unit="image", disable=not progress) as bar,
            closing(each_done(score_part, parts, workers)) as done,
        ):
            for told in done:
                bar.update(told.images)
                known |= told.known
                for key, reason in told.unreadable.items():
                    unreadable.setdefault(key, reason)
                for reader, claims in zip(readers, told.claims, strict=True):
                    reader.claims.add(claims)
        _join(parts, paths)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return known


def _join(parts: Sequence[ScorePart], paths: Mapping[str, Path]) -> None:
    """Put the rows of all parts into one file for each predictor."""
    with ExitStack() as files:
        for name, path in paths.items():
            with files.enter_context(replacing(path)).open("wb") as whole:
                for part in parts:
                    with part.paths[name].open("rb") as rows:
                        shutil.copyfileobj(rows, whole)
