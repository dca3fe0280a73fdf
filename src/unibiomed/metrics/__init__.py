"""Metrics of predictions as plain functions of arrays and strings.

Only functions that need torch import it. Invalid arguments, such as NaN and unequal lengths or shapes, raise an error.
"""

from __future__ import annotations

from .calibration import ReliabilityBin, RiskCoverage, calibration_error, fit_platt, reliability, risk_coverage
from .chest_labels import ChestAgreement, LabelScore, chest_findings, chest_label_agreement, label_chest_report
from .instances import Detection, Panoptic, aggregated_jaccard, detect, label_instances, panoptic
from .intervals import Estimate, bootstrap_estimate, macro_mean, mean_estimate, proportion_estimate
from .language import Meteor, bleu, cider, meteor, meteor_exact_stem, ptb_words, rouge_l
from .segmentation import Overlap, dice, iou, overlap
from .statistics import PairedTest, holm, mean_sd, paired_t_test, wilcoxon
from .surface import hd95, surface_dice

__all__ = [
    "ChestAgreement",
    "Detection",
    "Estimate",
    "LabelScore",
    "Meteor",
    "Overlap",
    "PairedTest",
    "Panoptic",
    "ReliabilityBin",
    "RiskCoverage",
    "aggregated_jaccard",
    "bleu",
    "bootstrap_estimate",
    "calibration_error",
    "chest_findings",
    "chest_label_agreement",
    "cider",
    "detect",
    "dice",
    "fit_platt",
    "hd95",
    "holm",
    "iou",
    "label_chest_report",
    "label_instances",
    "macro_mean",
    "mean_estimate",
    "mean_sd",
    "meteor",
    "meteor_exact_stem",
    "overlap",
    "paired_t_test",
    "panoptic",
    "proportion_estimate",
    "ptb_words",
    "reliability",
    "risk_coverage",
    "rouge_l",
    "surface_dice",
    "wilcoxon",
]
