"""Spellings that mean the same have one form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unibiomed.terminology.spelling import normalize


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("tumour", "tumor"),
        ("Tumours", "tumor"),
        ("haemorrhages", "hemorrhage"),
        ("subdural haematoma", "Subdural Hematomas"),
        ("Barrett's oesophagus", "Barrett\N{RIGHT SINGLE QUOTATION MARK}s esophagus"),
        ("oedema", "edema"),
        ("foetal heads", "fetal head"),
        ("optic disks", "optic disc"),
        ("leucocytes", "leukocyte"),
        ("ischaemic stroke", "ischemic stroke"),
        ("nuclei", "nucleus"),
        ("vertebrae", "vertebra"),
        ("hippocampi", "hippocampus"),
        ("masses", "mass"),
        ("atria", "atrium"),
        ("biopsies", "biopsy"),
        ("ground_glass-opacities", "ground glass opacity"),
        ("sarcomas", "sarcoma"),
        ("centre", "center"),
        ("metastases", "metastasis"),
    ],
)
def test_spellings_of_one_word(one: str, other: str) -> None:
    assert normalize(one) == normalize(other)


@pytest.mark.parametrize("word", ["pancreas", "pelvis", "thymus", "mass", "brachial plexus", "lens"])
def test_singular_words_on_s_stay(word: str) -> None:
    assert normalize(word) == word


@pytest.mark.parametrize(("one", "other"), [("cup", "disc"), ("colon", "color"), ("polyp", "pulp"), ("lung", "tongue")])
def test_other_words_stay_apart(one: str, other: str) -> None:
    assert normalize(one) != normalize(other)


@given(st.text(max_size=40))
def test_any_text_has_a_form(words: str) -> None:
    form = normalize(words)
    assert form == " ".join(form.split())
    assert normalize(f"  {words}\t") == form


@given(st.text("abcdefghijklmnopqrstuvwxyz -", max_size=40))
def test_case_and_separators_make_no_difference(words: str) -> None:
    assert normalize(words.upper()) == normalize(words) == normalize(words.replace(" ", "_").replace("-", " "))
