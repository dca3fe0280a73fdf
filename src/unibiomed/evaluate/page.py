"""The page of an evaluation: plain HTML files that open anywhere, without a server, a network or others' scripts.

Labels, answers and file names come from models and data: everything is escaped, and the pages forbid themselves, by
their content security policy, to load or run what is not in them.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unibiomed.data.index import replacing, writing
from unibiomed.export.overlay import PALETTE
from unibiomed.export.wording import DISCLAIMER, plain

from .examples import Painting, keys_of, paint, pick_samples, row_score
from .predictions import PredictionStore
from .rows import Row, read_rows
from .samples import Case
from .tables import Sheet, make_sheets

__all__ = ["PICTURES", "write_page"]

PICTURES = 20
"""Samples of a data set that are shown with images."""
SIDE = 224
LONGEST_TEXT = 1500
MOST_ROWS = 12
"""Longer tables are folded."""
MOST_SAMPLES = 2000
"""Rows of a model and data set; a browser is slow with more."""
LARGEST_SVG = 1_500_000
"""Bytes; of a larger figure the PNG is shown."""
PANELS = ("image", "truth", "prediction")
Cases = Callable[[set[str]], Iterable[Case]]

STYLE = """
body{font:15px/1.45 system-ui,sans-serif;color:#181c22;background:#fff;max-width:1200px;margin:0 auto}
body{padding:1rem 1.2rem}h1{margin-bottom:.2rem}
h2{margin-top:2.2rem;border-bottom:1px solid #dadee4}h3{margin-bottom:.4rem}
.soft,.note,figcaption{color:#5a626d}.note{font-size:.87rem;margin-top:.3rem}.wide{overflow-x:auto}
.warning{border-left:4px solid #d55e00;padding:.3rem .8rem;background:#fdf3ec}
table{border-collapse:collapse;font-size:.87rem}th,td{padding:.25rem .6rem;text-align:right;vertical-align:top}
th{background:#f3f5f7;vertical-align:bottom}td{border-top:1px solid #e5e8ec}
td{white-space:nowrap}th:first-child,td:first-child,td.text,th.text{text-align:left}
td.text{white-space:normal;min-width:7rem;max-width:22rem;overflow-wrap:anywhere}body.broad{max-width:none}
figure{margin:1.2rem 0}figure img{max-width:100%;height:auto}td img{display:block;max-width:224px;height:auto}
summary{cursor:pointer;font-weight:600;margin:.5rem 0}nav a{margin-right:1rem}
th button{all:unset;cursor:pointer;font-weight:inherit}th button:focus-visible{outline:2px solid #0072b2}
th[aria-sort=ascending] button::after{content:" \\25b2"}th[aria-sort=descending] button::after{content:" \\25bc"}
.failed{color:#a33c00}.key{white-space:nowrap;margin-right:.6rem;font-size:.8rem}
"""
SCRIPT = """
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, place = head.cellIndex, body = head.closest("table").tBodies[0];
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    const value = (row) => row.cells[place].dataset.value ?? "";
    const compare = (a, b) => {
      const [x, y] = [value(a), value(b)];
      // what has no value stays below, either way
      if (x === "" || y === "") return (x === "") - (y === "");
      return sign * (head.dataset.kind === "number" ? x - y : x.localeCompare(y));
    };
    body.append(...Array.from(body.rows).sort(compare));
  });
}
"""


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
        no images. It is called once for each data set.
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
    shown = [name for name, table in results["models"].items() if not table.get("floor") and name in (scores or {})]
    links = _sample_pages(folder, {n: (scores or {})[n] for n in shown}, stores or {}, cases, pictures, seed)
    title, number = results.get("title") or results["suite"], len(results["models"])
    body = [
        f"<h1>{_text(title)}</h1>",
        f'<p class="soft">Suite <b>{_text(results["suite"])}</b>, {results.get("images", 0):,} images, '
        f"{number} model{'' if number == 1 else 's'}; unibiomed {_text(results.get('version', ''))}</p>",
        f'<p class="warning">{DISCLAIMER}.</p>',
        '<nav><a href="#tables">Tables</a><a href="#figures">Figures</a>',
        '<a href="#samples">Samples</a></nav>' if links else "</nav>",
        '<h2 id="tables">Tables</h2>',
        *map(_sheet, make_sheets(results)),
        '<h2 id="figures">Figures</h2>',
        *map(_figure, _one_of_each(figures)),
        *_overview(links),
    ]
    index = folder / "index.html"
    _write(index, title, body)
    return index


# ---------------------------------------------------------------- pages of samples


def _sample_pages(
    folder: Path,
    scores: Mapping[str, Path],
    stores: Mapping[str, PredictionStore],
    cases: Cases | None,
    pictures: int,
    seed: int,
) -> dict[tuple[str, str], tuple[str, int]]:
    """Write them; gives the link and number of samples by data set and model."""
    groups: dict[str, dict[str, list[Row]]] = defaultdict(dict)
    for model, path in scores.items():
        for row in read_rows(path):
            if row.change is None and not row.paraphrase:
                groups[row.dataset].setdefault(model, []).append(row)
    links: dict[tuple[str, str], tuple[str, int]] = {}
    if not groups:
        return links
    inner = folder / "samples"
    with writing(inner):
        inner.mkdir(exist_ok=True)
        for stale in inner.glob("[0-9]*.html"):
            stale.unlink()
    for dataset, models in sorted(groups.items()):
        picked = {
            model: pick_samples(rows, pictures if cases is not None and model in stores else 0, seed)
            for model, rows in models.items()
        }
        painted = _paint_all(picked, stores, cases)
        for model, rows in models.items():
            first = picked[model]
            names = {row.id for row in first}
            others = [row for row in pick_samples(rows, len(rows), seed) if row.id not in names]
            listed = [*first, *others[: max(MOST_SAMPLES - len(first), 0)]]
            left = len(rows) - len(listed)
            more = f"{left:,} more are in scores/{scores[model].name}." if left else ""
            file = f"{len(links) + 1:03d}.html"
            body = _samples(
                dataset, model, listed, {row.id: painted.get((model, row.id)) for row in first}, len(rows), more
            )
            _write(inner / file, f"{dataset}, {model}", body, broad=True)
            links[dataset, model] = f"samples/{file}", len(rows)
    return links


def _paint_all(
    picked: Mapping[str, Sequence[Row]], stores: Mapping[str, PredictionStore], cases: Cases | None
) -> dict[tuple[str, str], str]:
    """Cells with the images of every picked sample, by model and sample."""
    wanted: dict[str, list[str]] = defaultdict(list)
    for model, rows in picked.items():
        for row in rows:
            wanted[row.id].append(model)
    out: dict[tuple[str, str], str] = {}
    if cases is None or not wanted:
        return out
    for case in cases(keys_of(row for rows in picked.values() for row in rows)):
        for sample in case.samples:
            for model in wanted.get(sample.id, ()):
                out[model, sample.id] = _pictures(paint(case, sample, stores[model], SIDE))
    return out


def _pictures(painting: Painting) -> str:
    cells = []
    for name in PANELS:
        cells.append(f'<td class="text"><img alt="{name}" src="{_jpeg(getattr(painting, name))}"></td>')
    keys = "".join(
        f'<span class="key"><span style="color:#{bytes(PALETTE[i % len(PALETTE)]).hex()}">&#9632;</span> '
        f"{_text(label, 80)}</span>"
        for i, label in enumerate(painting.labels)
    )
    cells[1] = cells[1].replace("</td>", f"{keys}</td>")
    return "".join(cells)


def _jpeg(pixels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


COLUMNS = (
    ("sample", "string"),
    ("task", "string"),
    ("target", "string"),
    ("Dice", "number"),
    ("right", "number"),
    ("surface Dice", "number"),
    ("presence", "number"),
    ("mask score", "number"),
    ("answer", "string"),
    ("reference", "string"),
)


def _samples(
    dataset: str, model: str, rows: Sequence[Row], cells: Mapping[str, str | None], count: int, more: str
) -> list[str]:
    """The page of a model's samples of a data set: `rows` of them, `count` in all, and where the others are."""
    pictured = any(cells.values())
    heads = "".join(f'<th class="text">{name}</th>' for name in PANELS) if pictured else ""
    for name, kind in COLUMNS:
        side = ' class="text"' if kind == "string" else ""
        heads += f'<th{side} data-kind="{kind}"><button type="button">{name}</button></th>'
    number = sum(cell is not None for cell in cells.values())
    lines = []
    for row in rows:
        empty = "<td></td>" * 3 if pictured else ""
        lines.append(f"<tr>{cells.get(row.id) or empty}{_row(row)}</tr>")
    return [
        f"<h1>{_text(dataset)}</h1>",
        f'<p class="soft">{_text(model)}: {count:,} samples, {number} of them with images: the worst, and others '
        "drawn by chance. Click a heading to sort.</p>",
        *([f'<p class="soft">The worst {len(rows):,} are listed; {_text(more)}</p>'] if more else []),
        '<nav><a href="../index.html">All results</a></nav>',
        f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>',
        *lines,
        "</tbody></table></div>",
        f"<script>{SCRIPT}</script>",
    ]


def _row(row: Row) -> str:
    dice = row_score(row) if row.shared is not None or row.task == "segment" else None
    answer = f'<span class="failed">failure: {_text(row.failure)}</span>' if row.failure else _text(row.answer or "")
    return "".join(
        [
            _cell(row.id.removeprefix(f"{row.dataset}/")),
            _cell(row.task),
            _cell(row.target or ", ".join(row.wanted or [])),
            _number(dice),
            _number(None if row.exact is None else float(row.exact), "yes" if row.exact else "no"),
            _number(row.surface_dice),
            _number(row.presence),
            _number(row.mask_score),
            _cell(row.answer or "", answer),
            _cell(row.reference or ""),
        ]
    )


def _cell(value: str, shown: str | None = None) -> str:
    return f'<td class="text" data-value="{_text(value, 200)}">{_text(value) if shown is None else shown}</td>'


def _number(value: float | None, shown: str | None = None) -> str:
    if value is None:
        return '<td data-value="">–</td>'
    return f'<td data-value="{value:.6f}">{shown or f"{value:.3f}"}</td>'


# ---------------------------------------------------------------- index


def _sheet(sheet: Sheet) -> str:
    heads = "".join(f"<th>{_text(name)}</th>" for name in sheet.columns)
    rows = "".join("<tr>" + "".join(map(_sheet_cell, row)) + "</tr>" for row in sheet.rows)
    note = f'<p class="note">{_text(sheet.note)}</p>' if sheet.note else ""
    table = f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>{note}'
    if len(sheet.rows) > MOST_ROWS:
        return f"<details><summary>{_text(sheet.title)} ({len(sheet.rows)} rows)</summary>{table}</details>"
    return f"<h3>{_text(sheet.title)}</h3>{table}"


def _sheet_cell(cell: str) -> str:
    # numbers with their intervals stay on one line, sentences do not
    kind = ' class="text"' if len(cell) > 36 else ""
    return f"<td{kind}>{_text(cell)}</td>"


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


def _figure(path: Path) -> str:
    kind = {".svg": "image/svg+xml", ".png": "image/png"}[path.suffix]
    data = base64.b64encode(path.read_bytes()).decode()
    name = path.stem.replace("_", " ")
    return f'<figure><img alt="Figure: {_text(name)}" src="data:{kind};base64,{data}"></figure>'


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
        rows.append(f"<tr><td>{_text(dataset)}</td>{cells}</tr>")
    heads = "".join(f"<th>{_text(model)}</th>" for model in models)
    return [
        '<h2 id="samples">Samples</h2>',
        f'<div class="wide"><table><thead><tr><th>data set</th>{heads}</tr></thead><tbody>',
        *rows,
        "</tbody></table></div>",
    ]


# ---------------------------------------------------------------- HTML


def _text(value: Any, longest: int = LONGEST_TEXT) -> str:
    """Any text as HTML, good between tags and inside of quoted attributes."""
    return escape(plain(str(value), longest))


def _write(path: Path, title: str, body: Sequence[str], *, broad: bool = False) -> None:
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    text = "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_text(title, 200)}</title>",
            f"<style>{STYLE}</style>\n</head>",
            '<body class="broad">' if broad else "<body>",
            *body,
            "</body>\n</html>\n",
        ]
    )
    with replacing(path) as fresh:
        fresh.write_text(text, encoding="utf-8")
