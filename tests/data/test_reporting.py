"""A report is told in the data set's own words where it has some, and points at what has a mask."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unibiomed.data import load_records
from unibiomed.data.conversation import Turn, canonical_turns, corpus_texts, make_turns, text_pairs
from unibiomed.data.records import REGION_TEXT, Record, Region
from unibiomed.data.reporting import has_own_words
from unibiomed.data.scene import Scene
from unibiomed.errors import DataError
from unibiomed.tasks import SEG, is_no_findings, make_question, read_phrases

FILE = Path("mask.png")
EMPTY = np.zeros((64, 64), dtype=bool)
LEFT, RIGHT = EMPTY.copy(), EMPTY.copy()
LEFT[10:30, 5:20] = RIGHT[20:30, 40:50] = True
CAPTION = "CT of the abdomen. A cyst of the liver."
ABSENT = Region("pneumothorax", None, abnormal=True)


def finding(target: str, words: str = "") -> Region:
    return Region(target, FILE, abnormal=True, attributes={REGION_TEXT: words} if words else {})


def record(*regions: Region, text: str | None = CAPTION, **more: object) -> Record:
    values: dict[str, object] = {
        "key": "set/one",
        "image": Path("one.png"),
        "dataset": "set",
        "modality": "CT",
        "site": "abdomen",
        "group": "one",
        "split": "train",
        "regions": regions,
        "text": text,
    }
    return Record(**(values | more))  # type: ignore[arg-type]


def drawn(one: Record, masks: dict[int, np.ndarray], rounds: int = 80) -> list[Turn]:
    rng = random.Random(0)
    return [turn for _ in range(rounds) for turn in make_turns(one, masks, rng, tasks={"report": 1.0}, count=3)]


def told(one: Record, masks: dict[int, np.ndarray]) -> Turn:
    """The report, the same in evaluation and in training."""
    (turn,) = (turn for turn in canonical_turns(one, masks) if turn.task == "report")
    assert {(other.answer, other.masks) for other in drawn(one, masks, 10)} == {(turn.answer, turn.masks)}
    assert turn.question == make_question("report", modality=one.modality)
    return turn


def test_a_caption_is_the_report() -> None:
    assert told(record(), {}) == Turn("report", make_question("report", modality="CT"), CAPTION)
    questions = [turn.question for turn in drawn(record(), {})]
    own = questions.count(make_question("report", modality="CT"))
    assert 0.1 < own / len(questions) < 0.45 and len(set(questions)) > 15
    others = [question for question in questions if question != make_question("report", modality="CT")]
    assert not any("mask" in question or "abnormal" in question for question in others)


def test_a_caption_is_what_an_image_without_regions_is_mostly_asked_for() -> None:
    rng = random.Random(0)
    tasks = [turn.task for _ in range(300) for turn in make_turns(record(), {}, rng, count=1)]
    assert tasks.count("report") > 0.6 * len(tasks) and set(tasks) == {"segment", "report", "ask"}


def test_one_finding_is_told_in_the_published_form() -> None:
    turn = told(record(finding("liver cyst")), {0: LEFT})
    assert (turn.answer, turn.masks) == (f"<p> Liver cyst. {CAPTION} </p> {SEG}", (0,))


def test_a_text_of_several_findings_stands_before_their_names() -> None:
    turn = told(record(finding("liver cyst"), Region("liver", FILE), finding("ascites")), {0: RIGHT, 1: LEFT, 2: LEFT})
    assert turn.answer == f"{CAPTION} <p> Ascites </p> {SEG} <p> Liver cyst </p> {SEG}"
    assert turn.masks == (2, 0)
    assert [phrase.label for phrase in read_phrases(turn.answer)] == ["Ascites", "Liver cyst"]


@pytest.mark.parametrize("rest", ["", "No effusion."])
def test_a_text_of_a_region_stands_with_its_mask(rest: str) -> None:
    first, second = "A nodule in the left lung.", "Fluid on the right."
    one = record(finding("nodule", first), finding("effusion", second), text=f"{first} {second} {rest}".strip())
    turn = told(one, {0: LEFT, 1: RIGHT})
    grounded = f"<p> Nodule. {first} </p> {SEG} <p> Effusion. {second} </p> {SEG}"
    assert (turn.answer, turn.masks) == (f"{rest} {grounded}".strip(), (0, 1))
    # a region that is not there keeps its sentence, and has no mask
    turn = told(one, {0: LEFT, 1: EMPTY})
    assert (turn.answer, turn.masks) == (f"{second} {rest}".strip() + f" <p> Nodule. {first} </p> {SEG}", (0,))


def test_a_text_of_a_region_is_preferred_to_measures() -> None:
    one = record(finding("nodule", "A nodule."), finding("effusion"), text=None, abnormal_known=True)
    turn = told(one, {0: LEFT, 1: RIGHT})
    first, second = (phrase.phrase for phrase in read_phrases(turn.answer))
    assert first == "Nodule. A nodule." and "covering about" in second
    anatomy = record(Region("liver", FILE, attributes={REGION_TEXT: "The liver is large."}), text=None)
    assert {turn.answer for turn in drawn(anatomy, {0: LEFT}, 10)} == {f"<p> Liver. The liver is large. </p> {SEG}"}
    assert not any(turn.task == "report" for turn in canonical_turns(anatomy, {0: LEFT}))


def test_anatomy_is_pointed_at_only_where_the_text_is_about_it() -> None:
    assert told(record(Region("liver", FILE)), {0: LEFT}).answer == CAPTION
    large = record(Region("liver", FILE, attributes={REGION_TEXT: "The liver is large."}), Region("spleen", FILE))
    turn = told(large, {0: LEFT, 1: RIGHT})
    assert (turn.answer, turn.masks) == (f"{CAPTION} <p> Liver. The liver is large. </p> {SEG}", (0,))
    assert any("structure" in turn.question for turn in drawn(large, {0: LEFT, 1: RIGHT}))


def test_a_finding_without_an_outline_is_not_pointed_at() -> None:
    box = Region("nodule", None, abnormal=True, box=(5, 5, 9, 9), attributes={REGION_TEXT: "A nodule."})
    turn = told(record(box, finding("effusion")), {1: LEFT})
    assert (turn.answer, turn.masks) == (CAPTION, ())


def test_a_normal_image_says_so_first() -> None:
    normal = record(ABSENT, text="Clear lungs.", label="No findings", abnormal_known=True)
    assert told(normal, {}).answer == "No findings. Clear lungs."
    assert told(record(text="No findings in the lungs.", label="No findings"), {}).answer == "No findings in the lungs."
    assert is_no_findings(told(normal, {}).answer)
    # that a mask is empty is no word of the data set: a view may have left the finding outside
    left_out = record(finding("polyp"), text="A polyp.", label="Polyp", label_needs_finding=True, abnormal_known=True)
    assert told(left_out, {0: EMPTY}).answer == "A polyp."


def test_nothing_is_told_of_findings_whose_mask_was_not_loaded() -> None:
    one = record(finding("nodule"), Region("liver", FILE))
    assert not has_own_words(Scene(one, {1: LEFT}))
    assert drawn(one, {1: LEFT}) == [] and not any(turn.task == "report" for turn in canonical_turns(one, {1: LEFT}))


def test_words_are_cleaned_of_paragraphs_and_may_not_hold_masks() -> None:
    assert told(record(text="<p>A cyst.</p>\n\n<p>No  stones.</p>"), {}).answer == "A cyst. No stones."
    with pytest.raises(DataError, match="SEG"):
        drawn(record(text=f"A cyst {SEG}."), {})


def test_texts_of_images_are_learned_without_them() -> None:
    one = record(finding("polyp"), text="A polyp.", label="Polyp", label_needs_finding=True, abnormal_known=True)
    assert "A polyp." in set(corpus_texts([one]))
    pairs = [pair for seed in range(60) for pair in text_pairs(one, random.Random(seed))]
    # what the text tells of is never made up to be missing
    assert pairs and not any(is_no_findings(answer) for _, answer in pairs)
    assert any(answer == f"<p> Polyp. A polyp. </p> {SEG}" for _, answer in pairs)


def test_a_report_alone_is_asked_for_by_its_modality() -> None:
    chest = record(image=None, modality="X-ray", site="chest")
    slide = record(image=None, modality="pathology", site="colon")
    asked = {one.site: {text_pairs(one, random.Random(n))[0][0] for n in range(40)} for one in (chest, slide)}
    assert any("chest X-ray" in question for question in asked["chest"])
    assert not any("X-ray" in question for question in asked["colon"])


# ---------------------------------------------------------------- from files


def picture(path: Path, value: int = 7) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 8), value, dtype=np.uint8)).save(path)


def described(folder: Path, adapter: str, more: str) -> None:
    head = f'name = "{folder.name}"\nlicence = "CC0"\nadapter = "{adapter}"\nmodality = "CT"\nsite = "lung"\n'
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.toml").write_text(head + more)


def test_captions_become_questions(tmp_path: Path) -> None:
    described(tmp_path / "toy", "captions", 'text = ["caption"]\n[[tables]]\nfile = "t.csv"\nkey = "file"\n')
    picture(tmp_path / "toy" / "images" / "a.png")
    (tmp_path / "toy" / "t.csv").write_text("file,caption\na.png,A nodule of the left lung.\n")
    (one,) = load_records(tmp_path)
    assert told(one, {}).answer == "A nodule of the left lung."


def test_reports_of_the_published_form_become_grounded_ones(tmp_path: Path) -> None:
    toy = tmp_path / "toy"
    described(toy, "published", 'images = "."\n[[tables]]\nfile = "train_report.json"\n')
    for name in ("a_CT_lung", "b_CT_lung"):
        picture(toy / "train" / f"{name}.png")
    picture(toy / "train_mask" / "a_CT_lung_nodule.png", 255)
    items = [("Lung nodule", "a", "train_mask/a_CT_lung_nodule.png", "A nodule."), ("no findings", "b", "", "Clear.")]
    keys = ("abnormality", "image_file", "mask_file", "report")
    rows = {
        str(n): dict(zip(keys, (said, f"train/{name}_CT_lung.png", mask, words), strict=True))
        for n, (said, name, mask, words) in enumerate(items)
    }
    (toy / "train_report.json").write_text(json.dumps(rows))
    one, two = load_records(tmp_path)
    turn = told(one, {0: one.regions[0].load()})
    assert (turn.answer, turn.masks) == (f"<p> Lung nodule. A nodule. </p> {SEG}", (0,))
    assert told(two, {}).answer == "No findings. Clear."
