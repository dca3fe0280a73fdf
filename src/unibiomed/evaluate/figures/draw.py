"""All figures for which there are results."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from unibiomed.images.modality import MODALITIES

from ..compare import MIN_SUBJECTS
from ..confusion import merge_rare_labels
from ..stale_files import remove_stale_files
from .bars import bar_rows, draw_ablation, plot_bars
from .boxes import BOX_NOTE, plot_boxes, plot_pooled
from .confusion import confusion_size, plot_confusion
from .data import FigureData, MaskScore, p_values, sample_sizes, stars
from .radar import MIN_COUNT, MIN_SPOKES, plot_radar, radar_height, select_spokes
from .scores import plot_perturbations, plot_scores
from .style import FORMATS, ModelStyle, file_name, make_styles, saved_figure, shorten_label, with_format

__all__ = ["draw_figures"]

DICE_NOTE = "Dice of images that show the target."
MASK_NOTE = "Masks: one for each target that an image shows."
RADARS = (
    (
        "radar_dice_targets",
        ("segment", "strict", "targets"),
        "dice",
        "Dice by target",
        f"{DICE_NOTE} In brackets: number of these images.",
    ),
    (
        "radar_dice_datasets",
        ("segment", "strict", "datasets"),
        "dice",
        "Dice by data set",
        f"{DICE_NOTE} Mean over targets. In brackets: number of masks, one for each target that an image shows.",
    ),
    (
        "radar_recognition",
        ("recognize", "strict", "labels"),
        "accuracy",
        "Accuracy of recognition by label",
        "In brackets: number of images.",
    ),
    (
        "radar_classification",
        ("classify", "strict", "labels"),
        "accuracy",
        "Accuracy of region classification by label",
        "In brackets: number of boxes.",
    ),
)


def draw_figures(
    results: Mapping[str, Any],
    data: Mapping[str, FigureData],
    folder: Path,
    *,
    external: Collection[str] = (),
) -> list[Path]:
    """Draw all figures and remove those of an earlier run.

    Parameters
    ----------
    results : mapping
        Content of ``results.json``.
    data : mapping of str to FigureData
        Data of each model from `read_figure_data`. Figures that need it leave out models without data.
    folder : Path
        Output folder.
    external : collection of str
        Data sets that were not used for training.

    Returns
    -------
    list of Path
        An SVG and a PNG file of each figure, in reading order.

    Raises
    ------
    InputError
        matplotlib is not installed.
    OutputError
        A file cannot be written.
    """
    styles = make_styles(results["models"])
    ordered = {name: data[name] for name in styles if name in data}
    names: list[str] = []
    figures = _Figures(results["models"], styles, ordered, folder, frozenset(external))
    for draw in (
        figures.modalities,
        figures.radars,
        figures.boxes,
        figures.scores,
        figures.perturbations,
        figures.confusions,
    ):
        names += draw()
    for measure, table in (results.get("runs") or {}).items():
        names.append(f"runs_{file_name(measure.replace(' ', '_'))}")
        draw_ablation({name: cell["values"] for name, cell in table.items()}, folder / names[-1], label=measure)
    paths = [with_format(folder / name, extension) for name in names for extension in FORMATS]
    remove_stale_files(folder, paths)
    return paths


def _get(table: Any, *keys: str) -> Mapping[str, Any]:
    for key in keys:
        table = table.get(key) or {}
    return table


class _Figures:
    """Inputs of all figures. Each method draws figures and yields their names."""

    def __init__(
        self,
        models: Mapping[str, Any],
        styles: Mapping[str, ModelStyle],
        data: Mapping[str, FigureData],
        folder: Path,
        external: frozenset[str],
    ) -> None:
        self.models, self.styles, self.data, self.folder, self.external = models, styles, data, folder, external

    def _stars(self, group: Callable[[MaskScore], str]) -> tuple[dict[tuple[str, str], str], str]:
        """Return the stars of each model and group, and a note that explains them."""
        tests = p_values(self.data, group)
        signs = {key: stars(p) for key, p in tests.items() if stars(p)}
        if len(self.data) < 2:
            return signs, ""
        untested = sorted(sample_sizes(self.data, group).keys() - {key[1] for key in tests})
        first = next(iter(self.styles.values())).label
        note = (
            f"* p < 0.05, ** p < 0.01, *** p < 0.001 against {first}: paired t-test of the means of subjects, "
            "two-sided, with Holm's correction."
        )
        few = f"Not tested because of fewer than {MIN_SUBJECTS} subjects: {', '.join(untested)}."
        return signs, " ".join([note] * bool(tests) + [few] * bool(untested))

    def modalities(self) -> Iterator[str]:
        tables = {name: _get(self.models[name], "segment", "strict", "modalities") for name in self.styles}
        styles = {name: style for name, style in self.styles.items() if tables[name]}
        present = {group for table in tables.values() for group in table}
        groups = [name for name in MODALITIES if name in present] + sorted(present - set(MODALITIES))
        if not groups:
            return
        values = {(name, group): cell["dice"] for name, table in tables.items() for group, cell in table.items()}
        signs, star_note = self._stars(lambda mask: mask.modality)
        counts = {g: size.describe() for g, size in sample_sizes(self.data, lambda mask: mask.modality).items()}
        note = f"{DICE_NOTE} Mean over targets; whiskers: 95 % interval by subject. {MASK_NOTE} {star_note}"
        height = 0.9 + 1.95 * len(bar_rows(groups, len(styles)))
        with saved_figure(self.folder / "dice_by_modality", height) as figure:
            plot_bars(figure, styles, groups, values, signs, counts, title="Dice by modality", label="Dice", note=note)
        yield "dice_by_modality"

    def radars(self) -> Iterator[str]:
        for file, path, key, title, note in RADARS:
            tables = {name: _get(self.models[name], *path) for name in self.styles}
            styles = {name: style for name, style in self.styles.items() if tables[name]}
            cells = {(n, spoke): cell[key] for n, table in tables.items() for spoke, cell in table.items()}
            spokes, rare = select_spokes(cells, next(iter(styles), ""))
            if len(spokes) < MIN_SPOKES:
                continue
            note += f" Clockwise from the best value of {next(iter(styles.values())).label}."
            if rare:
                names = ", ".join(shorten_label(name, 34) for name in rare)
                note += f" Left out because of fewer than {MIN_COUNT} values: {names}."
            values = {place: cell["value"] for place, cell in cells.items()}
            with saved_figure(self.folder / file, radar_height(list(spokes))) as figure:
                plot_radar(figure, styles, spokes, values, title=title, note=note)
            yield file

    def boxes(self) -> Iterator[str]:
        values: dict[tuple[str, str], list[float]] = defaultdict(list)
        for name, one in self.data.items():
            for mask in one.masks:
                values[name, mask.dataset].append(mask.dice)
        if not values:
            return
        styles = {name: style for name, style in self.styles.items() if name in {key[0] for key in values}}
        datasets = sorted({dataset for _, dataset in values})
        panels: dict[str, dict[str, list[float]]] = {}
        for (name, dataset), part in values.items():
            panels.setdefault(self._panel(dataset), {}).setdefault(name, []).extend(part)
        signs, star_note = self._stars(lambda mask: self._panel(mask.dataset))
        sizes = sample_sizes(self.data, lambda mask: self._panel(mask.dataset))
        note = f"{DICE_NOTE} {BOX_NOTE} {MASK_NOTE} {star_note}"
        ordered: dict[str, dict[str, list[float]]] = {
            panel: panels[panel] for panel in ("Internal", "External", "All") if panel in panels
        }
        with saved_figure(self.folder / "boxes", 3.2) as figure:
            plot_pooled(figure, styles, ordered, signs, sizes, title="Dice of single masks", note=note)
        yield "boxes"
        height = 0.9 + 2.1 * len(bar_rows(datasets, len(styles)))
        sizes, note = sample_sizes(self.data, lambda mask: mask.dataset), f"{DICE_NOTE} {BOX_NOTE} {MASK_NOTE}"
        with saved_figure(self.folder / "boxes_by_dataset", height) as figure:
            title = "Dice of single masks by data set"
            plot_boxes(figure, styles, datasets, values, self.external, sizes, title=title, note=note)
        yield "boxes_by_dataset"

    def _panel(self, dataset: str) -> str:
        if not self.external:
            return "All"
        return "External" if dataset in self.external else "Internal"

    def scores(self) -> Iterator[str]:
        with_scores = {name: one for name, one in self.data.items() if one.risk or one.overlap}
        if not with_scores:
            return
        with saved_figure(self.folder / "scores", 3.3 + 0.22 * len(with_scores)) as figure:
            plot_scores(figure, self.styles, with_scores)
        yield "scores"

    def perturbations(self) -> Iterator[str]:
        tables = {name: _get(self.models[name], "robustness") for name in self.styles}
        tables = {name: table for name, table in tables.items() if table}
        tables = {name: table for name, table in tables.items() if not self.styles[name].baseline} or tables
        if not tables:
            return
        with saved_figure(self.folder / "robustness", 0.9 + 1.8 * -(-len(tables) // 3)) as figure:
            plot_perturbations(figure, self.styles, tables)
        yield "robustness"

    def confusions(self) -> Iterator[str]:
        for name, style in self.styles.items():
            for task, title, unit in (
                ("recognize", "Recognition", "images"),
                ("classify", "Region classification", "boxes"),
            ):
                counts = _get(self.models[name], task, "strict", "confusion")
                if style.baseline or not counts:
                    continue
                matrix, rows, columns = merge_rare_labels(counts)
                height, width = confusion_size(rows, columns)
                file = f"confusion_{task}_{file_name(name)}"
                with saved_figure(self.folder / file, height, width=width) as figure:
                    title = f"{title}, {shorten_label(name, 40)}"
                    plot_confusion(figure, matrix, rows, columns, title=title, unit=unit)
                yield file
