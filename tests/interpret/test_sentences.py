"""Texts of reports and descriptions agree with the masks beside them."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unibiomed.data import load_records
from unibiomed.data.records import Record
from unibiomed.findings import Finding, mask_box
from unibiomed.findings.regions import RegionFacts, describe_region
from unibiomed.findings.sentences import (
    is_measured,
    number_words,
    parse_region_sentence,
    percent_words,
    region_sentence,
    region_words,
)
from unibiomed.images import MedicalImage, from_array
from unibiomed.interpret import load
from unibiomed.interpret.sentences import check_report, correct_sentences, headline
from unibiomed.interpret.vocabulary import ModelVocabulary
from unibiomed.tasks import clean_text

SIDE = 40
masks = arrays(bool, (SIDE, SIDE), elements=st.booleans(), fill=st.just(False))
blobs = st.builds(
    lambda row, column, high, wide: block(row, column, high, wide),
    st.integers(0, SIDE - 1),
    st.integers(0, SIDE - 1),
    st.integers(0, SIDE),
    st.integers(0, SIDE),
)
PLAIN = ("Its margins are spiculated.", "The left lung is clear.", "It is of TI-RADS category 2.", "Polyp.")


def block(row: int, column: int, high: int, wide: int) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[row : row + high, column : column + wide] = True
    return mask


def facts_of(mask: np.ndarray) -> RegionFacts:
    return describe_region(mask, modality="CT", site="")


def picture(**more: object) -> MedicalImage:
    return replace(from_array(np.zeros((SIDE, SIDE, 3), dtype=np.uint8)), **more)


def finding(label: str, phrase: str, mask: np.ndarray) -> Finding:
    return Finding.from_mask(label, mask, phrase=phrase)


def contradictions(text: str, mask: np.ndarray) -> list[str]:
    """What a text says of the image that the mask does not show, read without the code that wrote it."""
    facts, wrong = facts_of(mask), []
    found = re.findall(r"(?:less than )?\d+ %", text)
    wrong += [share for share in found if share != percent_words(mask.mean())]
    places = re.findall(r"the ([a-z ]+) of the image", text)
    if mask.mean() <= 0.5:
        wrong += [place for place in places if place != facts.place]
    counts = re.findall(r"in ([a-z0-9 ]+) separate parts", text)
    wrong += [count for count in counts if count != number_words(facts.parts)]
    sides = re.findall(r"the patient's (left|right)", text)
    wrong += [side for side in sides if {"left": "right", "right": "left"}[side] != facts.side]
    return wrong


@given(
    st.lists(st.one_of(blobs, masks, st.sampled_from(PLAIN)), min_size=1, max_size=4),
    st.one_of(blobs, masks),
    st.booleans(),
    st.booleans(),
)
def test_no_corrected_text_contradicts_the_mask(said: list, mask: np.ndarray, sided: bool, told: bool) -> None:
    side = "left" if told else ""
    text = " ".join(
        one if isinstance(one, str) else region_sentence("lesion", replace(facts_of(one), patient_side=side))
        for one in said
    )
    facts = facts_of(mask)
    corrected, notes = correct_sentences(text, facts, sided=sided)
    sentences = re.split(r"(?<=[.])\s+", corrected)
    assert [s for s in sentences if s in PLAIN] == [s for s in said if isinstance(s, str)]
    if facts.empty:
        assert not is_measured(corrected)
    else:
        assert contradictions(corrected, mask) == []
        for words in filter(None, map(parse_region_sentence, sentences)):
            own = region_words("lesion", replace(facts, patient_side=words.patient_side))
            assert words == own and (sided or not words.patient_side)
    # what is right already stands, and needs no note
    again, more = correct_sentences(corrected, facts, sided=sided)
    assert again == corrected and more == ()
    assert bool(notes) or corrected == text


@given(st.one_of(blobs, masks))
def test_what_is_said_after_the_mask_stands(mask: np.ndarray) -> None:
    text = f"Lesion. {region_sentence('lesion', facts_of(mask))} Its margins are smooth."
    assert correct_sentences(text, facts_of(mask)) == (text, ())


def test_notes_tell_what_was_corrected() -> None:
    facts = facts_of(block(2, 2, 9, 9))
    said = "A medium-sized, round lesion in the lower left of the image, covering about 12 % of it."
    text, notes = correct_sentences(said, facts)
    assert text == "A medium-sized, round lesion in the upper left of the image, covering about 5 % of it."
    assert notes == ("corrected in the text after the mask: place, share of the image",)
    text, notes = correct_sentences(f"Lesion. {said}", None)
    assert text == "Lesion." and len(notes) == 1 and "left out" in notes[0]


def test_the_number_of_parts_is_told_where_it_is_certain() -> None:
    facts = facts_of(block(2, 2, 5, 5) | block(20, 20, 5, 5))
    assert "separate parts" in correct_sentences("A small lesion in the centre of the image.", facts)[0]
    # nuclei touch, so that their number is not that of the pieces of a mask
    told = "A small group of cell nuclei in the centre of the image, in three separate parts."
    assert "parts" not in correct_sentences(told, facts)[0]
    told = "A small group of hard exudates in the centre of the image, in three separate parts."
    assert "in two separate parts" in correct_sentences(told, facts)[0]


def test_the_noun_fits_the_number_of_parts() -> None:
    one, two = facts_of(block(2, 2, 5, 5)), facts_of(block(2, 2, 5, 5) | block(20, 20, 5, 5))
    said = "A small, round cell nucleus in the centre of the image, covering about 1 % of it."
    assert correct_sentences(said, two)[0].startswith("A medium-sized, round group of cell nuclei in the")
    said = "A small group of hard exudates in the centre of the image, in two separate parts."
    text, (note,) = correct_sentences(said, one)
    assert "round hard exudate in" in text and "number of parts" in note


@pytest.mark.parametrize(
    ("objects", "expected"),
    [("Cell nucleus", "The image shows two nuclei."), ("Prostate tumor", ""), ("", "")],
)
def test_the_number_of_objects_is_that_of_the_mask(objects: str, expected: str) -> None:
    facts = facts_of(block(2, 2, 5, 5) | block(20, 20, 5, 5))
    assert correct_sentences("The image shows about 20 nuclei.", facts, objects=objects)[0] == expected


def test_a_sentence_that_was_cut_or_went_wrong_is_written_anew_or_left_out() -> None:
    facts = facts_of(block(2, 2, 9, 9))
    assert correct_sentences("A tiny, round polyp on the right of the image, covering ab", facts)[0] == (
        "A medium-sized, round polyp in the upper left of the image, covering about 5 % of it."
    )
    broken = "A large group of the image shows about 30 separate parts, covering about 35 % of it."
    assert correct_sentences(broken, facts)[0] == ""
    assert correct_sentences("No polyp is visible in the image.", facts)[0] == region_sentence("polyp", facts)
    assert correct_sentences("No polyp is visible in the image.", None) == ("No polyp is visible in the image.", ())


@pytest.mark.parametrize(
    ("modality", "details", "expected"),
    [
        ("CT", {}, "(the patient's right)"),
        (None, {}, "(the patient's right)"),
        ("MRI", {}, ""),
        ("CT", {"plane": "sagittal"}, ""),
    ],
)
def test_the_patients_side_follows_from_the_mask(modality: str | None, details: dict, expected: str) -> None:
    mask = block(15, 2, 9, 9)
    phrase = "Liver. A small liver on the right of the image (the patient's left), covering about 3 % of it."
    raw = f"<p> {phrase} </p> [SEG]"
    text = check_report(raw, [finding("Liver", phrase, mask)], picture(details=details), modality).text
    assert ("patient" in text) == bool(expected) and expected in text
    assert "on the left of the image" in text and contradictions(text, mask) == []


# ---------------------------------------------------------------- reports


@given(st.lists(st.tuples(st.one_of(blobs, masks), blobs), min_size=1, max_size=3))
def test_a_report_tells_only_what_is_there(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    names = ("Alpha", "Beta", "Gamma")
    findings, raw = [], ""
    for name, (mask, other) in zip(names, pairs, strict=False):
        phrase = f"{name}. {region_sentence(name.lower(), facts_of(other))}"
        findings.append(finding(name, phrase, mask))
        raw += f"<p> {phrase} </p> [SEG] "
    checked = check_report(raw + "<|end|>", findings, picture(), "MRI")
    for name, (mask, _) in zip(names, pairs, strict=False):
        own = next(f for f in checked.findings if f.label == name)
        told = " ".join(s for s in re.split(r"(?<=[.])\s+", checked.text) if name.lower() in s.lower())
        assert bool(told) == bool(mask.any())
        assert contradictions(told, mask) == [] and contradictions(own.phrase, mask) == []
        assert own.phrase == (told if mask.any() else name)
    if not any(mask.any() for mask, _ in pairs):
        assert checked.text == "No findings"


EMPTY, THERE = block(0, 0, 0, 0), block(5, 5, 9, 9)


@pytest.mark.parametrize(
    ("raw", "there", "expected"),
    [
        ("<p> A mass </p> [SEG] in the left lung and <p> an effusion </p> [SEG].", (1, 1), None),
        ("<p> A mass </p> [SEG] in the left lung and <p> an effusion </p> [SEG].", (1, 0), "A mass in the left lung."),
        ("<p> A mass </p> [SEG] in the left lung and <p> an effusion </p> [SEG].", (0, 1), "An effusion."),
        ("<p> A mass </p> [SEG] in the left lung and <p> an effusion </p> [SEG].", (0, 0), "No findings"),
        ("The heart is large. There is <p> a mass </p> [SEG] of 1.5 cm. No effusion.", (0,), None),
        ("It is [SEG]. Mass. It is [SEG]. Effusion.", (1, 1), None),
        ("It is [SEG]. Mass. It is [SEG]. Effusion.", (0, 1), "Effusion."),
        ("It is [SEG]. Mass. It is [SEG]. Effusion.", (1, 0), "Mass."),
        ("No findings. The image shows no abnormality.", (), None),
        ("The lungs are clear. The heart is not enlarged.", (), None),
    ],
)
def test_reports_in_other_words(raw: str, there: tuple[int, ...], expected: str | None) -> None:
    labels = ("A mass", "an effusion")
    findings = [finding(labels[i], labels[i], THERE if shown else EMPTY) for i, shown in enumerate(there)]
    if expected is None and there == (0,):
        expected = "The heart is large. No effusion."
    assert check_report(raw, findings, picture(), None).text == (clean_text(raw) if expected is None else expected)


def test_measures_beside_no_mask_are_left_out_of_a_report() -> None:
    raw = "The lungs are clear. An opacity covering about 10 % of it lies in the upper left of the image."
    checked = check_report(raw, [], picture(), "X-ray")
    assert checked.text == "The lungs are clear." and "left out" in checked.notes[0]


def test_the_headline_names_what_is_present() -> None:
    there, gone = finding("Polyp", "Polyp", THERE), finding("Cyst", "Cyst", EMPTY)
    assert headline("Polyp. Cyst", [there, gone]) == "Polyp"
    assert headline("Polyp. Cyst", [gone]) == "No findings"
    assert headline("It shows a polyp", [there]) == "It shows a polyp"
    nothing = finding("No findings", "No findings", EMPTY)
    assert headline("No findings.", [nothing]) == "No findings."
    assert headline("No findings. Polyp", [there]) == "Polyp"


@given(st.lists(st.tuples(st.sampled_from(["Polyp", "Cyst"]), st.booleans()), min_size=1, max_size=4), st.booleans())
def test_no_findings_is_never_said_beside_a_finding(named: list[tuple[str, bool]], denied: bool) -> None:
    findings = [finding(label, label, THERE if there else EMPTY) for label, there in named]
    begin = "No findings. The colon endoscopy image shows no abnormality. " if denied else ""
    raw = begin + " ".join(f"<p> {label} </p> [SEG]." for label, _ in named)
    words = begin + ". ".join(label for label, _ in named)
    for text in (check_report(raw, findings, picture(), None).text, headline(words, findings)):
        present = any(there for _, there in named)
        assert ("No findings" in text) != present and ("no abnormality" in text) <= (not present)
        assert all(label not in text for label, _ in named if (label, True) not in named)


# ---------------------------------------------------------------- through the interpreter

SAID = "A large, round {noun} in the lower right of the image, covering about 35 % of it."


def test_a_report_is_corrected_from_its_masks(interpreter, script, picture) -> None:
    script.says = [f"<p> Polyp. {SAID.format(noun='polyp')} Its surface is smooth. </p> [SEG]"]
    result = interpreter.interpret(picture, "report")
    (one,) = result.findings
    share = percent_words(one.area_fraction)
    assert one.phrase == result.text and result.text.endswith("Its surface is smooth.")
    assert f"in the upper left of the image, covering about {share} of it" in result.text
    assert result.raw_text != result.text and any(note.startswith("corrected in the text") for note in result.notes)


def test_what_was_emptied_is_not_in_the_headline(interpreter, script, picture) -> None:
    script.presence = [8.0, -5.0]
    script.says = ["It is [SEG]. Polyp. It is [SEG]. Cyst"]
    assert interpreter.interpret(picture, "recognize").text == "Polyp"
    phrases = [f"<p> {name}. {SAID.format(noun=name.lower())} </p> [SEG]" for name in ("Polyp", "Cyst")]
    script.says = [" ".join(phrases)]
    result = interpreter.interpret(picture, "report")
    assert result.text.startswith("Polyp. ") and "yst" not in result.text
    assert [f.present for f in result.findings] == [True, False] and result.findings[1].phrase == "Cyst"
    script.presence = [-5.0]
    assert interpreter.interpret(picture, "report").text == "No findings"


@pytest.fixture
def boxed(interpreter, script, monkeypatch):
    """A model that was trained with livers in CT, and whose liver fills the upper left quarter of an image."""
    interpreter.vocabulary = ModelVocabulary(
        {}, {}, {"CT": {"liver in abdomen CT": "liver", "something else in abdomen CT": ""}}
    )
    monkeypatch.setattr(interpreter.model.config, "presence_calibration", [1.0, 0.0])
    monkeypatch.setattr(interpreter.model.config, "mask_calibration", [1.0, 0.0])
    words = {"describe": f"Liver. {SAID.format(noun='liver')}", "green box": "liver in abdomen CT"}
    script.says = lambda q: next((said for mark, said in words.items() if mark in q), "It is [SEG].")
    return words


def test_a_description_tells_what_is_in_the_box(interpreter, script, boxed) -> None:
    image = np.zeros((64, 96, 3), dtype=np.uint8)
    # the liver fills 48 x 32 pixels; the box holds a quarter of it
    result = interpreter.interpret(image, "describe", box=(36, 0, 72, 32), modality="CT")
    measured = result.details["measured"]
    assert measured["area_fraction"] == pytest.approx(12 * 32 / image[..., 0].size, rel=0.15)
    assert measured["box"][0] == 36 and measured["parts"] == 1
    assert f"covering about {percent_words(measured['area_fraction'])} of it" in result.text
    assert "in the upper middle of the image" in result.text and result.findings[0].phrase == result.text
    assert any(note.startswith("corrected") for note in result.notes)


@pytest.mark.parametrize("why", ["absent", "outside", "unknown", "something else"])
def test_without_a_mask_in_the_box_its_measures_are_left_out(interpreter, script, boxed, why) -> None:
    box = (60, 40, 90, 60) if why == "outside" else (0, 0, 48, 32)
    if why == "absent":
        script.presence = [-5.0]
    elif why == "unknown":
        boxed["describe"] = f"Kidney. {SAID.format(noun='kidney')}"
    elif why == "something else":
        boxed["describe"] = f"Something else. {SAID.format(noun='shadow')}"
        interpreter.vocabulary = ModelVocabulary({}, {}, {"CT": {"something else in abdomen CT": ""}})
    result = interpreter.interpret(np.zeros((64, 96, 3), dtype=np.uint8), "describe", box=box, modality="CT")
    assert not is_measured(result.text) and result.text in ("Liver.", "Kidney.", "Something else.")
    assert "measured" not in result.details and any("left out" in note for note in result.notes)


def test_an_image_is_looked_at_once_without_its_box(interpreter, script, boxed, monkeypatch) -> None:
    looked: list[object] = []
    encode = type(interpreter).encode

    def spy(self, image, *, box=None, **reading):
        looked.append(box)
        return encode(self, image, box=box, **reading)

    monkeypatch.setattr(type(interpreter), "encode", spy)
    box = (0, 0, 48, 32)
    interpreter.interpret(np.zeros((64, 96, 3), dtype=np.uint8), "describe", box=box, modality="CT")
    assert looked == [box, None]


def test_answers_to_questions_are_not_touched(interpreter, script, picture) -> None:
    script.says = [SAID.format(noun="polyp")]
    assert interpreter.interpret(picture, question="Where is the polyp?").text == SAID.format(noun="polyp")
    script.says, script.logits = [f"{SAID.format(noun='polyp')} [SEG]"], lambda k: torch.full((16, 16), -9.0)
    assert "35 %" in interpreter.interpret(picture, question="Where is the polyp?").text


# ---------------------------------------------------------------- on real images

IMAGES = 3
"""Of each data set."""


@pytest.mark.slow
def test_no_sentence_of_nano_contradicts_the_findings_beside_it(shared_data: Path) -> None:
    interpreter = load()
    by_dataset: dict[str, list[Record]] = defaultdict(list)
    for record in load_records(shared_data):
        if record.image is not None and record.split == "test" and record.regions:
            by_dataset[record.dataset].append(record)
    rng, checked = random.Random(0), Counter()
    for _, records in sorted(by_dataset.items()):
        for record in rng.sample(sorted(records, key=lambda r: r.key), min(IMAGES, len(records))):
            encoded = interpreter.encode(record.load_image())
            result = interpreter.interpret(encoded, "report", modality=record.modality)
            grounded = [f for f in result.findings if f.mask is not None and f.label != "No findings"]
            for one in grounded:
                assert one.mask is not None
                assert contradictions(one.phrase, one.mask) == [], (record.key, one.phrase)
                assert one.present or one.phrase == one.label
                checked["emptied"] += not one.present
                checked["report"] += is_measured(one.phrase)
            # nothing measured is told but what belongs to a finding that is there
            rest = result.text
            for one in grounded:
                rest = rest.replace(one.phrase, " ") if one.present else rest
            assert not is_measured(rest), (record.key, result.text)
            assert all(one.present or one.label not in result.text for one in grounded) or len(grounded) > 1
            size = (encoded.image.height, encoded.image.width)
            masks = [region.load(size) for region in record.regions if not region.box]
            for mask in [mask for mask in masks if mask.any()][:2]:
                result = interpreter.interpret(encoded, "describe", box=mask_box(mask), modality=record.modality)
                measured = result.details.get("measured")
                assert measured is not None or not is_measured(result.text), (record.key, result.text)
                if measured is None:
                    checked["without a mask"] += 1
                    continue
                checked["describe"] += 1
                (words,) = filter(None, map(parse_region_sentence, re.split(r"(?<=[.])\s+", result.text)))
                assert words.share == percent_words(measured["area_fraction"]), (record.key, result.text)
                assert words.parts in ("", number_words(measured["parts"])), (record.key, result.text)
                if measured["area_fraction"] <= 0.5:
                    assert words.place == measured["place"], (record.key, result.text)
                x0, y0, x1, y1 = measured["box"]
                left, top, right, bottom = result.details["box"]
                assert left <= x0 and top <= y0 and x1 <= right and y1 <= bottom
    assert min(checked["report"], checked["describe"]) >= 10, checked
