"""The whole evaluation: ask, score, sum up, write. Each step is kept, so that the next run goes on from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from tqdm import tqdm

from unibiomed.data.index import replacing, writing
from unibiomed.data.records import Record
from unibiomed.errors import DataError, InputError

from .about import about_model, about_run
from .compare import compare
from .examples import draw_examples, keys_of, pick_examples
from .figures import draw_figures
from .figures.gather import Answers, gather, modality_tests
from .leftovers import remove_leftovers
from .page import remove_page, write_page
from .predictions import PredictionStore
from .predictors import FLOORS, Context, Predictor, make_predictor, predictor_name
from .predictors.files import FilesPredictor
from .rows import read_rows
from .run import predict_cases, predictions_folder
from .runs import run_tables
from .samples import Case, draw, make_cases, missing_datasets, suite_records
from .score import strangers
from .scoring import file_readers, profile_of, rows_path, score_cases, score_in_processes
from .spread import ask_in_processes, ask_on_ray, launched_share, parts_of
from .suite import EVERY_SPLIT, Suite
from .summary import summarise
from .tables import write_tables
from .trust import pair_table, paraphrase_table, robustness_table

__all__ = ["Evaluation", "evaluate", "judge"]

BOX_FLOOR = "filled-box"
"""The floor of ``outline``, which answers nothing else."""
UNTAUGHT = ("empty", BOX_FLOOR)
"""Floors that need no training split."""
MOST_STRANGERS = 20
"""Names of files without a sample that are told."""


@dataclass(frozen=True)
class Evaluation:
    """Where the results of an evaluation lie.

    Parameters
    ----------
    folder : Path
        Holds ``index.html``, ``results.json``, ``tables/``, ``figures/``, ``predictions/`` and ``scores/``.
    results : dict
        What ``results.json`` holds.
    """

    folder: Path
    results: dict[str, Any]


def evaluate(
    suite: Suite,
    models: Sequence[str],
    data: str | Path,
    out: str | Path,
    *,
    floors: bool = True,
    device: str | None = None,
    processes: int = 1,
    ray: int | None = None,
    pictures: int = 20,
    progress: bool = True,
    command: Sequence[str] = (),
) -> Evaluation:
    """Judge models on a suite.

    Parameters
    ----------
    suite : Suite
    models : sequence of str
        As `predictors.make_predictor` takes them.
    data : path
        Folder with the data sets.
    out : path
        Folder for predictions, scores and tables. What it holds already is not done again.
    floors : bool
        Also judge the trivial predictors.
    device : str, optional
        Of models.
    processes : int
        That ask and score. Where ``accelerate launch`` started several, each asks its share.
    ray : int, optional
        Ask on a Ray cluster instead, or on as many processes of a local one.
    pictures : int
        Samples of each data set that the page shows with their image; 0 leaves out figures and page.
    progress : bool
        Show progress bars.
    command : sequence of str
        What was typed, for ``results.json``: of paths it keeps the names.

    Returns
    -------
    Evaluation

    Raises
    ------
    DataError
        The suite or its data sets cannot be used.
    InputError, ModelError
        A model cannot be used, two have one name, or `processes` is not positive.
    OutputError
        `out` cannot be written.
    """
    if processes < 1:
        raise InputError(f"{processes} processes cannot ask or score anything: give 1 or more")
    if ray is not None and ray < 1:
        raise InputError(f"{ray} processes on Ray cannot ask anything: give 1 or more")
    if pictures < 0:
        raise InputError(f"{pictures} pictures cannot be shown: give 0 or more")
    data, out = Path(data).resolve(), Path(out).resolve()
    floor_specs = [f"floor:{name}" for name in _floors_for(suite)] if floors else []
    _check_names([predictor_name(spec) for spec in [*models, *floor_specs]], [*models, *floor_specs])
    records = suite_records(suite, data)
    missing = missing_datasets(suite, data, records)

    @lru_cache
    def training() -> tuple[Record, ...]:
        return tuple(suite_records(suite, data, "train"))

    floor_specs, notes = _floors_of(floor_specs, training)
    if suite.split in ("train", EVERY_SPLIT) and len(floor_specs) > len(UNTAUGHT):
        notes.append("the floors learned from the very images that they are judged on: nearest finds each image itself")
    specs = [*models, *floor_specs]
    launched = launched_share()
    asked: dict[str, str] | None = None
    if launched:
        device = device or launched[1]
        progress = progress and launched[0].rank == 0
    elif ray is not None:
        asked = ask_on_ray(parts_of(suite, specs, data, out, device, ray or 1), ray, progress=progress)
    elif processes > 1:
        asked = ask_in_processes(parts_of(suite, specs, data, out, device, processes), processes, progress=progress)
    context = Context(training, device)
    predictors = [make_predictor(spec, context) for spec in specs]
    if launched:
        predict_cases(make_cases(suite, records, share=launched[0], unreadable={}), predictors, out, progress=progress)
        launched[2]()
        if launched[0].rank:
            return Evaluation(out, {})
    work = _Work(suite, records, predictors, out, progress)
    if asked is None:
        work.ask()
    else:
        work.unreadable.update(asked)
    if processes > 1:
        work.score_in(processes, data)
    else:
        work.score()
    return Evaluation(out, work.sum_up(missing, notes, pictures, command))


def judge(
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
    """As `evaluate`, with records and predictors at hand, in this process; gives what ``results.json`` holds.

    `missing` names data sets that are not evaluated, each with the reason; `notes` is what a reader has to know.
    """
    _check_names([p.name for p in predictors])
    work = _Work(suite, records, predictors, out, progress)
    work.ask()
    work.score()
    return work.sum_up(missing, notes, pictures, command)


class _Work:
    """The steps of an evaluation, and what one leaves for the next."""

    def __init__(
        self, suite: Suite, records: Sequence[Record], predictors: Sequence[Predictor], out: Path, progress: bool
    ) -> None:
        self.suite, self.records, self.predictors, self.out, self.progress = suite, records, predictors, out, progress
        self.images = len(draw(records, suite.limit, suite.seed))
        self.scores = {p.name: rows_path(out, p.name) for p in predictors}
        self.unreadable: dict[str, str] = {}
        self.known: set[str] = set()

    def _cases(self) -> Iterator[Case]:
        """Made again each time they are gone through: they are too many to hold."""
        return make_cases(self.suite, self.records, unreadable=self.unreadable)

    @property
    def _total(self) -> int | None:
        """Of cases, where it is known."""
        return None if self.suite.changes else self.images

    def ask(self) -> None:
        """Ask what is not asked yet."""
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

    def score(self) -> None:
        """Score in this process."""
        self.known = score_cases(
            tqdm(self._cases(), total=self._total, desc="scoring", unit="image", disable=not self.progress),
            [profile_of(predictor) for predictor in self.predictors],
            file_readers(self.predictors),
            self.out,
            self.scores,
            self.unreadable,
        )

    def score_in(self, processes: int, data: Path) -> None:
        """Score in some processes, which read the records of a folder of data sets."""
        self.known = score_in_processes(
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

    def sum_up(
        self, missing: Sequence[tuple[str, str]], notes: Sequence[str], pictures: int, command: Sequence[str]
    ) -> dict[str, Any]:
        """Write tables, figures and page; gives what ``results.json`` holds."""
        if not self.known:
            tasks = ", ".join(self.suite.tasks)
            raise DataError(f"suite '{self.suite.name}' asks nothing: no image of its data sets is for {tasks}")
        suite, out, scores = self.suite, self.out, self.scores
        results: dict[str, Any] = {
            "suite": suite.name,
            "title": suite.title,
            **about_run(suite, command),
            "images": self.images,
            "missing_datasets": [list(item) for item in missing],
            "notes": list(notes),
            "models": {},
            "unreadable": [list(item) for item in sorted(self.unreadable.items())],
        }
        for predictor in self.predictors:
            rows = list(read_rows(scores[predictor.name]))
            trust = {
                "pairs": pair_table(rows, suite.pairs.limit, suite.seed) if suite.pairs else {},
                "paraphrases": paraphrase_table(rows),
                "robustness": robustness_table(rows),
            }
            store = PredictionStore(predictions_folder(out, predictor.name))
            unknown = strangers(store, self.known) + _unused(predictor)
            results["models"][predictor.name] = {
                "note": predictor.note,
                "floor": predictor.name in FLOORS,
                **about_model(predictor),
                "unknown_predictions": _first_few(unknown),
                "unknown_count": len(unknown),
                **summarise(rows),
                **{name: part for name, part in trust.items() if part},
            }
        answers = {name: gather(path) for name, path in scores.items()}
        results["runs"] = run_tables(results["models"])
        results["comparisons"] = compare(scores)
        results["modality_tests"] = modality_tests(answers)
        with replacing(out / "results.json") as fresh:
            fresh.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        write_tables(results, out / "tables")
        if pictures:
            readable = [record for record in self.records if record.key not in self.unreadable]
            _show(suite, readable, results, scores, answers, out, pictures)
        else:
            # those of an earlier run would stand beside other numbers
            remove_page(out)
            for folder in (out / "figures", *(out / "examples" / path.stem for path in scores.values())):
                remove_leftovers(folder, [])
        return results


def _show(
    suite: Suite,
    records: Sequence[Record],
    results: dict[str, Any],
    scores: Mapping[str, Path],
    answers: Mapping[str, Answers],
    out: Path,
    pictures: int,
) -> None:
    """Figures, and the page that ties everything together."""
    external = {record.dataset for record in records if record.external}
    figures = draw_figures(results, answers, out / "figures", external=external)
    plain = replace(suite, changes=None)

    def cases(keys: Collection[str]) -> Iterator[Case]:
        return make_cases(plain, [record for record in records if record.key in keys])

    for name, path in scores.items():
        if results["models"][name]["floor"]:
            continue
        examples = pick_examples(read_rows(path))
        shown = cases(keys_of(example.row for example in examples))
        store = PredictionStore(predictions_folder(out, name))
        draw_examples(shown, examples, store, out / "examples" / store.folder.name, model=name)
    write_page(
        results,
        figures,
        out,
        scores=scores,
        stores={name: PredictionStore(predictions_folder(out, name)) for name in scores},
        cases=cases,
        pictures=pictures,
    )


def _first_few(names: list[str]) -> list[str]:
    """A folder of another suite holds thousands of names: the first say what it is."""
    if len(names) <= MOST_STRANGERS:
        return names
    return [*names[:MOST_STRANGERS], f"and {len(names) - MOST_STRANGERS:,} more"]


def _floors_for(suite: Suite) -> list[str]:
    """The floors that answer one of the suite's tasks."""
    boxes, others = "outline" in suite.tasks, set(suite.tasks) != {"outline"}
    return [name for name in FLOORS if (boxes if name == BOX_FLOOR else others)]


def _floors_of(specs: list[str], training: Callable[[], Sequence[Record]]) -> tuple[list[str], list[str]]:
    """The floors that can answer, and what is to be said of the others."""
    if not specs:
        return [], []
    try:
        training()
    except DataError as error:
        left = ", ".join(name for name in FLOORS if name not in UNTAUGHT)
        return [spec for spec in specs if spec.removeprefix("floor:") in UNTAUGHT], [
            f"{left} are left out, as they learn from the training split: {error}"
        ]
    return specs, []


def _unused(predictor: Predictor) -> list[str]:
    """Files that a predictor was given and that belong to no sample."""
    return predictor.unused() if isinstance(predictor, FilesPredictor) else []


def _check_names(names: Sequence[str], specs: Sequence[str] | None = None) -> None:
    # two names may mean one folder: what one said must not be taken for the other's
    folders = [predictions_folder(Path(), name) for name in names]
    for spec, name, folder in zip(specs or names, names, folders, strict=True):
        if folders.count(folder) > 1:
            other = f"--model other={spec.removeprefix(f'{name}=')}"
            raise InputError(f"two models are called '{name}': name them apart, such as {other}")
