"""The evaluation of absent targets: prediction of all pairs, summary and tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from unibiomed.data.index import writing
from unibiomed.data.records import Record
from unibiomed.errors import InputError

from ..predictions import safe_name
from ..predictors import Predictor, PredictorContext, make_predictor, uses_true_box
from ..predictors.fingerprints import clear_series_cache
from ..provenance import model_provenance, run_provenance
from ..record_selection import draw_records, missing_datasets, suite_records
from ..results import RESULTS_SCHEMA, write_results
from ..samples import Case
from ..suite import Suite
from ..tables import write_tables
from .answers import AnswerFile, ImageAnswers
from .pairs import make_pairs, vocabulary_of
from .predict import predict_image, questions_digest, read_questions
from .summary import summarise_absence

__all__ = ["evaluate_absence", "evaluate_absence_records"]


def evaluate_absence(
    suite: Suite,
    models: Sequence[str],
    data: str | Path,
    out: str | Path,
    *,
    device: str | None = None,
    progress: bool = True,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Evaluate whether models segment absent targets.

    Parameters
    ----------
    suite : Suite
        Suite with ``all_pairs``.
    models : sequence of str
        As `predictors.make_predictor` takes them.
    data : path
        Folder with the data sets.
    out : path
        Output folder. Valid answers that it contains are reused.
    device : str, optional
        Device of the models. Default: the best available.
    progress : bool
        Show a progress bar.
    command : sequence of str
        Command line, for ``results.json``.

    Returns
    -------
    dict
        Content of ``results.json``.

    Raises
    ------
    DataError
        The suite or its data sets cannot be used.
    InputError, ModelError
        A model cannot be used, or two models have the same name.
    OutputError
        `out` cannot be written.
    """
    data, out = Path(data).resolve(), Path(out).resolve()
    records = suite_records(suite, data)
    missing = missing_datasets(suite, data, records)
    context = PredictorContext(lambda: suite_records(suite, data, "train"), device)
    predictors = [make_predictor(spec, context) for spec in models]
    return evaluate_absence_records(
        suite, records, predictors, out, missing=missing, progress=progress, command=command
    )


def evaluate_absence_records(
    suite: Suite,
    records: Sequence[Record],
    predictors: Sequence[Predictor],
    out: Path,
    *,
    missing: Sequence[tuple[str, str]] = (),
    progress: bool = True,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Evaluate loaded predictors on loaded records; `missing` lists the data sets that are not evaluated."""
    _check(suite, predictors)
    drawn = draw_records(records, suite.limit, suite.seed)
    vocabularies = {p.name: vocabulary_of(p, records) for p in predictors}
    files = {p.name: AnswerFile(out, p.name) for p in predictors}
    answers: dict[str, list[ImageAnswers]] = {p.name: [] for p in predictors}
    unreadable: dict[str, str] = {}
    clear_series_cache()
    for record in tqdm(drawn, desc="predicting", unit="image", disable=not progress):
        questions = read_questions(suite, Case(record, ()))
        if isinstance(questions.pixels, str):
            unreadable[record.key] = questions.pixels
        for predictor in predictors:
            segments = "segment" in suite.tasks and "segment" in predictor.tasks
            pairs = make_pairs(questions.scene, vocabularies[predictor.name]) if segments else []
            digest = questions_digest(predictor, questions, pairs)
            file = files[predictor.name]
            image = file.stored(record.key, digest)
            if image is None:
                image = predict_image(predictor, questions, pairs, digest)
                file.add(image)
            answers[predictor.name].append(image)
    results = {
        "schema": RESULTS_SCHEMA,
        "suite": suite.name,
        "title": suite.title,
        "all_pairs": True,
        **run_provenance(suite, command),
        "images": len(drawn),
        "missing_datasets": [list(item) for item in missing],
        "notes": [],
        "models": {
            p.name: {
                "note": p.note,
                **model_provenance(p),
                "vocabulary": list(vocabularies[p.name]),
                **summarise_absence(answers[p.name]),
            }
            for p in predictors
        },
        "unreadable": [list(item) for item in sorted(unreadable.items())],
    }
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    write_results(results, out)
    write_tables(results, out / "tables")
    return results


def _check(suite: Suite, predictors: Sequence[Predictor]) -> None:
    """Refuse predictors that cannot be evaluated, and two with the same name."""
    names = [safe_name(p.name) for p in predictors]
    for predictor, name in zip(predictors, names, strict=True):
        if names.count(name) > 1:
            raise InputError(
                f"two models have the name '{predictor.name}': give them different names, for example other=MODEL"
            )
        if uses_true_box(predictor):
            raise InputError(
                f"'{predictor.name}' is given the ground-truth box: suite '{suite.name}' cannot evaluate it"
            )
        if not predictor.tasks & set(suite.tasks):
            raise InputError(
                f"'{predictor.name}' supports none of the tasks {', '.join(suite.tasks)} of suite '{suite.name}': "
                "leave it out"
            )
