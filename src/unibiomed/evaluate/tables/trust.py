"""Pairs of images, questions in other words, changed pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..sheet import Sheet, number
from .common import get_in, in_order

__all__ = ["trust_sheets"]


def trust_sheets(models: Mapping[str, Any]) -> list[Sheet]:
    """A table for each kind of probe that was asked."""
    pairs, words, changes = [], [], []
    for name, table in in_order(models):
        for kind, part in (table.get("pairs") or {}).items():
            set_accuracy, confusion = (number(part[key], percent=True) for key in ("set_accuracy", "confusion"))
            pairs.append([name, kind.replace("_", ", "), str(part["set_accuracy"]["count"]), set_accuracy, confusion])
        for task, part in (table.get("paraphrases") or {}).items():
            own, other = number(part.get("dice_own_words")), number(part.get("dice"))
            words.append([name, task, number(part["agreement"]), own, other])
        for change, levels in (table.get("robustness") or {}).items():
            count = get_in(levels, "0", "dice", "count")
            cells = (number(get_in(levels, str(n), "dice"), interval=False) for n in range(6))
            changes.append([name, change, str(count or 0), *cells])
    return [
        Sheet(
            "pairs",
            "Pairs of images, target in one only",
            ("model", "question", "pairs", "both right", "same answer to both"),
            pairs,
            "A coin thrown for each image: 25 % and 50 %. Intervals: pairs that share a subject count as alike.",
        ),
        Sheet(
            "paraphrases",
            "The same question in other words",
            ("model", "task", "agreement", "Dice, own words", "Dice, other words"),
            words,
        ),
        Sheet(
            "robustness",
            "Dice on changed images, by strength",
            ("model", "change", "n", "unchanged", "1", "2", "3", "4", "5"),
            changes,
            "Dice of the n samples that show the target at every strength, mean over targets. Targets that a mirror "
            "turns into each other, such as left and right lung, are left out of the flip.",
        ),
    ]
