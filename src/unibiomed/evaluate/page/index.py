"""The first page: tables, figures, examples, and links to everything else."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unibiomed.data.index import writing
from unibiomed.export.formatting import DISCLAIMER

from ..examples import pick_examples
from ..figures.style import file_name
from ..predictions import PredictionStore
from ..rows import Row, read_rows
from ..sheet import NONE, Sheet
from ..tables import make_sheets
from .html import as_text, jpeg, write_html
from .samples import PICTURES, Cases, write_sample_pages

__all__ = ["write_page"]

MOST_ROWS = 12
"""Longer tables are folded."""
LARGEST_SVG = 1_500_000
"""Bytes; of a larger figure the PNG is shown."""
THUMBNAIL = 160
"""Pixels of the longer side of an example; the link leads to the whole."""
RANKS = ("worst", "median", "best")


def write_page(
    results: Mapping[str, Any],
    figures: Sequence[Path],
    folder: Path,
    *,
    scores: Mapping[str, Path] | None = None,
    stores: Mapping[str, PredictionStore] | None = None,
    cases: Cases | None = None,
    pictures: int = PICTURES,
    seed: int = 42,
) -> Path:
    """Write ``index.html`` with tables and figures, and under ``samples/`` a page for each model and data set.

    What lies in `folder` already of ``results.json``, ``tables/``, ``figures/`` and ``examples/`` is linked.

    Parameters
    ----------
    results : mapping
        As ``results.json``.
    figures : sequence of Path
        From `figures.draw_figures`; of an SVG and a PNG of one name one is put into the page.
    folder : Path
        Made if need be.
    scores : mapping of str to Path, optional
        Model to the file of its rows; without it there are no pages of samples. Floors get none.
    stores : mapping of str to PredictionStore, optional
        Model to its predictions; without it the samples have no images.
    cases : callable, optional
        Takes keys of records and gives the cases of these, and of others too if it likes. Without it the samples have
        neither images nor questions. It is called once for each data set.
    pictures : int
        Samples of each model and data set that get images: the worst ones, and others by chance. The rest are
        listed, the worst first, up to 2,000 rows.
    seed : int
        Of the choice.

    Returns
    -------
    Path
        ``index.html``.

    Raises
    ------
    DataError
        Rows or images cannot be read.
    OutputError
        A file cannot be written.
    """
    folder = Path(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    stores, files = (
        stores or {},
        {
            name: path
            for name, path in (scores or {}).items()
            if name in results["models"] and not results["models"][name].get("floor")
        },
    )
    rows = {name: list(read_rows(path)) for name, path in files.items()}
    names = {name: path.name for name, path in files.items()}
    links = write_sample_pages(folder, rows, names, stores, cases, pictures, seed)
    examples = [part for name in rows if name in stores for part in _examples(folder, name, rows[name], stores[name])]
    title, number = results.get("title") or results["suite"], len(results["models"])
    parts = {"tables": True, "figures": True, "examples": bool(examples), "samples": bool(links)}
    body = [
        f"<h1>{as_text(title)}</h1>",
        f'<p class="soft">Suite <b>{as_text(results["suite"])}</b>, {results.get("images", 0):,} images, '
        f"{number} model{'' if number == 1 else 's'}; unibiomed {as_text(results.get('version', ''))}</p>",
        *_run(results),
        f'<p class="warning">{DISCLAIMER}.</p>',
        "<nav>" + "".join(f'<a href="#{name}">{name.capitalize()}</a>' for name, there in parts.items() if there),
        *_files(folder, {"results.json": "All numbers (JSON)", "tables/tables.md": "All tables (Markdown)"}),
        "</nav>",
        '<h2 id="tables">Tables</h2>',
        *_tables(make_sheets(results), folder),
        '<h2 id="figures">Figures</h2>',
        *(_figure(path, folder) for path in _one_of_each(figures)),
        *(['<h2 id="examples">Examples</h2>', *examples] if examples else []),
        *_overview(links),
    ]
    index = folder / "index.html"
    write_html(index, title, body)
    return index


def remove_page(folder: Path) -> None:
    """Take away what `write_page` wrote into a folder, where there is any.

    Raises
    ------
    OutputError
        A file cannot be taken away.
    """
    with writing(folder):
        for path in (folder / "index.html", *(folder / "samples").glob("[0-9][0-9][0-9].html")):
            path.unlink(missing_ok=True)


def _run(results: Mapping[str, Any]) -> list[str]:
    """What was drawn, by which command and when, as far as the results tell."""
    run = results.get("run") or {}
    command = f"<code>{as_text(run['command'])}</code>" if run.get("command") else ""
    told = [as_text(results.get("drawn") or ""), command, as_text(run.get("date") or "")]
    return [f'<p class="soft">{" ".join(part for part in told if part)}</p>'] if any(told) else []


def _files(folder: Path, names: Mapping[str, str]) -> list[str]:
    """Links to those files of the evaluation that are there."""
    return [
        f'<a href="{as_text(name)}">{as_text(shown)}</a>' for name, shown in names.items() if (folder / name).is_file()
    ]


# ---------------------------------------------------------------- tables


def _tables(sheets: Iterable[Sheet], folder: Path) -> list[str]:
    """Those of floors alone are folded away together."""
    sheets = list(sheets)
    floors = [_sheet(sheet, folder) for sheet in sheets if sheet.floor]
    folded = ["<details><summary>Tables of single floors</summary>", *floors, "</details>"]
    return [*(_sheet(sheet, folder) for sheet in sheets if not sheet.floor), *(folded if floors else [])]


def _sheet(sheet: Sheet, folder: Path) -> str:
    heads = "".join(f"<th>{as_text(name)}</th>" for name in sheet.columns)
    rows = "".join("<tr>" + "".join(map(_sheet_cell, row)) + "</tr>" for row in sheet.rows)
    files = _files(folder, {f"tables/{sheet.name}.md": "Markdown", f"tables/{sheet.name}.tex": "LaTeX"})
    note = " ".join([as_text(sheet.note), *files]).strip()
    note = f'<p class="note">{note}</p>' if note else ""
    table = f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>{note}'
    if len(sheet.rows) > MOST_ROWS:
        return f"<details><summary>{as_text(sheet.title)} ({len(sheet.rows)} rows)</summary>{table}</details>"
    return f"<h3>{as_text(sheet.title)}</h3>{table}"


def _sheet_cell(cell: str) -> str:
    # numbers with their intervals stay on one line, sentences do not
    kind = ' class="text"' if len(cell) > 36 else ""
    return f"<td{kind}>{as_text(cell)}</td>"


# ---------------------------------------------------------------- figures


def _one_of_each(figures: Sequence[Path]) -> list[Path]:
    """Of each figure the SVG, or the PNG where the SVG is very large or missing."""
    names: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in figures:
        names[str(path.with_suffix(""))][path.suffix] = path
    out = []
    for kinds in names.values():
        svg, png = kinds.get(".svg"), kinds.get(".png")
        small = svg is not None and svg.stat().st_size <= LARGEST_SVG
        out += [path for path in (svg if small or png is None else png,) if path is not None]
    return out


def _figure(path: Path, folder: Path) -> str:
    kind = {".svg": "image/svg+xml", ".png": "image/png"}[path.suffix]
    data = base64.b64encode(path.read_bytes()).decode()
    name = path.stem.replace("_", " ")
    # a name such as model_v1.2 keeps its dot
    files = _files(folder, {f"figures/{path.name.removesuffix(path.suffix)}.{k}": k.upper() for k in ("svg", "png")})
    caption = f"<figcaption>{' '.join(files)}</figcaption>" if files else ""
    return f'<figure><img alt="Figure: {as_text(name)}" src="data:{kind};base64,{data}">{caption}</figure>'


# ---------------------------------------------------------------- examples and samples


def _examples(folder: Path, model: str, rows: Sequence[Row], store: PredictionStore) -> list[str]:
    """The worst, median and best image of each target, small, each a link to the picture of it; folded."""
    targets: dict[str, dict[str, str]] = defaultdict(dict)
    for example in pick_examples(rows):
        row = example.row
        name = f"examples/{store.folder.name}/{file_name(row.target)}-{example.rank}.png"
        if (folder / name).is_file():
            with Image.open(folder / name) as picture:
                picture.thumbnail((THUMBNAIL, THUMBNAIL))
                small = jpeg(np.asarray(picture.convert("RGB")))
            image = f'<img alt="{as_text(row.target)}, {example.rank}" src="{small}">'
            targets[row.target][example.rank] = f'<a href="{as_text(name)}">{image}Dice {row.dice:.3f}</a>'
    if not targets:
        return []
    lines = (
        f"<tr><td>{as_text(target)}</td>{''.join(f'<td>{cells.get(rank, NONE)}</td>' for rank in RANKS)}</tr>"
        for target, cells in targets.items()
    )
    heads = "".join(f"<th>{name}</th>" for name in ("target", *RANKS))
    return [
        f"<details><summary>Worst, median and best image of each target, {as_text(model)}</summary>",
        f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>',
        *lines,
        "</tbody></table></div></details>",
    ]


def _overview(links: Mapping[tuple[str, str], tuple[str, int]]) -> list[str]:
    if not links:
        return []
    models = list(dict.fromkeys(model for _, model in links))
    rows = []
    for dataset in dict.fromkeys(dataset for dataset, _ in links):
        cells = "".join(
            f'<td><a href="{links[dataset, model][0]}">{links[dataset, model][1]:,} samples</a></td>'
            if (dataset, model) in links
            else "<td>–</td>"
            for model in models
        )
        rows.append(f"<tr><td>{as_text(dataset)}</td>{cells}</tr>")
    heads = "".join(f"<th>{as_text(model)}</th>" for model in models)
    return [
        '<h2 id="samples">Samples</h2>',
        f'<div class="wide"><table><thead><tr><th>data set</th>{heads}</tr></thead><tbody>',
        *rows,
        "</tbody></table></div>",
    ]
