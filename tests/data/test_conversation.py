"""Every record becomes turns whose words are sure and whose masks fit their ``[SEG]``."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unibiomed.data.conversation import (
    TASK_WEIGHTS,
    Turn,
    canonical_turns,
    corpus_texts,
    make_turns,
    text_corpus,
)
from unibiomed.data.phrasing import every_phrase, with_article
from unibiomed.data.records import QuestionAnswer, Record, Region
from unibiomed.errors import DataError
from unibiomed.tasks import SEG, TASKS, is_no_findings, make_question, read_class, read_phrases
from unibiomed.terminology import absent_targets

FILE = Path("mask.png")
SPECIAL = re.compile(r"\[SEG\]|</?p>|<\|")


def blob(row: int = 30, column: int = 30, radius: int = 12, side: int = 128) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    return (y - row) ** 2 + (x - column) ** 2 < radius**2


EMPTY = np.zeros((128, 128), dtype=bool)


def record(**more: object) -> Record:
    values: dict[str, object] = {
        "key": "set/one",
        "image": Path("one.png"),
        "dataset": "set",
        "modality": "endoscopy",
        "site": "colon",
        "group": "one",
        "split": "train",
        "regions": (Region("polyp", FILE, abnormal=True),),
        "label": "Polyp",
        "label_needs_finding": True,
        "abnormal_known": True,
    }
    return Record(**(values | more))  # type: ignore[arg-type]


BREAST = record(
    modality="ultrasound",
    site="breast",
    regions=(Region("breast lesion", FILE, abnormal=True),),
    label="Malignant breast lesion",
    label_needs_finding=False,
)
NORMAL = record(
    modality="ultrasound",
    site="breast",
    regions=(Region("breast lesion", FILE, abnormal=True),),
    label="No findings",
    label_needs_finding=False,
)
CHEST = record(
    modality="X-ray",
    site="chest",
    regions=(
        Region("left lung", FILE),
        Region("right lung", FILE),
        Region("ground-glass opacity", FILE, abnormal=True),
        Region("consolidation", FILE, abnormal=True),
        Region("pneumothorax", None, abnormal=True),
    ),
    label="COVID-19 pneumonia",
    attributes={"view": "PA", "clinical notes": "Male, 50 years old"},
)
CHEST_MASKS = {0: blob(60, 90, 30), 1: blob(60, 30, 30), 2: blob(80, 90, 14), 3: blob(50, 20, 9)}
CARDIAC = record(
    modality="MRI",
    site="heart",
    regions=(Region("left ventricle", FILE), Region("myocardium", FILE), Region("right ventricle", FILE)),
    label=None,
    label_needs_finding=False,
    abnormal_known=False,
)
CARDIAC_MASKS = {0: blob(60, 60, 9), 1: blob(60, 60, 16) & ~blob(60, 60, 9), 2: EMPTY}
SKIN = record(
    modality="dermoscopy",
    site="skin",
    regions=(Region("skin lesion", FILE, abnormal=True),),
    label="Melanoma",
    label_needs_finding=False,
    attributes={
        "pigment network": "atypical",
        "streaks": "absent",
        "blue-whitish veil": "present",
        "colors": "light brown; dark brown; black",
        "histology": "Nodular Melanoma",
    },
)
CELLS = record(
    modality="pathology",
    site="cells",
    regions=(Region("cell nucleus", FILE),),
    label=None,
    abnormal_known=False,
    attributes={"nucleus count": "23", "stain": "greyscale brightfield"},
)
CELL_MASK = blob(20, 20, 8) | blob(60, 60, 9) | blob(100, 30, 7)
ASKED = record(
    modality="CT",
    site="abdomen",
    regions=(),
    label=None,
    abnormal_known=False,
    questions=(QuestionAnswer("Is the liver normal?", "Yes", "closed", "7"),),
    attributes={"modality source": "usual for the organ"},
)
REPORT = record(
    image=None,
    regions=(),
    modality="X-ray",
    site="chest",
    label=None,
    text="Findings: The lungs are clear. Impression: Normal chest.",
)
SCENES = [
    (record(), {0: blob()}),
    (record(), {0: EMPTY}),
    (BREAST, {0: blob(90, 90, 20)}),
    (NORMAL, {0: EMPTY}),
    (CHEST, CHEST_MASKS),
    (CARDIAC, CARDIAC_MASKS),
    (SKIN, {0: blob(60, 60, 40)}),
    (CELLS, {0: CELL_MASK}),
    (ASKED, {}),
]


def sampled(
    one: Record, masks: dict[int, np.ndarray], tasks: dict[str, float] | None = None, rounds: int = 60
) -> list[Turn]:
    rng = random.Random(3)
    return [turn for _ in range(rounds) for turn in make_turns(one, masks, rng, tasks=tasks, count=4)]


def only(one: Record, masks: dict[int, np.ndarray], task: str, rounds: int = 60) -> list[Turn]:
    return sampled(one, masks, {task: 1.0}, rounds)


@pytest.mark.parametrize(("one", "masks"), SCENES)
def test_every_turn_is_whole(one: Record, masks: dict[int, np.ndarray]) -> None:
    turns = sampled(one, masks)
    assert len(turns) >= 60
    for turn in turns:
        assert turn.task in TASKS
        assert turn.question and not SPECIAL.search(turn.question)
        assert "{" not in turn.question + turn.answer and "  " not in turn.question + turn.answer
        assert turn.answer == turn.answer.strip() != ""
        assert turn.answer.count(SEG) == len(turn.masks)
        assert all(index is None or 0 <= index < len(one.regions) for index in turn.masks)
        assert len(read_phrases(turn.answer)) == len(turn.masks)
        assert (turn.box is not None) == (turn.task in ("classify", "describe"))
        assert turn.box is not None or turn.box_region is None
        if turn.box is not None and turn.box_region is not None:
            x0, y0, x1, y1 = turn.box
            assert masks[turn.box_region][y0:y1, x0:x1].any()
            assert not turn.masks


@pytest.mark.parametrize(("one", "masks"), SCENES)
def test_the_same_seed_gives_the_same_turns(one: Record, masks: dict[int, np.ndarray]) -> None:
    first, second = (make_turns(one, masks, random.Random(5), count=6) for _ in range(2))
    assert first == second
    assert any(make_turns(one, masks, random.Random(seed), count=6) != first for seed in range(6, 12))


def test_no_question_is_asked_twice_of_one_image() -> None:
    for seed in range(50):
        turns = make_turns(BREAST, {0: blob()}, random.Random(seed), count=6)
        assert len({(turn.question, turn.box) for turn in turns}) == len(turns) == 6


def test_about_a_sixth_of_the_segment_turns_ask_for_what_is_not_there() -> None:
    # As in the catalogue: about one image of ten shows none of its targets.
    rng = random.Random(0)
    absent = total = 0
    for number in range(4000):
        masks = {0: EMPTY if number % 10 == 0 else blob()}
        for turn in make_turns(record(), masks, rng, tasks={"segment": 1.0}, count=1):
            total += 1
            absent += turn.masks[0] is None or not masks[turn.masks[0]].any()
    assert 0.15 < absent / total < 0.20


def test_absent_targets_are_answered_like_present_ones() -> None:
    turns = only(record(), {0: EMPTY}, "segment")
    assert {turn.masks for turn in turns} == {(0,), (None,)}
    assert all(SEG in turn.answer for turn in turns)


def test_a_box_is_drawn_around_the_region_that_is_asked_for() -> None:
    regions = (Region("liver", None), Region("spleen", None), Region("kidney", None))
    record = Record("set/a", Path("a.png"), "set", "CT", "abdomen", "1", "train", regions)
    masks = {j: np.pad(np.ones((8, 8), bool), ((10 * j, 40 - 10 * j), (4, 36))) for j in range(2)}
    for seed in range(20):
        turns = make_turns(record, masks, random.Random(seed), tasks={"classify": 1.0, "describe": 1.0}, boxed=1)
        assert turns and {turn.box_region for turn in turns} <= {1, None}


def test_several_targets_are_named_before_their_masks() -> None:
    turns = [turn for turn in only(CHEST, CHEST_MASKS, "segment") if len(turn.masks) > 1]
    assert turns
    for turn in turns:
        assert len(set(turn.masks)) == len(turn.masks)
        assert re.fullmatch(r"(<p> [^<]+ </p> \[SEG\](, | and |\.$))+", turn.answer)
        assert all(phrase.label in turn.question for phrase in read_phrases(turn.answer))


def test_recognition_names_one_finding_by_the_images_label() -> None:
    assert {turn.answer for turn in only(BREAST, {0: blob()}, "recognize")} == {f"It is {SEG}. Malignant breast lesion"}


def test_recognition_names_several_findings_the_largest_first() -> None:
    answers = {(turn.answer, turn.masks) for turn in only(CHEST, CHEST_MASKS, "recognize")}
    assert answers == {(f"It is {SEG}. Ground-glass opacity. It is {SEG}. Consolidation", (2, 3))}
    assert [phrase.label for phrase in read_phrases(next(iter(answers))[0])] == [
        "Ground-glass opacity",
        "Consolidation",
    ]


@pytest.mark.parametrize("one", [NORMAL, record(), record(label=None, label_needs_finding=False)])
def test_recognition_and_report_say_that_nothing_is_there(one: Record) -> None:
    assert {turn.answer for turn in only(one, {0: EMPTY}, "recognize")} == {"No findings"}
    for turn in only(one, {0: EMPTY}, "report"):
        assert is_no_findings(turn.answer) and turn.masks == ()
        assert turn.answer == f"No findings. The {one.site} {one.modality} image shows no abnormality."


def test_nothing_is_recognized_where_it_is_not_known_what_is_abnormal() -> None:
    unknown = record(abnormal_known=False)
    assert only(unknown, {0: blob()}, "recognize") == []
    assert only(unknown, {0: EMPTY}, "report") == []
    assert only(CARDIAC, CARDIAC_MASKS, "recognize") == []
    # A label without an abnormal region, such as a tumor type of a whole slide, has no mask to show.
    slide = record(
        modality="pathology",
        site="brain",
        regions=(Region("cell nucleus", FILE),),
        label="Glioma",
        label_needs_finding=False,
    )
    assert only(slide, {0: blob()}, "recognize") == []


def test_nothing_is_said_of_a_region_whose_mask_was_not_loaded() -> None:
    assert {turn.task for turn in sampled(record(), {})} <= {"ask", "segment"}
    assert all(turn.masks == (None,) for turn in only(record(), {}, "segment"))


def test_report_ties_sentences_to_masks() -> None:
    answer = canonical(SKIN, {0: blob(60, 60, 40)}, "report").answer
    assert answer == (
        "<p> Melanoma. A large, round skin lesion in the centre of the image, covering about 30 % of it. "
        "The pigment network is atypical. There are no streaks. A blue-whitish veil is present. "
        "Its colors are light brown, dark brown and black. </p> [SEG]"
    )
    two = canonical(CHEST, CHEST_MASKS, "report")
    assert two.masks == (2, 3)
    assert [phrase.label for phrase in read_phrases(two.answer)] == ["Ground-glass opacity", "Consolidation"]
    assert "the patient's left" in two.answer and "the patient's right" in two.answer


def test_report_of_anatomy_is_asked_for_in_other_words() -> None:
    turns = only(CARDIAC, CARDIAC_MASKS, "report")
    assert {turn.masks for turn in turns} == {(0, 1)}
    assert not any("abnormal" in turn.question for turn in turns)


def test_clinical_notes_and_histology_are_never_told() -> None:
    words = " ".join(turn.question + turn.answer for turn in sampled(CHEST, CHEST_MASKS) + sampled(SKIN, {0: blob()}))
    assert "years old" not in words and "Nodular" not in words


def test_classes_of_boxes() -> None:
    assert {turn.answer for turn in only(BREAST, {0: blob()}, "classify")} == {
        "malignant breast lesion in breast ultrasound",
        "something else in breast ultrasound",
    }
    named = [turn for turn in only(CHEST, CHEST_MASKS, "classify") if turn.box_region is not None]
    assert {read_class(turn.answer) for turn in named} == {
        "left lung",
        "right lung",
        "ground-glass opacity",
        "consolidation",
    }
    cell = record(
        modality="pathology",
        site="blood",
        regions=(Region("white blood cell", FILE), Region("white blood cell nucleus", FILE)),
        label="Neutrophil",
        label_needs_finding=False,
    )
    assert {turn.answer for turn in only(cell, {0: blob(), 1: blob(radius=6)}, "classify")} == {
        "something else in blood pathology",
        "neutrophil in blood pathology",
        "white blood cell nucleus in blood pathology",
    }


def test_a_box_around_one_part_is_described_as_that_part() -> None:
    turns = only(CELLS, {0: CELL_MASK}, "describe")
    whole = [turn for turn in turns if turn.box == (13, 13, 69, 107)]
    parts = [turn for turn in turns if turn not in whole and turn.box_region is not None]
    assert whole and parts
    assert all("group of cell nuclei" in turn.answer and "about 20 nuclei" in turn.answer for turn in whole)
    assert all("round cell nucleus" in turn.answer and "20" not in turn.answer for turn in parts)


def test_made_questions_are_answered_truly() -> None:
    pairs = {(turn.question.lower().strip("?."), turn.answer) for turn in only(BREAST, {0: blob(30, 30)}, "ask", 300)}
    answers: dict[str, set[str]] = {}
    for question, answer in pairs:
        answers.setdefault(question, set()).add(answer)
    assert all(len(given) == 1 for given in answers.values()), [q for q, given in answers.items() if len(given) > 1]
    assert answers["is this benign or malignant"] == {"Malignant"}
    assert answers["what imaging modality was used"] == {"ultrasound"}
    assert answers["which part of the body is shown"] == {"breast"}
    assert answers["is there any abnormality"] == {"Yes"}
    impossible = {f"is there {with_article(target)}".lower() for target in absent_targets("ultrasound", "breast")}
    asked = impossible & set(answers)
    assert len(asked) >= 3 and all(answers[question] == {"No"} for question in asked)
    assert answers["is there a breast lesion"] == {"Yes"}
    assert answers["in which part of the image is the breast lesion"] == {"upper left"}
    assert answers["is this a benign breast lesion"] == {"No"}


def test_counts_criteria_and_views_are_asked() -> None:
    assert ("Count the nuclei.", "about 20") in {
        (t.question, t.answer) for t in only(CELLS, {0: CELL_MASK}, "ask", 100)
    }
    assert ("Are streaks present?", "No") in {(t.question, t.answer) for t in only(SKIN, {0: blob()}, "ask", 200)}
    assert ("Which view is this?", "PA") in {(t.question, t.answer) for t in only(CHEST, CHEST_MASKS, "ask", 100)}


def test_yes_and_no_are_balanced() -> None:
    said = Counter()
    for one, masks in SCENES[:-1]:
        said.update(turn.answer for turn in only(one, masks, "ask", 100) if turn.answer in ("Yes", "No"))
    assert 0.4 < said["Yes"] / said.total() < 0.6


def test_experts_questions_go_first_and_a_guessed_modality_is_not_told() -> None:
    turns = sampled(ASKED, {}, rounds=300)
    assert Counter(turn.question for turn in turns).most_common(1)[0][0] == "Is the liver normal?"
    assert not any("CT" in turn.question + turn.answer for turn in turns)


def test_weights_choose_the_tasks() -> None:
    assert {turn.task for turn in sampled(BREAST, {0: blob()}, {"report": 1.0, "classify": 0.0})} == {"report"}
    assert {turn.task for turn in sampled(BREAST, {0: blob()})} == set(TASK_WEIGHTS)
    assert set(TASK_WEIGHTS) == {name for name, task in TASKS.items() if task.in_words}
    for wrong in ({"paint": 1.0}, {"segment": -1.0}, {"segment": float("nan")}):
        with pytest.raises(DataError, match="weight"):
            make_turns(BREAST, {0: blob()}, random.Random(0), tasks=wrong)


def test_texts_without_an_image_give_no_turns() -> None:
    assert make_turns(REPORT, {}, random.Random(0)) == []
    assert canonical_turns(REPORT, {}) == []


def canonical(one: Record, masks: dict[int, np.ndarray], task: str) -> Turn:
    return next(turn for turn in canonical_turns(one, masks) if turn.task == task)


def test_canonical_turns_are_the_tasks_own_words() -> None:
    turns = canonical_turns(CHEST, CHEST_MASKS)
    assert Counter(turn.task for turn in turns) == {
        "segment": 5,
        "recognize": 1,
        "report": 1,
        "classify": 5,
        "describe": 4,
    }
    for turn in turns:
        target = CHEST.regions[turn.masks[0]].target if turn.task == "segment" else None
        assert turn.question == make_question(turn.task, target=target, modality="X-ray")
    assert {turn.answer for turn in turns if turn.task == "segment"} == {"It is [SEG]."}
    assert canonical_turns(ASKED, {}) == [Turn("ask", "Is the liver normal?", "Yes")]
    drawn = make_turns(CHEST, CHEST_MASKS, random.Random(1), count=100, canonical=True)
    assert sorted(drawn, key=repr) == sorted(turns, key=repr)
    few = make_turns(CHEST, CHEST_MASKS, random.Random(1), count=2, canonical=True, tasks={"report": 1, "recognize": 1})
    assert {turn.task for turn in few} == {"report", "recognize"}


def test_training_asks_in_many_words_and_often_in_the_tasks_own() -> None:
    for task, least in (("segment", 25), ("recognize", 20), ("report", 15), ("classify", 15), ("describe", 15)):
        questions = [turn.question for turn in only(BREAST, {0: blob()}, task, 400)]
        own = make_question(task, target="breast lesion", modality="ultrasound")
        assert len(set(questions)) >= least
        assert questions.count(own) / len(questions) > 0.1
    assert any(turn.question[0].islower() for turn in only(BREAST, {0: blob()}, "report"))


def test_articles() -> None:
    names = (
        "polyp",
        "MRI",
        "X-ray",
        "OCT",
        "LV cavity",
        "optic disc",
        "cell nuclei",
        "macular fluid",
        "ultrasound",
        "CT",
    )
    assert [with_article(name) for name in names] == [
        "a polyp",
        "an MRI",
        "an X-ray",
        "an OCT",
        "an LV cavity",
        "an optic disc",
        "cell nuclei",
        "macular fluid",
        "an ultrasound",
        "a CT",
    ]


def test_words_of_a_data_set_cannot_smuggle_in_a_mask() -> None:
    with pytest.raises(DataError, match="SEG"):
        only(record(label=f"Polyp {SEG}"), {0: blob()}, "recognize")
    with pytest.raises(DataError, match="SEG"):
        Turn("segment", f"Segment {SEG}.", f"{SEG}.", (0,))


@given(st.text(min_size=1, max_size=20).filter(str.strip), st.integers(0, 10**6))
def test_any_target_name_can_be_asked_for(name: str, seed: int) -> None:
    one = record(regions=(Region(name, FILE),), label=None, abnormal_known=False)
    turns = make_turns(one, {0: blob()}, random.Random(seed), tasks={"segment": 1.0, "classify": 1.0, "ask": 1.0})
    assert turns


def test_text_corpus_needs_no_files_and_is_repeatable() -> None:
    pool = [BREAST, NORMAL, CHEST, CARDIAC, SKIN, CELLS, ASKED, REPORT]
    pairs = list(text_corpus(pool, random.Random(2), 400))
    assert pairs == list(text_corpus(pool, random.Random(2), 400)) and len(pairs) == 400
    assert any(answer == REPORT.text and "[" not in question for question, answer in pairs)
    assert any(answer.startswith("<p> ") for _, answer in pairs)
    assert list(text_corpus([], random.Random(0), 5)) == []


def test_corpus_texts_hold_all_phrasings_and_reports() -> None:
    texts = set(corpus_texts([BREAST, ASKED, REPORT]))
    assert set(every_phrase()) <= texts
    assert REPORT.text in texts and "Is the liver normal? Yes" in texts


def test_real_records_give_turns(shared_data: Path) -> None:
    from unibiomed.data import load_records

    rng = random.Random(0)
    by_dataset: dict[str, list[Record]] = {}
    for one in load_records(shared_data):
        by_dataset.setdefault(one.dataset, []).append(one)
    for dataset, records in by_dataset.items():
        for one in rng.sample(records, 2):
            masks = {i: region.load() for i, region in enumerate(one.regions) if region.mask is not None}
            turns = make_turns(one, masks, rng, count=4)
            assert bool(turns) == (one.image is not None), dataset
