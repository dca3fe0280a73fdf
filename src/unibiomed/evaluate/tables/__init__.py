"""The tables of an evaluation as Markdown and LaTeX, made from ``results.json`` alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unibiomed.data.index import replacing, writing

from ..stale_files import remove_stale_files
from .absence import absence_tables
from .compare import comparison_tables, seeds_table
from .confusion import confusion_tables
from .labels import label_tables
from .outline import outline_tables
from .overview import failure_table, overview_table, unmatched_files_table
from .segmentation import segmentation_tables
from .table import Table, format_estimate
from .texts import question_tables, text_tables
from .trust import trust_tables

__all__ = ["Table", "format_estimate", "make_tables", "write_tables"]


def make_tables(results: Mapping[str, Any]) -> list[Table]:
    """Return all tables that are not empty."""
    if results.get("all_pairs"):
        return absence_tables(results)
    models = results["models"]
    tables = [overview_table(models)]
    tables += segmentation_tables(models)
    tables += outline_tables(models)
    for task, title in (("recognize", "Grounded recognition"), ("classify", "Region classification")):
        tables += label_tables(models, task, title) + confusion_tables(models, task, title)
    tables += text_tables(models, "describe", "Region reports")
    tables += text_tables(models, "report", "Grounded reports")
    tables += question_tables(models)
    tables += trust_tables(models)
    tables.append(seeds_table(results.get("runs") or {}))
    tables += comparison_tables(results.get("comparisons") or [])
    tables += [failure_table(results), unmatched_files_table(models)]
    return [table for table in tables if table.rows]


def write_tables(results: Mapping[str, Any], folder: Path) -> None:
    """Write all tables to ``tables.md``, and each to ``NAME.md`` and ``NAME.tex``; remove those of an earlier run.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    tables = make_tables(results)
    files = {f"{table.name}.md": table.markdown() for table in tables}
    files |= {f"{table.name}.tex": table.latex() for table in tables}
    files["tables.md"] = "\n".join(table.markdown() for table in tables)
    for name, text in files.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    remove_stale_files(folder, map(folder.joinpath, files))
