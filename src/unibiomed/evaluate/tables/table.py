"""One table of an evaluation and its conversion to Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["MISSING", "Table", "format_estimate", "format_number"]

MISSING = "–"
LATEX_ESCAPES = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "|": r"\textbar{}",
    "<": "$<$",
    ">": "$>$",
    "±": r"$\pm$",
    "–": "--",
    "−": "$-$",
    # after the end of a row these would be read as its options
    "[": "{[}",
    "*": "{*}",
    **{character: "\\" + character for character in "&%$#_{}"},
}
MARKDOWN_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", **{character: "\\" + character for character in "\\`|["}}
MAX_WIDTH, MAX_SHRUNK_WIDTH = 100, 180
"""Characters per row of a LaTeX table that fit at full size, and scaled down. Wider tables are rotated."""
WRAP_WIDTH = 40
"""Width in characters above which LaTeX wraps a cell."""


@dataclass(frozen=True)
class Table:
    """One table.

    Parameters
    ----------
    name : str
        Name of its file.
    title : str
    columns : tuple of str
    rows : list of list of str
        Cells as text.
    note : str
        Explanation that is printed below the table.
    baseline : bool
        Whether the table has results of a single baseline only.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: list[list[str]]
    note: str = ""
    baseline: bool = False

    def markdown(self) -> str:
        """Return the table as Markdown."""
        lines = [f"### {_escape(self.title, MARKDOWN_ESCAPES)}", ""]
        lines.append("| " + " | ".join(_escape(name, MARKDOWN_ESCAPES) for name in self.columns) + " |")
        lines.append("|" + "|".join("---" for _ in self.columns) + "|")
        lines += ["| " + " | ".join(_escape(cell, MARKDOWN_ESCAPES) for cell in row) + " |" for row in self.rows]
        return "\n".join([*lines, *(["", _escape(self.note, MARKDOWN_ESCAPES)] if self.note else []), ""])

    def latex(self) -> str:
        """Return the table as a LaTeX float with caption, label and note; wide tables are scaled down or rotated."""
        widths = [max(map(len, cells)) for cells in zip(self.columns, *self.rows, strict=True)]
        total = sum(min(width, WRAP_WIDTH) + 2 for width in widths)
        alignment = "".join(
            r"p{.35\textwidth}" if width > WRAP_WIDTH else "r" if i else "l" for i, width in enumerate(widths)
        )
        head, *rows = ([_escape(cell, LATEX_ESCAPES) for cell in row] for row in (self.columns, *self.rows))
        if rotated := total > MAX_SHRUNK_WIDTH:
            # long names above narrow numbers
            head[1:] = [rf"\rotatebox{{90}}{{{name}}}" for name in head[1:]]
        lines = [" & ".join(row) + r" \\" for row in (head, *rows)]
        tabular = [r"\begin{tabular}{" + alignment + "}", r"\toprule", lines[0], r"\midrule", *lines[1:]]
        tabular += [r"\bottomrule", r"\end{tabular}"]
        if total > MAX_WIDTH:
            tabular = [r"\resizebox{\textwidth}{!}{%", *tabular, "}"]
        if self.note:
            note = _escape(self.note, LATEX_ESCAPES)
            tabular += [r"\par\smallskip", r"\parbox{\textwidth}{\footnotesize " + note + "}"]
        environment = "sidewaystable" if rotated else "table"
        start = ["% needs the packages booktabs, graphicx and rotating", rf"\begin{{{environment}}}", r"\centering"]
        start += [r"\caption{" + _escape(self.title, LATEX_ESCAPES) + "}", rf"\label{{tab:{self.name}}}"]
        return "\n".join([*start, *tabular, rf"\end{{{environment}}}", ""])


def _escape(text: str, escapes: Mapping[str, str]) -> str:
    """Put text on one line and escape special characters in a single pass."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return "".join(escapes.get(c, c) for c in line)


def format_estimate(estimate: Any, digits: int = 3, *, percent: bool = False, interval: bool = True) -> str:
    """Format the dictionary of an `Estimate` as a cell, or a missing one as a dash."""
    if not isinstance(estimate, Mapping) or estimate.get("value") is None:
        return MISSING
    if estimate["value"] == estimate.get("low") == estimate.get("high") == 0:
        return "0%" if percent else "0"

    def shown(value: float) -> str:
        return f"{100 * value:.1f}" if percent else f"{value:.{digits}f}"

    text = shown(estimate["value"]) + ("%" if percent else "")
    if interval and estimate.get("low") is not None:
        text += f" ({shown(estimate['low'])}–{shown(estimate['high'])})"
    return text


def format_number(value: Any, digits: int = 3) -> str:
    """Format a number, or the value of an estimate, without an interval; a missing one is a dash."""
    if isinstance(value, Mapping):
        value = value.get("value")
    return MISSING if value is None or value != value else f"{value:.{digits}f}"
