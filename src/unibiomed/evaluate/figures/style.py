"""Style of all figures: a palette for colour-blind readers, sizes for a journal, and output as SVG and PNG."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unibiomed.data.index import replacing, writing
from unibiomed.errors import InputError
from unibiomed.export.formatting import plain

from ..predictors.base import BOX_SUFFIX

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "FORMATS",
    "GREY",
    "INK",
    "WIDTH",
    "ModelStyle",
    "add_legend",
    "file_name",
    "legend_patches",
    "make_styles",
    "max_labels_per_row",
    "saved_figure",
    "shorten_label",
    "split_into_rows",
    "with_format",
]

WIDTH = 7.2
"""Width of a figure in inches: two columns of a journal."""
FORMATS = ("svg", "png")
# Okabe and Ito, "Color Universal Design" (2008), without yellow, which has too little contrast on white.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#000000")
GREYS = ("0.40", "0.56", "0.70", "0.83")
LIGHTEST_LINE = "0.56"
"""Grey of the lines of baselines whose areas are lighter: thin light lines are hard to see."""
LABEL_CHARACTERS = 120
"""Characters of labels that fit side by side below a figure of full width."""
HATCHES = ("", "////", "....", "xxxx")
LINES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1.2, 1.2)), "-.")
MARKERS = "osD^vPX"
INK, GREY = "0.15", "0.40"
SETTINGS = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.labelsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 7.5,
    "figure.titlesize": 9,
    "figure.titleweight": "bold",
    "font.size": 7,
    "grid.color": "0.88",
    "grid.linewidth": 0.5,
    "hatch.linewidth": 0.5,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "savefig.dpi": 200,
    # makes the files reproducible
    "svg.hashsalt": "unibiomed",
    # "$" in a label is not mathematics
    "text.parse_math": False,
    "xtick.color": GREY,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 6.5,
    "xtick.major.width": 0.6,
    "ytick.color": GREY,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 6.5,
    "ytick.major.width": 0.6,
}


@dataclass(frozen=True, slots=True)
class ModelStyle:
    """Style of one model in every figure.

    Parameters
    ----------
    label : str
        Name, short enough for a legend.
    color, hatch : str
    line : str or tuple
        Line style of matplotlib.
    marker : str
    baseline : bool
        Baselines are grey.
    """

    label: str
    color: str
    hatch: str
    line: Any
    marker: str
    baseline: bool

    @property
    def line_color(self) -> str:
        """Colour of thin lines."""
        return min(self.color, LIGHTEST_LINE) if self.baseline else self.color


def make_styles(models: Mapping[str, Any]) -> dict[str, ModelStyle]:
    """Return the styles of all models: models in colours, followed by baselines in greys.

    Parameters
    ----------
    models : mapping
        ``results["models"]``.
    """
    styles = {}
    for baseline, colors in ((False, COLORS), (True, GREYS)):
        names = [name for name, table in models.items() if bool(table.get("baseline")) == baseline]
        for i, name in enumerate(names):
            cycle = i // len(colors) % len(HATCHES)
            line = LINES[i % len(LINES)] if baseline else LINES[cycle]
            marker = MARKERS[i % len(MARKERS)]
            # a shortened name keeps the suffix of models that are given the ground-truth box
            suffix = BOX_SUFFIX if name.endswith(BOX_SUFFIX) else ""
            label = shorten_label(name.removesuffix(suffix), 28 - len(suffix)) + suffix
            styles[name] = ModelStyle(label, colors[i % len(colors)], HATCHES[cycle], line, marker, baseline)
    return styles


def shorten_label(text: str, max_length: int = 40, width: int = 0) -> str:
    """Shorten the label of a target or model, and wrap it if `width` is not 0."""
    short = plain(text.replace("_", " "), max_length) or "-"
    return textwrap.fill(short, width) if width else short


def max_labels_per_row(labels: Iterable[str]) -> int:
    """Return how many labels fit side by side without breaking a word, at least 2."""
    longest = max((len(word) for label in labels for word in shorten_label(label).split()), default=1)
    return max(2, LABEL_CHARACTERS // (longest + 1))


def file_name(text: str) -> str:
    """Return the name of a model or target as a valid part of a file name on every platform."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in text)[:80]


def with_format(path: Path, extension: str) -> Path:
    """Append an extension to a path; a name such as ``model_v1.2`` keeps its dot."""
    return path.with_name(f"{path.name}.{extension}")


@contextmanager
def saved_figure(path: Path, height: float, *, width: float = WIDTH) -> Iterator[Figure]:
    """Create a figure and save it as SVG and PNG on exit; the settings of matplotlib are restored.

    Parameters
    ----------
    path : Path
        Path of both files without extension.
    height, width : float
        Size in inches.

    Raises
    ------
    InputError
        matplotlib is not installed.
    OutputError
        A file cannot be written.
    """
    try:
        from matplotlib import style
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("figures need matplotlib: run pip install 'unibiomed[train]'") from None
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    with style.context(["default", SETTINGS]):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        layout = figure.get_layout_engine()
        assert layout is not None
        for _ in range(2):
            # the second pass uses the space that axes of fixed aspect ratio leave
            layout.execute(figure)
        figure.set_layout_engine("none")
        for extension in FORMATS:
            with replacing(with_format(path, extension)) as temporary:
                # no date, so that the file is reproducible
                metadata = {"Date": None} if extension == "svg" else None
                figure.savefig(temporary, format=extension, metadata=metadata)


def legend_patches(styles: Iterable[ModelStyle]) -> list[Any]:
    """Return one patch per model for `add_legend`."""
    from matplotlib.patches import Patch

    return [Patch(facecolor=s.color, hatch=s.hatch, edgecolor="white", linewidth=0, label=s.label) for s in styles]


def add_legend(figure: Figure, handles: Sequence[Any], title: str, note: str = "") -> None:
    """Add title, legend and note outside of the axes."""
    if handles:
        # the title is that of the legend, so that they cannot overlap
        characters = max(len(handle.get_label()) for handle in handles) + 6
        figure.legend(
            handles=handles,
            loc="outside upper left",
            ncols=max(1, min(len(handles), int(figure.get_figwidth() * 18 / characters))),
            columnspacing=1.4,
            title=title,
            title_fontproperties={"weight": "bold", "size": 9},
            alignment="left",
            borderpad=0.1,
        )
    else:
        figure.suptitle(title, x=0.01, ha="left")
    if note:
        width = int(figure.get_figwidth() * 22)
        figure.supxlabel(textwrap.fill(note, width), x=0.01, ha="left", fontsize=6, color=GREY)


def split_into_rows(items: Sequence[Any], max_length: int) -> list[list[Any]]:
    """Split a list into rows of nearly equal length."""
    if not items:
        return []
    number = -(-len(items) // max(1, max_length))
    size = -(-len(items) // number)
    return [list(items[first : first + size]) for first in range(0, len(items), size)]
