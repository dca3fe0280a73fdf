"""Plain functions on arrays and strings that say how good a prediction is."""

from __future__ import annotations

from .classification import accuracy, auroc, calibration_error, fit_platt
from .segmentation import dice, iou

__all__ = ["accuracy", "auroc", "calibration_error", "dice", "fit_platt", "iou"]
