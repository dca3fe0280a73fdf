"""The evaluation of models on a suite: prediction, scoring, summary, tables, figures and page.

Predictions are stored, so that an interrupted evaluation continues where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from tqdm import tqdm

from unibiomed.data.index import writing
from unibiomed.data.records import Record
from unibiomed.errors import DataError, InputError

from .compare import compare
from .distributed import launched_partition, predict_in_processes, predict_on_ray, split_prediction
from .examples import draw_examples, record_keys, select_examples
from .figures import draw_figures
from .figures.data import FigureData, modality_tests, read_figure_data
from .page import remove_page, write_page
from .predict import predict_cases, predictions_folder
from .predictions import PredictionStore
from .predictors import BASELINES, Predictor, PredictorContext, make_predictor, predictor_name
from .predictors.files import FilesPredictor
from .provenance import model_provenance, run_provenance
from .record_selection import draw_records, missing_datasets, suite_records
from .results import RESULTS_SCHEMA, write_results
from .sample_scores import read_sample_scores
from .samples import Case, make_cases
from .scoring import file_predictors, profile_of, sample_scores_path, score_cases, score_in_processes
from .seed_aggregation import aggregate_seeds
from .stale_files import remove_stale_files
from .suite import ALL_SPLITS, Suite
from .summary import summarise
from .tables import write_tables
from .trust import pair_table, paraphrase_table, robustness_table

__all__ = ["Evaluation", "evaluate", "evaluate_records"]

BOX_BASELINE = "filled-box"
"""Baseline of ``outline``, which supports no other task."""
UNTRAINED_BASELINES = ("empty", BOX_BASELINE)
"""Baselines that do not use the training split."""
MAX_LISTED_FILES = 20
"""Number of unmatched files listed in ``results.json``."""


@dataclass(frozen=True)
class Evaluation:
    """Results of an evaluation.

    Parameters
    ----------
    folder : Path
        Contains ``index.html``, ``results.json``, ``tables/``, ``figures/``, ``predictions/`` and ``scores/``.
    results : dict
        Content of ``results.json``.
    """

    folder: Path
    results: dict[str, Any]


def evaluate(
    suite: Suite,
    models: Sequence[str],
    data: str | Path,
    out: str | Path,
    *,
    baselines: bool = True,
    device: str | None = None,
    processes: int = 1,
    ray: int | None = None,
    pictures: int = 20,
    progress: bool = True,
    command: Sequence[str] = (),
) -> Evaluation:
    """Evaluate models on a suite.

    Parameters
    ----------
    suite : Suite
    models : sequence of str
        As `predictors.make_predictor` takes them.
    data : path
        Folder with the data sets.
    out : path
        Output folder. Valid predictions that it contains are reused.
    baselines : bool
        Also evaluate the trivial baselines.
    device : str, optional
        Device of the models. Default: the best available.
    processes : int
        Number of processes for prediction and scoring. Processes started by ``accelerate launch`` each predict a part.
    ray : int, optional
        Predict on a Ray cluster, or with this number of local Ray processes.
    pictures : int
        Number of samples per data set that the page shows with their image. 0 disables figures and page.
    progress : bool
        Show progress bars.
    command : sequence of str
        Command line, for ``results.json``. Folders are removed from paths.

    Returns
    -------
    Evaluation

    Raises
    ------
    DataError
        The suite or its data sets cannot be used.
    InputError, ModelError
        A model cannot be used, two models have the same name, or a number is out of range.
    OutputError
        `out` cannot be written.
    """
    for name, number, least in (("processes", processes, 1), ("ray", ray, 1), ("pictures", pictures, 0)):
        if number is not None and number < least:
            raise InputError(f"--{name} {number} is too small: give {least} or more")
    data, out = Path(data).resolve(), Path(out).resolve()
    baseline_specs = [f"baseline:{name}" for name in _suitable_baselines(suite)] if baselines else []
    _check_names([predictor_name(spec) for spec in [*models, *baseline_specs]], [*models, *baseline_specs])
    records = suite_records(suite, data)
    missing = missing_datasets(suite, data, records)

    @lru_cache
    def training_records() -> tuple[Record, ...]:
        return tuple(suite_records(suite, data, "train"))

    baseline_specs, notes = _trainable_baselines(baseline_specs, training_records)
    if suite.split in ("train", ALL_SPLITS) and len(baseline_specs) > len(UNTRAINED_BASELINES):
        notes.append(
            "the baselines were fitted to the images that they are evaluated on: nearest-neighbor finds each image "
            "itself"
        )
    specs = [*models, *baseline_specs]
    launched = launched_partition()
    unreadable: dict[str, str] | None = None
    if launched:
        device = device or launched[1]
        progress = progress and launched[0].rank == 0
    elif ray is not None:
        unreadable = predict_on_ray(split_prediction(suite, specs, data, out, device, ray), ray, progress=progress)
    elif processes > 1:
        tasks = split_prediction(suite, specs, data, out, device, processes)
        unreadable = predict_in_processes(tasks, processes, progress=progress)
    context = PredictorContext(training_records, device)
    predictors = [make_predictor(spec, context) for spec in specs]
    if launched:
        cases = make_cases(suite, records, partition=launched[0], unreadable={})
        predict_cases(cases, predictors, out, progress=progress)
        launched[2]()
        if launched[0].rank:
            return Evaluation(out, {})
    pipeline = _Pipeline(suite, records, predictors, out, progress)
    if unreadable is None:
        pipeline.predict()
    else:
        pipeline.unreadable.update(unreadable)
    pipeline.score(data, processes)
    return Evaluation(out, pipeline.report(missing, notes, pictures, command))


def evaluate_records(
    suite: Suite,
    records: Sequence[Record],
    predictors: Sequence[Predictor],
    out: Path,
    *,
    missing: Sequence[tuple[str, str]] = (),
    notes: Sequence[str] = (),
    pictures: int = 20,
    progress: bool = True,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Evaluate loaded predictors on loaded records in this process; return the content of ``results.json``.

    `missing` lists the data sets that are not evaluated with the reasons; `notes` are shown in the results.
    """
    _check_names([p.name for p in predictors])
    pipeline = _Pipeline(suite, records, predictors, out, progress)
    pipeline.predict()
    pipeline.score()
    return pipeline.report(missing, notes, pictures, command)


class _Pipeline:
    """The steps of an evaluation and their intermediate results."""

    def __init__(
        self, suite: Suite, records: Sequence[Record], predictors: Sequence[Predictor], out: Path, progress: bool
    ) -> None:
        self.suite, self.records, self.predictors, self.out, self.progress = suite, records, predictors, out, progress
        self.images = len(draw_records(records, suite.limit, suite.seed))
        self.scores = {p.name: sample_scores_path(out, p.name) for p in predictors}
        self.unreadable: dict[str, str] = {}
        self.sample_ids: set[str] = set()

    def _cases(self) -> Iterator[Case]:
        """Make the cases. They are made again for each step, because they are too many to hold in memory."""
        return make_cases(self.suite, self.records, unreadable=self.unreadable)

    @property
    def _total(self) -> int | None:
        """Number of cases, if it is known."""
        return None if self.suite.perturbations else self.images

    def predict(self) -> None:
        """Run the predictors on all samples without a valid prediction."""
        with writing(self.out):
            self.out.mkdir(parents=True, exist_ok=True)
        predict_cases(
            self._cases(),
            self.predictors,
            self.out,
            total=self._total,
            progress=self.progress,
            unreadable=self.unreadable,
        )

    def score(self, data: Path | None = None, processes: int = 1) -> None:
        """Score all predictions. Several processes read the records of the suite from the folder `data`."""
        if processes > 1 and data is not None:
            self.sample_ids = score_in_processes(
                self.suite,
                data,
                self.images,
                self.predictors,
                self.out,
                self.scores,
                processes,
                unreadable=self.unreadable,
                progress=self.progress,
            )
            return
        self.sample_ids = score_cases(
            tqdm(self._cases(), total=self._total, desc="scoring", unit="image", disable=not self.progress),
            [profile_of(predictor) for predictor in self.predictors],
            file_predictors(self.predictors),
            self.out,
            self.scores,
            self.unreadable,
        )

    def report(
        self, missing: Sequence[tuple[str, str]], notes: Sequence[str], pictures: int, command: Sequence[str]
    ) -> dict[str, Any]:
        """Write results, tables, figures and page; return the content of ``results.json``."""
        suite, out, scores = self.suite, self.out, self.scores
        if not self.sample_ids:
            tasks = ", ".join(suite.tasks)
            raise DataError(f"suite '{suite.name}' has no samples: none of its images can be used for {tasks}")
        results: dict[str, Any] = {
            "schema": RESULTS_SCHEMA,
            "suite": suite.name,
            "title": suite.title,
            **run_provenance(suite, command),
            "images": self.images,
            "missing_datasets": [list(item) for item in missing],
            "notes": list(notes),
            "models": {predictor.name: self._model_results(predictor) for predictor in self.predictors},
            "unreadable": [list(item) for item in sorted(self.unreadable.items())],
        }
        figure_data = {name: read_figure_data(path) for name, path in scores.items()}
        results["runs"] = aggregate_seeds(results["models"])
        results["comparisons"] = compare(scores)
        results["modality_tests"] = modality_tests(figure_data)
        write_results(results, out)
        write_tables(results, out / "tables")
        if pictures:
            readable = [record for record in self.records if record.key not in self.unreadable]
            _write_visual_report(suite, readable, results, scores, figure_data, out, pictures)
        else:
            # figures of an earlier run would show other numbers
            remove_page(out)
            for folder in (out / "figures", *(out / "examples" / path.stem for path in scores.values())):
                remove_stale_files(folder, [])
        return results

    def _model_results(self, predictor: Predictor) -> dict[str, Any]:
        samples = list(read_sample_scores(self.scores[predictor.name]))
        pairs = self.suite.pairs
        trust = {
            "pairs": pair_table(samples, pairs.limit, self.suite.seed) if pairs else {},
            "paraphrases": paraphrase_table(samples),
            "robustness": robustness_table(samples),
        }
        store = PredictionStore(predictions_folder(self.out, predictor.name))
        unmatched = store.unmatched_files(self.sample_ids)
        if isinstance(predictor, FilesPredictor):
            unmatched += predictor.unmatched()
        return {
            "note": predictor.note,
            "baseline": predictor.name in BASELINES,
            **model_provenance(predictor),
            "unmatched_files": _first_names(unmatched),
            "unmatched_count": len(unmatched),
            **summarise(samples),
            **{name: part for name, part in trust.items() if part},
        }


def _write_visual_report(
    suite: Suite,
    records: Sequence[Record],
    results: dict[str, Any],
    scores: Mapping[str, Path],
    figure_data: Mapping[str, FigureData],
    out: Path,
    pictures: int,
) -> None:
    """Write figures, example images and the HTML page."""
    external = {record.dataset for record in records if record.external}
    figures = draw_figures(results, figure_data, out / "figures", external=external)
    unperturbed = replace(suite, perturbations=None)

    def cases(keys: Collection[str]) -> Iterator[Case]:
        return make_cases(unperturbed, [record for record in records if record.key in keys])

    stores = {name: PredictionStore(predictions_folder(out, name)) for name in scores}
    for name, path in scores.items():
        if results["models"][name]["baseline"]:
            continue
        examples = select_examples(read_sample_scores(path))
        shown = cases(record_keys(example.score for example in examples))
        draw_examples(shown, examples, stores[name], out / "examples" / stores[name].folder.name, model=name)
    write_page(results, figures, out, scores=scores, stores=stores, cases=cases, pictures=pictures)


def _first_names(names: list[str]) -> list[str]:
    """Shorten a list of file names, which may be long if a folder belongs to another suite."""
    if len(names) <= MAX_LISTED_FILES:
        return names
    return [*names[:MAX_LISTED_FILES], f"and {len(names) - MAX_LISTED_FILES:,} more"]


def _suitable_baselines(suite: Suite) -> list[str]:
    """Return the baselines that support a task of the suite."""
    boxes, others = "outline" in suite.tasks, set(suite.tasks) != {"outline"}
    return [name for name in BASELINES if (boxes if name == BOX_BASELINE else others)]


def _trainable_baselines(
    specs: list[str], training_records: Callable[[], Sequence[Record]]
) -> tuple[list[str], list[str]]:
    """Remove baselines that cannot be fitted; also return a note that names them."""
    if not specs:
        return [], []
    try:
        training_records()
    except DataError as error:
        removed = ", ".join(name for name in BASELINES if name not in UNTRAINED_BASELINES)
        return [spec for spec in specs if spec.removeprefix("baseline:") in UNTRAINED_BASELINES], [
            f"baselines {removed} were left out, because they need the training split: {error}"
        ]
    return specs, []


def _check_names(names: Sequence[str], specs: Sequence[str] | None = None) -> None:
    """Refuse models with the same folder, whose predictions would be mixed up."""
    folders = [predictions_folder(Path(), name) for name in names]
    for spec, name, folder in zip(specs or names, names, folders, strict=True):
        if folders.count(folder) > 1:
            other = f"--model other={spec.removeprefix(f'{name}=')}"
            raise InputError(f"two models have the name '{name}': give them different names, for example {other}")
