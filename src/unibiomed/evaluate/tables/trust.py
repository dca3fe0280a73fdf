"""Tables of paired images, paraphrases and perturbations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .common import get_in, models_first
from .table import Table, format_estimate

__all__ = ["trust_tables"]

MEASURES = {
    "dice": ("Dice", False),
    "false_masks": ("false masks", True),
    "accuracy": ("recognition accuracy", True),
}
"""Title of each measure of perturbed images, and whether it is a proportion."""
PAIR_QUESTIONS = {
    "masks": "segment, in context",
    "masks_out_of_context": "segment, out of context",
    "text": "recognize",
}


def trust_tables(models: Mapping[str, Any]) -> list[Table]:
    """Make the tables of the trust tests that were done."""
    pairs, paraphrases, perturbations = [], [], []
    for name, table in models_first(models):
        for kind, part in (table.get("pairs") or {}).items():
            keys = ("set_accuracy", "set_accuracy_strict", "confusion")
            cells = (format_estimate(part.get(key), percent=True) for key in keys)
            pairs.append([name, PAIR_QUESTIONS[kind], str(part["set_accuracy"]["count"]), *cells])
        for task, part in (table.get("paraphrases") or {}).items():
            cells = (format_estimate(part.get(key)) for key in ("agreement", "dice_original", "dice"))
            paraphrases.append([name, task, *cells])
        for perturbation, strengths in (table.get("robustness") or {}).items():
            for key, (measure, percent) in MEASURES.items():
                if count := get_in(strengths, "0", key, "count"):
                    scores = (get_in(strengths, str(strength), key) for strength in range(6))
                    cells = (format_estimate(score, percent=percent, interval=False) for score in scores)
                    perturbations.append([name, perturbation, measure, str(count), *cells])
    return [
        Table(
            "pairs",
            "Paired images, one with and one without the target",
            ("model", "question", "pairs", "both correct", "both correct (strict)", "same answer to both"),
            pairs,
            "Both correct: a mask or finding for the image with the target, none for the image without it. Strict: the "
            "mask intersects the target, findings have the right names. Random answers give 25 % both correct and 50 % "
            "same answer. The intervals account for subjects that occur in several pairs.",
        ),
        Table(
            "paraphrases",
            "Paraphrased questions",
            ("model", "task", "agreement", "Dice, original question", "Dice, paraphrases"),
            paraphrases,
        ),
        Table(
            "robustness",
            "Scores of perturbed images by strength",
            ("model", "perturbation", "score", "n", "original", "1", "2", "3", "4", "5"),
            perturbations,
            "Scores of the same n samples at every strength. Dice: images that show the target, mean over targets. "
            "False masks: images without the target whose mask has any pixel. Recognition accuracy: exact answers. "
            "Targets that a flip exchanges, such as left and right lung, are left out of the flip.",
        ),
    ]
