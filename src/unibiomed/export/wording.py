"""How findings are put in words and numbers, the same in pictures and in the terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from unibiomed.findings import NO_FINDINGS, Finding

DISCLAIMER = "Not for clinical use without validation"
NOT_FOUND = "not found"
NOT_SEARCHED = "not searched"
UNKNOWN = "-"


def plain(text: str, longest: int = 4000) -> str:
    """Put a text on one line without control characters, so that no label can steer a terminal or break a picture.

    Parameters
    ----------
    text : str
        Any text.
    longest : int
        Number of characters kept; what is cut off is marked with ``...``.

    Returns
    -------
    str
        Words separated by single blanks, in composed form (NFC).
    """
    cut = text[: 4 * longest]
    visible = "".join(c for c in cut if c.isspace() or unicodedata.category(c)[0] != "C")
    line = unicodedata.normalize("NFC", " ".join(visible.split()))
    return line if len(line) <= longest else line[: longest - 3].rstrip() + "..."


def percent(value: float | None) -> str:
    """Write a fraction from 0 to 1 as ``"97.3 %"``; never rounds a little to nothing, nor almost all to all."""
    if value is None:
        return UNKNOWN
    if 0 < value < 0.0005:
        return "< 0.1 %"
    if 0.9995 <= value < 1:
        return "> 99.9 %"
    return f"{100 * value:.1f} %"


def square_mm(value: float | None) -> str:
    """Write an area in mm² with about three digits, ``"12.5 mm²"``; ``"-"`` when it is unknown."""
    if value is None:
        return UNKNOWN
    if value >= 100:
        return f"{value:,.0f} mm²"
    return f"{value:.1f} mm²" if value >= 1 or value == 0 else f"{value:.2g} mm²"


def score_head(findings: Sequence[Finding]) -> str:
    """What the scores of findings are: of masks whether the target is there, of names how likely they are."""
    return "presence" if any(f.mask is not None or not f.searched for f in findings) else "probability"


def absence(finding: Finding) -> str:
    """What stands in the place of a finding that is not present: "not found" or "not searched".

    Nothing where its label is "No findings".
    """
    if not finding.searched:
        return NOT_SEARCHED
    return UNKNOWN if finding.label == NO_FINDINGS else NOT_FOUND
