"""What a drawn box holds: the model's words weighed with how well its own masks fit the box."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unibiomed.interpret import boxes as module
from unibiomed.interpret.naming import Name, box_fit, outline_targets, rank_names, word_logits
from unibiomed.interpret.vocabulary import ModelVocabulary
from unibiomed.model.processing import END

FIT_WEIGHT = 10.0
WEIGHTS = {"fit_weight": FIT_WEIGHT, "something_else_offset": 0.0}
HEART = {"left ventricle in heart MRI": "left ventricle", "myocardium in heart MRI": "myocardium"}
SPAN = st.tuples(st.integers(0, 19), st.integers(1, 20)).map(lambda s: (s[0], min(20, s[0] + s[1])))
BOX = st.tuples(SPAN, SPAN).map(lambda s: (s[0][0], s[1][0], s[0][1], s[1][1]))


def filled(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((20, 20), bool)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = True
    return mask


# ---------------------------------------------------------------- fit


@given(BOX, BOX)
def test_the_fit_of_one_part_is_the_iou_of_two_boxes(own: tuple[int, ...], drawn: tuple[int, ...]) -> None:
    one, other = filled(own), filled(drawn)  # type: ignore[arg-type]
    wanted = np.count_nonzero(one & other) / np.count_nonzero(one | other)
    assert box_fit(one, drawn) == pytest.approx(wanted)
    assert box_fit(other, own) == pytest.approx(wanted)


def test_a_box_may_be_that_of_a_part_or_of_all_parts() -> None:
    mask = filled((1, 1, 5, 5), (10, 12, 18, 19))
    assert box_fit(mask, (1, 1, 5, 5)) == box_fit(mask, (10, 12, 18, 19)) == box_fit(mask, (1, 1, 18, 19)) == 1.0
    assert 0 < box_fit(mask, (1, 1, 6, 6)) < 1 and box_fit(mask, (6, 6, 9, 9)) < 0.1
    assert box_fit(np.zeros((20, 20), bool), (0, 0, 20, 20)) == 0.0


# ---------------------------------------------------------------- names


def ranked(odds: dict[str, float], targets: dict[str, str] = HEART, offset: float = 0.0, **fits: float) -> list[Name]:
    words = {name: math.log(p) for name, p in odds.items()}
    named = {name.replace("_", " "): fit for name, fit in fits.items()}
    return rank_names(words, targets, named, fit_weight=FIT_WEIGHT, something_else_offset=offset)


def test_masks_decide_where_words_are_in_doubt() -> None:
    odds = dict(zip(HEART, (0.6, 0.4), strict=True))
    first = ranked(odds)[0]
    assert (first.label, first.words) == ("left ventricle", "left ventricle in heart MRI")
    assert first.probability == first.in_words == pytest.approx(0.6)
    assert ranked(odds, left_ventricle=0.9, myocardium=0.9)[0].label == "left ventricle"
    # as odds: words times e to the weighted fit
    first, second = ranked(odds, left_ventricle=0.4, myocardium=0.9)
    weighed = 0.4 * math.exp(FIT_WEIGHT * 0.9), 0.6 * math.exp(FIT_WEIGHT * 0.4)
    assert (first.label, first.in_words) == ("myocardium", pytest.approx(0.4))
    assert first.probability == pytest.approx(weighed[0] / sum(weighed))
    assert first.probability + second.probability == pytest.approx(1.0)


def test_answers_that_name_the_same_are_one() -> None:
    cells = {f"cell nucleus in {site} pathology": "cell nucleus" for site in ("brain", "cell")}
    odds = dict(zip((*cells, "gland in colon pathology"), (0.25, 0.3, 0.45), strict=True))
    first, second = ranked(odds, {**cells, "gland in colon pathology": "gland"})
    assert (first.label, first.words) == ("cell nucleus", "cell nucleus in cell pathology")
    assert (first.probability, second.probability) == (pytest.approx(0.55), pytest.approx(0.45))


def test_something_else_is_named_by_words_alone() -> None:
    held = {**HEART, "something else in heart MRI": "", "something else in abdomen MRI": ""}
    odds = dict(zip(held, (0.2, 0.2, 0.4, 0.2), strict=True))
    first = ranked(odds, held)[0]
    assert (first.label, first.words) == ("something else", "something else in heart MRI")
    assert first.probability == pytest.approx(0.6)
    assert ranked(odds, held, myocardium=0.9)[0].label == "myocardium"


@given(st.floats(0.01, 0.99), st.floats(-5, 5), st.floats(0, 1))
def test_an_offset_multiplies_the_odds_of_something_else(share: float, offset: float, fit: float) -> None:
    held = {**HEART, "something else in heart MRI": ""}
    odds = dict(zip(held, ((1 - share) / 2, (1 - share) / 2, share), strict=True))
    before, after = ({n.label: n for n in ranked(odds, held, o, myocardium=fit)} for o in (0.0, offset))
    ratio = [names["something else"].probability / names["myocardium"].probability for names in (before, after)]
    assert ratio[1] / ratio[0] == pytest.approx(math.exp(offset), rel=1e-6)
    assert before["something else"].in_words == after["something else"].in_words == pytest.approx(share)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_numbers_that_are_none_name_nothing(broken: float) -> None:
    with pytest.raises(ValueError, match="not numbers"):
        rank_names({name: -1.0 for name in HEART}, HEART, {"myocardium": broken}, **WEIGHTS)
    with pytest.raises(ValueError, match="not numbers"):
        rank_names({name: broken for name in HEART}, HEART, {}, **WEIGHTS)


@torch.inference_mode()
def test_the_probability_of_a_name_is_that_with_which_the_model_writes_it(shared_interpreter, picture) -> None:
    interpreter = shared_interpreter
    processor, encoded = interpreter.processor, interpreter.encode(picture)
    prompt = processor.prompt_ids("What is this?", encoded.tokens)
    names = ["a mass in the left lung", "No findings.", "liver"]
    together = word_logits(interpreter.model, processor, encoded.features, prompt, names)
    for name, logit in zip(names, together, strict=True):
        reply = processor.encode(name + END)
        odds = interpreter.model(torch.tensor([prompt + reply]), features=encoded.features).logits[0].softmax(-1)
        wanted = sum(math.log(odds[len(prompt) - 1 + i, token]) for i, token in enumerate(reply))
        assert logit == pytest.approx(wanted, rel=1e-3)
        assert word_logits(interpreter.model, processor, encoded.features, prompt, [name]) == [
            pytest.approx(logit, rel=1e-3)
        ]


# ---------------------------------------------------------------- vocabulary


def test_what_a_box_may_hold_follows_from_the_modality_or_the_answer(tmp_path) -> None:
    regions = {"MRI": HEART, "CT": {"liver in abdomen CT": "liver"}}
    card = {"targets": {}, "findings": {}, "regions": regions}
    (tmp_path / "card.json").write_text(json.dumps(card))
    vocabulary = ModelVocabulary.read(tmp_path)
    assert vocabulary.held("MRI", "") == HEART and vocabulary.held("PET", "liver in abdomen CT") == {}
    assert vocabulary.held(None, "liver in abdomen CT") == regions["CT"] and vocabulary.held(None, "a liver") == {}
    # cards of older models do not say
    (tmp_path / "card.json").write_text(json.dumps({"targets": {"liver": []}, "findings": {}}))
    old = ModelVocabulary.read(tmp_path)
    assert old.held("CT", "liver in abdomen CT") == {} and list(old.targets) == ["liver"]


# ---------------------------------------------------------------- as a user has it


@pytest.fixture
def heart(interpreter, script, monkeypatch):
    """A model with trained scores that says "left ventricle", 0.7 to 0.3, whatever the box."""
    interpreter.vocabulary = ModelVocabulary(
        {}, {}, {"MRI": HEART, "CT": {"left ventricle in heart CT": "left ventricle"}}
    )
    config = interpreter.model.config
    monkeypatch.setattr(config, "presence_calibration", [1.0, 0.0])
    monkeypatch.setattr(config, "mask_calibration", [1.0, 0.0])
    assert config.scores_trained
    monkeypatch.setattr(module, "word_logits", lambda *given: [math.log(p) for p in (0.7, 0.3)[: len(given[-1])]])
    script.says = lambda question: "left ventricle in heart MRI" if "green box" in question else "It is [SEG]."
    # of the targets in the order of the alphabet, the first fills the image, the second the upper left quarter
    quarter = script.logits(0)
    script.logits = lambda k: quarter if k else torch.full((16, 16), 9.0)
    return interpreter


def encodings(interpreter, monkeypatch) -> list[object]:
    """The boxes of all images that are looked at from now on."""
    looked: list[object] = []
    encode = type(interpreter).encode

    def look(self, image, *, box=None, **reading):
        looked.append(box)
        return encode(self, image, box=box, **reading)

    monkeypatch.setattr(type(interpreter), "encode", look)
    return looked


QUARTER, WHOLE = (0, 0, 48, 30), (0, 0, 97, 61)


def test_a_box_is_named_by_its_mask(heart, script, picture) -> None:
    seen = heart.encode(picture)
    result = heart.interpret(seen, box=QUARTER, modality="MRI")
    (finding,) = result.findings
    assert (finding.label, finding.phrase, finding.box) == ("myocardium", "myocardium in heart MRI", QUARTER)
    assert result.text == "myocardium in heart MRI"
    # what the model wrote is still told
    assert result.raw_text.startswith("left ventricle in heart MRI") and "".join(result.tokens) == result.raw_text
    names = result.details["names"]
    assert list(names) == ["myocardium", "left ventricle"] and finding.confidence == names["myocardium"] > 0.5
    assert result.notes == ("named from mask evidence (the text said 'left ventricle')",)
    # what was outlined once is not outlined again
    assert script.decoded == [2]
    result = heart.interpret(seen, box=WHOLE, modality="MRI")
    assert result.findings[0].label == "left ventricle" and result.notes == () and script.decoded == [2]
    # a question that names another modality is another question
    heart.vocabulary.regions["PET"] = HEART
    heart.interpret(seen, box=WHOLE, modality="PET")
    assert script.decoded == [2, 2]


def test_an_image_is_looked_at_as_often_as_is_needed(heart, picture, monkeypatch) -> None:
    looked = encodings(heart, monkeypatch)
    heart.interpret(picture, box=QUARTER, modality="MRI")
    assert looked == [QUARTER, None]
    # one name alone, a question of one's own, nothing known, or no trained scores: words stand as they are
    for change in (
        {"modality": "CT"},
        {"modality": "MRI", "question": "What is in the green box?"},
        {"modality": "OCT"},
    ):
        looked.clear()
        result = heart.interpret(picture, "classify", box=QUARTER, **change)
        assert looked == [QUARTER] and "names" not in result.details
        assert result.findings[0].label == "left ventricle"
    monkeypatch.setattr(heart.model.config, "scores_trained", False)
    looked.clear()
    assert "names" not in heart.interpret(picture, box=QUARTER, modality="MRI").details and looked == [QUARTER]


def test_masks_that_are_all_of_one_target_are_not_made(heart, script, picture, monkeypatch) -> None:
    heart.vocabulary = ModelVocabulary({}, {}, {"MRI": dict.fromkeys(HEART, "heart")})
    looked = encodings(heart, monkeypatch)
    result = heart.interpret(picture, box=QUARTER, modality="MRI")
    assert looked == [QUARTER] and script.decoded == []
    assert result.details["names"] == {"left ventricle": pytest.approx(0.7), "myocardium": pytest.approx(0.3)}


def test_something_else_is_not_looked_for(heart, script, picture, monkeypatch) -> None:
    heart.vocabulary = ModelVocabulary({}, {}, {"MRI": {**HEART, "something else in heart MRI": ""}})
    monkeypatch.setattr(module, "word_logits", lambda *given: [math.log(p) for p in (0.05, 0.05, 0.9)])
    result = heart.interpret(picture, box=(40, 40, 60, 44), modality="MRI")
    assert result.text == result.findings[0].phrase == "something else" and result.findings[0].label == "something else"
    asked = {question for question in script.questions if "segment" in question}
    assert asked == {f"Please segment the {name} in the MRI image." for name in ("left ventricle", "myocardium")}


def test_targets_are_looked_for_in_the_image_without_a_box(heart, picture, monkeypatch) -> None:
    boxed = heart.encode(picture, box=WHOLE)
    looked = encodings(heart, monkeypatch)
    heart.interpret(boxed, box=QUARTER, modality="MRI")
    assert looked == [QUARTER, None] and boxed.outlines == {}


def test_targets_without_a_mask_have_no_fit(heart, script, picture) -> None:
    says = script.says
    script.says = lambda question: "There is none." if "myocardium" in question else says(question)
    seen = heart.encode(picture)
    result = heart.interpret(seen, box=QUARTER, modality="MRI")
    assert result.findings[0].label == "left ventricle" and seen.outlines["MRI", "myocardium"] is None
    asked = len(script.questions)
    heart.interpret(seen, box=WHOLE, modality="MRI")
    assert len(script.questions) == asked + 1


def test_masks_of_the_model_itself(shared_interpreter, picture, monkeypatch) -> None:
    """Nothing of the mask decoder is made up here."""
    monkeypatch.setattr(shared_interpreter.model.config, "presence_calibration", [1.0, 0.0, 0.1])
    encoded = shared_interpreter.encode(picture)
    torch.manual_seed(0)
    prompts = {"liver": torch.randn(1, 32), "spleen": torch.randn(2, 32), "kidney": torch.zeros(0, 32)}
    monkeypatch.setattr(shared_interpreter.model.config, "mask_calibration", [1.0, 0.0])
    outlines = outline_targets(shared_interpreter.model, encoded.features, prompts)
    assert list(outlines) == ["liver", "spleen"]
    alone = outline_targets(shared_interpreter.model, encoded.features, {"spleen": prompts["spleen"][:1]})["spleen"]
    assert outlines["spleen"].presence == pytest.approx(alone.presence, rel=1e-3)
    assert outlines["spleen"].mask.dtype == bool and np.mean(outlines["spleen"].mask != alone.mask) < 0.01
    assert outline_targets(shared_interpreter.model, encoded.features, {}) == {}


# ---------------------------------------------------------------- descriptions


@pytest.fixture
def told(heart, script, monkeypatch):
    """What descriptions are to begin with; the heart's model writes one of the left ventricle."""
    begins: list[str] = []
    says = script.says
    script.says = lambda question: "Left ventricle. A round one." if "describe" in question else says(question)
    answer = type(heart).answer

    def spy(self, encoded, questions, *, begin="", **rest):
        if begin:
            begins.append(begin)
            return [script.answer(self, f"{begin} A thin one.")]
        return answer(self, encoded, questions, **rest)

    monkeypatch.setattr(type(heart), "answer", spy)
    return begins


def test_a_description_goes_by_the_name_of_the_box(heart, told, picture) -> None:
    result = heart.interpret(picture, "describe", box=QUARTER, modality="MRI")
    assert told == ["Myocardium."] and result.text == "Myocardium. A thin one."
    (finding,) = result.findings
    assert (finding.label, finding.phrase, finding.box) == ("myocardium", result.text, QUARTER)
    named = heart.interpret(picture, "classify", box=QUARTER, modality="MRI")
    assert finding.label == named.findings[0].label and finding.confidence == named.findings[0].confidence
    assert result.details["names"] == named.details["names"]
    assert result.notes == ("named from mask evidence (the text said 'left ventricle')",)


def test_the_note_tells_what_the_description_began_with(heart, told, script, picture, monkeypatch) -> None:
    """Words that name the box, and words that describe it, need not agree."""
    says = script.says
    script.says = lambda question: "Myocardium. A thin one." if "describe" in question else says(question)
    result = heart.interpret(picture, "describe", box=QUARTER, modality="MRI")
    # asked for a name alone, the words would say "left ventricle"
    assert told == [] and result.notes == ()
    monkeypatch.setattr(module, "word_logits", lambda *given: [math.log(p) for p in (0.3, 0.7)])
    script.says = lambda question: "Left ventricle. A round one." if "describe" in question else says(question)
    result = heart.interpret(picture, "describe", box=QUARTER, modality="MRI")
    assert told == ["Myocardium."]
    assert result.notes == ("named from mask evidence (the text said 'left ventricle')",)


def test_nothing_is_looked_for_where_a_description_has_no_name(heart, script, picture, monkeypatch) -> None:
    looked = encodings(heart, monkeypatch)
    script.says = lambda question: "A round shadow."
    heart.interpret(picture, "describe", box=QUARTER, modality="MRI")
    assert looked == [QUARTER] and len(script.questions) == 1 and script.decoded == []


def test_a_description_that_begins_with_the_right_name_stands(heart, told, picture) -> None:
    result = heart.interpret(picture, "describe", box=WHOLE, modality="MRI")
    assert told == [] and result.text == "Left ventricle. A round one." and result.notes == ()
    assert result.findings[0].label == "left ventricle" and next(iter(result.details["names"])) == "left ventricle"


def test_a_description_of_another_form_stands(heart, told, script, picture) -> None:
    script.says = lambda question: "A round shadow." if "describe" in question else "It is [SEG]."
    result = heart.interpret(picture, "describe", box=QUARTER, modality="MRI")
    assert told == [] and result.text == "A round shadow." and "names" not in result.details
    assert result.findings[0].label == "region"


def test_where_the_modality_is_not_known_the_answer_of_classify_tells_it(heart, told, script, picture) -> None:
    heart.interpret(picture, "describe", box=QUARTER)
    assert told == ["Myocardium."] and any("What is in the green box" in question for question in script.questions)


def test_a_question_of_ones_own_is_answered_in_the_models_own_words(heart, told, picture) -> None:
    result = heart.interpret(picture, "describe", box=QUARTER, modality="MRI", question="Please describe it.")
    assert told == [] and result.text == "Left ventricle. A round one." and "names" not in result.details


def test_an_answer_goes_on_from_the_words_it_begins_with(shared_interpreter, picture) -> None:
    encoded = shared_interpreter.encode(picture)
    (free,) = shared_interpreter.answer(encoded, ["What is this?"], max_new_tokens=6)
    first = shared_interpreter.processor.decode(free.ids[:2])
    assert shared_interpreter.processor.encode(first) == free.ids[:2], "the words of the answer are its tokens"
    (led,) = shared_interpreter.answer(encoded, ["What is this?"], max_new_tokens=4, begin=first)
    assert led.ids == free.ids[2:6] and led.text == free.text
