"""The tables of an evaluation, as Markdown and as LaTeX, from ``results.json`` alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unibiomed.data.index import replacing, writing

from .sheet import NONE, Sheet, number, simple

__all__ = ["Sheet", "make_sheets", "number", "write_tables"]

DICE = (
    "Dice: images that show the target; absent counted: those without it too, where an empty mask is 1 and any pixel 0."
)
THERE = "Dice of images that show the target."
PUBLISHED = f"{THERE} Of each data set the first 300 annotations."


def make_sheets(results: Mapping[str, Any]) -> list[Sheet]:
    """All tables that the results have something for."""
    models = results["models"]
    sheets = [_overview(models)]
    sheets += _segment(models)
    sheets += _labels(models, "recognize", "Grounded recognition")
    sheets += _labels(models, "classify", "Region classification")
    sheets += _texts(models, "describe", "Region reports")
    sheets += _texts(models, "report", "Grounded reports")
    sheets += _ask(models)
    sheets += _trust(models)
    sheets.append(_runs(results.get("runs") or {}))
    sheets += _comparisons(results.get("comparisons") or [])
    sheets.append(_failures(results))
    return [sheet for sheet in sheets if sheet.rows]


def write_tables(results: Mapping[str, Any], folder: Path) -> None:
    """Write ``tables.md`` with all of them, and each as ``NAME.md`` and ``NAME.tex``.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    sheets = make_sheets(results)
    for sheet in sheets:
        _write(folder / f"{sheet.name}.md", sheet.markdown())
        _write(folder / f"{sheet.name}.tex", sheet.latex())
    _write(folder / "tables.md", "\n".join(sheet.markdown() for sheet in sheets))


def _write(path: Path, text: str) -> None:
    with replacing(path) as fresh:
        fresh.write_text(text, encoding="utf-8")


def _get(table: Any, *keys: str) -> Any:
    for key in keys:
        table = table.get(key) if isinstance(table, Mapping) else None
    return table


def _ordered(models: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Models first, floors below."""
    return sorted(models.items(), key=lambda item: bool(item[1].get("floor")))


def _overview(models: Mapping[str, Any]) -> Sheet:
    rows = []
    for name, table in _ordered(models):
        failed = sum((table.get("failures") or {}).values())
        rows.append(
            [
                name,
                number(_get(table, "segment", "strict", "dice")),
                number(_get(table, "segment", "strict", "dice_with_absent")),
                number(_get(table, "recognize", "strict", "accuracy"), percent=True),
                number(_get(table, "classify", "strict", "accuracy"), percent=True),
                number(_get(table, "ask", "closed", "accuracy"), percent=True),
                str(table.get("samples", 0)),
                str(failed),
                table.get("note") or "",
            ]
        )
    columns = (
        "model",
        "Dice",
        "Dice, absent counted",
        "recognition",
        "region class",
        "closed questions",
        "answers",
        "failures",
        "note",
    )
    note = (
        f"Strict protocol. {DICE} Mean over targets (Dice) or images; 95 % interval by subject in brackets. "
        "Answers: samples of every task, changed images and other words included."
    )
    return Sheet("overview", "Overview", columns, rows, note)


def _segment(models: Mapping[str, Any]) -> list[Sheet]:
    rows = []
    for name, table in _ordered(models):
        strict, published = _get(table, "segment", "strict"), _get(table, "segment", "published")
        if strict is None:
            continue
        rows.append(
            [
                name,
                number(strict["dice"]),
                number(published["dice"]),
                number(strict["dice_with_absent"]),
                number(strict.get("iou")),
                number(strict["surface_dice"]),
                number(strict["detected"], percent=True),
                number(strict["false_masks"], percent=True),
                number(strict["false_masks_foreign"], percent=True),
                number(strict.get("false_parts"), 2),
            ]
        )
    columns = (
        "model",
        "Dice",
        "Dice, published protocol",
        "Dice, absent counted",
        "IoU",
        "surface Dice",
        "found",
        "false masks",
        "of another body part",
        "false parts an image",
    )
    note = (
        f"{DICE} IoU, surface Dice (at 2 mm, or 2 pixels where the size of a pixel is not known) and found: images "
        "that show the target. False masks: of images without the target, those with any pixel. False parts: pieces of "
        "masks that touch no truth."
    )
    sheets = [Sheet("segmentation", "Segmentation", columns, rows, note)]
    for part, title in (("targets", "Dice by target"), ("modalities", "Dice by modality"), ("datasets", "Dice by set")):
        path, file = ("segment", "strict", part), f"segmentation_{part}"
        sheets.append(_matrix(models, path, "dice", file, title, THERE))
        path, title = ("segment", "published", part), f"{title}, published protocol"
        sheets.append(_matrix(models, path, "dice", f"{file}_published", title, PUBLISHED))
    sheets.append(_matrix(models, ("segment", "strict", "volumes"), None, "volumes", "Volume Dice, all slices"))
    sheets.append(
        _matrix(
            models,
            ("segment", "published", "volumes"),
            None,
            "volumes_published",
            "Volume Dice, published protocol (slices with the target alone)",
        )
    )
    for name, table in _ordered(models):
        if not _get(table, "segment"):
            continue
        sheets.append(_targets(name, table["segment"]["strict"]["targets"]))
        sheets.append(_scores(name, table["segment"].get("scores") or {}))
        objects = table["segment"]["strict"].get("objects") or {}
        rows = [[t, number(v["aji"]), *(simple(v[k]) for k in ("pq", "sq", "rq"))] for t, v in objects.items()]
        sheets.append(
            Sheet(f"objects_{_file(name)}", f"Single objects, {name}", ("target", "AJI", "PQ", "SQ", "RQ"), rows)
        )
    return sheets


def _scores(name: str, judged: Mapping[str, Any]) -> Sheet:
    places = {
        "presence AUROC": ("presence", "auroc"),
        "presence calibration error": ("presence", "calibration_error"),
        "presence AUROC, own targets": ("presence_own", "auroc"),
        "presence calibration error, own targets": ("presence_own", "calibration_error"),
        "mask score calibration error": ("mask", "calibration_error"),
        "AURC": ("mask", "aurc"),
    }
    note = (
        "Own targets: of the image's own kind, without those of other body parts. AURC: area under the curve of risk "
        "against coverage of the mask score, lower is better."
    )
    rows = [[name, *(simple(_get(judged, *place)) for place in places.values())]] if judged else []
    return Sheet(f"scores_{_file(name)}", f"The scores of {name}", ("model", *places), rows, note)


def _file(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)


def _targets(name: str, targets: Mapping[str, Any]) -> Sheet:
    rows = []
    for target, table in targets.items():
        absent = table["false_masks"]
        rows.append(
            [
                target,
                str(table["dice"]["count"]),
                str(table["dice"]["subjects"]),
                number(table["dice"]),
                number(table["surface_dice"], interval=False),
                number(table.get("hd95_mm"), 1, interval=False),
                f"{number(absent, percent=True, interval=False)} of {absent['count']}" if absent["count"] else NONE,
            ]
        )
    columns = ("target", "images with it", "subjects", "Dice", "surface Dice", "HD95 (mm)", "false masks without it")
    return Sheet(f"targets_{_file(name)}", f"Every target, {name}", columns, rows, THERE)


def _matrix(
    models: Mapping[str, Any], path: Sequence[str], key: str | None, file: str, title: str, note: str = ""
) -> Sheet:
    """One row a target (or modality, …), one column a model."""
    having = [(name, _get(table, *path)) for name, table in _ordered(models) if _get(table, *path)]
    names = sorted({row for _, table in having for row in table})

    def cell(table: Any, row: str) -> str:
        return number(_get(table, row) if key is None else _get(table, row, key))

    rows = [[row, *(cell(table, row) for _, table in having)] for row in names]
    first = {"modalities": "modality", "datasets": "data set"}.get(path[-1], "target")
    return Sheet(file, title, (first, *(name for name, _ in having)), rows, note)


def _labels(models: Mapping[str, Any], task: str, title: str) -> list[Sheet]:
    rows = []
    for name, table in _ordered(models):
        strict = _get(table, task, "strict")
        if strict is None:
            continue
        row = [
            name,
            number(strict["accuracy"], percent=True),
            number(_get(table, task, "published", "accuracy"), percent=True),
            number(strict["balanced_accuracy"], percent=True),
        ]
        if task == "recognize":
            row += [
                number(strict["false_findings"], percent=True),
                number(strict["missed"], percent=True),
                simple(strict.get("presence_auroc")),
                number(strict["dice"]),
                number(strict.get("dice_labelled")),
            ]
        rows.append(row)
    columns: tuple[str, ...] = ("model", "accuracy (exact)", "accuracy (published: substring)", "balanced accuracy")
    note = ""
    if task == "recognize":
        columns += (
            "false findings on normal images",
            "nothing found on abnormal ones",
            "presence AUROC",
            "Dice",
            "Dice, label right",
        )
        note = (
            "Dice of all images: without a finding, an empty mask is 1 and any pixel 0. Label right: a mask counts "
            "with the right label alone."
        )
    sheets = [Sheet(task, title, columns, rows, note)]
    labelled = {name: _get(table, task, "strict", "per_label") for name, table in _ordered(models)}
    floors = {name: labels for name, labels in labelled.items() if labels and models[name].get("floor")}
    for name, labels in labelled.items():
        if not labels or name in floors:
            continue
        cells = [
            [
                label,
                str(v["count"]),
                *(_percents(v[k]) for k in ("precision", "recall", "f1")),
                *(_percents(_get(floor, label, "f1")) for floor in floors.values()),
            ]
            for label, v in labels.items()
        ]
        columns = ("label", "images", "precision", "recall", "F1", *(f"F1, {floor}" for floor in floors))
        sheets.append(Sheet(f"{task}_labels_{_file(name)}", f"{title}, every label, {name}", columns, cells))
    return sheets


def _percents(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:.1f}%"


def _texts(models: Mapping[str, Any], task: str, title: str) -> list[Sheet]:
    sheets = []
    for protocol, file, head in (("strict", task, title), ("published", f"{task}_published", f"{title}, published")):
        having = [
            (name, table[task][protocol]) for name, table in _ordered(models) if _get(table, task, protocol, "count")
        ]
        numbers = (key for _, table in having for key, value in table.items() if isinstance(value, float | int))
        keys = [key for key in dict.fromkeys(numbers) if key != "count"]
        dice = ("Dice",) if any("dice" in table for _, table in having) else ()
        rows = [
            [name, *(_hundredfold(table, key) for key in keys), *(number(table.get("dice")) for _ in dice)]
            for name, table in having
        ]
        ranged = {key for _, table in having for key in table.get("intervals") or {}}
        without = [key for key in keys if key not in ranged]
        note = "Times 100" + (", but for Dice." if dice else ".")
        if protocol == "published":
            note += " Of each data set the first 300 texts."
        if ranged:
            note += " In brackets: 95 % interval of the bootstrap by subject"
            note += f"; {', '.join(without)} have none: made of the whole corpus." if without else "."
        if dice:
            note += " Dice of the masks of all reports: without a finding, an empty mask is 1 and any pixel 0."
        sheets.append(Sheet(file, head, ("model", *keys, *dice), rows, note))
    return sheets


def _hundredfold(table: Mapping[str, Any], key: str) -> str:
    if (value := table.get(key)) is None:
        return NONE
    ends = _get(table, "intervals", key) or {}
    low, high = ends.get("low"), ends.get("high")
    return f"{100 * value:.1f}" + ("" if low is None or high is None else f" ({100 * low:.1f}–{100 * high:.1f})")


def _ask(models: Mapping[str, Any]) -> list[Sheet]:
    rows = [
        [
            name,
            *(
                number(_get(table, "ask", kind, key), percent=True)
                for kind in ("closed", "open")
                for key in ("accuracy", "accuracy_published")
            ),
        ]
        for name, table in _ordered(models)
        if _get(table, "ask")
    ]
    columns = ("model", "closed (exact)", "closed (published)", "open (exact)", "open (published)")
    return [Sheet("ask", "Visual question answering", columns, rows)]


def _trust(models: Mapping[str, Any]) -> list[Sheet]:
    pairs, words, changes = [], [], []
    for name, table in _ordered(models):
        for kind, part in (table.get("pairs") or {}).items():
            set_accuracy, confusion = (number(part[key], percent=True) for key in ("set_accuracy", "confusion"))
            pairs.append([name, kind.replace("_", ", "), str(part["set_accuracy"]["count"]), set_accuracy, confusion])
        for task, part in (table.get("paraphrases") or {}).items():
            own, other = number(part.get("dice_own_words")), number(part.get("dice"))
            words.append([name, task, number(part["agreement"]), own, other])
        for change, levels in (table.get("robustness") or {}).items():
            count = _get(levels, "0", "dice", "count")
            cells = (number(_get(levels, str(n), "dice"), interval=False) for n in range(6))
            changes.append([name, change, str(count or 0), *cells])
    return [
        Sheet(
            "pairs",
            "Pairs of images, target in one only",
            ("model", "question", "pairs", "both right", "same answer to both"),
            pairs,
            "A coin thrown for each image: 25 % and 50 %. Intervals: pairs that share a subject count as alike.",
        ),
        Sheet(
            "paraphrases",
            "The same question in other words",
            ("model", "task", "agreement", "Dice, own words", "Dice, other words"),
            words,
        ),
        Sheet(
            "robustness",
            "Dice on changed images, by strength",
            ("model", "change", "n", "unchanged", "1", "2", "3", "4", "5"),
            changes,
            "Dice of the n samples that show the target at every strength, mean over targets. Targets that a mirror "
            "turns into each other, such as left and right lung, are left out of the flip.",
        ),
    ]


def _runs(tables: Mapping[str, Mapping[str, Any]]) -> Sheet:
    kinds = list(dict.fromkeys(kind for table in tables.values() for kind in table))
    rows = []
    for kind in kinds:
        found = [table.get(kind) for table in tables.values()]
        number = max(len(cell["values"]) for cell in found if cell)
        rows.append([kind, str(number), *(_spread(cell) for cell in found)])
    return Sheet("runs", "Kinds of training, mean ± s.d. over their runs", ("training", "runs", *tables), rows)


def _spread(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return NONE
    return f"{cell['mean']:.3f}" + (f" ± {cell['sd']:.3f}" if cell["sd"] is not None else "")


def _comparisons(comparisons: Iterable[Mapping[str, Any]]) -> list[Sheet]:
    rows = [
        [
            f"{c['a']} – {c['b']}",
            c["measure"],
            str(c["count"]),
            f"{c['difference']:+.3f}",
            simple(c["effect"], 2),
            _p(c["p_t"]),
            _p(c["p_adjusted"]),
            simple(c.get("rank_biserial"), 2),
            _p(c["p_wilcoxon"]),
            _p(c.get("p_wilcoxon_adjusted")),
        ]
        for c in comparisons
    ]
    columns = (
        "models",
        "measure",
        "subjects",
        "difference",
        "dz",
        "p (t)",
        "p (t, Holm)",
        "rank-biserial",
        "p (Wilcoxon)",
        "p (Wilcoxon, Holm)",
    )
    note = (
        "Difference of the means over subjects, each subject being the mean of its samples; other tables give means "
        f"over targets or images. {DICE} Effects: Cohen's dz of the t-test, rank-biserial correlation of Wilcoxon's "
        "test. Holm: corrected for the number of comparisons, each test by itself."
    )
    return [Sheet("comparisons", "Differences, paired by subject, two-sided", columns, rows, note)]


def _p(value: float | None) -> str:
    return NONE if value is None else "<0.0001" if value < 1e-4 else f"{value:.4f}"


def _failures(results: Mapping[str, Any]) -> Sheet:
    models = _ordered(results["models"])
    rows = [[name, reason, str(count)] for name, table in models for reason, count in table["failures"].items()]
    rows += [
        [name, f"prediction of an unknown sample: {path}", "1"]
        for name, table in models
        for path in table.get("unknown_predictions") or []
    ]
    rows += [["(data)", f"data set {name}: {reason}", NONE] for name, reason in results.get("missing_datasets") or []]
    rows += [["(data)", f"image {key}: {reason}", NONE] for key, reason in results.get("unreadable") or []]
    rows += [["(note)", note, NONE] for note in results.get("notes") or []]
    note = "Rows of (data) name data sets that are missing and images that cannot be read."
    note = note if any(row[0] == "(data)" for row in rows) else ""
    return Sheet("failures", "Failures, all scored 0", ("model", "reason", "samples"), rows, note)
