"""Table of findings for the terminal."""

from __future__ import annotations

import unicodedata

from unibiomed.export.formatting import UNKNOWN, absent_text, percent, plain, score_heading, score_text, square_mm
from unibiomed.findings import Finding, Interpretation

LONGEST_LABEL = 40


def findings_table(interpretation: Interpretation) -> str:
    """Format the findings as an aligned plain-text table.

    Parameters
    ----------
    interpretation : Interpretation
        The interpretation; the column mm² is shown if any area is known in mm².

    Returns
    -------
    str
        A header, a rule and one line per finding, without a final line break; a sentence if there are no findings.
        Columns: number, label, presence, mask score, area and box (x0,y0,x1,y1). For classified boxes: number, label,
        confidence and box.
    """
    if not interpretation.findings:
        return "No findings."
    metric = any(finding.area_mm2 is not None for finding in interpretation.findings)
    rows = [_row(number, finding) for number, finding in enumerate(interpretation.findings, start=1)]
    outlined = any(finding.mask is not None or not finding.searched for finding in interpretation.findings)
    heads = ["#", "finding", score_heading(interpretation.findings), "mask score", "area", "mm²", "box (x0,y0,x1,y1)"]
    left_out = set() if metric else {"mm²"}
    # Classified boxes have neither mask score nor area.
    left_out |= set() if outlined else {"mask score", "area", "mm²"}
    kept = [column for column in range(len(heads)) if heads[column] not in left_out]
    table = [[line[column] for column in kept] for line in [heads, *rows]]
    widths = [max(_width(line[column]) for line in table) for column in range(len(kept))]
    left = {kept.index(heads.index("finding")), len(kept) - 1}
    lines = ["  ".join(_pad(cell, widths[i], i in left) for i, cell in enumerate(line)).rstrip() for line in table]
    return "\n".join([lines[0], "  ".join("─" * width for width in widths), *lines[1:]])


def _row(number: int, finding: Finding) -> list[str]:
    place = UNKNOWN if finding.box is None else ",".join(str(side) for side in finding.box)
    covered = finding.mask is not None
    return [
        str(number),
        plain(finding.label, LONGEST_LABEL) or UNKNOWN,
        score_text(finding),
        percent(finding.mask_score),
        percent(finding.area_fraction) if covered else UNKNOWN,
        square_mm(finding.area_mm2).removesuffix(" mm²"),
        place if finding.present else absent_text(finding),
    ]


def _width(text: str) -> int:
    """Width of a text in terminal cells: 2 for wide East Asian characters, 0 for combining marks."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def _pad(text: str, width: int, left: bool) -> str:
    blanks = " " * (width - _width(text))
    return text + blanks if left else blanks + text
