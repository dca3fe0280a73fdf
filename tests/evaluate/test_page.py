"""The HTML page and the examples: self-contained, escaped, with the right samples."""

from __future__ import annotations

import base64
import io
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unibiomed.data.records import Record, Region
from unibiomed.evaluate.case_scoring import score_case
from unibiomed.evaluate.examples import (
    draw_examples,
    paint_sample,
    ranking_score,
    record_keys,
    select_examples,
    select_samples,
)
from unibiomed.evaluate.page import samples as page_samples
from unibiomed.evaluate.page import write_page
from unibiomed.evaluate.predictions import Prediction, PredictionStore
from unibiomed.evaluate.sample_scores import SampleScore, SampleScoreWriter
from unibiomed.evaluate.samples import Case, Sample
from unibiomed.evaluate.summary import summarise
from unibiomed.evaluate.tables import write_tables
from unibiomed.export.overlay import PALETTE
from unibiomed.findings import rle_encode

EVIL = "<script>alert('x')</script>\" onmouseover=\"alert(1)"
SIZE = (40, 60)


def square(top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


def make_case(number: int) -> Case:
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(80, 120, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    key = f"colon/image{number:02d}"
    region = Region("polyp", rle_encode(square(5, 5, 20)), abnormal=True)
    record = Record(key, file.getvalue(), "colon", "endoscopy", "colon", f"p{number}", "test", (region,))
    samples = (
        Sample(f"{key}#segment/polyp", "segment", "?", "It is [SEG].", "polyp", regions=(0,), kind="in_context"),
        Sample(f"{key}#ask/0", "ask", "What?", "A polyp", kind="open"),
        Sample(f"{key}#classify/0", "classify", "What?", "polyp", labels=("polyp",), box=(5, 5, 25, 25)),
    )
    return Case(record, samples, None, number)


@dataclass
class World:
    cases: list[Case]
    store: PredictionStore
    rows: list[SampleScore]
    results: dict[str, Any]
    scores: dict[str, Path]
    calls: list[set[str]]

    def find(self, keys: set[str]) -> Iterable[Case]:
        self.calls.append(keys)
        return [case for case in self.cases if case.record.key in keys]

    def write(self, folder: Path, **more: Any) -> Path:
        values = {"scores": self.scores, "stores": {"nano": self.store}, "cases": self.find, **more}
        return write_page(self.results, values.pop("figures", []), folder, **values)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("evaluation")
    store = PredictionStore(folder / "predictions")
    cases = [make_case(n) for n in range(8)]
    for n, case in enumerate(cases):
        segment, ask, classify = case.samples
        if n != 7:
            # image 0 is exact, the error grows with the number
            store.write(Prediction.from_masks(segment.id, EVIL, ["polyp"], [square(5 + 2 * n, 5, 20)], [0.9], [0.8]))
        store.write(Prediction(ask.id, EVIL if n else "A polyp."))
        store.write(Prediction(classify.id, "polyp", ("polyp",)))
    rows = [row for case in cases for row in score_case(case, case.samples, store)]
    path = folder / "scores.jsonl"
    with SampleScoreWriter(path) as writer:
        for row in rows:
            writer.add(row)
    tables = {"baseline": False, "note": EVIL, **summarise(rows)}
    models = {"nano": tables, "empty": tables | {"baseline": True, "note": ""}}
    results = {"suite": "made-up", "title": f"Title {EVIL}", "version": "0", "images": 8, "models": models}
    return World(cases, store, rows, results, {"nano": path, "empty": path}, [])


@pytest.fixture
def world(made: World) -> World:
    made.calls.clear()
    return made


class Reader(HTMLParser):
    """Tags in their order, checked to be closed; texts; links."""

    VOID = ("meta", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self.open:
            self.rows[-1][-1] += data


def read(path: Path) -> Reader:
    return Reader(path.read_text(encoding="utf-8"))


def test_index_has_tables_figures_and_links_without_external_files(world: World, tmp_path: Path) -> None:
    svg, png = tmp_path / "a_b.svg", tmp_path / "a_b.png"
    svg.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    Image.new("RGB", (2, 2)).save(png)
    index = world.write(tmp_path / "page", figures=[svg, png])
    text, page = index.read_text(encoding="utf-8"), read(index)
    assert text.count("Not for clinical use without validation") == 1
    for title in ("Overview", "Segmentation", "Segmentation by target, nano", "Failures (scored 0)"):
        assert f"<h3>{title}</h3>" in text
    (figure,) = [link for link in page.links if link.startswith("data:")]
    assert figure == f"data:image/svg+xml;base64,{base64.b64encode(svg.read_bytes()).decode()}"
    others = [link for link in page.links if not link.startswith(("data:", "#"))]
    # baselines have no page of samples
    assert others == ["samples/001.html"]
    assert (index.parent / others[0]).is_file()
    assert "default-src 'none'" in text
    # the tables of baselines are collapsed together, below the others
    baselines = text.partition("<details><summary>Tables of single baselines</summary>")[2]
    assert "<h3>Segmentation by target, empty</h3>" in baselines and "Segmentation by target, nano" not in baselines


def test_index_shows_selection_and_command(world: World, tmp_path: Path) -> None:
    assert "<code>" not in world.write(tmp_path / "before").read_text(encoding="utf-8")
    world.results["selection"] = "All images of the test split."
    world.results["run"] = {"date": "2026-01-31", "command": "unibiomed evaluate <own>.toml"}
    text = world.write(tmp_path / "after").read_text(encoding="utf-8")
    assert "All images of the test split. <code>unibiomed evaluate &lt;own&gt;.toml</code> 2026-01-31" in text


def test_index_links_existing_files_only(world: World, tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    names = [tmp_path / "figures" / f"scores_v1.2.{kind}" for kind in ("svg", "png")]
    names[0].write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    Image.new("RGB", (2, 2)).save(names[1])
    write_tables(world.results, tmp_path / "tables")
    (tmp_path / "results.json").write_text("{}")
    examples = draw_examples(
        world.cases[1:],
        select_examples(world.rows),
        world.store,
        tmp_path / "examples" / world.store.folder.name,
        model="nano",
    )
    page = read(world.write(tmp_path, figures=names))
    links = [link for link in page.links if not link.startswith(("data:", "#"))]
    assert all((tmp_path / link).is_file() for link in links)
    wanted = {
        "results.json",
        "tables/tables.md",
        "tables/overview.md",
        "tables/overview.tex",
        "tables/targets_empty.tex",
    }
    wanted |= {"figures/scores_v1.2.svg", "figures/scores_v1.2.png"}
    wanted |= {path.relative_to(tmp_path).as_posix() for path in examples}
    assert wanted <= set(links)
    # the best image was not drawn
    row = next(row for row in page.rows if row and row[0] == "polyp" and "Dice" in row[1])
    assert [cell.partition(" ")[0] for cell in row] == ["polyp", "Dice", "Dice", "–"]


def test_page_states_that_nothing_failed(world: World, tmp_path: Path) -> None:
    models = {name: table | {"failures": {}} for name, table in world.results["models"].items()}
    text = write_page(world.results | {"models": models}, [], tmp_path).read_text(encoding="utf-8")
    assert "no failures" in text and "no failures" not in world.write(tmp_path).read_text(encoding="utf-8")


def test_pages_show_questions_and_list_perturbed_images_last(world: World, tmp_path: Path) -> None:
    first = next(row for row in world.rows if row.task == "ask")
    changed = replace(
        first, id=f"{first.id}@blur3", perturbation="blur", strength=3, exact_match=False, answer="changed"
    )
    other = replace(first, id=f"{first.id}~2", paraphrase=2, exact_match=False, answer="other")
    path = tmp_path / "scores.jsonl"
    with SampleScoreWriter(path) as writer:
        for row in [changed, other, *world.rows]:
            writer.add(row)
    world.write(tmp_path, scores={"nano": path}, pictures=2)
    rows = [row for row in read(tmp_path / "samples" / "001.html").rows if row]
    assert {row[4] for row in rows} == {"endoscopy"}
    by_task = {task: [row for row in rows if row[5] == task] for task in ("ask", "segment")}
    # questions of experts are shown with and without the image
    assert {row[-3] for row in by_task["ask"][:8]} == {"What?"}
    assert [(row[7], row[-2]) for row in rows[-2:]] == [("blur 3", "changed"), ("paraphrase 2", "other")]
    assert rows[-2][-3] == "What?" and rows[-2][:3] == ["", "", ""]
    assert all(row[7] == "" for row in rows[:-2])


def test_answers_are_escaped(world: World, tmp_path: Path) -> None:
    index = world.write(tmp_path)
    for path, scripts in ((index, 0), (tmp_path / "samples" / "001.html", 1)):
        page, text = read(path), path.read_text(encoding="utf-8")
        assert page.tags.count("script") == scripts
        assert page.handlers == []
        assert "&lt;script&gt;alert(" in text
    answers = [row[-2] for row in page.rows if row]
    assert any("<script>alert('x')</script>" in answer for answer in answers)


def test_policy_allows_the_script_only(world: World, tmp_path: Path) -> None:
    import hashlib

    world.write(tmp_path)
    text = (tmp_path / "samples" / "001.html").read_text(encoding="utf-8")
    (script,) = re.findall("<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text


def test_worst_samples_get_images_and_the_others_are_listed(world: World, tmp_path: Path) -> None:
    world.write(tmp_path, pictures=6)
    page = read(tmp_path / "samples" / "001.html")
    rows = [row for row in page.rows if row]
    assert len(rows) == len(world.rows) == 24
    pictures = [link for link in page.links if link.startswith("data:image/jpeg;base64,")]
    assert len(pictures) == 3 * 6
    for picture in pictures:
        assert Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2]))).size == (60, 40)
    # two samples of each task, worst first
    assert [row[5] for row in rows[:3]] == ["ask", "classify", "segment"]
    assert rows[2][3] == "image07#segment/polyp"
    assert sum(row[0] == row[1] == row[2] == "" for row in rows) >= 18
    assert len({row[3] for row in rows}) == 24
    # images and questions are read in one pass
    (keys,) = world.calls
    assert "colon/image07" in keys


def test_pages_show_scores(world: World, tmp_path: Path) -> None:
    world.write(tmp_path)
    page = read(tmp_path / "samples" / "001.html")
    cells = {row[3]: row[5:] for row in page.rows if row}
    assert cells["image00#segment/polyp"][:7] == ["segment", "polyp", "", "1.000", "–", "1.000", "0.900"]
    assert cells["image05#segment/polyp"][3] == "0.500"
    assert cells["image07#segment/polyp"][3] == "0.000"
    assert "failure: no prediction" in cells["image07#segment/polyp"][-2]
    assert cells["image00#ask/0"][4] == "yes"
    assert cells["image01#ask/0"][4] == "no"
    text = (tmp_path / "samples" / "001.html").read_text(encoding="utf-8")
    assert '<td data-value="0.500000">0.500</td>' in text


def test_without_cases_there_are_no_images(world: World, tmp_path: Path) -> None:
    world.write(tmp_path, cases=None)
    page = read(tmp_path / "samples" / "001.html")
    assert "img" not in page.tags
    assert len([row for row in page.rows if row]) == 24


def test_without_scores_there_are_no_sample_pages(world: World, tmp_path: Path) -> None:
    index = write_page(world.results, [], tmp_path)
    assert read(index).links == ["#tables", "#figures"]
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_pages_are_reproducible_and_old_ones_are_removed(world: World, tmp_path: Path) -> None:
    (tmp_path / "b" / "samples").mkdir(parents=True)
    (tmp_path / "b" / "samples" / "002.html").write_text("of an earlier run")
    for name in ("a", "b"):
        world.write(tmp_path / name, pictures=5)
    files = [sorted(path.relative_to(tmp_path / n) for path in (tmp_path / n).rglob("*.html")) for n in ("a", "b")]
    assert files[0] == files[1] == [Path("index.html"), Path("samples/001.html")]
    for file in files[0]:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def dice_row(number: int, dice: float, target: str = "polyp", **more: Any) -> SampleScore:
    counts = {"target_present": True, "intersection": round(dice * 100), "predicted_area": 100, "true_area": 100} | more
    kind = counts.pop("kind", "in_context")
    return SampleScore(
        f"set/{number:02d}#segment/{target}", "segment", "set", "CT", "s", number, target, kind, **counts
    )


def test_examples_are_worst_median_and_best() -> None:
    rows = [dice_row(n, dice) for n, dice in enumerate([0.5, 0.1, 0.9, 0.1, 0.9])]
    rows += [
        dice_row(9, 0.0, target_present=False),
        dice_row(10, 0.0, kind="out_of_context"),
        dice_row(11, 0.0, perturbation="blur"),
    ]
    rows += [dice_row(12, 0.7, "cup"), dice_row(13, 0.6, "disc"), dice_row(14, 0.8, "disc")]
    found = [
        (example.score.target, example.rank, example.score.image_index, example.count)
        for example in select_examples(rows)
    ]
    assert found == [
        ("cup", "worst", 12, 1),
        ("disc", "worst", 13, 2),
        ("disc", "best", 14, 2),
        ("polyp", "worst", 1, 5),
        ("polyp", "median", 0, 5),
        ("polyp", "best", 4, 5),
    ]


def test_selected_samples_are_the_worst_and_random_others() -> None:
    rows = [dice_row(n, n / 100) for n in range(100)]
    chosen = select_samples(rows, 10, seed=1)
    numbers = [row.image_index for row in chosen]
    assert numbers == sorted(numbers)
    assert numbers[:5] == [0, 1, 2, 3, 4]
    assert len(set(numbers)) == 10
    assert [row.image_index for row in select_samples(rows[::-1], 10, seed=1)] == numbers
    assert [row.image_index for row in select_samples(rows, 10, seed=2)] != numbers
    assert select_samples(rows, 0, seed=1) == []
    assert len(select_samples(rows, 200, seed=1)) == 100
    assert ranking_score(dice_row(1, 0.9, failure="broken")) == 0


def test_every_task_gets_a_share_of_the_images() -> None:
    masks = [dice_row(n, 0.3 + n / 100) for n in range(60)]
    texts = [
        SampleScore(
            f"colon/{n}#describe/0", "describe", "colon", "endoscopy", "p", n, exact_match=False, reference="a b c d"
        )
        for n in range(30)
    ]
    for n, row in enumerate(texts):
        row.answer = " ".join("abcd"[: n % 5])
    few = [SampleScore("colon/1#classify/0", "classify", "colon", "endoscopy", "p", 1, exact_match=True)]
    chosen = select_samples([*masks, *texts, *few], 11, seed=1)
    assert sorted(Counter(row.task for row in chosen).items()) == [("classify", 1), ("describe", 5), ("segment", 5)]
    # the worst of each task, although no text matches exactly
    assert {row.id for row in masks[:3]} < {row.id for row in chosen}
    assert sum(not row.answer for row in chosen if row.task == "describe") >= 3
    assert chosen[0].task != chosen[1].task
    assert ranking_score(texts[0]) == 0 and ranking_score(texts[4]) == pytest.approx(1)


def test_record_keys_with_number_signs() -> None:
    assert record_keys([SampleScore("set/a#1#segment/x", "segment", "set", "CT", "s", 0)]) == {"set/a", "set/a#1"}


def test_labels_have_the_same_colour_in_both_images(world: World) -> None:
    case = world.cases[0]
    painting = paint_sample(case, case.samples[0], world.store, 300)
    assert painting.labels == ("polyp",)
    np.testing.assert_array_equal(painting.image, case.record.load_image())
    # the prediction of the first image equals the ground truth
    np.testing.assert_array_equal(painting.truth, painting.prediction)
    colors = set(map(tuple, painting.truth.reshape(-1, 3).tolist()))
    assert PALETTE[0] in colors
    box = paint_sample(case, case.samples[2], world.store, 300)
    assert (box.truth != box.image).any()
    np.testing.assert_array_equal(box.prediction, box.image)
    failed = world.cases[7]
    painting = paint_sample(failed, failed.samples[0], world.store, 300)
    np.testing.assert_array_equal(painting.prediction, painting.image)
    assert (painting.truth != painting.image).any()


def test_scaled_masks_keep_single_pixels(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (900, 600), (90, 90, 90)).save(file, "PNG")
    mask = np.zeros((600, 900), dtype=bool)
    mask[300, 450] = True
    region = Region("exudate", rle_encode(mask))
    record = Record("eye/1", file.getvalue(), "eye", "fundus", "eye", "p", "test", (region,))
    sample = Sample("eye/1#segment/exudate", "segment", "?", "It is [SEG].", "exudate", regions=(0,), kind="in_context")
    painting = paint_sample(Case(record, (sample,)), sample, PredictionStore(tmp_path), 300)
    assert painting.image.shape == painting.truth.shape == (200, 300, 3)
    assert tuple(painting.truth[100, 150]) == PALETTE[0]


def test_examples_are_drawn_with_both_outlines(world: World, tmp_path: Path) -> None:
    examples = select_examples(world.rows)
    assert [example.score.image_index for example in examples] == [7, 4, 0]
    paths = draw_examples(world.cases[:5], examples, world.store, tmp_path / "examples", model="nano")
    assert [path.name for path in paths] == ["polyp-median.png", "polyp-best.png"]
    assert sorted(path.name for path in (tmp_path / "examples").glob("*.png")) == ["polyp-best.png", "polyp-median.png"]
    pixels = np.asarray(Image.open(paths[0]).convert("RGB"))
    colors = set(map(tuple, pixels.reshape(-1, 3).tolist()))
    assert {PALETTE[0], PALETTE[1]} <= colors
    again = draw_examples(world.cases, examples, world.store, tmp_path / "again", model="nano")
    assert [path.name for path in again] == ["polyp-worst.png", "polyp-median.png", "polyp-best.png"]
    assert again[1].read_bytes() == paths[0].read_bytes()
    draw_examples(world.cases, examples[:1], world.store, tmp_path / "again", model="nano")
    assert [path.name for path in (tmp_path / "again").glob("*.png")] == ["polyp-worst.png"]


def test_pages_have_a_maximum_number_of_rows(world, tmp_path, monkeypatch):
    monkeypatch.setattr(page_samples, "MAX_SAMPLES", 10)
    world.write(tmp_path, pictures=4)
    text = (tmp_path / "samples" / "001.html").read_text()
    body = text.partition("<tbody>")[2]
    assert body.count("<tr>") == 10 and "24 samples, 4 of them with images" in text
    assert "The worst 10 are listed; 14 more are in scores/scores.jsonl." in text
