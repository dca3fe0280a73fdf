"""Scoring of the stored predictions of all predictors, in this process or in several; the results are the same.

The ground truth of each image is read once. Processes that only score do not load models.
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

from .case_scoring import GroundTruth, score_case_or_fail
from .distributed import TASKS_PER_WORKER, cached_records, run_in_processes
from .predict import predictions_folder
from .predictions import PredictionStore
from .predictors import Predictor, samples_for, uses_true_box
from .predictors.files import FilesPredictor, MatchedFiles
from .sample_scores import SampleScoreWriter
from .samples import Case, Partition, make_cases
from .suite import Suite

__all__ = [
    "PredictorProfile",
    "file_predictors",
    "profile_of",
    "sample_scores_path",
    "score_cases",
    "score_in_processes",
]


@dataclass(frozen=True)
class PredictorProfile:
    """Attributes of a predictor that scoring needs; see `Predictor`."""

    name: str
    tasks: frozenset[str]
    paraphrase_tasks: frozenset[str]
    true_box: bool


def profile_of(predictor: Predictor) -> PredictorProfile:
    """Return the profile of a predictor."""
    return PredictorProfile(predictor.name, predictor.tasks, predictor.paraphrase_tasks, uses_true_box(predictor))


def file_predictors(predictors: Iterable[Predictor]) -> list[FilesPredictor]:
    """Return the predictors that read files. Scoring records which of their files belong to a sample."""
    return [predictor for predictor in predictors if isinstance(predictor, FilesPredictor)]


def sample_scores_path(out: Path, predictor: str) -> Path:
    """Return the file of the sample scores of one predictor."""
    return out / "scores" / f"{predictions_folder(out, predictor).name}.jsonl"


def score_cases(
    cases: Iterable[Case],
    profiles: Sequence[PredictorProfile],
    file_predictors: Sequence[FilesPredictor],
    out: Path,
    paths: Mapping[str, Path],
    unreadable: dict[str, str],
) -> set[str]:
    """Score all predictors and write their sample scores.

    Parameters
    ----------
    cases : iterable of Case
    profiles : sequence of PredictorProfile
    file_predictors : sequence of FilesPredictor
        Those of the predictors that read files.
    out : Path
        Folder of the evaluation, which contains the predictions.
    paths : mapping of str to Path
        Output file of each predictor.
    unreadable : dict of str to str
        Receives the key of each image whose ground truth cannot be read, and the reason.

    Returns
    -------
    set of str
        IDs of all samples.

    Raises
    ------
    OutputError
        A file cannot be written. Existing files are left unchanged.
    """
    sample_ids: set[str] = set()
    stores = {one.name: PredictionStore(predictions_folder(out, one.name)) for one in profiles}
    with ExitStack() as files:
        writers = {one.name: files.enter_context(SampleScoreWriter(paths[one.name])) for one in profiles}
        for case in cases:
            sample_ids.update(sample.id for sample in case.samples)
            for predictor in file_predictors:
                predictor.match(case)
            truth = GroundTruth(case)
            for one in profiles:
                samples = samples_for(one, case.samples)
                for score in score_case_or_fail(case, samples, stores[one.name], unreadable, truth):
                    score.true_box = one.true_box
                    writers[one.name].add(score)
    return sample_ids


@dataclass(frozen=True)
class ScoringTask:
    """Block of images that one process scores into files of its own.

    Parameters
    ----------
    suite : Suite
    data, out : Path
    profiles : tuple of PredictorProfile
    folders : tuple of Path
        Folders of the predictors that read files.
    partition : Partition
    images : int
        Number of images in the block.
    paths : dict of str to Path
        Output file of each predictor.
    """

    suite: Suite
    data: Path
    out: Path
    profiles: tuple[PredictorProfile, ...]
    folders: tuple[Path, ...]
    partition: Partition
    images: int
    paths: dict[str, Path]


@dataclass(frozen=True)
class ScoringResult:
    """Result of a `ScoringTask` besides its files; `matched` has one entry per folder of the task."""

    images: int
    sample_ids: set[str]
    unreadable: dict[str, str]
    matched: list[MatchedFiles]


def run_scoring_task(task: ScoringTask) -> ScoringResult:
    """Score one block of images."""
    predictors = _read_folders(task.folders)
    for predictor in predictors:
        predictor.matched = MatchedFiles()
    unreadable: dict[str, str] = {}
    records = cached_records(task.suite, task.data)
    cases = make_cases(task.suite, records, partition=task.partition, unreadable=unreadable)
    sample_ids = score_cases(cases, task.profiles, predictors, task.out, task.paths, unreadable)
    return ScoringResult(task.images, sample_ids, unreadable, [predictor.matched for predictor in predictors])


@lru_cache(maxsize=1)
def _read_folders(folders: tuple[Path, ...]) -> list[FilesPredictor]:
    """Read folders of predictions once per process."""
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
    """Do the same as `score_cases` in several processes of this machine.

    Raises
    ------
    DataError
        A process was killed.
    OutputError
        A file cannot be written. Existing files are left unchanged.
    """
    temporary = out / "scores" / ".parts"
    readers = file_predictors(predictors)
    block = -(-images // (workers * TASKS_PER_WORKER))
    count = -(-images // block)
    tasks = [
        ScoringTask(
            suite,
            data,
            out,
            tuple(map(profile_of, predictors)),
            tuple(reader.folder for reader in readers),
            # consecutive images, so that the files of the tasks only have to be concatenated
            Partition(number, count, block),
            min(block, images - number * block),
            {name: temporary / str(number) / path.name for name, path in paths.items()},
        )
        for number in range(count)
    ]
    sample_ids: set[str] = set()
    # a run that was killed leaves its files
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with (
            tqdm(total=images, desc="scoring", unit="image", disable=not progress) as bar,
            closing(run_in_processes(run_scoring_task, tasks, workers)) as results,
        ):
            for result in results:
                bar.update(result.images)
                sample_ids |= result.sample_ids
                for key, reason in result.unreadable.items():
                    unreadable.setdefault(key, reason)
                for reader, matched in zip(readers, result.matched, strict=True):
                    reader.matched.add(matched)
        _concatenate(tasks, paths)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return sample_ids


def _concatenate(tasks: Sequence[ScoringTask], paths: Mapping[str, Path]) -> None:
    """Concatenate the files of all tasks for each predictor."""
    with ExitStack() as files:
        for name, path in paths.items():
            with files.enter_context(replacing(path)).open("wb") as target:
                for task in tasks:
                    with task.paths[name].open("rb") as part:
                        shutil.copyfileobj(part, target)
