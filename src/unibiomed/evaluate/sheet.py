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
    # after the end of a row these two would be its options
    "[": "{[}",
    "*": "{*}",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
}
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
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: list[list[str]]
    note: str = ""

    def markdown(self) -> str:
        """As Markdown."""
        lines = [f"### {_escaped(self.title, MARKDOWN)}", ""]
        lines.append("| " + " | ".join(_escaped(name, MARKDOWN) for name in self.columns) + " |")
        lines.append("|" + "|".join("---" for _ in self.columns) + "|")
        lines += ["| " + " | ".join(_escaped(cell, MARKDOWN) for cell in row) + " |" for row in self.rows]
        return "\n".join([*lines, *(["", _escaped(self.note, MARKDOWN)] if self.note else []), ""])

    def latex(self) -> str:
        """As a LaTeX ``tabular``."""
        lines = [r"\begin{tabular}{l" + "r" * (len(self.columns) - 1) + "}", r"\hline"]
        lines.append(" & ".join(_escaped(c, LATEX) for c in self.columns) + r" \\ \hline")
        lines += [" & ".join(_escaped(cell, LATEX) for cell in row) + r" \\" for row in self.rows]
        return "\n".join([f"% {_escaped(self.title, {})}", *lines, r"\hline", r"\end{tabular}", ""])


def _escaped(text: str, signs: Mapping[str, str]) -> str:
    """On one line, each sign of the language written so that it is shown; one pass, so that nothing is done twice."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return "".join(signs.get(c, c) for c in line)


def number(table: Any, digits: int = 3, *, percent: bool = False, interval: bool = True) -> str:
    """A cell: the value with its interval, or a dash."""
    if not isinstance(table, Mapping) or table.get("value") is None:
        return NONE

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
