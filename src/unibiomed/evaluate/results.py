"""The file ``results.json``, which holds all numbers of an evaluation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unibiomed.data.index import replacing
from unibiomed.errors import DataError

from .deprecated import RESULT_KEYS, rename_keys, warn_deprecated

__all__ = ["RESULTS_SCHEMA", "read_results", "write_results"]

RESULTS_SCHEMA = 2


def write_results(results: Mapping[str, Any], out: Path) -> None:
    """Write ``results.json`` to the folder of an evaluation.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    with replacing(out / "results.json") as temporary:
        temporary.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read_results(out: Path) -> dict[str, Any]:
    """Read ``results.json`` from the folder of an evaluation.

    Raises
    ------
    DataError
        The file is missing, is not JSON or has an unknown schema.
    """
    path = out / "results.json"
    try:
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        schema = results.get("schema", 1)
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"'{path}' cannot be read ({str(error)[:100]}): run 'unibiomed evaluate' again") from error
    if schema == 1:
        warn_deprecated(f"the format of '{path}'", "'unibiomed evaluate' to write it again")
        return {**_upgraded(results), "schema": RESULTS_SCHEMA}
    if schema != RESULTS_SCHEMA:
        raise DataError(f"'{path}' has schema {schema}: use a newer version of unibiomed to read it")
    return results


def _upgraded(results: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the keys of schema 1. Names of models, targets, labels and data sets may equal a key, and are kept."""
    models = {}
    for name, model in results.get("models", {}).items():
        model = rename_keys(model, RESULT_KEYS)
        for task in ("segment", "recognize", "classify"):
            if task in model:
                model[task] = {part: rename_keys(table, RESULT_KEYS) for part, table in model[task].items()}
                strict = model[task].get("strict", {})
                for label, values in strict.get("per_label", {}).items():
                    strict["per_label"][label] = rename_keys(values, RESULT_KEYS)
        for part in ("pairs", "paraphrases"):
            if part in model:
                model[part] = rename_keys(model[part], RESULT_KEYS)
        for task, values in model.get("paraphrases", {}).items():
            model["paraphrases"][task] = rename_keys(values, RESULT_KEYS)
        models[name] = model
    return {**rename_keys(results, RESULT_KEYS), "models": models}
