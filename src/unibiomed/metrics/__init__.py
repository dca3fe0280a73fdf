"""Plain functions on arrays and strings that say how good a prediction is.

Nothing here imports torch before it is needed. What cannot be scored, NaN and unequal lengths or shapes, is refused.
"""

from __future__ import annotations

from .classification import accuracy, auroc, calibration_error, fit_platt
from .instances import (
    Detection,
    Panoptic,
    aggregated_jaccard,
    detect,
    detection_rate,
    false_masks_per_image,
    label_instances,
    panoptic,
)
from .segmentation import Overlap, VolumeOverlap, dice, iou, overlap
from .surface import hd95, surface_dice

__all__ = [
    "Detection",
    "Overlap",
    "Panoptic",
    "VolumeOverlap",
    "accuracy",
    "aggregated_jaccard",
    "auroc",
    "calibration_error",
    "detect",
    "detection_rate",
    "dice",
    "false_masks_per_image",
    "fit_platt",
    "hd95",
    "iou",
    "label_instances",
    "overlap",
    "panoptic",
    "surface_dice",
]
