"""Predictors: models of this package, other models, folders of predictions, and trivial baselines."""

from .base import (
    BASELINES,
    Predictor,
    Presence,
    fingerprint_of,
    samples_for,
    source_digest_of,
    uses_true_box,
)
from .factory import PredictorContext, make_predictor, predictor_name

__all__ = [
    "BASELINES",
    "Predictor",
    "PredictorContext",
    "Presence",
    "fingerprint_of",
    "make_predictor",
    "predictor_name",
    "samples_for",
    "source_digest_of",
    "uses_true_box",
]
