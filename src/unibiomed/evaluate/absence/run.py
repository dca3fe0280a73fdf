"""The evaluation of absence: ask every model for every target in every image, sum up, write tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from unibiomed.data.index import replacing, writing
from unibiomed.data.records import Record
from unibiomed.errors import InputError

from ..about import about_model, about_run
from ..predictions import safe_name
from ..predictors import Context, Predictor, is_boxed, make_predictor
from ..predictors.fingerprints import forget_series
from ..samples import Case, draw, missing_datasets, suite_records
from ..suite import Suite
from ..tables import write_tables
from .answers import Answer, AnswerFile
from .ask import ask_image, asked_digest, question_of
from .pairs import pairs_of, vocabulary_of
from .summary import summarise_absence

__all__ = ["evaluate_absence", "judge_absence"]


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
    """Judge models on whether they draw what is not there.

    Parameters
    ----------
    suite : Suite
        With ``all_pairs``.
    models : sequence of str
        As `predictors.make_predictor` takes them.
    data : path
        Folder with the data sets.
    out : path
        Folder for answers and tables. What it holds already is not asked again.
    device : str, optional
        Of models.
    progress : bool
        Show a progress bar.
    command : sequence of str
        What was typed, for ``results.json``.

    Returns
    -------
    dict
        What ``results.json`` holds.

    Raises
    ------
    DataError
        The suite or its data sets cannot be used.
    InputError, ModelError
        A model cannot be used, or two have one name.
    OutputError
        `out` cannot be written.
    """
    data, out = Path(data).resolve(), Path(out).resolve()
    records = suite_records(suite, data)
    missing = missing_datasets(suite, data, records)
    context = Context(lambda: suite_records(suite, data, "train"), device)
    predictors = [make_predictor(spec, context) for spec in models]
    return judge_absence(suite, records, predictors, out, missing=missing, progress=progress, command=command)


def judge_absence(
    suite: Suite,
    records: Sequence[Record],
    predictors: Sequence[Predictor],
    out: Path,
    *,
    missing: Sequence[tuple[str, str]] = (),
    progress: bool = True,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """As `evaluate_absence`, with records and predictors at hand; `missing` names data sets that are left out."""
    _check(suite, predictors)
    drawn = draw(records, suite.limit, suite.seed)
    vocabularies = {p.name: vocabulary_of(p, records) for p in predictors}
    files = {p.name: AnswerFile(out, p.name) for p in predictors}
    answers: dict[str, list[Answer]] = {p.name: [] for p in predictors}
    unreadable: dict[str, str] = {}
    forget_series()
    for record in tqdm(drawn, desc="asking", unit="image", disable=not progress):
        question = question_of(suite, Case(record, ()))
        if isinstance(question.pixels, str):
            unreadable[record.key] = question.pixels
        for predictor in predictors:
            segments = "segment" in suite.tasks and "segment" in predictor.tasks
            pairs = pairs_of(question.scene, vocabularies[predictor.name]) if segments else []
            asked = asked_digest(predictor, question, pairs)
            file = files[predictor.name]
            answer = file.kept(record.key, asked)
            if answer is None:
                answer = ask_image(predictor, question, pairs, asked)
                file.add(answer)
            answers[predictor.name].append(answer)
    results = {
        "suite": suite.name,
        "title": suite.title,
        "all_pairs": True,
        **about_run(suite, command),
        "images": len(drawn),
        "missing_datasets": [list(item) for item in missing],
        "notes": [],
        "models": {
            p.name: {
                "note": p.note,
                **about_model(p),
                "vocabulary": list(vocabularies[p.name]),
                **summarise_absence(answers[p.name]),
            }
            for p in predictors
        },
        "unreadable": [list(item) for item in sorted(unreadable.items())],
    }
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    with replacing(out / "results.json") as fresh:
        fresh.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    write_tables(results, out / "tables")
    return results


def _check(suite: Suite, predictors: Sequence[Predictor]) -> None:
    """Refuse predictors that cannot be judged here, and two of one name."""
    names = [safe_name(p.name) for p in predictors]
    for predictor, name in zip(predictors, names, strict=True):
        if names.count(name) > 1:
            raise InputError(f"two models are called '{predictor.name}': name them apart, such as other=MODEL")
        if is_boxed(predictor):
            raise InputError(f"'{predictor.name}' is told where the target is: leave it out of '{suite.name}'")
        if not predictor.tasks & set(suite.tasks):
            raise InputError(
                f"'{predictor.name}' answers none of {', '.join(suite.tasks)}: leave it out of '{suite.name}'"
            )
