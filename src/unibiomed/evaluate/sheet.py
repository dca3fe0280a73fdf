"""One table of an evaluation, as Markdown and as LaTeX, whatever its cells hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["NONE", "Sheet", "number", "simple"]

NONE = "–"
LATEX = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "|": r"\textbar{}",
    "<": "$<$",
    ">": "$>$",
    "±": r"$\pm$",
    "–": "--",
    "−": "$-$",
    # after the end of a row these two would be its options
    "[": "{[}",
    "*": "{*}",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
}
ROOM, MOST_ROOM = 100, 180
"""Letters of a row that fit on a page of LaTeX as they are; and made smaller, before the page is better turned."""
SENTENCE = 40
"""Letters of a cell that LaTeX breaks into lines."""
MARKDOWN = {"&": "&amp;", "<": "&lt;", ">": "&gt;", **{sign: "\\" + sign for sign in "\\`|["}}


@dataclass(frozen=True)
class Sheet:
    """One table.

    Parameters
    ----------
    name : str
        Of its file.
    title : str
    columns : tuple of str
    rows : list of list of str
        Cells as text.
    note : str
        What has to be known to read it.
    floor : bool
        Of a trivial predictor alone.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: list[list[str]]
    note: str = ""
    floor: bool = False

    def markdown(self) -> str:
        """As Markdown."""
        lines = [f"### {_escaped(self.title, MARKDOWN)}", ""]
        lines.append("| " + " | ".join(_escaped(name, MARKDOWN) for name in self.columns) + " |")
        lines.append("|" + "|".join("---" for _ in self.columns) + "|")
        lines += ["| " + " | ".join(_escaped(cell, MARKDOWN) for cell in row) + " |" for row in self.rows]
        return "\n".join([*lines, *(["", _escaped(self.note, MARKDOWN)] if self.note else []), ""])

    def latex(self) -> str:
        """As a ``table`` of LaTeX with caption, label and note: a wide one is shrunk to fit, a very wide one turned."""
        widths = [max(map(len, cells)) for cells in zip(self.columns, *self.rows, strict=True)]
        letters = sum(min(width, SENTENCE) + 2 for width in widths)
        sides = "".join(
            r"p{.35\textwidth}" if width > SENTENCE else "r" if i else "l" for i, width in enumerate(widths)
        )
        head, *rows = ([_escaped(cell, LATEX) for cell in row] for row in (self.columns, *self.rows))
        if turned := letters > MOST_ROOM:
            # names of many labels over narrow numbers
            head[1:] = [rf"\rotatebox{{90}}{{{name}}}" for name in head[1:]]
        lines = [" & ".join(row) + r" \\" for row in (head, *rows)]
        table = [r"\begin{tabular}{" + sides + "}", r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
        table.append(r"\end{tabular}")
        if letters > ROOM:
            table = [r"\resizebox{\textwidth}{!}{%", *table, "}"]
        if self.note:
            table += [r"\par\smallskip", r"\parbox{\textwidth}{\footnotesize " + _escaped(self.note, LATEX) + "}"]
        kind = "sidewaystable" if turned else "table"
        start = ["% needs the packages booktabs, graphicx and rotating", rf"\begin{{{kind}}}", r"\centering"]
        start += [r"\caption{" + _escaped(self.title, LATEX) + "}", rf"\label{{tab:{self.name}}}"]
        return "\n".join([*start, *table, rf"\end{{{kind}}}", ""])


def _escaped(text: str, signs: Mapping[str, str]) -> str:
    """On one line, each sign of the language written so that it is shown; one pass, so that nothing is done twice."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return "".join(signs.get(c, c) for c in line)


def number(table: Any, digits: int = 3, *, percent: bool = False, interval: bool = True) -> str:
    """A cell: the value with its interval, or a dash; what is 0 from end to end is a plain 0."""
    if not isinstance(table, Mapping) or table.get("value") is None:
        return NONE
    if table["value"] == table.get("low") == table.get("high") == 0:
        return "0%" if percent else "0"

    def shown(value: float) -> str:
        return f"{100 * value:.1f}" if percent else f"{value:.{digits}f}"

    text = shown(table["value"]) + ("%" if percent else "")
    if interval and table.get("low") is not None:
        text += f" ({shown(table['low'])}–{shown(table['high'])})"
    return text


def simple(value: Any, digits: int = 3) -> str:
    """A cell of a number without its interval, or a dash."""
    if isinstance(value, Mapping):
        value = value.get("value")
    return NONE if value is None or value != value else f"{value:.{digits}f}"
