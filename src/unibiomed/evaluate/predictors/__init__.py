"""What can be judged: this package's models, its peers, folders of predictions, and the trivial floors."""

from .base import FLOORS, Predictor, Presence, edition_of, fingerprint_of, is_boxed, samples_for
from .make import Context, make_predictor, predictor_name

__all__ = [
    "FLOORS",
    "Context",
    "Predictor",
    "Presence",
    "edition_of",
    "fingerprint_of",
    "is_boxed",
    "make_predictor",
    "predictor_name",
    "samples_for",
]
