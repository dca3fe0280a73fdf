"""Whether anything is found: the model's words weighed with its own masks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unibiomed.errors import ModelError
from unibiomed.interpret import recognition
from unibiomed.interpret.interpreter import NANO
from unibiomed.interpret.naming import Outline
from unibiomed.interpret.recognition import found_logit
from unibiomed.interpret.vocabulary import ModelVocabulary

SHARE = st.floats(0.001, 0.999)
TUMOUR = "glioma in brain MRI"


@given(SHARE, SHARE)
def test_the_odds_of_words_and_masks_are_multiplied(none: float, presence: float) -> None:
    odds = (1 - none) / none * presence / (1 - presence)
    assert math.exp(found_logit(math.log(none), presence)) == pytest.approx(odds, rel=1e-6)


@pytest.mark.parametrize("none", [-1e9, -1e-12, 0.0])
@pytest.mark.parametrize("presence", [0.0, 1.0])
def test_what_is_quite_sure_is_a_number_too(none: float, presence: float) -> None:
    assert math.isfinite(found_logit(none, presence))


def test_the_findings_of_a_modality_are_sought() -> None:
    vocabulary = ModelVocabulary({}, {"MRI": ["Glioma", "Meningioma"]}, {}, {"MRI": ["brain tumor"]})
    assert vocabulary.sought("MRI") == ("brain tumor",)
    assert vocabulary.sought("CT") == vocabulary.sought(None) == ()
    # where it is not known what would be a finding, nothing that a box may hold is taken for one
    assert ModelVocabulary({}, {}, {"MRI": {TUMOUR: "brain tumor"}}).sought("MRI") == ()


def test_the_card_of_nano_tells_what_is_abnormal() -> None:
    vocabulary = ModelVocabulary.read(NANO)
    assert vocabulary.sought("fundus") == ("hard exudate",)
    assert vocabulary.sought("pathology") == ("prostate tumor",)
    assert not vocabulary.finds("Basophil", "pathology")
    assert all(vocabulary.lookup(name) == (name,) for names in vocabulary.abnormal.values() for name in names)


@pytest.fixture
def brain(interpreter, script, monkeypatch):
    """A model that was trained to find gliomas: how sure its words are of none, and what it says, led or not."""
    interpreter.vocabulary = ModelVocabulary(
        {}, {"MRI": ["Glioma"]}, {"MRI": {TUMOUR: "brain tumor"}}, {"MRI": ["brain tumor"]}
    )
    monkeypatch.setattr(interpreter.model.config, "presence_calibration", [1.0, 0.0])
    monkeypatch.setattr(interpreter.model.config, "scores_trained", True)
    interpreter.none = 0.5
    asked = interpreter.asked = []
    monkeypatch.setattr(recognition, "word_logits", lambda *given: asked.append(given) or [math.log(interpreter.none)])
    interpreter.begins = []
    answer = type(interpreter).answer

    def led(self, encoded, questions, *, begin="", **rest):
        if not begin:
            return answer(self, encoded, questions, **rest)
        interpreter.begins.append(begin)
        return [script.answer(self, {"It is": "It is [SEG]. Glioma", "No findings": "No findings"}[begin])]

    monkeypatch.setattr(type(interpreter), "answer", led)
    interpreter.free = "No findings"
    script.says = lambda question: "It is [SEG]." if "segment the" in question else interpreter.free
    return interpreter


def test_a_finding_that_escaped_the_words_is_named(brain, script, picture) -> None:
    brain.none, script.presence = 0.6, [6.0]
    result = brain.interpret(picture, "recognize", modality="MRI")
    assert brain.begins == ["It is"] and [f.label for f in result.findings] == ["Glioma"]
    assert result.findings[0].present and result.text == "Glioma"
    assert result.notes == ("finding added from mask evidence (the text said 'No findings')",)


def test_a_finding_that_no_mask_bears_out_is_denied(brain, script, picture) -> None:
    brain.free, brain.none, script.presence = "It is [SEG]. Glioma", 0.2, [-3.0]
    result = brain.interpret(picture, "recognize", modality="MRI")
    assert brain.begins == ["No findings"] and result.text == "No findings"
    assert not result.findings[0].present
    assert result.notes == ("finding removed for lack of mask evidence (the text named one)",)
    assert [(target.label, target.presence) for target in result.searched] == [
        ("brain tumor", pytest.approx(1 / (1 + math.exp(3)), rel=1e-4))
    ]
    again = type(result).from_dict(result.to_dict())
    assert again.searched == result.searched
    assert result.to_dict()["searched"][0]["label"] == "brain tumor"


def test_a_modality_may_have_a_threshold_of_its_own(brain, script, picture, monkeypatch) -> None:
    """Words and masks leave an even chance: found where the threshold of the modality lies lower."""
    script.presence = [0.0]
    for thresholds, found in (({"MRI": -1.0}, True), ({"MRI": 1.0}, False), ({"CT": -1.0}, False)):
        monkeypatch.setattr(brain.model.config, "finding_threshold", 1.0)
        monkeypatch.setattr(brain.model.config, "finding_thresholds", thresholds)
        result = brain.interpret(picture, "recognize", modality="MRI")
        assert (result.text == "Glioma") == found == any(finding.present for finding in result.findings)


@pytest.mark.parametrize("named", ["Polyp", "brain tumor"])
def test_the_surest_target_is_reported_where_the_words_name_nothing_that_is_there(
    brain, script, picture, monkeypatch, named
) -> None:
    """The words name a polyp, which no such image shows, or point at a place where nothing is."""
    vocabulary = brain.vocabulary
    brain.vocabulary = ModelVocabulary({}, {"MRI": ["brain tumor"]}, vocabulary.regions, vocabulary.abnormal)
    brain.free, brain.none = f"It is [SEG]. {named}", 0.5
    decode, calls = type(brain.model).decode_masks, []

    def fades(model, maps, asked=None, **rest):
        calls.append(len(asked))
        # the second call is that for the model's own words
        script.presence = [-6.0] if len(calls) == 2 and named == "brain tumor" else [6.0]
        return decode(model, maps, asked, **rest)

    monkeypatch.setattr(type(brain.model), "decode_masks", fades)
    result = brain.interpret(picture, "recognize", modality="MRI")
    (found,) = result.findings
    assert (found.label, found.present, result.text) == ("Brain tumor", True, "Brain tumor")
    assert any("reported from mask evidence" in note for note in result.notes)
    assert result.searched[0].label == "brain tumor"


def test_what_is_surely_absent_is_not_reported_instead(brain, script, picture) -> None:
    brain.free, brain.none, script.presence = "It is [SEG]. Glioma", 0.001, [-1.0]
    result = brain.interpret(picture, "recognize", modality="MRI")
    assert result.text == "No findings" and not any(finding.present for finding in result.findings)


def test_a_report_without_findings_names_what_was_searched(brain, script, picture) -> None:
    script.presence = [-3.0]
    result = brain.interpret(picture, "report", modality="MRI")
    assert result.text == "No findings" and [t.label for t in result.searched] == ["brain tumor"]
    assert result.notes == ()
    script.presence = [3.0]
    assert "presence score of 'brain tumor' is 0.95" in brain.interpret(picture, "report", modality="MRI").notes[0]


def test_what_such_images_cannot_show_is_not_sought() -> None:
    abnormal = {"fundus": ["hard exudate", "polyp"]}
    assert ModelVocabulary({}, {}, {}, abnormal).sought("fundus") == ("hard exudate",)


@pytest.mark.parametrize(
    ("free", "presence"), [("It is [SEG]. Glioma", 6.0), ("No findings", -6.0), ("No findings", 3.24)]
)
def test_words_that_the_masks_bear_out_stand(brain, script, picture, free, presence) -> None:
    brain.free, script.presence = free, [presence]
    result = brain.interpret(picture, "recognize", modality="MRI")
    assert brain.begins == [] and result.raw_text.startswith(free)
    assert not [note for note in result.notes if "words alone" in note]


@pytest.mark.parametrize(
    "changes",
    [
        {"modality": None},
        {"modality": "CT"},
        {"question": "Anything abnormal?"},
        {"threshold": 0.0},
        {"trained": False},
    ],
)
def test_words_stand_where_there_is_nothing_to_weigh_them_with(brain, script, picture, monkeypatch, changes) -> None:
    script.presence = [6.0]
    brain.presence_threshold = changes.pop("threshold", 0.5)
    monkeypatch.setattr(brain.model.config, "scores_trained", changes.pop("trained", True))
    result = brain.interpret(picture, "recognize", **{"modality": "MRI", **changes})
    assert brain.begins == [] and result.raw_text.startswith("No findings") and script.decoded == []


def test_what_was_outlined_before_is_not_outlined_again(brain, script, picture) -> None:
    seen = brain.encode(picture)
    for _ in range(2):
        brain.interpret(seen, "recognize", modality="MRI")
    # the target once, and the mask of each answer
    assert script.decoded == [1, 1, 1] and len([q for q in script.questions if "brain tumor" in q]) == 1


def test_the_words_that_are_weighed_are_those_of_the_question(brain, picture) -> None:
    encoded = brain.encode(picture)
    result = brain.interpret(encoded, "recognize", modality="MRI")
    ((model, processor, features, prompt, names),) = brain.asked
    assert (model, processor, features, names) == (brain.model, brain.processor, encoded.features, ["No findings"])
    assert prompt == brain.processor.prompt_ids(result.question, encoded.tokens)


@pytest.mark.parametrize(("free", "finished"), [("Yes.", True), ("No", False), ("It is [SEG]. Glio", False)])
def test_what_is_neither_or_was_cut_stands(brain, script, picture, free, finished) -> None:
    brain.free, script.finished, brain.none, script.presence = free, finished, 0.9, [-6.0]
    result = brain.interpret(picture, "recognize", modality="MRI")
    assert brain.begins == [] and result.raw_text.startswith(free)
    assert not [note for note in result.notes if "words alone" in note]
    assert ("the answer was cut at its longest length" in result.notes) == (not finished)


def test_the_surest_of_several_decides_and_none_may_be_no_number(brain, script, picture, monkeypatch) -> None:
    brain.vocabulary = ModelVocabulary(
        {},
        {"MRI": ["Glioma", "Cyst"]},
        {"MRI": {TUMOUR: "brain tumor", "cyst in brain MRI": "cyst"}},
        {"MRI": ["brain tumor", "cyst"]},
    )
    brain.none, script.presence = 0.6, [-6.0, 6.0]
    brain.interpret(picture, "recognize", modality="MRI")
    assert brain.begins == ["It is"]
    outlines = {"brain tumor": Outline(np.zeros((2, 2), bool), 0.3), "cyst": Outline(np.zeros((2, 2), bool), math.nan)}
    monkeypatch.setattr(recognition, "look_for", lambda *given, **options: outlines)
    with pytest.raises(ModelError, match="not numbers"):
        brain.interpret(picture, "recognize", modality="MRI")
