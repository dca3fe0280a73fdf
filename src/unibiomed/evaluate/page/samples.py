"""The pages of samples: for each model and data set what was asked, what was said, and the images of some."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unibiomed.data.index import writing
from unibiomed.export.overlay import PALETTE

from ..examples import Painting, keys_of, paint, pick_samples, row_score
from ..predictions import PredictionStore
from ..rows import Row
from ..samples import Case
from .html import SCRIPT, as_text, jpeg, write_html

__all__ = ["PICTURES", "Cases", "write_sample_pages"]

PICTURES = 20
"""Samples of a data set that are shown with images."""
SIDE = 224
MOST_SAMPLES = 2000
"""Rows of a model and data set; a browser is slow with more."""
PANELS = ("image", "truth", "prediction")
COLUMNS = (
    ("sample", "string"),
    ("modality", "string"),
    ("task", "string"),
    ("target", "string"),
    ("asked how", "string"),
    ("Dice", "number"),
    ("right", "number"),
    ("surface Dice", "number"),
    ("presence", "number"),
    ("mask score", "number"),
    ("question", "string"),
    ("answer", "string"),
    ("reference", "string"),
)
Cases = Callable[[set[str]], Iterable[Case]]


@dataclass
class _Seen:
    """What only the cases know, not the rows."""

    cells: dict[tuple[str, str], str] = field(default_factory=dict)
    """By model and sample: the cells with its images."""
    questions: dict[str, str] = field(default_factory=dict)
    """By sample."""


def write_sample_pages(
    folder: Path,
    rows: Mapping[str, Iterable[Row]],
    files: Mapping[str, str],
    stores: Mapping[str, PredictionStore],
    cases: Cases | None,
    pictures: int,
    seed: int,
) -> dict[tuple[str, str], tuple[str, int]]:
    """Write a page for each model and data set under ``samples/``; those of an earlier run go.

    Parameters
    ----------
    folder : Path
        Of the evaluation.
    rows : mapping of str to iterable of Row
        Of each model.
    files : mapping of str to str
        Model to the name of the file of its rows, for those that are not listed.
    stores, cases, pictures, seed
        As in `write_page`.

    Returns
    -------
    dict
        Data set and model to the link of the page and the number of samples.
    """
    groups: dict[str, dict[str, list[Row]]] = defaultdict(dict)
    for model, part in rows.items():
        for row in part:
            groups[row.dataset].setdefault(model, []).append(row)
    links: dict[tuple[str, str], tuple[str, int]] = {}
    if not groups:
        return links
    inner = folder / "samples"
    with writing(inner):
        inner.mkdir(exist_ok=True)
        for stale in inner.glob("[0-9][0-9][0-9].html"):
            stale.unlink()
    for dataset, models in sorted(groups.items()):
        picked = {
            model: pick_samples(_as_asked(part), pictures if cases is not None and model in stores else 0, seed)
            for model, part in models.items()
        }
        listed = {model: _listed(part, picked[model], seed) for model, part in models.items()}
        seen = _look(picked, listed, stores, cases)
        for model, part in models.items():
            left = len(part) - len(listed[model])
            more = f"{left:,} more are in scores/{files[model]}." if left else ""
            file = f"{len(links) + 1:03d}.html"
            body = _page(dataset, model, listed[model], seen, len(part), more)
            write_html(inner / file, f"{dataset}, {model}", body, broad=True)
            links[dataset, model] = f"samples/{file}", len(part)
    return links


def _as_asked(rows: Iterable[Row]) -> list[Row]:
    """Without changed images and questions in other words."""
    return [row for row in rows if row.change is None and not row.paraphrase]


def _listed(rows: Sequence[Row], first: Sequence[Row], seed: int) -> list[Row]:
    """Those with images, then the others, then changed images and other words; the worst of each first."""
    names = {row.id for row in first}
    plain = [row for row in _as_asked(rows) if row.id not in names]
    other = [row for row in rows if row.change is not None or row.paraphrase]
    ranked = [row for part in (plain, other) for row in pick_samples(part, len(part), seed)]
    return [*first, *ranked[: max(MOST_SAMPLES - len(first), 0)]]


def _look(
    picked: Mapping[str, Sequence[Row]],
    listed: Mapping[str, Sequence[Row]],
    stores: Mapping[str, PredictionStore],
    cases: Cases | None,
) -> _Seen:
    """Paint the picked samples; read the questions of these images, and all that are answered in free words."""
    seen, wanted = _Seen(), defaultdict(list)
    for model, rows in picked.items():
        for row in rows:
            wanted[row.id].append(model)
    # an image may have to be decoded for its questions, and those of other tasks follow from the target
    needed = [row for rows in picked.values() for row in rows]
    needed += [row for rows in listed.values() for row in rows if row.task == "ask"]
    if cases is None or not wanted:
        return seen
    for case in cases(keys_of(needed)):
        for sample in case.samples:
            seen.questions[sample.id] = sample.question
            for model in wanted.get(sample.id, ()):
                seen.cells[model, sample.id] = _pictures(paint(case, sample, stores[model], SIDE))
    return seen


def _pictures(painting: Painting) -> str:
    cells = []
    for name in PANELS:
        cells.append(f'<td class="text"><img alt="{name}" src="{jpeg(getattr(painting, name))}"></td>')
    keys = "".join(
        f'<span class="key"><span style="color:#{bytes(PALETTE[i % len(PALETTE)]).hex()}">&#9632;</span> '
        f"{as_text(label, 80)}</span>"
        for i, label in enumerate(painting.labels)
    )
    cells[1] = cells[1].replace("</td>", f"{keys}</td>")
    return "".join(cells)


def _page(dataset: str, model: str, rows: Sequence[Row], seen: _Seen, count: int, more: str) -> list[str]:
    """The page of a model's samples of a data set: `rows` of them, `count` in all, and where the others are."""
    cells = [seen.cells.get((model, row.id)) for row in rows]
    heads = "".join(f'<th class="text">{name}</th>' for name in PANELS) if any(cells) else ""
    for name, kind in COLUMNS:
        side = ' class="text"' if kind == "string" else ""
        heads += f'<th{side} data-kind="{kind}"><button type="button">{name}</button></th>'
    number = sum(cell is not None for cell in cells)
    empty = "<td></td>" * len(PANELS) if any(cells) else ""
    # a changed image is asked what the image itself is asked
    asked = [seen.questions.get(row.id) or seen.questions.get(row.id.rpartition("@")[0], "") for row in rows]
    lines = [
        f"<tr>{cell or empty}{_row(row, question)}</tr>" for row, cell, question in zip(rows, cells, asked, strict=True)
    ]
    return [
        f"<h1>{as_text(dataset)}</h1>",
        f'<p class="soft">{as_text(model)}: {count:,} samples, {number} of them with images: the worst of each task, '
        "and others drawn by chance; changed images and questions in other words come last. Click a heading to sort."
        "</p>",
        *([f'<p class="soft">The worst {len(rows):,} are listed; {as_text(more)}</p>'] if more else []),
        '<nav><a href="../index.html">All results</a></nav>',
        f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>',
        *lines,
        "</tbody></table></div>",
        f"<script>{SCRIPT}</script>",
    ]


def _row(row: Row, question: str) -> str:
    dice = row_score(row) if row.shared is not None or row.task == "segment" else None
    answer = f'<span class="failed">failure: {as_text(row.failure)}</span>' if row.failure else None
    how = f"{row.change} {row.strength}" if row.change else f"other words {row.paraphrase}" if row.paraphrase else ""
    return "".join(
        [
            _cell(row.id.removeprefix(f"{row.dataset}/")),
            _cell(row.modality),
            _cell(row.task),
            _cell(row.target or ", ".join(row.wanted or [])),
            _cell(how),
            _number(dice),
            _number(None if row.exact is None else float(row.exact), "yes" if row.exact else "no"),
            _number(row.surface_dice),
            _number(row.presence),
            _number(row.mask_score),
            _cell(question),
            _cell(row.answer or "", answer),
            _cell(row.reference or ""),
        ]
    )


def _cell(value: str, shown: str | None = None) -> str:
    return f'<td class="text" data-value="{as_text(value, 200)}">{as_text(value) if shown is None else shown}</td>'


def _number(value: float | None, shown: str | None = None) -> str:
    if value is None:
        return '<td data-value="">–</td>'
    return f'<td data-value="{value:.6f}">{shown or f"{value:.3f}"}</td>'
