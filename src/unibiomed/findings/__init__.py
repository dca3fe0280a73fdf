"""Findings and interpretations: plain data types that all other packages exchange."""

from .checks import MAX_MASK_PIXELS, Box
from .interpretation import MAX_DECODED_PIXELS, NO_FINDINGS, SCHEMA, Finding, Interpretation, SearchedTarget
from .masks import check_rle, mask_box, rle_decode, rle_encode

__all__ = [
    "MAX_DECODED_PIXELS",
    "MAX_MASK_PIXELS",
    "NO_FINDINGS",
    "SCHEMA",
    "Box",
    "Finding",
    "Interpretation",
    "SearchedTarget",
    "check_rle",
    "mask_box",
    "rle_decode",
    "rle_encode",
]
