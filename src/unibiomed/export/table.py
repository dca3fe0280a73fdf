"""Findings as a table for the terminal."""

from __future__ import annotations

import unicodedata

from unibiomed.export.wording import UNKNOWN, absence, percent, plain, score_head, square_mm
from unibiomed.findings import Finding, Interpretation

LONGEST_LABEL = 40


def findings_table(interpretation: Interpretation) -> str:
    """Lay out the findings as an aligned plain-text table.

    Parameters
    ----------
    interpretation : Interpretation
        What was found; a column of mm² is shown when any area is known in mm².

    Returns
    -------
    str
        One line of heads, one rule and one line a finding, without a final line break; a sentence when there are
        no findings. Columns: number, label, presence and mask score in percent, area, box as x0,y0,x1,y1; of names
        without a mask, number, label, probability and box.
    """
    if not interpretation.findings:
        return "No findings."
    metric = any(finding.area_mm2 is not None for finding in interpretation.findings)
    rows = [_row(number, finding) for number, finding in enumerate(interpretation.findings, start=1)]
    outlined = any(finding.mask is not None or not finding.searched for finding in interpretation.findings)
    heads = ["#", "finding", score_head(interpretation.findings), "mask score", "area", "mm²", "box (x0,y0,x1,y1)"]
    left_out = set() if metric else {"mm²"}
    # names of boxes have neither mask nor area
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
        percent(finding.score),
        percent(finding.mask_score),
        percent(finding.area_fraction) if covered else UNKNOWN,
        square_mm(finding.area_mm2).removesuffix(" mm²"),
        place if finding.present else absence(finding),
    ]


def _width(text: str) -> int:
    """Count the terminal cells of a text: two for wide East Asian characters, none for combining marks."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def _pad(text: str, width: int, left: bool) -> str:
    blanks = " " * (width - _width(text))
    return text + blanks if left else blanks + text
