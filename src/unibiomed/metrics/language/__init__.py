"""Metrics of texts and references: BLEU, ROUGE-L and CIDEr as in pycocoevalcap, and METEOR."""

from __future__ import annotations

from .bleu import bleu
from .cider import cider
from .meteor_java import Meteor, MeteorMissingError, meteor
from .meteor_stem import meteor_exact_stem
from .rouge import rouge_l
from .tokens import ptb_words

__all__ = ["Meteor", "MeteorMissingError", "bleu", "cider", "meteor", "meteor_exact_stem", "ptb_words", "rouge_l"]
