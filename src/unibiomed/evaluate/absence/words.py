"""Words that are asked for besides a model's vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

from unibiomed.terminology import resolve

__all__ = ["MEANINGLESS", "OTHER_MEDICAL", "unknown_words"]

MEANINGLESS = (
    "airplane",
    "banana",
    "bicycle",
    "bottle",
    "cat",
    "chair",
    "dog",
    "fire truck",
    "guitar",
    "house",
    "laptop",
    "mountain",
    "pizza",
    "rainbow",
    "shoe",
    "teapot",
    "traffic light",
    "tree",
    "umbrella",
    "unicorn",
)
"""Things of daily life, which no medical image shows."""

OTHER_MEDICAL = (
    "adrenal gland",
    "appendix",
    "cochlea",
    "esophageal varices",
    "femur",
    "gallbladder",
    "gallstone",
    "meniscus",
    "ovarian cyst",
    "tooth",
    "urinary bladder",
    "uterus",
)
"""Structures and findings that are not in the terminology. Some images may show them, so they are reported apart."""


def unknown_words(words: Sequence[str], vocabulary: Sequence[str]) -> tuple[str, ...]:
    """Those of some words that mean nothing in a vocabulary.

    Parameters
    ----------
    words : sequence of str
    vocabulary : sequence of str
        Names that a model knows.
    """
    return tuple(word for word in words if not resolve(word, known=vocabulary).meanings)
