"""Names used before version 0.2, which are accepted with a warning for one release."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

__all__ = [
    "BASELINE_NAMES",
    "PREDICTION_KEYS",
    "RESULT_KEYS",
    "SAMPLE_KINDS",
    "SAMPLE_SCORE_KEYS",
    "SUITE_KEYS",
    "rename_keys",
    "warn_deprecated",
]

SUITE_KEYS = {"foreign": "out_of_context", "changes": "perturbations"}
BASELINE_NAMES = {"commonest": "most-frequent", "nearest": "nearest-neighbor"}
PREDICTION_KEYS = {"asked": "question_digest", "seen": "image_digest"}
SAMPLE_KINDS = {"own": "in_context", "foreign": "out_of_context", "elsewhere": "background"}
SAMPLE_SCORE_KEYS = {
    "number": "image_index",
    "change": "perturbation",
    "there": "target_present",
    "found": "predicted_present",
    "false_parts": "false_components",
    "shared": "intersection",
    "predicted": "predicted_area",
    "true": "true_area",
    "measured": "spacing_known",
    "objects": "object_counts",
    "wanted": "true_labels",
    "said": "predicted_labels",
    "exact": "exact_match",
    "substring": "substring_match",
    "boxed": "true_box",
}
RESULT_KEYS = {
    "drawn": "selection",
    "floor": "baseline",
    "unknown_predictions": "unmatched_files",
    "unknown_count": "unmatched_count",
    "false_masks_foreign": "false_masks_out_of_context",
    "false_parts": "false_components",
    "presence_own": "presence_in_context",
    "elsewhere": "background_accuracy",
    "accuracy_with_elsewhere": "accuracy_with_background",
    "named_called_elsewhere": "called_background",
    "dice_labelled": "dice_correct_label",
    "masks_foreign": "masks_out_of_context",
    "dice_own_words": "dice_original",
    "said": "predicted",
}


def warn_deprecated(what: str, instead: str) -> None:
    """Warn that a name is deprecated and name its replacement."""
    warnings.warn(
        f"{what} is deprecated and will be removed in the next release: use {instead}", FutureWarning, stacklevel=1
    )


def rename_keys(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return a copy of a mapping in which old keys have their new names, in the same order."""
    return {names.get(key, key): value for key, value in values.items()}
