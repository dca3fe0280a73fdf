from __future__ import annotations

import copy
import re

import pytest

from unibiomed.evaluate.sample_scores import SampleScore
from unibiomed.evaluate.seed_aggregation import aggregate_seeds
from unibiomed.evaluate.summary import summarise
from unibiomed.evaluate.tables import Table, make_tables, format_estimate, write_tables
from unibiomed.evaluate.text_metrics import CHEST


def results(**more) -> dict:
    rows = []
    for i in range(3):
        row = SampleScore(f"set/{i}#segment/liver", "segment", "set", "CT", f"set/{i}", i, "liver", "own", target_present=True)
        row.intersection, row.predicted_area, row.true_area, row.predicted_present = 5 + i, 10, 10, True
        rows.append(row)
    rows.append(SampleScore("set/9#segment/liver", "segment", "set", "CT", "set/9", 9, "liver", "own", target_present=True))
    rows[-1].failure = "RuntimeError: 100 % of a_memory | gone"
    table = {"note": "", "floor": False, "unknown_predictions": ["set/x.json"], **summarise(rows)}
    return {"suite": "toy", "models": {"mine": table, "empty": table | {"floor": True}}, "comparisons": [], **more}


def by_name(found: dict) -> dict[str, Table]:
    return {sheet.name: sheet for sheet in make_tables(found)}


def test_cells():
    assert format_estimate({"value": 0.25, "low": 0.1, "high": 0.5}) == "0.250 (0.100–0.500)"
    assert format_estimate({"value": 0.25, "low": 0.1, "high": 0.5}, percent=True) == "25.0% (10.0–50.0)"
    assert format_estimate({"value": 0.25, "low": None, "high": None}) == "0.250"
    assert format_estimate({"value": None}) == format_estimate(None) == "–"
    nothing = {"value": 0.0, "low": 0.0, "high": 0.0}
    assert (format_estimate(nothing), format_estimate(nothing, percent=True, interval=False)) == ("0", "0%")
    assert format_estimate(nothing | {"high": 0.1}) == "0.000 (0.000–0.100)"


def test_failures_pull_the_mean_down_and_are_listed():
    sheets = by_name(results())
    row = sheets["segmentation"].rows[0]
    assert row[0] == "mine" and row[1].startswith("0.450 (")
    assert ["mine", "segment: RuntimeError: 100 % of a_memory | gone", "1"] in sheets["failures"].rows
    # nothing was scored of what nobody asked
    assert not any("x.json" in cell for row in sheets["failures"].rows for cell in row)
    assert sheets["unknown"].rows == [["mine", "1", "set/x.json"], ["empty", "1", "set/x.json"]]
    assert [row[0] for row in sheets["overview"].rows] == ["mine", "empty"]
    # nothing of tasks that nobody was asked
    assert not {"recognize", "ask", "describe", "pairs", "comparisons"} & sheets.keys()


def test_where_nothing_failed_it_says_so():
    found = results()
    for table in found["models"].values():
        table |= {"failures": {}, "unknown_predictions": []}
    assert by_name(found)["failures"].rows == [["(all)", "no failures", "0"]]


def test_signs_of_the_languages_are_escaped():
    sheet = by_name(results())["failures"]
    assert "a_memory \\| gone" in sheet.markdown()
    assert r"100 \% of a\_memory \textbar{} gone" in sheet.latex()
    assert sheet.latex().count("&") == (len(sheet.columns) - 1) * (1 + len(sheet.rows))


def test_no_cell_is_a_command_of_latex():
    cells = ["\\input /etc/passwd", "a\\\\b", "x^2~y", "{&%$#_}", "[1pt]", "*", "<p>", "two\nlines"]
    sheet = Table("s", "50 %\n\\input x", ("a",), [[cell] for cell in cells])
    lines = sheet.latex().splitlines()
    assert r"\caption{50 \% \textbackslash{}input x}" in lines
    body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert [line.removesuffix(r" \\") for line in body] == [
        r"\textbackslash{}input /etc/passwd",
        r"a\textbackslash{}\textbackslash{}b",
        r"x\textasciicircum{}2\textasciitilde{}y",
        r"\{\&\%\$\#\_\}",
        "{[}1pt]",
        "{*}",
        "$<$p$>$",
        "two lines",
    ]


@pytest.mark.parametrize(
    ("columns", "kind", "shrunk"), [(3, "table", False), (12, "table", True), (40, "sidewaystable", True)]
)
def test_a_table_of_latex_is_whole_and_fits_the_page(columns, kind, shrunk):
    rows = [[f"{i}_{j} 50%" for j in range(columns)] for i in range(3)]
    text = Table("a_b", "T & t", tuple("x" * 8 for _ in range(columns)), rows, "A note: 5 %.").latex()
    begun, ended = (re.findall(rf"\\{word}{{(\w+)}}", text) for word in ("begin", "end"))
    assert begun == [kind, "tabular"] and ended == begun[::-1]
    plain = text.replace(r"\{", "").replace(r"\}", "")
    assert plain.count("{") == plain.count("}")
    assert r"\caption{T \& t}" in text and r"\label{tab:a_b}" in text and r"\footnotesize A note: 5 \%.}" in text
    assert [text.count(rf"\{rule}rule") for rule in ("top", "mid", "bottom")] == [1, 1, 1] and "hline" not in text
    assert (r"\resizebox{\textwidth}{!}{%" in text) == shrunk
    assert text.count(r"\rotatebox{90}{xxxxxxxx}") == (columns - 1 if kind == "sidewaystable" else 0)
    assert text.count(r" \\" + "\n") == 4


def test_a_sentence_in_a_table_of_latex_is_broken_into_lines():
    text = Table("s", "t", ("model", "reason"), [["a", "word " * 30]]).latex()
    assert r"\begin{tabular}{lp{.35\textwidth}}" in text and "resizebox" not in text


def test_no_cell_breaks_a_table_of_markdown():
    cells = ["a|b", "a\\|b", "<img src=x>", "`code`", "two\r\nlines", "![x](http://y)", "p & q", "left\x00\x1bright"]
    sheet = Table("s", "t <b>", ("a|b",), [[cell] for cell in cells], "a note <i>")
    title, _, head, _, *lines, _, note = sheet.markdown().splitlines()
    assert (title, head, note) == ("### t &lt;b&gt;", "| a\\|b |", "a note &lt;i&gt;")
    assert [line[2:-2] for line in lines] == [
        "a\\|b",
        "a\\\\\\|b",
        "&lt;img src=x&gt;",
        "\\`code\\`",
        "two lines",
        "!\\[x](http://y)",
        "p &amp; q",
        "left right",
    ]


def test_runs_of_one_kind_of_training():
    table = results()["models"]["mine"]
    better = copy.deepcopy(table)
    better["segment"]["strict"]["dice"]["value"] = 0.65
    models = {"all#1": table, "all#2": better, "one#1": table, "other": table, "#1": table}
    found = aggregate_seeds(models)
    assert found["Dice"]["all"]["values"] == [pytest.approx(0.45), 0.65] and found["Dice"].keys() == {"all", "one"}
    assert found["Dice"]["one"]["sd"] is None and found.keys() == {"Dice"}
    sheet = by_name({"models": models, "runs": found})["runs"]
    assert sheet.columns == ("training", "runs", "Dice")
    assert sheet.rows == [["all", "2", "0.550 ± 0.141"], ["one", "1", "0.450"]]
    # single models are no runs
    assert aggregate_seeds({"all#1": table, "one#1": table, "other": table}) == {}


def test_comparisons():
    row = {"a": "x", "b": "y", "measure": "Dice", "count": 9, "difference": 0.1, "effect": None}
    row |= {"p_t": 0.00001, "p_wilcoxon": 0.02, "p_adjusted": 0.04}
    more = {"rank_biserial": 0.75, "p_wilcoxon_adjusted": 0.06, "effect": 1.5}
    sheet = by_name(results(comparisons=[row, row | more]))["comparisons"]
    assert sheet.rows == [
        ["x – y", "Dice", "9", "+0.100", "–", "<0.0001", "0.0400", "–", "0.0200", "–"],
        ["x – y", "Dice", "9", "+0.100", "1.50", "<0.0001", "0.0400", "0.75", "0.0200", "0.0600"],
    ]
    assert "means over subjects" in sheet.note


def test_the_overview_has_the_dice_of_what_is_there_and_that_with_the_absent():
    found = results()
    sheet = by_name(found)["overview"]
    assert sheet.columns[1:3] == ("Dice", "Dice, absent counted")
    strict = found["models"]["mine"]["segment"]["strict"]
    assert sheet.rows[0][1:3] == [format_estimate(strict["dice"]), format_estimate(strict["dice_with_absent"])]
    assert "show the target" in sheet.note


def test_segmentation_shows_overlap_false_parts_and_the_published_protocol():
    found = results()
    segmentation = found["models"]["mine"]["segment"]
    segmentation["strict"]["false_parts"] = {"value": 0.5, "low": 0.25, "high": 1.0}
    dice = {"value": 0.7, "low": None, "high": None}
    segmentation["published"] |= {"modalities": {"CT": {"dice": dice}}, "datasets": {}}
    del found["models"]["empty"]
    sheets = by_name(found)
    row = dict(zip(sheets["segmentation"].columns, sheets["segmentation"].rows[0], strict=True))
    assert row["IoU"] == format_estimate(segmentation["strict"]["iou"]) and row["false parts an image"] == "0.50 (0.25–1.00)"
    assert sheets["segmentation_modalities_published"].rows == [["CT", "0.700"]]
    assert "300" in sheets["segmentation_modalities_published"].note
    assert "The published" not in sheets["segmentation_modalities"].note
    assert "segmentation_datasets_published" not in sheets


def test_a_published_table_that_repeats_the_strict_one_is_left_out():
    sheets = by_name(results())
    assert "The published protocol gives the same numbers." in sheets["segmentation_targets"].note
    assert "segmentation_targets_published" not in sheets


def test_a_number_without_an_interval_is_explained():
    found = results()
    assert "single subject" not in by_name(found)["segmentation_targets"].note
    found["models"]["mine"]["segment"]["strict"]["targets"]["liver"]["dice"] |= {"low": None, "high": None}
    for name in ("segmentation_targets", "targets_mine"):
        assert "No interval where there is a single subject." in by_name(found)[name].note


def test_the_surface_dice_of_a_target_says_within_what():
    found = results()
    targets = found["models"]["mine"]["segment"]["strict"]["targets"]
    mean = {"value": 3.0, "low": None, "high": None, "count": 4}
    targets |= {
        "in mm": targets["liver"] | {"hd95_mm": mean},
        "in both": targets["liver"] | {"hd95_mm": mean | {"count": 3}},
    }
    sheet = by_name(found)["targets_mine"]
    within = {row[0]: row[sheet.columns.index("within")] for row in sheet.rows}
    assert within == {"liver": "2 pixels", "in mm": "2 mm", "in both": "2 mm or 2 pixels"}


def test_the_chest_findings_of_reports_are_explained():
    part = {"BLEU-1": 0.5, CHEST: 0.25, "count": 9}
    sheets = by_name(
        {"models": {"mine": {"floor": False, "failures": {}, "report": {"strict": part, "published": part}}}}
    )
    assert "X-ray images whose reference tells any" in sheets["report"].note


def test_the_hd95_of_a_target_is_in_mm_or_in_pixels():
    rows = []
    for i, (measured, hd95) in enumerate([(True, 3.0), (False, 8.0), (False, 9.0), (False, None)]):
        row = SampleScore(f"set/{i}#segment/liver", "segment", "set", "CT", f"set/{i}", i, "liver", "own", target_present=True)
        row.intersection, row.predicted_area, row.true_area, row.spacing_known, row.hd95 = 5, 10, 10, measured, hd95
        rows.append(row)
    sheet = by_name({"models": {"m": {"floor": False, **summarise(rows)}}})["targets_m"]
    row = dict(zip(sheet.columns, sheet.rows[0], strict=True))
    assert (row["HD95 (mm)"], row["HD95 (pixels)"]) == ("3.0", "8.5, 1 of 3 unmeasured")
    assert row["within"] == "2 mm or 2 pixels"
    assert "the diagonal of the image" in sheet.note


def test_changed_images_have_the_scores_of_masks_and_of_words():
    def level(**more: float) -> dict:
        return {key: {"value": value, "low": 0.0, "high": 1.0, "count": 4} for key, value in more.items()}

    levels = {str(n): level(dice=0.9 - n / 10, false_masks=n / 10, accuracy=0.5) for n in range(6)}
    flip = {str(n): level(accuracy=0.25) | {"dice": {"value": None, "count": 0}} for n in range(2)}
    models = {"m": {"floor": False, "failures": {}, "robustness": {"blur": levels, "flip": flip}}}
    assert by_name({"models": models})["robustness"].rows == [
        ["m", "blur", "Dice", "4", "0.900", "0.800", "0.700", "0.600", "0.500", "0.400"],
        ["m", "blur", "false masks", "4", "0.0%", "10.0%", "20.0%", "30.0%", "40.0%", "50.0%"],
        ["m", "blur", "recognition", "4", *["50.0%"] * 6],
        ["m", "flip", "recognition", "4", "25.0%", "25.0%", "–", "–", "–", "–"],
    ]


def test_floors_are_in_the_tables_of_single_models():
    found = results()
    found["models"]["empty"] = copy.deepcopy(found["models"]["empty"])
    for table in found["models"].values():
        table["segment"]["strict"]["objects"] = {
            "cell nucleus": {name: {"value": 0.5 + i / 10} for i, name in enumerate(("aji", "pq", "sq", "rq"))}
        }
    found["models"]["empty"]["segment"]["scores"] = {
        "presence": {"auroc": {"value": 0.5}, "calibration_error": {"value": 0.2}, "count": 4}
    }
    mine = {
        "presence_own": {"auroc": {"value": 0.875}, "calibration_error": None},
        "mask": {"calibration_error": {"value": 0.1, "low": 0.05, "high": 0.15}},
        "risk": {"aurc": {"value": 0.3}},
    }
    found["models"]["mine"]["segment"]["scores"] = mine
    sheets = by_name(found)
    assert sheets["targets_empty"].rows == sheets["targets_mine"].rows
    assert sheets["objects_empty"].rows == [["cell nucleus", "0.500", "0.600", "0.700", "0.800"]]
    assert sheets["scores_mine"].rows == [["mine", "–", "–", "0.875", "–", "0.100 (0.050–0.150)", "0.300"]]
    assert sheets["scores_empty"].rows == [["empty", "0.500", "0.200", "–", "–", "–", "–"]]
    assert {name for name, sheet in sheets.items() if sheet.is_baseline} == {"targets_empty", "scores_empty", "objects_empty"}


def recognised(said: str) -> dict:
    rows = []
    for i, wanted in enumerate(("Polyp", "Polyp", "Glioma")):
        row = SampleScore(f"set/{i}#recognize", "recognize", "set", "CT", f"set/{i}", i, true_labels=[wanted], predicted_labels=[said])
        row.target_present, row.predicted_present, row.exact_match, row.substring_match = True, True, wanted == said, wanted == said
        rows.append(row)
    return summarise(rows)


def test_recognition_has_the_presence_and_the_dice_with_the_right_label_and_f1_of_the_floors():
    models = {"mine": {"floor": False, **recognised("Polyp")}, "commonest": {"floor": True, **recognised("Glioma")}}
    models["mine"]["recognize"]["strict"] |= {"presence_auroc": {"value": 0.75}, "dice_labelled": {"value": 0.25}}
    sheets = by_name({"models": models})
    row = dict(zip(sheets["recognize"].columns, sheets["recognize"].rows[0], strict=True))
    assert (row["presence AUROC"], row["Dice, label right"]) == ("0.750", "0.250")
    # why the laxer accuracy may be the lower one
    assert "normal ones are left out" in sheets["recognize"].note
    assert sheets["recognize_labels_mine"].columns[-2:] == ("F1", "F1, commonest")
    assert sheets["recognize_labels_mine"].rows == [
        ["Glioma", "1", "0.0%", "0.0%", "0.0%", "50.0%"],
        ["Polyp", "2", "66.7% (0.0–100.0)", "100.0% (15.8–100.0)", "80.0% (0.0–100.0)", "0.0%"],
    ]
    assert "recognize_labels_commonest" not in sheets


def test_boxes_around_something_else_have_columns_of_their_own():
    shares = {"elsewhere": 0.5, "named_called_elsewhere": 0.25, "accuracy_with_elsewhere": 0.75}
    new, old = recognised("Polyp")["recognize"], recognised("Polyp")["recognize"]
    new["strict"] |= {name: {"value": value} for name, value in shares.items()}
    models = {name: {"floor": False, "failures": {}, "classify": table} for name, table in (("new", new), ("old", old))}
    sheet = by_name({"models": models})["classify"]
    assert sheet.columns[-3:] == (
        "boxes around something else",
        "named boxes called something else",
        "accuracy of all boxes",
    )
    assert {row[0]: row[-3:] for row in sheet.rows} == {"new": ["50.0%", "25.0%", "75.0%"], "old": ["–", "–", "–"]}
    assert by_name({"models": {"old": models["old"]}})["classify"].columns == sheet.columns[:-3]


def test_answers_to_every_label_are_counted():
    counts = {"Cyst": {"Polyp": 2}, "Glioma": {"(failure)": 1, "Glioma": 3}, "Polyp": {"(other)": 1, "Polyp": 12}}
    strict = recognised("Polyp")["recognize"]["strict"] | {"confusion": counts}
    model = {task: {"strict": strict, "published": {}} for task in ("recognize", "classify")}
    sheets = by_name({"models": {"a b": {"floor": False, "failures": {}, **model}}})
    for task in ("recognize", "classify"):
        sheet = sheets[f"{task}_confusion_a_b"]
        # nobody was told of a cyst
        assert sheet.columns == ("label", "Glioma", "Polyp", "(other)", "(failure)")
        assert sheet.note.startswith("Boxes" if task == "classify" else "Images")
        assert sheet.rows == [["Cyst", "", "2", "", ""], ["Glioma", "3", "", "", "1"], ["Polyp", "", "12", "1", ""]]
        assert "(other):" in sheet.note and "(failure):" in sheet.note and "(rarer labels)" not in sheet.note


def test_a_table_of_answers_is_no_wider_than_can_be_read():
    counts = {f"label {n:02d}": {"label 00": 1, f"label {n:02d}": 2} for n in range(1, 50)}
    mine, floor = recognised("Polyp"), recognised("Glioma")
    strict = mine["recognize"]["strict"]
    strict["confusion"] = {"label 00": {"label 00": 9}} | counts
    models = {"m": {"floor": False, **mine}, "f": {"floor": True, **floor}}
    sheets = by_name({"models": models})
    sheet = sheets["recognize_confusion_m"]
    assert len(sheet.rows) == len(sheet.columns) - 1 == 49 and sheet.columns[-1] == "(rarer labels)"
    assert sheet.rows[-1] == ["(rarer labels)", "2", *[""] * 47, "4"] and "(rarer labels):" in sheet.note
    # floors have none, nor have results of before
    assert "recognize_confusion_f" not in sheets
    del strict["confusion"]
    assert "recognize_confusion_m" not in by_name({"models": models})


def test_reports_show_their_dice_their_intervals_and_the_published_scores():
    strict = {"BLEU-1": 0.5, "CIDEr": 1.25, "count": 9, "dice": {"value": 0.75, "low": 0.5, "high": 1.0}}
    strict["intervals"] = {"BLEU-1": {"low": 0.4, "high": 0.6}}
    table = {"floor": False, "failures": {}, "report": {"strict": strict, "published": {"BLEU-1": 0.25, "count": 3}}}
    sheets = by_name({"models": {"mine": table}})
    assert sheets["report"].columns == ("model", "BLEU-1", "CIDEr", "Dice")
    assert sheets["report"].rows == [["mine", "50.0 (40.0–60.0)", "125.0", "0.750 (0.500–1.000)"]]
    assert "CIDEr have none" in sheets["report"].note
    assert sheets["report_published"].rows == [["mine", "25.0"]]


def test_what_is_missing_is_among_the_failures():
    missing = {"missing_datasets": [["kits", "no folder"]], "unreadable": [["set/7", "no | PNG"]], "notes": ["a note"]}
    sheet = by_name(results(**missing))["failures"]
    assert sheet.rows[-3:] == [
        ["(data)", "data set kits: no folder", "–"],
        ["(data)", "image set/7: no | PNG", "–"],
        ["(note)", "a note", "–"],
    ]
    assert sheet.note and not by_name(results())["failures"].note


def test_files(tmp_path):
    write_tables(results(), tmp_path / "tables")
    whole = (tmp_path / "tables" / "tables.md").read_text()
    for sheet in make_tables(results()):
        assert sheet.markdown() in whole
        assert (tmp_path / "tables" / f"{sheet.name}.tex").read_text() == sheet.latex()


def test_tables_of_an_earlier_run_go_and_other_files_stay(tmp_path):
    folder = tmp_path / "tables"
    write_tables(results(), folder)
    (folder / "mine.md").write_text("a user's")
    found = results()
    del found["models"]["empty"]
    write_tables(found, folder)
    there = {path.name for path in folder.iterdir()}
    assert "targets_mine.md" in there and "mine.md" in there and not {"targets_empty.md", "targets_empty.tex"} & there


def test_distances_say_how_many_could_not_be_measured():
    found = results()
    target = found["models"]["mine"]["segment"]["strict"]["targets"]["liver"]
    target["hd95_mm"] = {"value": 4.0, "count": 3, "unmeasured": 1}
    assert by_name(found)["targets_mine"].rows[0][6] == "4.0, 1 of 4 unmeasured"
    target["hd95_mm"]["unmeasured"] = 0
    assert by_name(found)["targets_mine"].rows[0][6] == "4.0"
