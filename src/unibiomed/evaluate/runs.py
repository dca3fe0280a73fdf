"""Several trainings of one kind, ``NAME#RUN`` each: mean and standard deviation over the runs (figures 2e and A2)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from unibiomed.metrics.statistics import mean_sd

__all__ = ["MEASURES", "run_tables"]

MEASURES: dict[str, tuple[str, ...]] = {
    "Dice": ("segment", "strict", "dice"),
    "recognition accuracy": ("recognize", "strict", "accuracy"),
    "recognition Dice": ("recognize", "strict", "dice"),
    "region classification accuracy": ("classify", "strict", "accuracy"),
    "closed questions": ("ask", "closed", "accuracy"),
}
"""Where the tables of a model hold what is compared between kinds of training."""
FEWEST = 2
"""Runs below which there is no spread to show."""


def run_tables(models: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Mean and standard deviation over the runs of each kind of training.

    Parameters
    ----------
    models : mapping
        As in ``results.json``. ``universal#1`` and ``universal#2`` are two runs of ``universal``.

    Returns
    -------
    dict
        Measure to kind of training to ``mean``, ``sd`` (None for one run) and ``values``, one a run. Empty where no
        kind has two runs; a kind with one run stands beside those that have more.
    """
    kinds: dict[str, list[str]] = defaultdict(list)
    for name in models:
        kind, mark, run = name.rpartition("#")
        if mark and kind and run:
            kinds[kind].append(name)
    if max(map(len, kinds.values()), default=0) < FEWEST:
        return {}
    tables: dict[str, dict[str, Any]] = {}
    for measure, path in MEASURES.items():
        found = {kind: _values((models[name] for name in names), path) for kind, names in kinds.items()}
        tables[measure] = {kind: _summed(values) for kind, values in found.items() if values}
    return {measure: table for measure, table in tables.items() if table}


def _values(runs: Iterable[Any], path: tuple[str, ...]) -> list[float]:
    values = []
    for table in runs:
        for key in (*path, "value"):
            table = table.get(key) if isinstance(table, Mapping) else None
        if table is not None:
            values.append(float(table))
    return values


def _summed(values: list[float]) -> dict[str, Any]:
    mean, sd = mean_sd(values)
    return {"mean": mean, "sd": None if math.isnan(sd) else sd, "values": values}
