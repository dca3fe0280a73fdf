"""What can be judged: this package's models, its peers, folders of predictions, and the trivial floors."""

from .base import Predictor, make_predictor

__all__ = ["Predictor", "make_predictor"]
