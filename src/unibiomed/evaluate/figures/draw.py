"""All figures that the results have something for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from unibiomed.images.modality import MODALITIES

from ..compare import FEWEST
from ..confusion import fold
from ..leftovers import remove_leftovers
from .bars import bar_rows, draw_ablation, plot_bars
from .boxes import BOX_NOTE, plot_boxes, plot_pooled
from .confusion import confusion_size, plot_confusion
from .gather import Answers, Scored, p_values, sizes, stars
from .radar import FEWEST_COUNT, FEWEST_SPOKES, plot_radar, radar_height, spokes_of
from .style import KINDS, Look, beside, file_name, make_looks, sheet, words
from .trust import plot_changes, plot_trust

__all__ = ["draw_figures"]

THERE = "Dice of images that show the target."
MASKS = "Masks: one for each target that an image shows."
RADARS = (
    (
        "radar_dice_targets",
        ("segment", "strict", "targets"),
        "dice",
        "Dice by target",
        f"{THERE} In brackets: these images.",
    ),
    (
        "radar_dice_datasets",
        ("segment", "strict", "datasets"),
        "dice",
        "Dice by data set",
        f"{THERE} Mean over targets. In brackets: masks, one for each target that an image shows.",
    ),
    (
        "radar_recognition",
        ("recognize", "strict", "labels"),
        "accuracy",
        "Accuracy of recognition by label",
        "In brackets: images.",
    ),
    (
        "radar_classification",
        ("classify", "strict", "labels"),
        "accuracy",
        "Accuracy of region classification by label",
        "In brackets: boxes.",
    ),
)


def draw_figures(
    results: Mapping[str, Any],
    answers: Mapping[str, Answers],
    folder: Path,
    *,
    external: Collection[str] = (),
) -> list[Path]:
    """Draw every figure that there are results for; those of an earlier run go.

    Parameters
    ----------
    results : mapping
        As ``results.json``.
    answers : mapping of str to Answers
        Model to what `gather` read of its rows; a model without is missing from the figures that need it.
    folder : Path
        Made if need be.
    external : collection of str
        Data sets that are kept for testing alone.

    Returns
    -------
    list of Path
        An SVG and a PNG file of each figure, in the order in which they are to be read.

    Raises
    ------
    InputError
        matplotlib is not installed.
    OutputError
        A file cannot be written.
    """
    looks = make_looks(results["models"])
    answers = {name: answers[name] for name in looks if name in answers}
    names: list[str] = []
    drawing = _Drawing(results["models"], looks, answers, folder, frozenset(external))
    for make in (drawing.modalities, drawing.radars, drawing.boxes, drawing.trust, drawing.changes, drawing.confusions):
        names += make()
    for measure, table in (results.get("runs") or {}).items():
        names.append(f"runs_{file_name(measure.replace(' ', '_'))}")
        draw_ablation({kind: cell["values"] for kind, cell in table.items()}, folder / names[-1], label=measure)
    paths = [beside(folder / name, kind) for name in names for kind in KINDS]
    remove_leftovers(folder, paths)
    return paths


def _get(table: Any, *keys: str) -> Mapping[str, Any]:
    for key in keys:
        table = table.get(key) or {}
    return table


class _Drawing:
    """What the figures share; each method draws and gives the names of what it drew."""

    def __init__(
        self,
        models: Mapping[str, Any],
        looks: Mapping[str, Look],
        answers: Mapping[str, Answers],
        folder: Path,
        external: frozenset[str],
    ) -> None:
        self.models, self.looks, self.answers, self.folder, self.external = models, looks, answers, folder, external

    def _stars(self, group: Callable[[Scored], str]) -> tuple[dict[tuple[str, str], str], str]:
        """The stars of each model and group, and the note that says what they are, and where nothing was tested."""
        tests = p_values(self.answers, group)
        found = {key: stars(p) for key, p in tests.items() if stars(p)}
        if len(self.answers) < 2:
            return found, ""
        untested = sorted(sizes(self.answers, group).keys() - {key[1] for key in tests})
        first = next(iter(self.looks.values())).label
        note = (
            f"* p < 0.05, ** p < 0.01, *** p < 0.001 against {first}: paired t-test of the means of subjects, "
            "two-sided, Holm."
        )
        few = f"Not tested, fewer than {FEWEST} subjects: {', '.join(untested)}."
        return found, " ".join([note] * bool(tests) + [few] * bool(untested))

    def modalities(self) -> Iterator[str]:
        tables = {name: _get(self.models[name], "segment", "strict", "modalities") for name in self.looks}
        looks = {name: look for name, look in self.looks.items() if tables[name]}
        found = {group for table in tables.values() for group in table}
        groups = [name for name in MODALITIES if name in found] + sorted(found - set(MODALITIES))
        if not groups:
            return
        values = {(name, group): cell["dice"] for name, table in tables.items() for group, cell in table.items()}
        signs, signed = self._stars(lambda one: one.modality)
        counts = {group: size.lines() for group, size in sizes(self.answers, lambda one: one.modality).items()}
        note = f"{THERE} Mean over targets; whiskers: 95 % interval by subject. {MASKS} {signed}"
        height = 0.9 + 1.95 * len(bar_rows(groups, len(looks)))
        with sheet(self.folder / "dice_by_modality", height) as figure:
            plot_bars(figure, looks, groups, values, signs, counts, title="Dice by modality", label="Dice", note=note)
        yield "dice_by_modality"

    def radars(self) -> Iterator[str]:
        for file, path, key, title, note in RADARS:
            tables = {name: _get(self.models[name], *path) for name in self.looks}
            looks = {name: look for name, look in self.looks.items() if tables[name]}
            cells = {(n, spoke): cell[key] for n, table in tables.items() for spoke, cell in table.items()}
            spokes, rare = spokes_of(cells, next(iter(looks), ""))
            if len(spokes) < FEWEST_SPOKES:
                continue
            note += f" Clockwise from the best of {next(iter(looks.values())).label}."
            if rare:
                note += f" Left out, fewer than {FEWEST_COUNT}: {', '.join(words(name, 34) for name in rare)}."
            values = {place: cell["value"] for place, cell in cells.items()}
            with sheet(self.folder / file, radar_height(list(spokes))) as figure:
                plot_radar(figure, looks, spokes, values, title=title, note=note)
            yield file

    def boxes(self) -> Iterator[str]:
        values: dict[tuple[str, str], list[float]] = defaultdict(list)
        for name, found in self.answers.items():
            for one in found.scored:
                values[name, one.dataset].append(one.dice)
        if not values:
            return
        looks = {name: look for name, look in self.looks.items() if name in {key[0] for key in values}}
        datasets = sorted({dataset for _, dataset in values})
        sides: dict[str, dict[str, list[float]]] = {}
        for (name, dataset), part in values.items():
            sides.setdefault(self._side(dataset), {}).setdefault(name, []).extend(part)
        signs, signed = self._stars(lambda one: self._side(one.dataset))
        counts = sizes(self.answers, lambda one: self._side(one.dataset))
        note = f"{THERE} {BOX_NOTE} {MASKS} {signed}"
        ordered: dict[str, dict[str, list[float]]] = {
            side: sides[side] for side in ("Internal", "External", "All") if side in sides
        }
        with sheet(self.folder / "boxes", 3.2) as figure:
            plot_pooled(figure, looks, ordered, signs, counts, title="Dice of single masks", note=note)
        yield "boxes"
        height = 0.9 + 2.1 * len(bar_rows(datasets, len(looks)))
        counts, note = sizes(self.answers, lambda one: one.dataset), f"{THERE} {BOX_NOTE} {MASKS}"
        with sheet(self.folder / "boxes_by_dataset", height) as figure:
            title = "Dice of single masks by data set"
            plot_boxes(figure, looks, datasets, values, self.external, counts, title=title, note=note)
        yield "boxes_by_dataset"

    def _side(self, dataset: str) -> str:
        if not self.external:
            return "All"
        return "External" if dataset in self.external else "Internal"

    def trust(self) -> Iterator[str]:
        judged = {
            name: (found.presence, found.overlap, found.sure)
            for name, found in self.answers.items()
            if found.sure or found.overlap
        }
        if not judged:
            return
        with sheet(self.folder / "scores", 3.3 + 0.22 * len(judged)) as figure:
            plot_trust(figure, self.looks, judged)
        yield "scores"

    def changes(self) -> Iterator[str]:
        tables = {name: _get(self.models[name], "robustness") for name in self.looks}
        tables = {name: table for name, table in tables.items() if table}
        tables = {name: table for name, table in tables.items() if not self.looks[name].floor} or tables
        if not tables:
            return
        with sheet(self.folder / "robustness", 0.9 + 1.8 * -(-len(tables) // 3)) as figure:
            plot_changes(figure, self.looks, tables)
        yield "robustness"

    def confusions(self) -> Iterator[str]:
        for name, look in self.looks.items():
            for task, head, of in (
                ("recognize", "Recognition", "images"),
                ("classify", "Region classification", "boxes"),
            ):
                counts = _get(self.models[name], task, "strict", "confusion")
                if look.floor or not counts:
                    continue
                matrix, rows, columns = fold(counts)
                height, width = confusion_size(rows, columns)
                file = f"confusion_{task}_{file_name(name)}"
                with sheet(self.folder / file, height, width=width) as figure:
                    plot_confusion(figure, matrix, rows, columns, title=f"{head}, {words(name, 40)}", of=of)
                yield file
