"""Pairs of images, questions in other words, changed pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..sheet import Sheet, number
from .common import get_in, in_order

__all__ = ["trust_sheets"]

MEASURES = {"dice": ("Dice", False), "false_masks": ("false masks", True), "accuracy": ("recognition", True)}
"""Of changed images: what the results call it, what the table does, and whether it is a share."""


def trust_sheets(models: Mapping[str, Any]) -> list[Sheet]:
    """A table for each kind of probe that was asked."""
    pairs, words, changes = [], [], []
    for name, table in in_order(models):
        for kind, part in (table.get("pairs") or {}).items():
            cells = (number(part.get(k), percent=True) for k in ("set_accuracy", "set_accuracy_strict", "confusion"))
            pairs.append([name, kind.replace("_", ", "), str(part["set_accuracy"]["count"]), *cells])
        for task, part in (table.get("paraphrases") or {}).items():
            own, other = number(part.get("dice_own_words")), number(part.get("dice"))
            words.append([name, task, number(part["agreement"]), own, other])
        for change, levels in (table.get("robustness") or {}).items():
            for key, (measure, percent) in MEASURES.items():
                if count := get_in(levels, "0", key, "count"):
                    scores = (get_in(levels, str(n), key) for n in range(6))
                    cells = (number(score, percent=percent, interval=False) for score in scores)
                    changes.append([name, change, measure, str(count), *cells])
    return [
        Sheet(
            "pairs",
            "Pairs of images, target in one only",
            ("model", "question", "pairs", "both right", "both right, strictly", "same answer to both"),
            pairs,
            "Both right: some mask, or some finding, where there is one, and none where there is none. Strictly: the "
            "mask touches the target, the findings have their right names. A coin thrown for each image has both right "
            "in 25 % and gives the same answer in 50 %. Intervals: pairs that share a subject count as alike.",
        ),
        Sheet(
            "paraphrases",
            "The same question in other words",
            ("model", "task", "agreement", "Dice, own words", "Dice, other words"),
            words,
        ),
        Sheet(
            "robustness",
            "Scores on changed images, by strength",
            ("model", "change", "score", "n", "unchanged", "1", "2", "3", "4", "5"),
            changes,
            "Of the same n samples at every strength. Dice: those that show the target, mean over targets. False "
            "masks: of those without it, the share with any pixel. Recognition: the share of exact answers. Targets "
            "that a mirror turns into each other, such as left and right lung, are left out of the flip.",
        ),
    ]
