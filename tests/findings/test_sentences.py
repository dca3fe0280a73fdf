"""Sentences made of the facts of a mask, and what is read back from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unibiomed.findings.regions import RegionFacts, describe_region
from unibiomed.findings.sentences import (
    RegionWords,
    is_measured,
    number_words,
    parse_region_sentence,
    percent_words,
    region_sentence,
    region_words,
    with_count,
)


def disc(side: int, row: float, column: float, radius: float) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    return (y - row) ** 2 + (x - column) ** 2 <= radius**2


def facts(mask: np.ndarray, modality: str = "MRI", site: str = "brain") -> RegionFacts:
    return describe_region(mask, modality=modality, site=site)


masks = arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40)))
nouns = st.from_regex(r"[a-z][a-z-]{1,12}( [a-z0-9][a-z-]{1,9}){0,3}", fullmatch=True)


def test_sentence() -> None:
    sentence = region_sentence("liver", facts(disc(128, 40, 30, 20), "CT", "abdomen"))
    assert sentence == (
        "A medium-sized, round liver in the upper left of the image (the patient's right), covering about 8 % of it."
    )
    two = region_sentence("lesion", facts(disc(128, 64, 20, 5) | disc(128, 64, 110, 5)))
    assert two == "A small, round lesion in the centre of the image, in two separate parts, covering about 1 % of it."
    assert "on the left of the image" in region_sentence("lesion", facts(disc(128, 64, 20, 5)))
    assert region_sentence("polyp", facts(np.zeros((9, 9), dtype=bool))) == "No polyp is visible in the image."


def test_a_region_that_covers_most_of_the_image_is_central() -> None:
    mask = np.ones((100, 100), dtype=bool)
    mask[:, 55:] = False
    found = replace(facts(mask, "CT", "abdomen"), patient_side="right")
    assert found.place == "left"
    words = region_words("liver", found)
    assert (words.place, words.patient_side, words.share) == ("centre", "", "55 %")


def test_numbers_in_words() -> None:
    assert [percent_words(x) for x in (0.001, 0.01, 0.074, 0.33, 1.0)] == [
        "less than 1 %",
        "1 %",
        "7 %",
        "35 %",
        "100 %",
    ]
    assert [number_words(n) for n in (0, 1, 10, 11, 58, 300)] == [
        "no",
        "one",
        "ten",
        "about 10",
        "about 60",
        "more than 100",
    ]


@given(masks, nouns, st.booleans(), st.sampled_from(["", "left", "right"]))
def test_generated_sentences_are_parsed(mask: np.ndarray, noun: str, counted: bool, side: str) -> None:
    found = replace(facts(mask), patient_side=side)
    sentence = region_sentence(noun, found, counted=counted)
    assert sentence.endswith(".") and "  " not in sentence and "about less" not in sentence
    read = parse_region_sentence(sentence)
    assert read == region_words(noun, found, counted=counted)
    assert str(read) == sentence
    assert is_measured(sentence) == (not found.empty)


@given(masks, st.integers(1, 200))
def test_truncated_sentences_are_parsed(mask: np.ndarray, length: int) -> None:
    found = facts(mask)
    sentence = region_sentence("liver tumor", found)
    read = parse_region_sentence(sentence[:length])
    whole = region_words("liver tumor", found)
    if read is not None and not found.empty:
        assert (read.noun, read.extent, read.shape, read.place) == (whole.noun, whole.extent, whole.shape, whole.place)
        assert read.parts in ("", whole.parts) and read.share in ("", whole.share)
    # nothing measured is left unread
    assert read is not None or not is_measured(sentence[:length])


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("a tiny polyp on the left of the image", RegionWords("polyp", "tiny", place="left")),
        (
            "An  large network of vessels in the center of the image, covering 10% of it, as before.",
            RegionWords("network of vessels", "large", place="centre", share="10 %"),
        ),
        ("No brain tumor is visible in the image.", RegionWords("brain tumor")),
        ("A smooth nodule.", None),
        ("The image shows about 20 nuclei.", None),
        ("", None),
    ],
)
def test_sentences_of_other_forms(sentence: str, expected: RegionWords | None) -> None:
    assert parse_region_sentence(sentence) == expected


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("The image shows about 20 nuclei.", "The image shows seven nuclei."),
        ("The image shows more than 100 cell nuclei.", "The image shows seven cell nuclei."),
        ("The image shows no abnormality.", None),
        ("The image shows two masses, one of them large.", None),
        ("It shows about 20 nuclei.", None),
    ],
)
def test_the_number_of_objects_can_be_replaced(sentence: str, expected: str | None) -> None:
    assert with_count(sentence, 7) == expected


@pytest.mark.parametrize(
    ("sentence", "measured"),
    [
        ("It lies in the lower left of the picture.", True),
        ("It is on the left side of the image.", True),
        ("About 7 % of the image.", True),
        ("The mass is in three separate parts.", True),
        ("It is on the patient's left.", True),
        ("The left lung is clear.", False),
        ("Its margins are irregular.", False),
        ("It is of TI-RADS category 4a.", False),
        ("A stenosis of 50 % is seen.", False),
    ],
)
def test_measurements_are_detected_in_any_sentence(sentence: str, measured: bool) -> None:
    assert is_measured(sentence) == measured
