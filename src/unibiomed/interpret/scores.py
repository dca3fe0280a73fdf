"""How sure the model is: presence of the target, quality of its mask, and words."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from unibiomed.model.configuration import UniBiomedConfig
from unibiomed.model.modeling import MaskPrediction, UniBiomedModel


def calibrate(logits: torch.Tensor, calibration: Sequence[float], beside: torch.Tensor | None = None) -> torch.Tensor:
    """Probabilities in [0, 1] of logits after Platt scaling: scale, offset, and scale of what is given beside them."""
    scaled = logits * calibration[0] + calibration[1]
    if beside is not None and len(calibration) > 2:
        scaled = scaled + beside * calibration[2]
    return torch.sigmoid(scaled)


def trained_scores(masks: MaskPrediction, config: UniBiomedConfig) -> tuple[list[float], list[float]]:
    """Presence and mask scores from SAM2's two heads, for models that trained them.

    Returns
    -------
    tuple of list of float
        For each of the N masks, both in [0, 1].
    """
    assert masks.presence_logits is not None and config.presence_calibration is not None
    presence = calibrate(masks.presence_logits.float(), config.presence_calibration, masks.peak())
    return presence.tolist(), trained_mask_scores(masks, config)


def presence_scores(model: UniBiomedModel, maps: tuple[torch.Tensor, ...], prompts: torch.Tensor) -> list[float] | None:
    """Presence scores without masks, for models that can tell them so.

    Parameters
    ----------
    model : UniBiomedModel
    maps : tuple of torch.Tensor
        ``ImageFeatures.maps`` of one image.
    prompts : torch.Tensor
        (N, prompt width).

    Returns
    -------
    list of float or None
        N scores in [0, 1], those of :func:`trained_scores`. None where they need the masks: the scores are not trained,
        or the calibration uses the peak of the mask, or the decoder cannot stop before the masks.
    """
    calibration = model.config.presence_calibration
    assert calibration is not None
    peak = len(calibration) > 2 and calibration[2] != 0
    if peak or not (model.config.scores_trained and model.config.fine_masks):
        return None
    scores: list[float] = calibrate(model.presence_logits(maps, prompts).float(), calibration).tolist()
    return scores


def trained_mask_scores(masks: MaskPrediction, config: UniBiomedConfig) -> list[float]:
    """Mask scores, N in [0, 1], from SAM2's IoU head, for models that trained it."""
    assert masks.predicted_iou is not None and config.mask_calibration is not None
    quality = masks.predicted_iou.float().amax(1).clamp(1e-4, 1 - 1e-4)
    scores: list[float] = calibrate(quality.logit(), config.mask_calibration).tolist()
    return scores


def derived_scores(probabilities: torch.Tensor) -> tuple[list[float], list[float]]:
    """Scores for models whose heads were never trained, the published one among them: read off the mask itself.

    Presence is the highest probability of any pixel; the mask score is the IoU that the probabilities expect of the
    thresholded mask, the sum inside over the pixels inside plus the sum outside. They rank masks; they are not
    calibrated.

    Parameters
    ----------
    probabilities : torch.Tensor
        (N, height, width) in [0, 1].
    """
    flat = probabilities.flatten(1)
    inside = flat > 0.5
    hits = (flat * inside).sum(1)
    union = inside.sum(1) + (flat * ~inside).sum(1)
    score = torch.where(inside.any(1), hits / union.clamp(min=1e-6), 0.0)
    return flat.amax(1).tolist(), score.clamp(0, 1).tolist()


def text_score(probabilities: Sequence[float]) -> float:
    """Probability of a whole text in [0, 1]: the product of its tokens'."""
    return math.exp(sum(math.log(max(p, 1e-12)) for p in probabilities)) if probabilities else 0.0
