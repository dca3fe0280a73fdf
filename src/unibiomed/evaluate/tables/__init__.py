"""The tables of an evaluation, as Markdown and as LaTeX, from ``results.json`` alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unibiomed.data.index import replacing, writing

from ..leftovers import remove_leftovers
from ..sheet import Sheet, number
from .absence import absence_sheets
from .compare import comparison_sheets, runs_sheet
from .confusion import confusion_sheets
from .labels import label_sheets
from .outline import outline_sheets
from .overview import failure_sheet, overview_sheet, unknown_sheet
from .segmentation import segment_sheets
from .texts import ask_sheets, text_sheets
from .trust import trust_sheets

__all__ = ["Sheet", "make_sheets", "number", "write_tables"]


def make_sheets(results: Mapping[str, Any]) -> list[Sheet]:
    """All tables that the results have something for."""
    if results.get("all_pairs"):
        return absence_sheets(results)
    models = results["models"]
    sheets = [overview_sheet(models)]
    sheets += segment_sheets(models)
    sheets += outline_sheets(models)
    for task, title in (("recognize", "Grounded recognition"), ("classify", "Region classification")):
        sheets += label_sheets(models, task, title) + confusion_sheets(models, task, title)
    sheets += text_sheets(models, "describe", "Region reports")
    sheets += text_sheets(models, "report", "Grounded reports")
    sheets += ask_sheets(models)
    sheets += trust_sheets(models)
    sheets.append(runs_sheet(results.get("runs") or {}))
    sheets += comparison_sheets(results.get("comparisons") or [])
    sheets += [failure_sheet(results), unknown_sheet(models)]
    return [sheet for sheet in sheets if sheet.rows]


def write_tables(results: Mapping[str, Any], folder: Path) -> None:
    """Write ``tables.md`` with all of them, and each as ``NAME.md`` and ``NAME.tex``; those of an earlier run go.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    sheets = make_sheets(results)
    texts = {f"{sheet.name}.md": sheet.markdown() for sheet in sheets}
    texts |= {f"{sheet.name}.tex": sheet.latex() for sheet in sheets}
    texts["tables.md"] = "\n".join(sheet.markdown() for sheet in sheets)
    for name, text in texts.items():
        with replacing(folder / name) as fresh:
            fresh.write_text(text, encoding="utf-8")
    remove_leftovers(folder, map(folder.joinpath, texts))
