"""Mean and standard deviation over trainings with different seeds, ``NAME#SEED`` (figures 2e and A2 of the paper)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from unibiomed.metrics.statistics import mean_sd

__all__ = ["MEASURES", "aggregate_seeds"]

MEASURES: dict[str, tuple[str, ...]] = {
    "Dice": ("segment", "strict", "dice"),
    "recognition accuracy": ("recognize", "strict", "accuracy"),
    "recognition Dice": ("recognize", "strict", "dice"),
    "region classification accuracy": ("classify", "strict", "accuracy"),
    "closed questions": ("ask", "closed", "accuracy"),
}
"""Path of each measure in the results of a model."""


def aggregate_seeds(models: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Compute mean and standard deviation over the seeds of each training configuration.

    Parameters
    ----------
    models : mapping
        As in ``results.json``. ``universal#1`` and ``universal#2`` are two seeds of ``universal``.

    Returns
    -------
    dict
        For each measure and configuration ``mean``, ``sd`` (None for one seed) and the ``values`` of the seeds. Empty
        if no configuration has two seeds.
    """
    configurations: dict[str, list[str]] = defaultdict(list)
    for name in models:
        configuration, separator, seed = name.rpartition("#")
        if separator and configuration and seed:
            configurations[configuration].append(name)
    if max(map(len, configurations.values()), default=0) < 2:
        return {}
    tables: dict[str, dict[str, Any]] = {}
    for measure, path in MEASURES.items():
        values = {one: _values((models[name] for name in names), path) for one, names in configurations.items()}
        tables[measure] = {one: _aggregate(numbers) for one, numbers in values.items() if numbers}
    return {measure: table for measure, table in tables.items() if table}


def _values(models: Iterable[Any], path: tuple[str, ...]) -> list[float]:
    values = []
    for value in models:
        for key in (*path, "value"):
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            values.append(float(value))
    return values


def _aggregate(values: list[float]) -> dict[str, Any]:
    mean, sd = mean_sd(values)
    return {"mean": mean, "sd": None if math.isnan(sd) else sd, "values": values}
