from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from unibiomed.cli import main
from unibiomed.data.scene import Scene
from unibiomed.errors import DataError, InputError, OutputError
from unibiomed.evaluate.absence.answers import AnswerFile, ImageAnswers, PairAnswer, RecognitionAnswer
from unibiomed.evaluate.absence.harness import evaluate_absence_records
from unibiomed.evaluate.absence.pairs import (
    IN_CONTEXT,
    KINDS,
    MEANINGLESS,
    MEANINGLESS_WORDS,
    OTHER_MEDICAL,
    OTHER_MEDICAL_WORDS,
    OUT_OF_CONTEXT,
    PRESENT,
    Pair,
    make_pairs,
    unknown_words,
)
from unibiomed.evaluate.absence.summary import summarise_absence
from unibiomed.evaluate.predictions import Prediction
from unibiomed.evaluate.predictors import Presence
from unibiomed.evaluate.record_selection import suite_records
from unibiomed.evaluate.samples import Case
from unibiomed.evaluate.suite import Suite, read_suite
from unibiomed.evaluate.tables import make_tables
from unibiomed.findings import Finding
from unibiomed.terminology import resolve

VOCABULARY = ("liver", "liver tumor", "polyp", "kidney")
"""For the abdominal CT of the toy data: two annotated targets, one that cannot occur, and one that may occur."""


class Drawer:
    """Predictor that has masks for given targets in every image."""

    paraphrase_tasks = frozenset({"segment", "recognize"})

    def __init__(self, name="drawer", draws=(), findings=(), tasks=("segment", "recognize")):
        self.name, self.note, self.tasks = name, "", frozenset(tasks)
        self.draws, self.findings, self.vocabulary = set(draws), findings, VOCABULARY
        self.calls: list[tuple[str, ...]] = []

    def predict_presence(self, pixels, targets, modality):
        self.calls.append(tuple(targets))
        return [Presence(0.9 if t in self.draws else 0.1, t in self.draws) for t in targets]

    def predict(self, case, pixels):
        full = np.ones(pixels.shape[:2], dtype=bool)
        out = []
        for sample in case.samples:
            named = self.findings if sample.task == "recognize" else [sample.target]
            masks = [full if name in self.draws or sample.task == "recognize" else ~full for name in named]
            out.append(Prediction.from_masks(sample.id, "", list(named), masks, [0.5] * len(masks)))
        return out


class Segmenter(Drawer):
    """The same without `predict_presence` and without a vocabulary."""

    predict_presence = None

    def __init__(self, *args, **fields):
        super().__init__(*args, **fields)
        self.vocabulary = ()


@pytest.fixture
def suite():
    return replace(read_suite("absence"), datasets=["organs"])


@pytest.fixture
def records(suite, toy_root):
    return suite_records(suite, toy_root)


def evaluate_records(suite, records, predictors, out):
    return evaluate_absence_records(suite, records, predictors, out, progress=False)


def lines(out, name="drawer"):
    return [json.loads(line) for line in (out / "answers" / f"{name}.jsonl").read_text().splitlines()]


def scene_of(record):
    size = record.load_image().shape[:2]
    return Scene(record, Case(record, ()).masks(size))


def test_kinds_of_pairs(records):
    kinds = [{p.target: p.kind for p in make_pairs(scene_of(r), VOCABULARY)} for r in records]
    by_key = dict(zip([r.key for r in records], kinds, strict=True))
    assert [by_key[f"organs/test_{i}"]["liver"] for i in range(3)] == [PRESENT, PRESENT, IN_CONTEXT]
    assert [by_key[f"organs/test_{i}"]["liver tumor"] for i in range(3)] == [PRESENT, IN_CONTEXT, IN_CONTEXT]
    for found in kinds:
        assert found["polyp"] == OUT_OF_CONTEXT
        assert "kidney" not in found
        assert found["unicorn"] == MEANINGLESS and found["femur"] == OTHER_MEDICAL


def test_vocabulary_is_case_insensitive(records):
    found = {p.target: p.kind for p in make_pairs(scene_of(records[0]), ("Liver", "Polyp"))}
    assert found["Liver"] == PRESENT and found["Polyp"] == OUT_OF_CONTEXT


def test_box_without_mask_counts_as_present(records):
    region = replace(records[2].regions[0], mask=None, further_masks=(), values=None, box=(1, 1, 5, 5))
    record = replace(records[2], regions=(region, *records[2].regions[1:]))
    assert Pair("liver", PRESENT, 0) in make_pairs(scene_of(record), VOCABULARY)


def test_unknown_words_are_not_in_the_terminology():
    for word in (*MEANINGLESS_WORDS, *OTHER_MEDICAL_WORDS):
        assert resolve(word).meanings == (), word
    assert len(set(MEANINGLESS_WORDS)) == 20 and len(set(OTHER_MEDICAL_WORDS)) >= 10


def test_words_of_the_vocabulary_are_not_used_as_unknown():
    assert "femur" not in unknown_words(OTHER_MEDICAL_WORDS, ("femur", "liver"))
    assert "femur" in unknown_words(OTHER_MEDICAL_WORDS, ("liver",))


def test_rates_count_masks_with_pixels(suite, records, tmp_path):
    drawer = Drawer(draws=("liver", "polyp", "cat"), findings=("Liver tumor",))
    results = evaluate_records(suite, records, [drawer, Drawer("nothing")], tmp_path)
    kinds = {name: table["kinds"] for name, table in results["models"].items()}
    assert {kind: kinds["nothing"][kind]["value"] for kind in KINDS} == {PRESENT: 1, **dict.fromkeys(KINDS[1:], 0)}
    # one of the three present targets is the tumor, one of the three in-context negatives the liver
    wanted = {PRESENT: 1 / 3, IN_CONTEXT: 1 / 3, OUT_OF_CONTEXT: 1, MEANINGLESS: 1 / 20, OTHER_MEDICAL: 0}
    assert {kind: kinds["drawer"][kind]["value"] for kind in KINDS} == pytest.approx(wanted, abs=1e-6)
    table = results["models"]["drawer"]
    assert table["targets"]["polyp"] == {OUT_OF_CONTEXT: table["kinds"][OUT_OF_CONTEXT]}
    assert table["datasets"]["organs"] == table["modalities"]["CT"] == table["kinds"]
    # two of three present targets are livers, which rank above all pairs without a mask
    assert table["auroc"][OTHER_MEDICAL]["value"] == pytest.approx(2 / 3 + 1 / 6)
    # one image has a tumor, two are normal with a false tumor
    assert table["normals"]["CT"]["value"] == 1 and table["normals"]["CT"]["count"] == 2
    assert table["recognition"]["organs"]["value"] == pytest.approx(1 / 3, abs=1e-6)
    assert results["models"]["nothing"]["normals"]["all"]["value"] == 0


def test_model_without_vocabulary_gets_targets_with_masks(suite, records, tmp_path):
    results = evaluate_records(suite, records, [Segmenter(draws=("liver", "cat"))], tmp_path)
    table = results["models"]["drawer"]
    assert table["vocabulary"] == ["liver", "liver tumor"]
    assert table["kinds"][PRESENT]["value"] == pytest.approx(1 / 3, abs=1e-6)
    assert table["kinds"][MEANINGLESS]["value"] == pytest.approx(1 / 20)
    assert OUT_OF_CONTEXT not in table["kinds"]


def test_stored_answers_are_reused(suite, records, tmp_path):
    evaluate_records(suite, records, [Drawer()], tmp_path)
    again = Drawer(draws=("liver",))
    first = evaluate_records(suite, records, [again], tmp_path)
    assert again.calls == [] and len(lines(tmp_path)) == 3
    # another model of the same name, and an incomplete line
    again.fingerprint = "other"
    path = tmp_path / "answers" / "drawer.jsonl"
    path.write_text(path.read_text()[:-40])
    second = evaluate_records(suite, records, [again], tmp_path)
    assert len(again.calls) == 3
    assert first["models"]["drawer"]["kinds"][PRESENT]["value"] == 1
    assert second["models"]["drawer"]["kinds"][PRESENT]["value"] == pytest.approx(1 / 3, abs=1e-6)
    third = Drawer()
    third.fingerprint = "other"
    evaluate_records(suite, records, [third], tmp_path)
    assert third.calls == []


@pytest.mark.parametrize("error", [RuntimeError("no\nmemory"), InputError("too small")])
def test_failures_count_as_wrong_and_are_repeated(suite, records, tmp_path, error):
    drawer = Drawer(draws=("liver",))

    def crash(pixels, targets, modality):
        raise error

    drawer.predict_presence = crash
    table = evaluate_records(suite, records, [drawer], tmp_path)["models"]["drawer"]
    assert all(rate["value"] == 1 for rate in table["kinds"].values())
    assert all(rate["value"] == 0 for rate in table["auroc"].values())
    assert table["failures"] == 3
    again = Drawer()
    assert evaluate_records(suite, records, [again], tmp_path)["models"]["drawer"]["failures"] == 0
    assert len(again.calls) == 3


def test_full_disk_stops_the_evaluation(suite, records, tmp_path):
    drawer = Drawer()

    def full(pixels, targets, modality):
        raise OutputError("disk full")

    drawer.predict_presence = full
    with pytest.raises(OutputError):
        evaluate_records(suite, records, [drawer], tmp_path)


@pytest.mark.parametrize("found", [[], [Presence(2.0, True)] * 99, None])
def test_invalid_answers(suite, records, tmp_path, found):
    drawer = Drawer()
    drawer.predict_presence = lambda pixels, targets, modality: found
    assert evaluate_records(suite, records, [drawer], tmp_path)["models"]["drawer"]["failures"] == 3


def test_unreadable_image_is_a_failure(suite, records, tmp_path):
    broken = [replace(records[0], image=b"nothing"), *records[1:]]
    drawer = Drawer(draws=("liver",), findings=())
    results = evaluate_records(suite, broken, [drawer], tmp_path)
    assert [key for key, _ in results["unreadable"]] == [records[0].key]
    table = results["models"]["drawer"]
    assert table["failures"] == 1 and len(drawer.calls) == 2
    # its liver and tumor count as missed, its polyp as a false mask
    assert table["kinds"][PRESENT]["value"] == pytest.approx(2 / 3, abs=1e-6)
    assert table["kinds"][OUT_OF_CONTEXT]["value"] == pytest.approx(1 / 3, abs=1e-6)
    assert "unreadable" in {table.name for table in make_tables(results)}


def test_unsuitable_predictors_are_refused(suite, records, tmp_path, one_line):
    boxed = Drawer()
    boxed.true_box = True
    for predictors in ([boxed], [Drawer(), Drawer()], [Drawer(tasks=("describe",))]):
        with pytest.raises(InputError) as caught:
            evaluate_records(suite, records, predictors, tmp_path)
        one_line(caught.value)


def test_subset_of_tasks(suite, records, tmp_path):
    table = evaluate_records(replace(suite, tasks=["segment"]), records, [Drawer()], tmp_path / "a")["models"]["drawer"]
    assert table["kinds"] and not table["normals"] and not table["recognition"]
    table = evaluate_records(replace(suite, tasks=["recognize"]), records, [Drawer()], tmp_path / "b")["models"][
        "drawer"
    ]
    assert not table["kinds"] and table["normals"]["all"]["count"] == 2


def test_tables(suite, records, tmp_path):
    drawer = Drawer(draws=("liver", "cat", "polyp"), findings=("Liver tumor",))
    results = evaluate_records(suite, records, [drawer], tmp_path)
    tables = {table.name: table for table in make_tables(results)}
    assert tables.keys() == {
        "overview", "presence", "modalities", "datasets", "targets", "words", "missed", "normals", "recognition"
    }  # fmt: skip
    row = dict(zip(tables["overview"].columns, tables["overview"].rows[0], strict=True))
    assert row["out of context"].startswith("100.0%") and row["missed"].startswith("33.3%")
    assert [cells[1] for cells in tables["targets"].rows] == ["liver", "polyp"]
    assert [cells[1] for cells in tables["words"].rows] == ["cat"]
    assert [cells[1:3] for cells in tables["missed"].rows] == [["liver tumor", "1"]]
    assert [cells[1] for cells in tables["normals"].rows] == ["all", "CT"]
    assert (tmp_path / "tables" / "tables.md").read_text().count("###") == len(tables)


def test_intervals_are_by_subject():
    def answer(number, subject, drawn):
        return ImageAnswers(
            f"a/{number}", "a", "CT", subject, "", (PairAnswer("liver", IN_CONTEXT, 0.5, drawn),), None, 1.0
        )

    alike = [answer(i, f"a/{i % 4}", i % 4 == 0) for i in range(40)]
    apart = [replace(one, subject=one.key) for one in alike]
    widths = []
    for answers in (alike, apart):
        rate = summarise_absence(answers)["kinds"][IN_CONTEXT]
        assert rate["value"] == 0.25
        widths.append(rate["high"] - rate["low"])
    assert widths[0] > 1.5 * widths[1]


def test_answers_round_trip(tmp_path):
    pairs = (PairAnswer("liver", PRESENT, None, True), PairAnswer("cat", MEANINGLESS, 0.25, False))
    answer = ImageAnswers("a/b", "a", "CT", "a/1", "digest", pairs, RecognitionAnswer(True, False, True), 0.5)
    AnswerFile(tmp_path, "m").add(answer)
    file = AnswerFile(tmp_path, "m")
    assert file.stored("a/b", "digest") == answer
    assert file.stored("a/b", "other") is None and file.stored("a/c", "digest") is None


@pytest.mark.parametrize("text", ['tasks = ["ask"]', "[pairs]\nlimit = 2", "[perturbations]\nlimit = 2"])
def test_options_that_all_pairs_excludes(tmp_path, text, one_line):
    path = tmp_path / "mine.toml"
    start = 'name = "x"\nall_pairs = true\n'
    path.write_text(start + text if text.startswith("tasks") else f'{start}tasks = ["segment"]\n{text}')
    with pytest.raises(DataError, match="all_pairs") as caught:
        read_suite(str(path))
    one_line(caught.value)


def test_all_splits(toy_root):
    suite = Suite("toy", datasets=["organs"], split="all")
    assert {r.split for r in suite_records(suite, toy_root)} == {"train", "test"}
    assert {r.split for r in suite_records(suite, toy_root, "train")} == {"train"}


def test_command_line(toy_root, tmp_path, capsys):
    arguments = ["evaluate", "absence", "--data", str(toy_root), "--datasets", "organs", "--model", "baseline:empty"]
    arguments += ["--tasks", "segment", "--split", "all", "--out", str(tmp_path)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "False masks over all pairs" in printed and "| empty | 2 | 9 | 100.0%" in printed
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["selection"] == "All images of all splits."
    assert main([*arguments, "--processes", "2"]) == 2
    assert "in one process" in capsys.readouterr().err


def test_unibiomed_model_predicts_presence_in_batches():
    from unibiomed.evaluate.predictors.unibiomed_model import PRESENCE_SIDE, UniBiomedPredictor
    from unibiomed.images import from_array
    from unibiomed.interpret.asking import EncodedImage

    asked, looked = [], []

    def interpret(seen, task, *, targets, modality, second_look):
        assert not second_look
        asked.append((len(targets), seen.image.height, seen.image.width, seen.features, modality))
        mask = np.zeros((seen.image.height, seen.image.width), bool)
        findings = []
        for target in targets:
            mask = np.full_like(mask, target == "liver")
            findings.append(Finding.from_mask(target, mask, presence=0.75 if target == "liver" else 0.25))
        table = [{"findings": [index]} for index in range(len(findings))]
        return SimpleNamespace(findings=findings, details={"targets": table})

    model = SimpleNamespace(
        config=SimpleNamespace(box_prompt=False, box_decoder=False, scores_trained=True), device="cpu"
    )
    interpreter = SimpleNamespace(
        model=model,
        name="m",
        vocabulary=SimpleNamespace(targets={"liver": (), "polyp": ()}),
        encode=lambda pixels: looked.append(pixels) or EncodedImage(from_array(pixels), "features", 1),
        interpret=interpret,
    )
    predictor = UniBiomedPredictor(interpreter)
    assert predictor.vocabulary == ("liver", "polyp")
    targets = [f"t{i}" for i in range(70)] + ["liver"]
    pixels = np.zeros((1000, 2000, 3), np.uint8)
    found = predictor.predict_presence(pixels, targets, "CT")
    assert found == [Presence(0.25, False)] * 70 + [Presence(0.75, True)]
    assert asked == [(64, 256, PRESENCE_SIDE, "features", "CT"), (7, 256, PRESENCE_SIDE, "features", "CT")]
    # what else is asked about the image needs no second look, but the time of a further prediction is its own
    for count in (1, 2, 3):
        predictor.predict(SimpleNamespace(samples=()), pixels)
        assert len(looked) == count
    predictor.predict_presence(pixels, ["liver"], "CT")
    predictor.predict(SimpleNamespace(samples=()), pixels.copy())
    assert len(looked) == 5
