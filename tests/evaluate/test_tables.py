from __future__ import annotations

import copy
import re

import pytest

from unibiomed.evaluate.sample_scores import SampleScore
from unibiomed.evaluate.seed_aggregation import aggregate_seeds
from unibiomed.evaluate.summary import summarise
from unibiomed.evaluate.tables import Table, format_estimate, make_tables, write_tables
from unibiomed.evaluate.text_metrics import CHEST_F1


def results(**more) -> dict:
    rows = []
    for i in range(3):
        row = SampleScore(
            f"set/{i}#segment/liver", "segment", "set", "CT", f"set/{i}", i, "liver", "in_context", target_present=True
        )
        row.intersection, row.predicted_area, row.true_area, row.predicted_present = 5 + i, 10, 10, True
        rows.append(row)
    rows.append(
        SampleScore(
            "set/9#segment/liver", "segment", "set", "CT", "set/9", 9, "liver", "in_context", target_present=True
        )
    )
    rows[-1].failure = "RuntimeError: 100 % of a_memory | gone"
    table = {"note": "", "baseline": False, "unmatched_files": ["set/x.json"], **summarise(rows)}
    return {"suite": "toy", "models": {"mine": table, "empty": table | {"baseline": True}}, "comparisons": [], **more}


def by_name(found: dict) -> dict[str, Table]:
    return {table.name: table for table in make_tables(found)}


def test_cells():
    assert format_estimate({"value": 0.25, "low": 0.1, "high": 0.5}) == "0.250 (0.100–0.500)"
    assert format_estimate({"value": 0.25, "low": 0.1, "high": 0.5}, percent=True) == "25.0% (10.0–50.0)"
    assert format_estimate({"value": 0.25, "low": None, "high": None}) == "0.250"
    assert format_estimate({"value": None}) == format_estimate(None) == "–"
    nothing = {"value": 0.0, "low": 0.0, "high": 0.0}
    assert (format_estimate(nothing), format_estimate(nothing, percent=True, interval=False)) == ("0", "0%")
    assert format_estimate(nothing | {"high": 0.1}) == "0.000 (0.000–0.100)"


def test_failures_lower_the_mean_and_are_listed():
    tables = by_name(results())
    row = tables["segmentation"].rows[0]
    assert row[0] == "mine" and row[1].startswith("0.450 (")
    assert ["mine", "segment: RuntimeError: 100 % of a_memory | gone", "1"] in tables["failures"].rows
    # unmatched files are not failures
    assert not any("x.json" in cell for row in tables["failures"].rows for cell in row)
    assert tables["unmatched_files"].rows == [["mine", "1", "set/x.json"], ["empty", "1", "set/x.json"]]
    assert [row[0] for row in tables["overview"].rows] == ["mine", "empty"]
    # no tables of tasks without samples
    assert not {"recognize", "ask", "describe", "pairs", "comparisons"} & tables.keys()


def test_no_failures():
    found = results()
    for table in found["models"].values():
        table |= {"failures": {}, "unmatched_files": []}
    assert by_name(found)["failures"].rows == [["(all)", "no failures", "0"]]


def test_special_characters_are_escaped():
    table = by_name(results())["failures"]
    assert "a_memory \\| gone" in table.markdown()
    assert r"100 \% of a\_memory \textbar{} gone" in table.latex()
    assert table.latex().count("&") == (len(table.columns) - 1) * (1 + len(table.rows))


def test_cells_are_not_latex_commands():
    cells = ["\\input /etc/passwd", "a\\\\b", "x^2~y", "{&%$#_}", "[1pt]", "*", "<p>", "two\nlines"]
    table = Table("s", "50 %\n\\input x", ("a",), [[cell] for cell in cells])
    lines = table.latex().splitlines()
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
def test_latex_tables_fit_the_page(columns, kind, shrunk):
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


def test_sentences_are_wrapped_in_latex():
    text = Table("s", "t", ("model", "reason"), [["a", "word " * 30]]).latex()
    assert r"\begin{tabular}{lp{.35\textwidth}}" in text and "resizebox" not in text


def test_cells_do_not_break_markdown_tables():
    cells = ["a|b", "a\\|b", "<img src=x>", "`code`", "two\r\nlines", "![x](http://y)", "p & q", "left\x00\x1bright"]
    table = Table("s", "t <b>", ("a|b",), [[cell] for cell in cells], "a note <i>")
    title, _, head, _, *lines, _, note = table.markdown().splitlines()
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


def test_seeds_of_a_training():
    table = results()["models"]["mine"]
    better = copy.deepcopy(table)
    better["segment"]["strict"]["dice"]["value"] = 0.65
    models = {"all#1": table, "all#2": better, "one#1": table, "other": table, "#1": table}
    found = aggregate_seeds(models)
    assert found["Dice"]["all"]["values"] == [pytest.approx(0.45), 0.65] and found["Dice"].keys() == {"all", "one"}
    assert found["Dice"]["one"]["sd"] is None and found.keys() == {"Dice"}
    table = by_name({"models": models, "runs": found})["runs"]
    assert table.columns == ("training", "seeds", "Dice")
    assert table.rows == [["all", "2", "0.550 ± 0.141"], ["one", "1", "0.450"]]
    # configurations with one seed are not aggregated
    assert aggregate_seeds({"all#1": table, "one#1": table, "other": table}) == {}


def test_comparisons():
    row = {"a": "x", "b": "y", "measure": "Dice", "count": 9, "difference": 0.1, "effect": None}
    row |= {"p_t": 0.00001, "p_wilcoxon": 0.02, "p_adjusted": 0.04}
    more = {"rank_biserial": 0.75, "p_wilcoxon_adjusted": 0.06, "effect": 1.5}
    table = by_name(results(comparisons=[row, row | more]))["comparisons"]
    assert table.rows == [
        ["x – y", "Dice", "9", "+0.100", "–", "<0.0001", "0.0400", "–", "0.0200", "–"],
        ["x – y", "Dice", "9", "+0.100", "1.50", "<0.0001", "0.0400", "0.75", "0.0200", "0.0600"],
    ]
    assert "means over subjects" in table.note


def test_overview_has_both_dice_measures():
    found = results()
    table = by_name(found)["overview"]
    assert table.columns[1:3] == ("Dice", "Dice incl. absent targets")
    strict = found["models"]["mine"]["segment"]["strict"]
    assert table.rows[0][1:3] == [format_estimate(strict["dice"]), format_estimate(strict["dice_with_absent"])]
    assert "show the target" in table.note


def test_segmentation_table_columns():
    found = results()
    segmentation = found["models"]["mine"]["segment"]
    segmentation["strict"]["false_components"] = {"value": 0.5, "low": 0.25, "high": 1.0}
    dice = {"value": 0.7, "low": None, "high": None}
    segmentation["published"] |= {"modalities": {"CT": {"dice": dice}}, "datasets": {}}
    del found["models"]["empty"]
    tables = by_name(found)
    row = dict(zip(tables["segmentation"].columns, tables["segmentation"].rows[0], strict=True))
    assert (
        row["IoU"] == format_estimate(segmentation["strict"]["iou"])
        and row["false components per image"] == "0.50 (0.25–1.00)"
    )
    assert tables["segmentation_modalities_published"].rows == [["CT", "0.700"]]
    assert "300" in tables["segmentation_modalities_published"].note
    assert "The published" not in tables["segmentation_modalities"].note
    assert "segmentation_datasets_published" not in tables


def test_identical_published_table_is_left_out():
    tables = by_name(results())
    assert "The published protocol gives the same numbers." in tables["segmentation_targets"].note
    assert "segmentation_targets_published" not in tables


def test_missing_intervals_are_explained():
    found = results()
    assert "single subject" not in by_name(found)["segmentation_targets"].note
    found["models"]["mine"]["segment"]["strict"]["targets"]["liver"]["dice"] |= {"low": None, "high": None}
    for name in ("segmentation_targets", "targets_mine"):
        assert "There is no interval for a single subject." in by_name(found)[name].note


def test_target_table_shows_the_tolerance():
    found = results()
    targets = found["models"]["mine"]["segment"]["strict"]["targets"]
    mean = {"value": 3.0, "low": None, "high": None, "count": 4}
    targets |= {
        "in mm": targets["liver"] | {"hd95_mm": mean},
        "in both": targets["liver"] | {"hd95_mm": mean | {"count": 3}},
    }
    table = by_name(found)["targets_mine"]
    within = {row[0]: row[table.columns.index("tolerance")] for row in table.rows}
    assert within == {"liver": "2 pixels", "in mm": "2 mm", "in both": "2 mm or 2 pixels"}


def test_chest_f1_is_explained():
    part = {"BLEU-1": 0.5, CHEST_F1: 0.25, "count": 9}
    tables = by_name(
        {"models": {"mine": {"baseline": False, "failures": {}, "report": {"strict": part, "published": part}}}}
    )
    assert "X-ray images whose reference mentions any" in tables["report"].note


def test_hd95_is_in_mm_or_pixels():
    rows = []
    for i, (measured, hd95) in enumerate([(True, 3.0), (False, 8.0), (False, 9.0), (False, None)]):
        row = SampleScore(
            f"set/{i}#segment/liver", "segment", "set", "CT", f"set/{i}", i, "liver", "in_context", target_present=True
        )
        row.intersection, row.predicted_area, row.true_area, row.spacing_known, row.hd95 = 5, 10, 10, measured, hd95
        rows.append(row)
    table = by_name({"models": {"m": {"baseline": False, **summarise(rows)}}})["targets_m"]
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert (row["HD95 (mm)"], row["HD95 (pixels)"]) == ("3.0", "8.5, 1 of 3 unmeasured")
    assert row["tolerance"] == "2 mm or 2 pixels"
    assert "the diagonal of the image" in table.note


def test_robustness_table_has_masks_and_recognition():
    def level(**more: float) -> dict:
        return {key: {"value": value, "low": 0.0, "high": 1.0, "count": 4} for key, value in more.items()}

    levels = {str(n): level(dice=0.9 - n / 10, false_masks=n / 10, accuracy=0.5) for n in range(6)}
    flip = {str(n): level(accuracy=0.25) | {"dice": {"value": None, "count": 0}} for n in range(2)}
    models = {"m": {"baseline": False, "failures": {}, "robustness": {"blur": levels, "flip": flip}}}
    assert by_name({"models": models})["robustness"].rows == [
        ["m", "blur", "Dice", "4", "0.900", "0.800", "0.700", "0.600", "0.500", "0.400"],
        ["m", "blur", "false masks", "4", "0.0%", "10.0%", "20.0%", "30.0%", "40.0%", "50.0%"],
        ["m", "blur", "recognition accuracy", "4", *["50.0%"] * 6],
        ["m", "flip", "recognition accuracy", "4", "25.0%", "25.0%", "–", "–", "–", "–"],
    ]


def test_baselines_have_tables_of_their_own():
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
        "presence_in_context": {"auroc": {"value": 0.875}, "calibration_error": None},
        "mask": {"calibration_error": {"value": 0.1, "low": 0.05, "high": 0.15}},
        "risk": {"aurc": {"value": 0.3}},
    }
    found["models"]["mine"]["segment"]["scores"] = mine
    tables = by_name(found)
    assert tables["targets_empty"].rows == tables["targets_mine"].rows
    assert tables["objects_empty"].rows == [["cell nucleus", "0.500", "0.600", "0.700", "0.800"]]
    assert tables["scores_mine"].rows == [["mine", "–", "–", "0.875", "–", "0.100 (0.050–0.150)", "0.300"]]
    assert tables["scores_empty"].rows == [["empty", "0.500", "0.200", "–", "–", "–", "–"]]
    assert {name for name, table in tables.items() if table.baseline} == {
        "targets_empty",
        "scores_empty",
        "objects_empty",
    }


def recognised(predicted: str) -> dict:
    rows = []
    for i, true in enumerate(("Polyp", "Polyp", "Glioma")):
        row = SampleScore(
            f"set/{i}#recognize",
            "recognize",
            "set",
            "CT",
            f"set/{i}",
            i,
            true_labels=[true],
            predicted_labels=[predicted],
        )
        row.target_present, row.predicted_present, row.exact_match, row.substring_match = (
            True,
            True,
            true == predicted,
            true == predicted,
        )
        rows.append(row)
    return summarise(rows)


def test_recognition_table_columns():
    models = {
        "mine": {"baseline": False, **recognised("Polyp")},
        "most-frequent": {"baseline": True, **recognised("Glioma")},
    }
    models["mine"]["recognize"]["strict"] |= {"presence_auroc": {"value": 0.75}, "dice_correct_label": {"value": 0.25}}
    tables = by_name({"models": models})
    row = dict(zip(tables["recognize"].columns, tables["recognize"].rows[0], strict=True))
    assert (row["presence AUROC"], row["Dice, correct label"]) == ("0.750", "0.250")
    # explains why the more lenient accuracy can be lower
    assert "Normal images are left out" in tables["recognize"].note
    assert tables["recognize_labels_mine"].columns[-2:] == ("F1", "F1, most-frequent")
    assert tables["recognize_labels_mine"].rows == [
        ["Glioma", "1", "0.0%", "0.0%", "0.0%", "50.0%"],
        ["Polyp", "2", "66.7% (0.0–100.0)", "100.0% (15.8–100.0)", "80.0% (0.0–100.0)", "0.0%"],
    ]
    assert "recognize_labels_most-frequent" not in tables


def test_background_boxes_have_columns():
    shares = {"background_accuracy": 0.5, "called_background": 0.25, "accuracy_with_background": 0.75}
    new, old = recognised("Polyp")["recognize"], recognised("Polyp")["recognize"]
    new["strict"] |= {name: {"value": value} for name, value in shares.items()}
    models = {
        name: {"baseline": False, "failures": {}, "classify": table} for name, table in (("new", new), ("old", old))
    }
    table = by_name({"models": models})["classify"]
    assert table.columns[-3:] == (
        "background boxes, accuracy",
        "regions called something else",
        "accuracy incl. background boxes",
    )
    assert {row[0]: row[-3:] for row in table.rows} == {"new": ["50.0%", "25.0%", "75.0%"], "old": ["–", "–", "–"]}
    assert by_name({"models": {"old": models["old"]}})["classify"].columns == table.columns[:-3]


def test_confusion_table():
    counts = {"Cyst": {"Polyp": 2}, "Glioma": {"(failure)": 1, "Glioma": 3}, "Polyp": {"(other)": 1, "Polyp": 12}}
    strict = recognised("Polyp")["recognize"]["strict"] | {"confusion": counts}
    model = {task: {"strict": strict, "published": {}} for task in ("recognize", "classify")}
    tables = by_name({"models": {"a b": {"baseline": False, "failures": {}, **model}}})
    for task in ("recognize", "classify"):
        table = tables[f"{task}_confusion_a_b"]
        # cyst was never predicted
        assert table.columns == ("label", "Glioma", "Polyp", "(other)", "(failure)")
        assert table.note.startswith(f"Number of {'boxes' if task == 'classify' else 'images'} by")
        assert table.rows == [["Cyst", "", "2", "", ""], ["Glioma", "3", "", "", "1"], ["Polyp", "", "12", "1", ""]]
        assert "(other):" in table.note and "(failure):" in table.note and "(rare labels)" not in table.note


def test_confusion_table_has_a_maximum_width():
    counts = {f"label {n:02d}": {"label 00": 1, f"label {n:02d}": 2} for n in range(1, 50)}
    mine, baseline = recognised("Polyp"), recognised("Glioma")
    strict = mine["recognize"]["strict"]
    strict["confusion"] = {"label 00": {"label 00": 9}} | counts
    models = {"m": {"baseline": False, **mine}, "f": {"baseline": True, **baseline}}
    tables = by_name({"models": models})
    table = tables["recognize_confusion_m"]
    assert len(table.rows) == len(table.columns) - 1 == 49 and table.columns[-1] == "(rare labels)"
    assert table.rows[-1] == ["(rare labels)", "2", *[""] * 47, "4"] and "(rare labels):" in table.note
    # there is none for baselines and for older results
    assert "recognize_confusion_f" not in tables
    del strict["confusion"]
    assert "recognize_confusion_m" not in by_name({"models": models})


def test_report_table_columns():
    strict = {"BLEU-1": 0.5, "CIDEr": 1.25, "count": 9, "dice": {"value": 0.75, "low": 0.5, "high": 1.0}}
    strict["intervals"] = {"BLEU-1": {"low": 0.4, "high": 0.6}}
    table = {"baseline": False, "failures": {}, "report": {"strict": strict, "published": {"BLEU-1": 0.25, "count": 3}}}
    tables = by_name({"models": {"mine": table}})
    assert tables["report"].columns == ("model", "BLEU-1", "CIDEr", "Dice")
    assert tables["report"].rows == [["mine", "50.0 (40.0–60.0)", "125.0", "0.750 (0.500–1.000)"]]
    assert "No interval for corpus-level CIDEr" in tables["report"].note
    assert tables["report_published"].rows == [["mine", "25.0"]]


def test_missing_data_is_listed_with_failures():
    missing = {"missing_datasets": [["kits", "no folder"]], "unreadable": [["set/7", "no | PNG"]], "notes": ["a note"]}
    table = by_name(results(**missing))["failures"]
    assert table.rows[-3:] == [
        ["(data)", "data set kits: no folder", "–"],
        ["(data)", "image set/7: no | PNG", "–"],
        ["(note)", "a note", "–"],
    ]
    assert table.note and not by_name(results())["failures"].note


def test_files(tmp_path):
    write_tables(results(), tmp_path / "tables")
    whole = (tmp_path / "tables" / "tables.md").read_text()
    for table in make_tables(results()):
        assert table.markdown() in whole
        assert (tmp_path / "tables" / f"{table.name}.tex").read_text() == table.latex()


def test_old_tables_are_removed_and_other_files_kept(tmp_path):
    folder = tmp_path / "tables"
    write_tables(results(), folder)
    (folder / "mine.md").write_text("file of the user")
    found = results()
    del found["models"]["empty"]
    write_tables(found, folder)
    there = {path.name for path in folder.iterdir()}
    assert "targets_mine.md" in there and "mine.md" in there and not {"targets_empty.md", "targets_empty.tex"} & there


def test_unmeasured_distances_are_reported():
    found = results()
    target = found["models"]["mine"]["segment"]["strict"]["targets"]["liver"]
    target["hd95_mm"] = {"value": 4.0, "count": 3, "unmeasured": 1}
    assert by_name(found)["targets_mine"].rows[0][6] == "4.0, 1 of 4 unmeasured"
    target["hd95_mm"]["unmeasured"] = 0
    assert by_name(found)["targets_mine"].rows[0][6] == "4.0"
