"""Figures: plotted values match the results, and the files are valid."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from scipy.stats import ttest_rel

from unibiomed.errors import InputError
from unibiomed.evaluate.confusion import merge_rare_labels
from unibiomed.evaluate.figures import draw_ablation, draw_figures
from unibiomed.evaluate.figures.bars import plot_ablation, plot_bars
from unibiomed.evaluate.figures.boxes import box_statistics, plot_boxes, plot_pooled
from unibiomed.evaluate.figures.confusion import confusion_size, plot_confusion
from unibiomed.evaluate.figures.data import (
    FigureData,
    MaskScore,
    SampleSize,
    modality_tests,
    p_values,
    read_figure_data,
    sample_sizes,
    stars,
)
from unibiomed.evaluate.figures.radar import plot_radar, select_spokes
from unibiomed.evaluate.figures.scores import plot_perturbations, plot_scores
from unibiomed.evaluate.figures.style import SETTINGS, file_name, make_styles, max_labels_per_row, split_into_rows
from unibiomed.evaluate.sample_scores import SampleScore, SampleScoreWriter
from unibiomed.evaluate.summary import summarise
from unibiomed.evaluate.trust import robustness_table
from unibiomed.metrics.intervals import proportion_estimate

TARGETS = {
    "liver": ("abdomen", "CT"),
    "kidney": ("abdomen", "CT"),
    "polyp": ("colon", "endoscopy"),
    "cup": ("eye", "fundus"),
}
MODELS = {"first_v1.2": (0.9, False), "costs $5 and $6": (0.6, False), "mean-shape": (0.3, True)}
STYLES = make_styles({name: {"baseline": baseline} for name, (_, baseline) in MODELS.items()})


def segment(target: str, number: int, dice: float, **more: Any) -> SampleScore:
    dataset, modality = TARGETS[target]
    true = 1000 if more.get("target_present", True) else 0
    counts = {
        "target_present": True,
        "predicted_present": True,
        "intersection": round(dice * true),
        "predicted_area": true,
        "true_area": true,
    }
    name = f"{dataset}/{number:02d}"
    counts["surface_dice"] = dice
    return SampleScore(
        f"{name}#segment/{target}", "segment", dataset, modality, name, number, target, "in_context", **counts | more
    )


def model_rows(quality: float, baseline: bool) -> Iterator[SampleScore]:
    rng = np.random.default_rng(round(10 * quality))
    for target, (dataset, modality) in TARGETS.items():
        for n in range(8):
            dice = float(np.clip(quality + rng.normal(0, 0.05), 0, 1))
            scores = {} if baseline else {"presence": 0.9, "mask_score": dice}
            row = segment(target, n, dice, **scores)
            yield row
            if n < 2:
                for perturbation in ("blur", "noise"):
                    for strength in (1, 3, 5):
                        more = {"perturbation": perturbation, "strength": strength}
                        changed = segment(target, n, dice * (1 - strength / 10), **more)
                        changed.id = f"{row.id}@{perturbation}{strength}"
                        yield changed
            for task in ("recognize", "classify"):
                said = target if n % 3 else "No findings"
                yield SampleScore(
                    f"{row.dataset}/{n:02d}#{task}/{target}",
                    task,
                    dataset,
                    modality,
                    row.subject,
                    n,
                    target_present=True,
                    predicted_present=True,
                    true_labels=[target],
                    predicted_labels=[said],
                    exact_match=said == target,
                    substring_match=said == target,
                )
        if not baseline:
            yield segment(target, 9, 0.0, target_present=False, predicted_present=False, presence=0.1)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, FigureData]]:
    folder = tmp_path_factory.mktemp("scores")
    results: dict[str, Any] = {"suite": "made-up", "models": {}}
    data = {}
    for i, (name, (quality, baseline)) in enumerate(MODELS.items()):
        rows = list(model_rows(quality, baseline))
        with SampleScoreWriter(folder / f"{i}.jsonl") as writer:
            for row in rows:
                writer.add(row)
        data[name] = read_figure_data(folder / f"{i}.jsonl")
        results["models"][name] = {"baseline": baseline, **summarise(rows), "robustness": robustness_table(rows)}
    return results, data


def test_figures_are_valid_png_and_svg(evaluated: tuple[dict[str, Any], dict[str, FigureData]], tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    paths = draw_figures(*evaluated, tmp_path / "figures", external={"eye"})
    assert dict(matplotlib.rcParams) == before
    expected = ["dice_by_modality", "radar_dice_targets", "radar_dice_datasets", "radar_recognition"]
    expected += ["radar_classification", "boxes", "boxes_by_dataset", "scores", "robustness"]
    expected += [f"confusion_{task}_first_v1.2" for task in ("recognize", "classify")]
    expected += [f"confusion_{task}_costs__5_and__6" for task in ("recognize", "classify")]
    assert [path.name for path in paths] == [f"{name}.{kind}" for name in expected for kind in ("svg", "png")]
    there = (path.name for path in (tmp_path / "figures").iterdir() if not path.name.startswith("."))
    assert sorted(there) == sorted(path.name for path in paths)
    for path in paths:
        if path.suffix == ".png":
            pixels = np.asarray(Image.open(path).convert("RGB"))
            assert pixels.shape[1] >= 800
            assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
        else:
            assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_figures_with_dice_state_their_images(
    evaluated: tuple[dict[str, Any], dict[str, FigureData]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SETTINGS, "svg.fonttype", "none")
    monkeypatch.setattr("unibiomed.evaluate.figures.style.FORMATS", ("svg",))
    draw_figures(*evaluated, tmp_path)
    names = ["dice_by_modality", "radar_dice_targets", "radar_dice_datasets", "boxes", "boxes_by_dataset", "scores"]
    texts = {name: " ".join((tmp_path / f"{name}.svg").read_text().split()) for name in [*names, "robustness"]}
    assert all("that show the target" in text for text in texts.values())
    # tests use subjects, bars are means over targets
    assert "t-test of the means of subjects" in texts["dice_by_modality"]
    assert "true label (boxes)" in (tmp_path / "confusion_classify_first_v1.2.svg").read_text()
    # figures of an earlier run are removed
    draw_figures({"models": {}}, {}, tmp_path)
    assert not list(tmp_path.glob("*.svg"))


def test_without_results_there_are_no_figures(tmp_path: Path) -> None:
    assert draw_figures({"models": {}}, {}, tmp_path / "figures") == []
    only_text = {"models": {"m": {"baseline": False, "samples": 2, "failures": {}, "describe": {"strict": {}}}}}
    assert draw_figures(only_text, {}, tmp_path / "figures") == []


def test_seeds_are_drawn_if_there_are_several(tmp_path: Path) -> None:
    table = {
        "all tasks": {"mean": 0.6, "sd": 0.1, "values": [0.5, 0.7]},
        "one": {"mean": 0.4, "sd": None, "values": [0.4]},
    }
    paths = draw_figures({"models": {}, "runs": {"recognition accuracy": table}}, {}, tmp_path / "figures")
    assert [path.name for path in paths] == ["runs_recognition_accuracy.svg", "runs_recognition_accuracy.png"]
    assert all(path.is_file() for path in paths)


def test_missing_matplotlib_gives_a_one_line_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"pip install 'unibiomed\[train\]'"):
        draw_ablation({"a": [0.5]}, tmp_path / "a.png")


def test_models_come_before_grey_baselines() -> None:
    styles = make_styles({"baseline": {"baseline": True}, **{str(i): {"baseline": False} for i in range(9)}})
    assert list(styles)[-1] == "baseline"
    assert float(styles["baseline"].color) < 1
    assert len({(style.color, style.hatch) for style in styles.values()}) == 10
    assert all(style.color.startswith("#") for name, style in styles.items() if name != "baseline")


def test_bars_and_whiskers_show_values_and_intervals() -> None:
    figure = Figure()
    values: dict[tuple[str, str], Mapping[str, Any]] = {
        ("first_v1.2", "CT"): {"value": 0.8, "low": 0.7, "high": 0.85},
        ("first_v1.2", "PET"): {"value": 0.5, "low": None, "high": None},
        ("mean-shape", "CT"): {"value": 0.2, "low": 0.1, "high": 0.3},
        ("mean-shape", "PET"): {"value": None, "low": None, "high": None},
    }
    signs = {("mean-shape", "CT"): "***"}
    plot_bars(figure, STYLES, ["CT", "PET"], values, signs, {"CT": "12 masks"}, title="t", label="Dice")
    (axes,) = figure.axes
    assert [bar.get_height() for bar in axes.patches] == [0.8, 0.5, 0.2]
    assert [list(line.get_ydata()) for line in axes.lines] == [[0.7, 0.85], [0.5, 0.5], [0.1, 0.3]]
    first, _, last = axes.patches
    assert first.get_x() < 0 < last.get_x()
    (star,) = axes.texts
    assert star.get_text() == "***"
    assert star.get_position()[0] == pytest.approx(last.get_x() + last.get_width() / 2)
    assert star.get_position()[1] > 0.3
    assert [label.get_text() for label in axes.get_xticklabels()] == ["CT\n12 masks", "PET"]
    assert axes.get_ylim()[0] == 0


def test_bar_of_zero_is_a_line_without_stars() -> None:
    figure = Figure()
    values: dict[tuple[str, str], Mapping[str, Any]] = {("mean-shape", "CT"): {"value": 0.0, "low": 0.0, "high": 0.0}}
    plot_bars(figure, STYLES, ["CT"], values, {("mean-shape", "CT"): "***"}, {}, title="t", label="Dice")
    (axes,) = figure.axes
    assert not axes.texts
    line = axes.lines[0]
    assert list(line.get_ydata()) == [0, 0] and line.get_linewidth() > 1 and np.ptp(line.get_xdata()) > 0.1


def test_labels_are_not_broken_within_words() -> None:
    assert max_labels_per_row(["ct_abdomen", "covid_cxr_multistructure"]) == 8
    assert max_labels_per_row(["x" * 300]) == 2 and max_labels_per_row([]) > 40
    groups = ["covid_cxr_multistructure"] * 2 + [f"set {i}" for i in range(18)]
    figure = Figure()
    plot_bars(figure, STYLES, groups, {}, {}, {}, title="t", label="Dice")
    assert "\nmultistructure" in figure.axes[0].get_xticklabels()[0].get_text()


def test_many_groups_use_several_rows() -> None:
    assert split_into_rows(list("abcdefg"), 3) == [["a", "b", "c"], ["d", "e", "f"], ["g"]]
    assert split_into_rows([], 3) == []
    figure = Figure()
    groups = [f"group {i}" for i in range(40)]
    values = {("first_v1.2", group): {"value": i / 40, "low": None, "high": None} for i, group in enumerate(groups)}
    plot_bars(figure, STYLES, groups, values, {}, {}, title="t", label="Dice")
    assert len(figure.axes) == 3
    heights = [bar.get_height() for axes in figure.axes for bar in axes.patches]
    assert heights == pytest.approx([i / 40 for i in range(40)])


def scored(values: list[float], modality: str, each: int = 1) -> list[MaskScore]:
    return [MaskScore("set", modality, f"s{i // each}", v) for i, v in enumerate(values)]


def test_p_values_are_paired_by_subject_with_holm_correction() -> None:
    rng = np.random.default_rng(0)
    a, b, c = (rng.uniform(0, 1, 24) for _ in range(3))
    b = a - 0.1 + rng.normal(0, 0.05, 24)
    answers = {
        "a": FigureData(scored([*a], "CT", 2) + scored([*a], "MRI") + scored([0.1] * 4, "PET")),
        "b": FigureData(scored([*b], "CT", 2) + scored([*b], "MRI") + scored([0.2] * 4, "PET")),
        "c": FigureData(scored([*c], "CT", 2)),
    }
    found = p_values(answers, lambda one: one.modality)
    raw = {
        ("b", "CT"): ttest_rel(a.reshape(-1, 2).mean(1), b.reshape(-1, 2).mean(1)).pvalue,
        ("b", "MRI"): ttest_rel(a, b).pvalue,
        ("c", "CT"): ttest_rel(a.reshape(-1, 2).mean(1), c.reshape(-1, 2).mean(1)).pvalue,
    }
    # PET has too few subjects for a test
    assert found.keys() == raw.keys()
    highest = 0.0
    for n, (key, p) in enumerate(sorted(raw.items(), key=lambda item: item[1])):
        highest = max(highest, min(1.0, p * (3 - n)))
        assert found[key] == pytest.approx(highest)


def test_image_with_two_targets_has_two_masks() -> None:
    found = [MaskScore("a", "CT", "p1", 0.5, 0), MaskScore("a", "CT", "p1", 0.5, 0), MaskScore("a", "CT", "p1", 0.5, 1)]
    few = [MaskScore("b", "CT", "p2", 0.5, 0), MaskScore("b", "PET", "p2", 0.5, 1)]
    counted = sample_sizes({"a": FigureData([*found, *few]), "b": FigureData(few)}, lambda one: one.modality)
    assert counted == {"CT": SampleSize(4, 3, 2), "PET": SampleSize(1, 1, 1)}
    assert counted["CT"].describe() == "4 masks\n3 images\n2 subjects"
    assert SampleSize(1234, 1, 1).describe(", ") == "1,234 masks, 1 image, 1 subject"


@pytest.mark.parametrize(
    ("p", "sign"), [(None, ""), (0.05, ""), (0.049, "*"), (0.01, "*"), (0.009, "**"), (0.0009, "***")]
)
def test_stars(p: float | None, sign: str) -> None:
    assert stars(p) == sign


def test_modality_tests_match_the_stars(tmp_path: Path) -> None:
    paths = {}
    for name, bonus in (("a", 0.2), ("b", 0.0)):
        paths[name] = tmp_path / f"{name}.jsonl"
        with SampleScoreWriter(paths[name]) as writer:
            for number in range(8):
                writer.add(segment("liver", number, 0.5 + bonus * (number % 3)))
    answers = {name: read_figure_data(path) for name, path in paths.items()}
    (found,) = modality_tests(answers)
    ((key, p),) = p_values(answers, lambda one: one.modality).items()
    assert found == {"a": "a", "b": "b", "modality": key[1], "p_adjusted": p}


def test_legend_marks_predictors_with_true_box() -> None:
    styles = make_styles({"a model of a very long name indeed (box)": {}, "sam (box)": {}})
    assert [style.label[-6:] for style in styles.values()] == [" (box)"] * 2
    assert max(len(style.label) for style in styles.values()) <= 28


def test_predictors_with_true_box_have_no_risk_curve(tmp_path: Path) -> None:
    with SampleScoreWriter(tmp_path / "rows.jsonl") as writer:
        writer.add(segment("liver", 0, 1.0, mask_score=0.9, true_box=True))
        writer.add(segment("liver", 1, 0.0, target_present=False, predicted_present=False, true_box=True))
    data = read_figure_data(tmp_path / "rows.jsonl")
    assert data.risk == [] and data.overlap == [(0.9, 1.0, "abdomen/00")]


def test_radar_lines_are_closed_with_gaps_at_missing_values() -> None:
    figure = Figure()
    values: dict[tuple[str, str], float | None] = {
        ("first_v1.2", n): v for n, v in zip("abc", (0.1, 0.5, 0.9), strict=True)
    }
    values |= {("mean-shape", "a"): 0.2, ("mean-shape", "b"): None}
    plot_radar(figure, STYLES, {"a": 5, "b": 6, "c": 1700}, values, title="t")
    (axes,) = figure.axes
    first, second = axes.lines
    assert list(first.get_ydata()) == [0.1, 0.5, 0.9, 0.1]
    np.testing.assert_array_equal(second.get_ydata(), [0.2, np.nan, np.nan, 0.2])
    assert axes.get_ylim() == (0, 1)
    assert {"a (5)", "b (6)", "c (1,700)"} <= {text.get_text() for text in axes.texts}


def test_spokes_are_sorted_by_the_first_model_and_have_enough_values() -> None:
    def cell(value: float | None, count: int = 5) -> dict[str, Any]:
        return {"value": value, "count": count}

    cells = {("m", "a"): cell(0.2), ("m", "b"): cell(0.9, 7), ("m", "c"): cell(0.5), ("m", "rare"): cell(1.0, 4)}
    cells |= {("other", "d"): cell(0.9), ("other", "a"): cell(0.9), ("m", "none"): cell(None, 0)}
    shown, rare = select_spokes(cells, "m")
    assert list(shown.items()) == [("b", 7), ("c", 5), ("a", 5), ("d", 5)]
    assert rare == ["rare"]


def test_baseline_lines_have_enough_contrast() -> None:
    styles = make_styles({str(i): {"baseline": True} for i in range(4)} | {"m": {"baseline": False}})
    assert all(float(style.line_color) <= 0.56 for style in styles.values() if style.baseline)
    assert styles["m"].line_color == styles["m"].color


def test_boxes_show_quartiles_and_external_data_sets_come_last() -> None:
    assert box_statistics(np.linspace(0, 1, 101).tolist()) == pytest.approx(
        {"whislo": 0.05, "q1": 0.25, "med": 0.5, "q3": 0.75, "whishi": 0.95, "mean": 0.5}
    )
    figure = Figure()
    values = {("first_v1.2", "abroad"): [0.2, 0.3, 0.4], ("first_v1.2", "home"): [0.7, 0.8, 0.9]}
    styles = {"first_v1.2": STYLES["first_v1.2"]}
    counts = {"abroad": SampleSize(3, 2, 1), "home": SampleSize(3, 3, 3)}
    plot_boxes(figure, styles, ["abroad", "home"], values, {"abroad"}, counts, title="t", note="n")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "home\n3 masks\n3 images\n3 subjects",
        "abroad\n3 masks\n2 images\n1 subject\nexternal",
    ]
    medians = [line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_color() == "white"]
    assert [line.get_ydata()[0] for line in medians] == pytest.approx([0.8, 0.3])
    assert [line.get_xdata().mean() for line in medians] == pytest.approx([0, 1])


def test_pooled_boxes_have_the_names_of_models() -> None:
    figure = Figure()
    sides = {"Internal": {name: [0.2, 0.4] for name in STYLES}, "External": {name: [0.1] for name in STYLES}}
    counts = {"Internal": SampleSize(2, 2, 1), "External": SampleSize(1, 1, 1)}
    plot_pooled(figure, STYLES, sides, {}, counts, title="t", note="n")
    inside, outside = figure.axes
    names = [" ".join(label.get_text().split()) for label in outside.get_xticklabels()]
    assert names == [style.label for style in STYLES.values()]
    assert inside.get_title() == "Internal data sets: 2 masks, 2 images, 1 subject"


def test_reliability_diagram_and_risk_curve(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with SampleScoreWriter(path) as writer:
        writer.add(segment("liver", 0, 1.0, presence=0.95, mask_score=0.9))
        writer.add(segment("liver", 1, 0.5, presence=0.9, mask_score=0.8))
        writer.add(segment("liver", 2, 0.0, target_present=False, predicted_present=False, presence=0.05))
        writer.add(
            segment("liver", 3, 0.0, failure="no answer", intersection=None, predicted_area=None, true_area=None)
        )
        writer.add(segment("liver", 4, 1.0, presence=0.99, mask_score=0.99, perturbation="blur", strength=2))
        writer.add(segment("liver", 5, 1.0, presence=0.99, mask_score=0.99, paraphrase=1))
    data = read_figure_data(path)
    # the failure counts as confidently wrong
    assert [item[:2] for item in data.presence] == [(0.95, 1), (0.9, 1), (0.05, 0), (0.0, 1)]
    assert [item[:2] for item in data.overlap] == [(0.9, 1.0), (0.8, pytest.approx(1 / 3))]
    assert [item[:2] for item in data.risk] == [
        (pytest.approx(0.855), 0.0),
        (pytest.approx(0.72), 0.5),
        (0.95, 0.0),
        (-1.0, 1.0),
    ]
    assert [item[2] for item in data.risk] == [f"abdomen/{number:02d}" for number in range(4)]
    assert [mask.dice for mask in data.masks] == [1.0, 0.5, 0.0]
    figure = Figure()
    plot_scores(figure, STYLES, {"first_v1.2": data})
    presence, mask, risk = figure.axes
    assert list(presence.lines[1].get_xdata()) == pytest.approx([0.025, 0.925])
    assert list(presence.lines[1].get_ydata()) == [0.5, 1.0]
    assert list(mask.lines[1].get_ydata()) == pytest.approx([1 / 3, 1.0])
    assert list(risk.lines[0].get_ydata()) == pytest.approx([0, 0, 0.5 / 3, 1.5 / 4])
    assert presence.get_legend_handles_labels()[1] == ["first v1.2: 0.275"]
    # intervals by subject: one of two subjects, and two of two
    estimates = [proportion_estimate(values, ["a", "b"]) for values in ([False, True], [True, True])]
    ends = [segment[:, 1] for segment in presence.collections[0].get_segments()]
    np.testing.assert_allclose(ends, [(one.low, one.high) for one in estimates])
    assert [(text.get_text(), text.get_position()[0]) for text in presence.texts] == [
        ("2", pytest.approx(0.05)),
        ("2", pytest.approx(0.95)),
    ]


def test_robustness_has_a_panel_per_model_and_a_line_per_perturbation() -> None:
    def level(value: float | None) -> dict[str, Any]:
        return {"dice": {"value": value}}

    tables = {
        "first_v1.2": {"blur": {"0": level(0.9), "1": level(0.8), "2": level(None)}, "flip": {"0": level(0.9)}},
        "costs $5 and $6": {"blur": {"0": level(0.5), "1": level(0.4)}},
    }
    figure = Figure()
    plot_perturbations(figure, STYLES, tables)
    left, right = figure.axes
    assert left.get_title(loc="center") + left.get_title(loc="left") == "first v1.2"
    assert [(line.get_label(), list(line.get_ydata())) for line in left.lines] == [
        ("blur", [0.9, 0.8]),
        ("flip", [0.9]),
    ]
    assert list(right.lines[0].get_xdata()) == [0, 1]
    assert right.lines[0].get_color() == left.lines[0].get_color()


def test_confusion_matrix_shows_percent_of_rows() -> None:
    counts = {"Liver tumor": {"(other)": 1, "Liver tumor": 1}, "No findings": {"(failure)": 3, "Liver tumor": 1}}
    figure = Figure()
    plot_confusion(figure, *merge_rare_labels(counts), title="t")
    shown = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(shown, [[50, 0, 50, 0], [25, 0, 0, 75]])
    assert [text.get_text() for text in figure.axes[0].texts] == ["50", "50", "25", "75"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["Liver tumor (2)", "No findings (4)"]
    columns = ["Liver tumor", "No findings", "(other)", "(failure)"]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == columns
    assert figure.axes[0].get_ylabel() == "true label (images)"


def test_long_labels_fit_into_the_confusion_matrix() -> None:
    name = "Consolidation + Ground-glass opacity of the lung"
    figure = Figure()
    plot_confusion(figure, *merge_rare_labels({name: {name: 3}, "a": {"a": 1}}), title="t", unit="boxes")
    label = figure.axes[0].get_yticklabels()[1].get_text()
    assert " ".join(label.split()) == f"{name} (3)" and "\n" in label
    (low, narrow), (high, wide) = confusion_size(["a"], ["b"]), confusion_size([name] * 9, [name] * 9)
    assert high > low + 2 and wide > narrow + 2


def test_ablation_shows_mean_sd_and_every_seed(tmp_path: Path) -> None:
    values = {"without": [0.5, 0.6, 0.7], "with": [0.8]}
    figure = Figure()
    plot_ablation(figure, values, "Dice")
    (axes,) = figure.axes
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([0.6, 0.8])
    points = [list(line.get_ydata()) for line in axes.lines if line.get_marker() == "o"]
    assert points == [[0.5, 0.6, 0.7], [0.8]]
    assert [text.get_text() for text in axes.texts] == ["0.600\n± 0.100", "0.800"]
    first = draw_ablation(values, tmp_path / "one" / "ablation.png")
    assert [path.name for path in first] == ["ablation.svg", "ablation.png"]
    # files are reproducible
    second = draw_ablation(values, tmp_path / "two" / "ablation")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


@pytest.mark.parametrize("values", [{}, {"a": []}, {"a": [1.5]}, {"a": [float("nan")]}])
def test_empty_ablation_is_refused(values: dict[str, list[float]], tmp_path: Path) -> None:
    with pytest.raises(InputError):
        draw_ablation(values, tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_file_names_are_portable() -> None:
    assert file_name("org/model v1.2: é") == "org_model_v1.2__é"
