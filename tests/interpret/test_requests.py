"""Requested targets: what they mean to a model, what is not searched, and why."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unibiomed.findings import Interpretation
from unibiomed.images.modality import MODALITIES
from unibiomed.interpret.interpreter import NANO
from unibiomed.interpret.requests import resolve_request
from unibiomed.interpret.vocabulary import ModelVocabulary
from unibiomed.terminology import can_show

EYES = ModelVocabulary(
    {
        "optic disc": ["optic disk"],
        "retinal vessel": [],
        "kidney": [],
        "brain tumor": ["tumor"],
        "lower-grade glioma": ["tumor"],
        "polyp": [],
        "zorb": ["zorbish body"],
    },
    regions={
        "fundus": {"optic disc in retina fundus": "optic disc", "something else in retina fundus": ""},
        "CT": {"kidney in abdomen CT": "kidney", "zorb in abdomen CT": "zorb"},
        "MRI": {"glioma in brain MRI": "brain tumor", "lower-grade glioma in brain MRI": "lower-grade glioma"},
    },
)
NANO_CARD = ModelVocabulary.read(NANO)
SPELLINGS = st.sampled_from([str.upper, str.title, str.lower, lambda s: f" the  {s} ", lambda s: s.replace(" ", "-")])


@given(st.sampled_from(sorted(NANO_CARD.targets)), SPELLINGS, st.sampled_from(MODALITIES))
def test_every_spelling_of_a_known_target_is_asked_by_its_name_or_cannot_be_seen(target, spell, modality) -> None:
    request = resolve_request(spell(target), NANO_CARD, modality)
    if can_show(target, modality, None):
        assert request.names == (target,) and not any("is read as" in note for note in request.notes)
        assert any("was not trained" in note for note in request.notes) == (target not in NANO_CARD.known_in(modality))
    else:
        # a prostate gland is a gland in pathology, and an organ that the model does not know in MRI
        assert request.names == () and (request.score == 0.0 or target == "prostate gland")
        assert "not searched" in request.notes[0]


def test_a_note_names_the_meaning_that_cannot_be_seen() -> None:
    request = resolve_request("optic nerve head", EYES, "dermoscopy")
    assert request.notes == (
        "'optic nerve head' is read as 'optic disc', which cannot be seen in a dermoscopy image: not searched",
    )
    assert resolve_request("the left kidney", EYES, "CT").notes == (
        "'the left kidney': left and right are not told apart",
    )


@given(st.text(max_size=30), st.sampled_from([None, *MODALITIES]), st.booleans())
def test_any_text_is_asked_by_known_names_as_typed_or_not_at_all(words, modality, allow) -> None:
    request = resolve_request(words, NANO_CARD, modality, allow_unknown=allow)
    assert set(request.names) <= set(NANO_CARD.targets) or (allow and request.names == (words,))
    assert request.names or request.notes
    assert all(NANO_CARD.shows(name, modality) for name in request.names if name in NANO_CARD.targets)
    # without a vocabulary nothing changes
    assert resolve_request(words, ModelVocabulary(), modality).names == (words,)


def test_a_target_that_such_an_image_cannot_show_is_not_searched() -> None:
    request = resolve_request("kidney", EYES, "fundus")
    assert request.names == () and request.score == 0.0
    assert request.notes == ("'kidney' cannot be seen in a fundus image: not searched",)
    # one that the model does not know, too
    assert resolve_request("spleens", EYES, "fundus").score == 0.0
    # but examples in training say more than the terminology
    trained = ModelVocabulary({"kidney": []}, regions={"fundus": {"kidney in eye fundus": "kidney"}})
    assert resolve_request("kidney", trained, "fundus").names == ("kidney",)
    assert resolve_request("Kidneys", EYES, None).names == ("kidney",)


def test_an_unknown_word_is_not_searched_unless_it_is_allowed() -> None:
    request = resolve_request("unicorn", EYES, "fundus")
    assert (request.names, request.score) == ((), None)
    (note,) = request.notes
    assert note.startswith(
        "'unicorn' is not in the model's vocabulary: not searched. Known in fundus images: optic disc"
    )
    assert "--allow-unknown" in note
    (note,) = resolve_request("optic dics", EYES, "fundus").notes
    assert "Closest known terms: optic disc" in note
    allowed = resolve_request("unicorn", EYES, "fundus", allow_unknown=True)
    assert allowed.names == ("unicorn",) and "unreliable" in allowed.notes[0]
    # this is known not to be in such an image, allowed or not
    assert resolve_request("kidney", EYES, "fundus", allow_unknown=True).names == ()


def test_several_meanings_are_all_searched_and_named() -> None:
    request = resolve_request("tumour", EYES, "MRI")
    assert set(request.names) == {"brain tumor", "lower-grade glioma"}
    assert len(request.notes) == 1 and all(name in request.notes[0] for name in request.names)


def test_a_synonym_is_told_and_a_spelling_is_not() -> None:
    assert resolve_request("optic nerve head", EYES, "fundus").notes == ("'optic nerve head' is read as 'optic disc'",)
    assert resolve_request("Optic Discs", EYES, "fundus").notes == ()


def test_a_target_without_examples_in_the_modality_is_searched_with_a_warning() -> None:
    request = resolve_request("kidney", EYES, "ultrasound")
    assert request.names == ("kidney",)
    assert request.notes == (
        "the model was not trained to segment 'kidney' in ultrasound images: the result for 'kidney' is unreliable",
    )


def test_targets_of_ones_own_data_are_known_by_the_card() -> None:
    for words in ("zorb", "Zorbs", "zorbish bodies"):
        assert resolve_request(words, EYES, "CT").names == ("zorb",)
    assert "not trained" in resolve_request("zorb", EYES, "MRI").notes[0]


def test_targets_with_examples_by_modality() -> None:
    assert EYES.known_in("fundus") == {"optic disc"} and EYES.known_in("PET") == frozenset()
    assert EYES.known_in(None) == {"optic disc", "kidney", "zorb", "brain tumor", "lower-grade glioma"}
    # cards of older models have no regions
    assert ModelVocabulary({"liver": []}).known_in("CT") == {"liver"}


# ---------------------------------------------------------------- as a user has it


@pytest.fixture
def eyes(interpreter, script, monkeypatch):
    interpreter.vocabulary = EYES
    monkeypatch.setattr(interpreter.model.config, "presence_calibration", [1.0, 0.0])
    script.says = lambda question: "It is [SEG]."
    return interpreter


def test_what_was_not_searched_is_told_apart(eyes, script, picture, tmp_path) -> None:
    script.presence = [-3.0]
    result = eyes.interpret(picture, targets=["Optic discs", "kidney", "unicorn"], modality="fundus")
    assert script.questions == ["Please segment the optic disc in the fundus image."]
    assert result.text == "Optic discs: not found; kidney: not searched; unicorn: not searched"
    found, impossible, unknown = result.findings
    assert [f.searched for f in result.findings] == [True, False, False]
    assert [f.presence for f in result.findings] == [pytest.approx(0.0474, abs=1e-4), 0.0, None]
    assert not impossible.mask.any() and unknown.mask is None and found.mask is not None
    document = json.loads(json.dumps(result.to_dict()))
    assert [f["searched"] for f in document["findings"]] == [True, False, False]
    assert Interpretation.from_dict(document).findings == result.findings
    assert [line.rsplit("  ", 1)[-1].strip() for line in result.table().splitlines()[2:]] == [
        "not found", "not searched", "not searched",
    ]  # fmt: skip
    assert result.details["targets"][2] == {"asked": "unicorn", "searched": [], "findings": [2]}
    assert len(result.notes) == 2
    assert "mask_3" not in result.save(tmp_path) and result.overlay().width > 0


def test_nothing_is_asked_where_nothing_is_searched(eyes, script, picture) -> None:
    result = eyes.interpret(picture, targets="unicorn", modality="fundus")
    assert script.questions == [] and script.decoded == [] and result.text == "unicorn: not searched"
    assert "presence" in result.table() and "probability" not in result.table()
    result = eyes.interpret(picture, targets="unicorn", modality="fundus", allow_unknown=True)
    assert script.questions == ["Please segment the unicorn in the fundus image."]
    assert result.findings[0].present and result.findings[0].searched


def test_of_several_meanings_those_that_are_present_are_found(eyes, script, picture) -> None:
    script.presence = [3.0, 5.0]
    result = eyes.interpret(picture, targets=["tumor", "glioma"], modality="MRI")
    first, second, _ = result.findings[0], result.findings[1], result.details["targets"]
    assert {first.label, second.label} == {"brain tumor", "lower-grade glioma"} and first.presence > second.presence
    script.presence = [-3.0, -4.0]
    result = eyes.interpret(picture, targets=["tumor"], modality="MRI")
    (finding,) = result.findings
    assert (finding.label, finding.present) == ("tumor", False) and finding.presence == pytest.approx(0.0474, abs=1e-4)


def test_a_target_that_is_asked_twice_is_searched_once(eyes, script, picture) -> None:
    result = eyes.interpret(picture, targets=["optic disc", "Optic discs"], modality="fundus")
    assert len(script.questions) == 1 and [f.label for f in result.findings] == ["optic disc", "Optic discs"]


# ---------------------------------------------------------------- modality


@pytest.mark.parametrize(
    ("said", "probability", "source", "note"),
    [
        ("fundus", 0.999, "recognized", "recognized as fundus"),
        ("fundus", 0.6, None, "low probability"),
        ("a photograph", 0.999, None, "not recognized"),
    ],
)
def test_a_modality_that_is_not_given_is_recognized(eyes, script, picture, said, probability, source, note) -> None:
    script.says = lambda question: said if "modality" in question else "It is [SEG]."
    script.probability = probability
    seen = eyes.encode(picture)
    for _ in range(2):
        result = eyes.interpret(seen, targets=["optic disc", "kidney"])
        assert result.details["modality_source"] == source and note in result.notes[0]
        assert result.details["modality"] == (said if source else None)
        assert result.findings[1].searched == (source is None)
    assert len([q for q in script.questions if "modality" in q]) == 1


def test_a_known_modality_is_not_asked_for(eyes, script, picture) -> None:
    result = eyes.interpret(picture, targets="optic disc", modality="fundus")
    assert result.details["modality_source"] == "given" and len(script.questions) == 1
    eyes.vocabulary = ModelVocabulary()
    result = eyes.interpret(picture, targets="kidney")
    assert result.details["modality_source"] is None and result.notes == () and len(script.questions) == 2
