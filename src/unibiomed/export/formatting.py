"""Text forms of labels, scores and areas, shared by the overlay and the terminal table."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from unibiomed.findings import NO_FINDINGS, Finding

DISCLAIMER = "Not for clinical use without validation"
NOT_FOUND = "not found"
NOT_SEARCHED = "not searched"
UNKNOWN = "-"


def plain(text: str, longest: int = 4000) -> str:
    """Normalize a text to one line without control characters, so that it is safe in a terminal and in an image.

    Parameters
    ----------
    text : str
        Any text.
    longest : int
        Maximum number of characters; a longer text is truncated and ends with ``...``.

    Returns
    -------
    str
        Words separated by single spaces, in composed form (NFC).
    """
    start = text[: 4 * longest]
    visible = "".join(c for c in start if c.isspace() or unicodedata.category(c)[0] != "C")
    line = unicodedata.normalize("NFC", " ".join(visible.split()))
    return line if len(line) <= longest else line[: longest - 3].rstrip() + "..."


def percent(value: float | None) -> str:
    """Format a fraction in [0, 1] as ``"97.3 %"``; values near 0 and 1 become ``"< 0.1 %"`` and ``"> 99.9 %"``."""
    if value is None:
        return UNKNOWN
    if 0 < value < 0.0005:
        return "< 0.1 %"
    if 0.9995 <= value < 1:
        return "> 99.9 %"
    return f"{100 * value:.1f} %"


def square_mm(value: float | None) -> str:
    """Format an area in mm² with about three digits, ``"12.5 mm²"``; ``"-"`` if it is unknown."""
    if value is None:
        return UNKNOWN
    if value >= 100:
        return f"{value:,.0f} mm²"
    return f"{value:.1f} mm²" if value >= 1 or value == 0 else f"{value:.2g} mm²"


def score_heading(findings: Sequence[Finding]) -> str:
    """Heading of the score column: presence for segmented targets, confidence for classified boxes."""
    return "presence" if any(f.mask is not None or not f.searched for f in findings) else "confidence"


def score_text(finding: Finding) -> str:
    """Presence of a segmented target, or confidence of a classified box, in percent."""
    return percent(finding.confidence if finding.presence is None else finding.presence)


def absent_text(finding: Finding) -> str:
    """Text for a finding that is not present: "not found" or "not searched"; "-" for the label "No findings"."""
    if not finding.searched:
        return NOT_SEARCHED
    return UNKNOWN if finding.label == NO_FINDINGS else NOT_FOUND
