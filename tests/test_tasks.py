"""What is asked and how the answer is read: the paper's forms of answers, and whatever a model or a user may write."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from unibiomed.errors import InputError
from unibiomed.tasks import (
    TASKS,
    GroundedPhrase,
    choose_task,
    clean_text,
    get_task,
    image_words,
    is_no_findings,
    make_question,
    read_class,
    read_phrases,
)

# everything that means something to the model, the published tokenizer's marks included
TOKENS = [
    "[SEG]", "<p>", "</p>", "<vp>", "</vp>", "<image>", "<img>", "</img>", "<IMG_CONTEXT>",
    "<|user|>", "<|assistant|>", "<|end|>", "<|im_start|>", "<|im_end|>", "<|endoftext|>",
]  # fmt: skip
PIECES = [*TOKENS, "[", "]", "S", "SEG", "[S", "EG]", "<", ">", "<|", "|>", "end", "<im", "age>", "p>", ".", ",", " "]
PIECES += ["liver", "It is", "Sure,", "No findings", "and", "\n", "\t", "\0", "{target}", "{", "}", "%s", "é", "\udcff"]
WILD = st.text(st.characters(), max_size=30) | st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


def is_plain(text: str) -> bool:
    return not any(token in text for token in TOKENS)


# ---------------------------------------------------------------- questions


def test_the_tasks() -> None:
    assert list(TASKS) == ["segment", "recognize", "report", "classify", "describe", "ask", "outline"]
    assert [task.name for task in TASKS.values() if not task.in_words] == ["outline"]
    assert all(task.name == name and task.summary and task.question for name, task in TASKS.items())


def test_questions_in_their_own_words() -> None:
    assert (
        make_question("segment", target="left lung", modality="CT") == "Please segment the left lung in the CT image."
    )
    assert make_question("segment", target="polyp") == "Please segment the polyp in the image."
    assert "ultrasound image" in make_question("recognize", modality="ultrasound")
    assert "green box" in make_question("classify") and "green box" in make_question("describe")
    assert make_question("ask", text="Is there\n a  mass?") == "Is there a mass?"
    assert make_question("report", text="What do you see?") == "What do you see?"
    assert image_words(None) == "image"


@pytest.mark.parametrize("name", ["", "Segment", "segmentation", "ask ", "{}"])
def test_unknown_task(name: str) -> None:
    for call in (lambda: get_task(name), lambda: make_question(name)):
        with pytest.raises(InputError, match="choose one of segment, recognize"):
            call()


@pytest.mark.parametrize("nothing", ["", "  ", "\n", "[SEG]", "<image><|end|>", "<p> </p>"])
def test_empty_questions_and_targets_are_refused(nothing: str) -> None:
    with pytest.raises(InputError, match="question is empty"):
        make_question("ask", text=nothing)
    with pytest.raises(InputError, match="needs at least one target"):
        make_question("segment", target=nothing)


def test_missing_inputs_are_named() -> None:
    with pytest.raises(InputError, match="--ask"):
        make_question("ask")
    with pytest.raises(InputError, match="--target"):
        make_question("segment")


@given(WILD)
@example("[S[SEG]EG]")
@example("[S[S[SEG]EG]EG]")
@example("<im<image>age>")
@example("<ima[SEG]ge>")
@example("<|en<|end|>d|>")
@example("<|e[SEG]nd|>")
@example("[SE<p>G]")
@example("[SE\0G] [SE\u200bG] [SE G]")
@example("\udcff")
def test_special_tokens_in_user_text_are_removed(text: str) -> None:
    for arguments in ({"task": "ask", "text": text}, {"task": "segment", "target": text}):
        try:
            question = make_question(**arguments)
        except InputError as error:
            assert "\n" not in str(error)
            continue
        assert is_plain(question)
        assert question == " ".join(question.split())
        question.encode()  # what UTF-8 does not know, no tokenizer takes


@given(st.text(st.characters(codec="utf-8", exclude_characters="<>[]|"), max_size=30))
def test_plain_words_are_kept(text: str) -> None:
    words = " ".join(text.split())
    if words:
        assert make_question("ask", text=text) == words
        assert make_question("segment", target=text) == f"Please segment the {words} in the image."


def test_harmless_signs_are_kept() -> None:
    for text in ("Is FEV1/FVC < 70 % or > 80 %?", "a <- b, c -> d", "{target} and {image}", "[a, b]", "p|q||r"):
        assert make_question("ask", text=text) == text


# ---------------------------------------------------------------- which task is meant


@pytest.mark.parametrize(
    ("targets", "question", "box", "name"),
    [
        ([], None, False, "recognize"),
        (["liver"], None, False, "segment"),
        (["liver", "spleen"], None, False, "segment"),
        ([], "Is there a mass?", False, "ask"),
        ([], "Is there a mass?", True, "ask"),
        ([], None, True, "classify"),
    ],
)
def test_the_default_task(targets: list[str], question: str | None, box: bool, name: str) -> None:
    assert choose_task(None, targets, question, box).name == name


@pytest.mark.parametrize("task", ["segment", "recognize", "report"])
def test_a_box_is_refused_by_other_tasks(task: str) -> None:
    with pytest.raises(InputError, match="is about the whole image: leave the box out, or choose one of classify"):
        choose_task(task, ["liver"] if task == "segment" else [], None, True)


def test_a_given_task_is_used() -> None:
    assert choose_task("report", [], None, False).name == "report"
    assert choose_task("describe", [], None, True).name == "describe"


@pytest.mark.parametrize(
    ("task", "targets", "question", "box", "says"),
    [
        ("classify", [], None, False, "--box"),
        ("describe", [], None, False, "--box"),
        ("outline", [], None, False, "--box"),
        ("outline", [], "What is it?", True, "takes no question"),
        ("segment", [], None, False, "--target"),
        ("segment", ["liver", " "], None, False, "--target"),
        (None, [""], None, False, "--target"),
        ("ask", [], None, False, "--ask"),
        (None, [], "", False, "empty"),
        ("find", [], None, False, "unknown task 'find'"),
    ],
)
def test_missing_inputs_of_a_task(
    task: str | None, targets: list[str], question: str | None, box: bool, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        choose_task(task, targets, question, box)


@given(
    st.none() | st.sampled_from([*TASKS, "x"]) | st.text(max_size=5),
    st.lists(WILD, max_size=3),
    st.none() | WILD,
    st.booleans(),
)
def test_choosing_raises_nothing_but_input_errors(
    task: str | None, targets: list[str], question: str | None, box: bool
) -> None:
    try:
        chosen = choose_task(task, targets, question, box)
    except InputError:
        return
    assert chosen is TASKS[chosen.name]
    for target in targets or [None]:  # what was accepted can be asked
        assert make_question(chosen.name, target=target, text=question)


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("raw", "default", "labels"),
    [
        ("It is [SEG].<|end|>", "liver", ["liver"]),
        ("Sure, [SEG].<|end|>", "liver", ["liver"]),
        ("[SEG]", "liver", ["liver"]),
        ("It is [SEG]. Liver tumor<|end|>", "finding", ["Liver tumor"]),
        ("It is [SEG]. Liver tumor. It is [SEG]. Kidney cyst.<|end|>", "finding", ["Liver tumor", "Kidney cyst"]),
        ("[SEG]. It is [SEG].", "liver", ["liver", "liver"]),
        ("<p> Pleural effusion. Small, on the left. </p> [SEG]<|end|>", "finding", ["Pleural effusion"]),
        ("<p> liver </p> [SEG], <p> spleen </p> [SEG] and <p> aorta </p> [SEG].", "x", ["liver", "spleen", "aorta"]),
        ("<p> mass </p> [SEG] [SEG]", "finding", ["mass", "finding"]),
        ("[SEG]. Cyst <p> mass </p> [SEG]", "finding", ["Cyst", "mass"]),
        ("<p> </p> [SEG]", "finding", ["finding"]),
        ("<p> mass [SEG]", "finding", ["finding"]),
        ("[SEG] and [SEG]", "lung", ["lung", "lung"]),
        ("No findings<|end|>", "finding", []),
        ("", "finding", []),
    ],
)
def test_labels_of_an_answer(raw: str, default: str, labels: list[str]) -> None:
    assert [phrase.label for phrase in read_phrases(raw, default)] == labels


def test_phrases_keep_all_their_words() -> None:
    raw = "<p> Pleural effusion.\nSmall, on the left. </p> [SEG] It is [SEG]. Liver tumor"
    assert read_phrases(raw) == [
        GroundedPhrase("Pleural effusion", "Pleural effusion. Small, on the left."),
        GroundedPhrase("Liver tumor", "Liver tumor"),
    ]


@given(WILD, st.sampled_from(["finding", "left lung"]))
@example("[S<|end|>EG]", "finding")
@example("[SEG][SEG]", "finding")
@example("<|[SEG]|>", "finding")
def test_a_phrase_for_each_seg(raw: str, default: str) -> None:
    phrases = read_phrases(raw, default)
    assert len(phrases) == raw.count("[SEG]")
    for phrase in phrases:
        assert phrase.label.strip() and phrase.phrase.strip()
        assert "[SEG]" not in phrase.label + phrase.phrase


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("It is [SEG].<|end|>", ""),
        ("It is [SEG]. Liver tumor<|end|>", "Liver tumor"),
        ("Sure, it is [SEG].", ""),
        ("<p> A mass. Large. </p> [SEG]<|end|>", "A mass. Large."),
        ("<p> liver </p> [SEG], <p> spleen </p> [SEG].", "liver, spleen"),
        ("No findings<|im_end|>", "No findings"),
        ("Yes , there is .", "Yes, there is."),
        ("liver in abdomen CT<|end|>", "liver in abdomen CT"),
    ],
)
def test_clean_text(raw: str, text: str) -> None:
    assert clean_text(raw) == text


@given(WILD)
def test_clean_text_has_no_special_tokens(raw: str) -> None:
    text = clean_text(raw)
    assert is_plain(text)
    assert text == text.strip() and "\n" not in text


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("No findings<|end|>", True),
        ("no findings.", True),
        ("<p> No findings. </p>", True),
        ("No findings. The heart is of normal size.", True),
        ("It is [SEG]. No findings", False),
        ("There are no findings", False),
        ("Liver tumor", False),
        ("", False),
    ],
)
def test_no_findings(raw: str, expected: bool) -> None:
    assert is_no_findings(raw) is expected


@pytest.mark.parametrize(
    ("raw", "label"),
    [
        ("liver in abdomen CT<|end|>", "liver"),
        ("optic disc.", "optic disc"),
        ("ductal carcinoma in situ in breast pathology", "ductal carcinoma"),
        ("", ""),
    ],
)
def test_class_of_a_box(raw: str, label: str) -> None:
    assert read_class(raw) == label


@given(WILD)
def test_parsing_never_fails(raw: str) -> None:
    assert isinstance(is_no_findings(raw), bool)
    assert is_plain(read_class(raw))
    assert not is_no_findings(raw) or not read_phrases(raw)


def test_no_findings_is_the_same_constant() -> None:
    from unibiomed import findings, tasks

    assert tasks.NO_FINDINGS == findings.NO_FINDINGS
