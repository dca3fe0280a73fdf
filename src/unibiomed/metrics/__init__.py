"""Plain functions on arrays and strings that say how good a prediction is.

Nothing here imports torch before it is needed. What cannot be scored, NaN and unequal lengths or shapes, is refused.
"""

from __future__ import annotations

from .calibration import (
    ReliabilityBin,
    RiskCoverage,
    brier,
    calibration_error,
    fit_platt,
    reliability,
    risk_coverage,
)
from .chest_labels import ChestAgreement, chest_findings, chest_label_agreement, label_chest_report
from .classification import (
    FalseFindings,
    LabelScore,
    accuracy,
    auroc,
    balanced_accuracy,
    confusion_matrix,
    false_findings,
    label_scores,
    substring_accuracy,
)
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
from .language import Meteor, bleu, cider, meteor, meteor_exact_stem, ptb_words, rouge_l
from .segmentation import Overlap, VolumeOverlap, dice, iou, overlap
from .statistics import (
    Interval,
    PairedTest,
    benjamini_hochberg,
    bootstrap,
    bootstrap_mean,
    holm,
    mean_sd,
    paired_t_test,
    wilcoxon,
    wilson_interval,
)
from .surface import hd95, surface_dice
from .trust import Trust, paired_trust, paraphrase_agreement

__all__ = [
    "ChestAgreement",
    "Detection",
    "FalseFindings",
    "Interval",
    "LabelScore",
    "Meteor",
    "Overlap",
    "PairedTest",
    "Panoptic",
    "ReliabilityBin",
    "RiskCoverage",
    "Trust",
    "VolumeOverlap",
    "accuracy",
    "aggregated_jaccard",
    "auroc",
    "balanced_accuracy",
    "benjamini_hochberg",
    "bleu",
    "bootstrap",
    "bootstrap_mean",
    "brier",
    "calibration_error",
    "chest_findings",
    "chest_label_agreement",
    "cider",
    "confusion_matrix",
    "detect",
    "detection_rate",
    "dice",
    "false_findings",
    "false_masks_per_image",
    "fit_platt",
    "hd95",
    "holm",
    "iou",
    "label_chest_report",
    "label_instances",
    "label_scores",
    "mean_sd",
    "meteor",
    "meteor_exact_stem",
    "overlap",
    "paired_t_test",
    "paired_trust",
    "panoptic",
    "paraphrase_agreement",
    "ptb_words",
    "reliability",
    "risk_coverage",
    "rouge_l",
    "substring_accuracy",
    "surface_dice",
    "wilcoxon",
    "wilson_interval",
]
