"""The main page: tables, figures, examples, and links to all other files."""

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

from ..examples import select_examples
from ..figures.style import file_name
from ..predictions import PredictionStore
from ..sample_scores import SampleScore, read_sample_scores
from ..tables import make_tables
from ..tables.table import MISSING, Table
from .html import as_text, jpeg, write_html
from .samples import PICTURES, Cases, write_sample_pages

__all__ = ["remove_page", "write_page"]

MAX_ROWS = 12
"""Tables with more rows are collapsed."""
MAX_SVG_BYTES = 1_500_000
"""The PNG of a figure is embedded if its SVG is larger."""
THUMBNAIL_SIDE = 160
"""Longest side of the preview of an example in pixels."""
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
    """Write ``index.html`` with tables and figures, and a page for each model and data set in ``samples/``.

    The page links ``results.json`` and the files of ``tables/``, ``figures/`` and ``examples/`` that exist in `folder`.

    Parameters
    ----------
    results : mapping
        Content of ``results.json``.
    figures : sequence of Path
        From `figures.draw_figures`. Either the SVG or the PNG of each figure is embedded.
    folder : Path
        Output folder.
    scores : mapping of str to Path, optional
        Files of sample scores. Without them there are no pages of samples. Baselines have no such pages.
    stores : mapping of str to PredictionStore, optional
        Predictions of each model. Without them samples are shown without images.
    cases : callable, optional
        Returns cases for a set of record keys; it may return other cases as well. It is called once per data set.
        Without it samples are shown without images and questions.
    pictures : int
        Number of samples of each model and data set that are shown with images: the worst ones, and others at random.
        The remaining samples are listed, worst first, up to 2,000 rows.
    seed : int
        Seed of the choice.

    Returns
    -------
    Path
        ``index.html``.

    Raises
    ------
    DataError
        Sample scores or images cannot be read.
    OutputError
        A file cannot be written.
    """
    folder, stores = Path(folder), stores or {}
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    files = {
        name: path
        for name, path in (scores or {}).items()
        if name in results["models"] and not results["models"][name].get("baseline")
    }
    samples = {name: list(read_sample_scores(path)) for name, path in files.items()}
    names = {name: path.name for name, path in files.items()}
    links = write_sample_pages(folder, samples, names, stores, cases, pictures, seed)
    examples = [
        part for name in samples if name in stores for part in _examples(folder, name, samples[name], stores[name])
    ]
    title, number = results.get("title") or results["suite"], len(results["models"])
    sections = {"tables": True, "figures": True, "examples": bool(examples), "samples": bool(links)}
    body = [
        f"<h1>{as_text(title)}</h1>",
        f'<p class="secondary">Suite <b>{as_text(results["suite"])}</b>, {results.get("images", 0):,} images, '
        f"{number} model{'' if number == 1 else 's'}; unibiomed {as_text(results.get('version', ''))}</p>",
        *_provenance(results),
        f'<p class="warning">{DISCLAIMER}.</p>',
        "<nav>" + "".join(f'<a href="#{name}">{name.capitalize()}</a>' for name, there in sections.items() if there),
        *_links(folder, {"results.json": "All numbers (JSON)", "tables/tables.md": "All tables (Markdown)"}),
        "</nav>",
        '<h2 id="tables">Tables</h2>',
        *_tables(make_tables(results), folder),
        '<h2 id="figures">Figures</h2>',
        *(_figure(path, folder) for path in _embedded_files(figures)),
        *(['<h2 id="examples">Examples</h2>', *examples] if examples else []),
        *_sample_links(links),
    ]
    index = folder / "index.html"
    write_html(index, title, body)
    return index


def remove_page(folder: Path) -> None:
    """Remove the files that `write_page` wrote to a folder, if there are any.

    Raises
    ------
    OutputError
        A file cannot be removed.
    """
    with writing(folder):
        for path in (folder / "index.html", *(folder / "samples").glob("[0-9][0-9][0-9].html")):
            path.unlink(missing_ok=True)


def _provenance(results: Mapping[str, Any]) -> list[str]:
    """Describe the selection of images, the command and the date, if the results contain them."""
    run = results.get("run") or {}
    command = f"<code>{as_text(run['command'])}</code>" if run.get("command") else ""
    parts = [as_text(results.get("selection") or ""), command, as_text(run.get("date") or "")]
    return [f'<p class="secondary">{" ".join(part for part in parts if part)}</p>'] if any(parts) else []


def _links(folder: Path, names: Mapping[str, str]) -> list[str]:
    """Link the files of the evaluation that exist."""
    return [
        f'<a href="{as_text(name)}">{as_text(shown)}</a>' for name, shown in names.items() if (folder / name).is_file()
    ]


# ---------------------------------------------------------------- tables


def _tables(tables: Iterable[Table], folder: Path) -> list[str]:
    """Show all tables; those of single baselines are collapsed together."""
    tables = list(tables)
    baselines = [_table(table, folder) for table in tables if table.baseline]
    collapsed = ["<details><summary>Tables of single baselines</summary>", *baselines, "</details>"]
    return [*(_table(table, folder) for table in tables if not table.baseline), *(collapsed if baselines else [])]


def _table(table: Table, folder: Path) -> str:
    heads = "".join(f"<th>{as_text(name)}</th>" for name in table.columns)
    rows = "".join("<tr>" + "".join(map(_table_cell, row)) + "</tr>" for row in table.rows)
    files = _links(folder, {f"tables/{table.name}.md": "Markdown", f"tables/{table.name}.tex": "LaTeX"})
    note = " ".join([as_text(table.note), *files]).strip()
    note = f'<p class="note">{note}</p>' if note else ""
    html = f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>{note}'
    if len(table.rows) > MAX_ROWS:
        return f"<details><summary>{as_text(table.title)} ({len(table.rows)} rows)</summary>{html}</details>"
    return f"<h3>{as_text(table.title)}</h3>{html}"


def _table_cell(cell: str) -> str:
    # numbers with intervals stay on one line, sentences are wrapped
    kind = ' class="text"' if len(cell) > 36 else ""
    return f"<td{kind}>{as_text(cell)}</td>"


# ---------------------------------------------------------------- figures


def _embedded_files(figures: Sequence[Path]) -> list[Path]:
    """Choose the SVG of each figure, or the PNG if the SVG is large or missing."""
    names: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in figures:
        names[str(path.with_suffix(""))][path.suffix] = path
    out = []
    for formats in names.values():
        svg, png = formats.get(".svg"), formats.get(".png")
        small = svg is not None and svg.stat().st_size <= MAX_SVG_BYTES
        out += [path for path in (svg if small or png is None else png,) if path is not None]
    return out


def _figure(path: Path, folder: Path) -> str:
    kind = {".svg": "image/svg+xml", ".png": "image/png"}[path.suffix]
    data = base64.b64encode(path.read_bytes()).decode()
    name = path.stem.replace("_", " ")
    # a name such as model_v1.2 keeps its dot
    stem = path.name.removesuffix(path.suffix)
    files = _links(folder, {f"figures/{stem}.{extension}": extension.upper() for extension in ("svg", "png")})
    caption = f"<figcaption>{' '.join(files)}</figcaption>" if files else ""
    return f'<figure><img alt="Figure: {as_text(name)}" src="data:{kind};base64,{data}">{caption}</figure>'


# ---------------------------------------------------------------- examples and samples


def _examples(folder: Path, model: str, samples: Sequence[SampleScore], store: PredictionStore) -> list[str]:
    """Show previews of the worst, median and best image of each target, linked to the full images."""
    targets: dict[str, dict[str, str]] = defaultdict(dict)
    for example in select_examples(samples):
        score = example.score
        name = f"examples/{store.folder.name}/{file_name(score.target)}-{example.rank}.png"
        if (folder / name).is_file():
            with Image.open(folder / name) as picture:
                picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
                preview = jpeg(np.asarray(picture.convert("RGB")))
            image = f'<img alt="{as_text(score.target)}, {example.rank}" src="{preview}">'
            targets[score.target][example.rank] = f'<a href="{as_text(name)}">{image}Dice {score.dice:.3f}</a>'
    if not targets:
        return []
    lines = (
        f"<tr><td>{as_text(target)}</td>{''.join(f'<td>{cells.get(rank, MISSING)}</td>' for rank in RANKS)}</tr>"
        for target, cells in targets.items()
    )
    heads = "".join(f"<th>{name}</th>" for name in ("target", *RANKS))
    return [
        f"<details><summary>Worst, median and best image of each target, {as_text(model)}</summary>",
        f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>',
        *lines,
        "</tbody></table></div></details>",
    ]


def _sample_links(links: Mapping[tuple[str, str], tuple[str, int]]) -> list[str]:
    if not links:
        return []
    models = list(dict.fromkeys(model for _, model in links))
    rows = []
    for dataset in dict.fromkeys(dataset for dataset, _ in links):
        cells = "".join(
            f'<td><a href="{links[dataset, model][0]}">{links[dataset, model][1]:,} samples</a></td>'
            if (dataset, model) in links
            else f"<td>{MISSING}</td>"
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
