"""Pages of samples: for each model and data set the questions, answers and scores, and the images of some samples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unibiomed.data.index import writing
from unibiomed.export.overlay import PALETTE

from ..examples import SampleImages, paint_sample, ranking_score, record_keys, select_samples
from ..predictions import PredictionStore
from ..sample_scores import SampleScore
from ..samples import Case
from ..tables.table import MISSING
from .html import SCRIPT, as_text, jpeg, write_html

__all__ = ["PICTURES", "Cases", "write_sample_pages"]

PICTURES = 20
"""Default number of samples per data set that are shown with images."""
SIDE = 224
MAX_SAMPLES = 2000
"""Number of rows of a page. Browsers are slow with more."""
PANELS = {"image": "image", "truth": "ground truth", "prediction": "prediction"}
"""Attribute of `SampleImages` and heading of each image column."""
COLUMNS = (
    ("sample", "string"),
    ("modality", "string"),
    ("task", "string"),
    ("target", "string"),
    ("variant", "string"),
    ("Dice", "number"),
    ("correct", "number"),
    ("surface Dice", "number"),
    ("presence", "number"),
    ("mask score", "number"),
    ("question", "string"),
    ("answer", "string"),
    ("reference", "string"),
)
Cases = Callable[[set[str]], Iterable[Case]]


@dataclass
class _CaseContent:
    """Content that is read from cases: image cells by model and sample, and questions by sample."""

    cells: dict[tuple[str, str], str] = field(default_factory=dict)
    questions: dict[str, str] = field(default_factory=dict)


def write_sample_pages(
    folder: Path,
    samples: Mapping[str, Iterable[SampleScore]],
    files: Mapping[str, str],
    stores: Mapping[str, PredictionStore],
    cases: Cases | None,
    pictures: int,
    seed: int,
) -> dict[tuple[str, str], tuple[str, int]]:
    """Write a page for each model and data set to ``samples/`` and remove those of an earlier run.

    Parameters
    ----------
    folder : Path
        Folder of the evaluation.
    samples : mapping of str to iterable of SampleScore
        Sample scores of each model.
    files : mapping of str to str
        Name of the file of sample scores of each model, which contains the samples that are not listed.
    stores, cases, pictures, seed
        As in `write_page`.

    Returns
    -------
    dict
        Link of the page and number of samples for each data set and model.
    """
    groups: dict[str, dict[str, list[SampleScore]]] = defaultdict(dict)
    for model, part in samples.items():
        for score in part:
            groups[score.dataset].setdefault(model, []).append(score)
    links: dict[tuple[str, str], tuple[str, int]] = {}
    if not groups:
        return links
    inner = folder / "samples"
    with writing(inner):
        inner.mkdir(exist_ok=True)
        for stale in inner.glob("[0-9][0-9][0-9].html"):
            stale.unlink()
    for dataset, models in sorted(groups.items()):
        with_images = {
            model: select_samples(_originals(part), pictures if cases is not None and model in stores else 0, seed)
            for model, part in models.items()
        }
        listed = {model: _listed(part, with_images[model], seed) for model, part in models.items()}
        content = _read_cases(with_images, listed, stores, cases)
        for model, part in models.items():
            omitted = len(part) - len(listed[model])
            note = f"{omitted:,} more are in scores/{files[model]}." if omitted else ""
            file = f"{len(links) + 1:03d}.html"
            body = _page(dataset, model, listed[model], content, len(part), note)
            write_html(inner / file, f"{dataset}, {model}", body, full_width=True)
            links[dataset, model] = f"samples/{file}", len(part)
    return links


def _originals(samples: Iterable[SampleScore]) -> list[SampleScore]:
    return [score for score in samples if score.original]


def _listed(samples: Sequence[SampleScore], first: Sequence[SampleScore], seed: int) -> list[SampleScore]:
    """Return samples with images, then other originals, then perturbed and paraphrased ones; worst first in each."""
    names = {score.id for score in first}
    originals = [score for score in _originals(samples) if score.id not in names]
    variants = [score for score in samples if not score.original]
    ranked = [score for part in (originals, variants) for score in select_samples(part, len(part), seed)]
    return [*first, *ranked[: max(MAX_SAMPLES - len(first), 0)]]


def _read_cases(
    with_images: Mapping[str, Sequence[SampleScore]],
    listed: Mapping[str, Sequence[SampleScore]],
    stores: Mapping[str, PredictionStore],
    cases: Cases | None,
) -> _CaseContent:
    """Paint the samples with images; read the questions of their images and of the task ``ask``."""
    content, models = _CaseContent(), defaultdict(list)
    for model, part in with_images.items():
        for score in part:
            models[score.id].append(model)
    # making a question may require decoding the image, and questions of other tasks follow from task and target
    needed = [score for part in with_images.values() for score in part]
    needed += [score for part in listed.values() for score in part if score.task == "ask"]
    if cases is None or not models:
        return content
    for case in cases(record_keys(needed)):
        for sample in case.samples:
            content.questions[sample.id] = sample.question
            for model in models.get(sample.id, ()):
                content.cells[model, sample.id] = _image_cells(paint_sample(case, sample, stores[model], SIDE))
    return content


def _image_cells(images: SampleImages) -> str:
    cells = []
    for name, title in PANELS.items():
        cells.append(f'<td class="text"><img alt="{title}" src="{jpeg(getattr(images, name))}"></td>')
    keys = "".join(
        f'<span class="key"><span style="color:#{bytes(PALETTE[i % len(PALETTE)]).hex()}">&#9632;</span> '
        f"{as_text(label, 80)}</span>"
        for i, label in enumerate(images.labels)
    )
    cells[1] = cells[1].replace("</td>", f"{keys}</td>")
    return "".join(cells)


def _page(
    dataset: str, model: str, samples: Sequence[SampleScore], content: _CaseContent, count: int, note: str
) -> list[str]:
    """Make the page of `samples` out of `count`; `note` says where the others are."""
    cells = [content.cells.get((model, score.id)) for score in samples]
    heads = "".join(f'<th class="text">{title}</th>' for title in PANELS.values()) if any(cells) else ""
    for name, kind in COLUMNS:
        style = ' class="text"' if kind == "string" else ""
        heads += f'<th{style} data-kind="{kind}"><button type="button">{name}</button></th>'
    number = sum(cell is not None for cell in cells)
    empty = "<td></td>" * len(PANELS) if any(cells) else ""
    # a perturbed image has the question of the original
    questions = [
        content.questions.get(score.id) or content.questions.get(score.id.rpartition("@")[0], "") for score in samples
    ]
    lines = [
        f"<tr>{cell or empty}{_row(score, question)}</tr>"
        for score, cell, question in zip(samples, cells, questions, strict=True)
    ]
    return [
        f"<h1>{as_text(dataset)}</h1>",
        f'<p class="secondary">{as_text(model)}: {count:,} samples, {number} of them with images: the worst of each '
        "task, and others at random. Perturbed images and paraphrases come last. Click a heading to sort.</p>",
        *([f'<p class="secondary">The worst {len(samples):,} are listed; {as_text(note)}</p>'] if note else []),
        '<nav><a href="../index.html">All results</a></nav>',
        f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>',
        *lines,
        "</tbody></table></div>",
        f"<script>{SCRIPT}</script>",
    ]


def _row(score: SampleScore, question: str) -> str:
    dice = ranking_score(score) if score.intersection is not None or score.task == "segment" else None
    answer = f'<span class="failed">failure: {as_text(score.failure)}</span>' if score.failure else None
    variant = f"paraphrase {score.paraphrase}" if score.paraphrase else ""
    if score.perturbation:
        variant = f"{score.perturbation} {score.strength}"
    correct = None if score.exact_match is None else float(score.exact_match)
    return "".join(
        [
            _cell(score.id.removeprefix(f"{score.dataset}/")),
            _cell(score.modality),
            _cell(score.task),
            _cell(score.target or ", ".join(score.true_labels or [])),
            _cell(variant),
            _number(dice),
            _number(correct, "yes" if score.exact_match else "no"),
            _number(score.surface_dice),
            _number(score.presence),
            _number(score.mask_score),
            _cell(question),
            _cell(score.answer or "", answer),
            _cell(score.reference or ""),
        ]
    )


def _cell(value: str, shown: str | None = None) -> str:
    return f'<td class="text" data-value="{as_text(value, 200)}">{as_text(value) if shown is None else shown}</td>'


def _number(value: float | None, shown: str | None = None) -> str:
    if value is None:
        return f'<td data-value="">{MISSING}</td>'
    return f'<td data-value="{value:.6f}">{shown or f"{value:.3f}"}</td>'
