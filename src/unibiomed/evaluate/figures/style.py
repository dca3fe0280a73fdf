"""How all figures look: colours that colour-blind people can tell apart, sizes for a printed column, SVG and PNG."""

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

from ..predictors.base import BOXED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "INK",
    "KINDS",
    "SOFT",
    "WIDTH",
    "Look",
    "beside",
    "file_name",
    "legend",
    "make_looks",
    "patches",
    "room_for",
    "rows_of",
    "sheet",
    "words",
]

WIDTH = 7.2
"""Inches; two columns of a journal."""
KINDS = ("svg", "png")
# Okabe and Ito, "Color Universal Design" (2008), without the yellow, which is lost on white paper.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#000000")
GREYS = ("0.40", "0.56", "0.70", "0.83")
LIGHTEST_LINE = "0.56"
"""Grey of the lines of floors whose areas are lighter: a thin line in a light grey is lost on white paper."""
LETTERS = 120
"""Of labels that fit side by side under a figure of full width."""
HATCHES = ("", "////", "....", "xxxx")
LINES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1.2, 1.2)), "-.")
MARKERS = "osD^vPX"
INK, SOFT = "0.15", "0.40"
SETTINGS = {
    "axes.axisbelow": True,
    "axes.edgecolor": SOFT,
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
    # the same drawing gives the same file
    "svg.hashsalt": "unibiomed",
    # a "$" in a label is a dollar
    "text.parse_math": False,
    "xtick.color": SOFT,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 6.5,
    "xtick.major.width": 0.6,
    "ytick.color": SOFT,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 6.5,
    "ytick.major.width": 0.6,
}


@dataclass(frozen=True, slots=True)
class Look:
    """How one model looks in every figure.

    Parameters
    ----------
    label : str
        Its name, short enough for a legend.
    color, hatch, marker : str
    line : str or tuple
        Line style.
    floor : bool
        A trivial predictor, in grey.
    """

    label: str
    color: str
    hatch: str
    line: Any
    marker: str
    floor: bool

    @property
    def ink(self) -> str:
        """Its colour where it is a thin line."""
        return min(self.color, LIGHTEST_LINE) if self.floor else self.color


def make_looks(models: Mapping[str, Any]) -> dict[str, Look]:
    """Looks of all models, by name: models in colours, then floors in greys.

    Parameters
    ----------
    models : mapping
        ``results["models"]``.
    """
    looks = {}
    for floor, colors in ((False, COLORS), (True, GREYS)):
        names = [name for name, table in models.items() if bool(table.get("floor")) == floor]
        for i, name in enumerate(names):
            again = i // len(colors) % len(HATCHES)
            line = LINES[i % len(LINES)] if floor else LINES[again]
            marker = MARKERS[i % len(MARKERS)]
            # shortened, a name still says that the model is given the box of the truth
            end = BOXED if name.endswith(BOXED) else ""
            label = words(name.removesuffix(end), 28 - len(end)) + end
            looks[name] = Look(label, colors[i % len(colors)], HATCHES[again], line, marker, floor)
    return looks


def words(text: str, longest: int = 40, width: int = 0) -> str:
    """A label from data or a model, made fit for a figure; `width` wraps it."""
    short = plain(text.replace("_", " "), longest) or "-"
    return textwrap.fill(short, width) if width else short


def room_for(labels: Iterable[str]) -> int:
    """How many labels fit side by side when none of their words is broken; at least 2, whatever their length."""
    longest = max((len(word) for label in labels for word in words(label).split()), default=1)
    return max(2, LETTERS // (longest + 1))


def file_name(text: str) -> str:
    """The name of a model or target as part of a file name, on any machine."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in text)[:80]


def beside(path: Path, kind: str) -> Path:
    """The file of a kind; a name such as ``model_v1.2`` keeps its dot."""
    return path.with_name(f"{path.name}.{kind}")


@contextmanager
def sheet(path: Path, height: float, *, width: float = WIDTH) -> Iterator[Figure]:
    """A figure to draw on, written as SVG and PNG at the end; matplotlib's settings are as before.

    Parameters
    ----------
    path : Path
        Of both files, without ``.svg`` and ``.png``.
    height, width : float
        Inches.

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
        raise InputError("figures need matplotlib: pip install 'unibiomed[train]'") from None
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    with style.context(["default", SETTINGS]):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        layout = figure.get_layout_engine()
        assert layout is not None
        for _ in range(2):
            # the second time round knows how much room square axes left
            layout.execute(figure)
        figure.set_layout_engine("none")
        for kind in KINDS:
            with replacing(beside(path, kind)) as fresh:
                # a date would make each file differ from the last
                figure.savefig(fresh, format=kind, metadata={"Date": None} if kind == "svg" else None)


def patches(looks: Iterable[Look]) -> list[Any]:
    """A patch a model, for `legend`."""
    from matplotlib.patches import Patch

    return [Patch(facecolor=k.color, hatch=k.hatch, edgecolor="white", linewidth=0, label=k.label) for k in looks]


def legend(figure: Figure, handles: Sequence[Any], title: str, note: str = "") -> None:
    """Title, legend and what has to be known, all outside of the axes."""
    if handles:
        # as the heading of the legend, so that the two never meet
        letters = max(len(handle.get_label()) for handle in handles) + 6
        figure.legend(
            handles=handles,
            loc="outside upper left",
            ncols=max(1, min(len(handles), int(figure.get_figwidth() * 18 / letters))),
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
        figure.supxlabel(textwrap.fill(note, width), x=0.01, ha="left", fontsize=6, color=SOFT)


def rows_of(items: Sequence[Any], most: int) -> list[list[Any]]:
    """Cut a list into rows of nearly one length, none longer than `most`."""
    if not items:
        return []
    number = -(-len(items) // max(1, most))
    size = -(-len(items) // number)
    return [list(items[first : first + size]) for first in range(0, len(items), size)]
