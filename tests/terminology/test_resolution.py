"""Requests in words find what they mean, and nonsense finds nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unibiomed.terminology import can_show, get_target, load_targets, resolve

NAMES = [target.name for target in load_targets()]
TERMS = [(term, target.name) for target in load_targets() for term in (target.name, *target.synonyms)]
KINDS = [
    (None, None),
    ("CT", "abdomen"),
    ("CT", "head"),
    ("X-ray", "chest"),
    ("X-ray", "breast"),
    ("MRI", "brain"),
    ("MRI", "limb"),
    ("ultrasound", "breast"),
    ("endoscopy", "colon"),
    ("fundus", "retina"),
    ("dermoscopy", "skin"),
    ("pathology", "cells"),
]
NONSENSE = (
    *("cat", "dog", "unicorn", "banana", "car", "house", "bicycle", "pizza"),
    *("airplane", "table", "chair", "elephant", "moon", "guitar", "asdfgh", "12345"),
)
BRITISH = (
    ("tumor", "tumour"),
    ("hemorrhage", "haemorrhage"),
    ("esophagus", "oesophagus"),
    ("edema", "oedema"),
    ("disc", "disk"),
)
KNOWN = [
    "liver",
    "kidney",
    "polyp",
    "breast lesion",
    "prostate tumor",
    "left lung",
    "right lung",
    "brain tumor",
    "skin lesion",
]


@pytest.mark.parametrize(("term", "name"), TERMS)
def test_every_name_and_synonym(term: str, name: str) -> None:
    found = resolve(term)
    assert found.meanings == (name,)
    assert found.possible and not found.suggestions and not found.notes and not found.ambiguous


@given(
    st.sampled_from(TERMS),
    st.sampled_from(["{}", "the {}", "any {}", "{} in this image", "  {}.", "area of {}", "{} in the CT scan"]),
    st.sampled_from(
        [str.upper, str.lower, str.title, lambda term: term.replace("-", " "), lambda term: term.replace(" ", "-")]
    ),
    st.sampled_from([False, True]),
)
def test_forms_make_no_difference(term_and_name, pattern, change, british) -> None:
    term, name = term_and_name
    if british:
        for american, spelling in BRITISH:
            term = term.replace(american, spelling)
    assert resolve(pattern.format(change(term))).meanings == (name,)


def plural(noun: str) -> str:
    if noun.endswith("y"):
        return f"{noun[:-1]}ies"
    if noun.endswith("us") and not noun.endswith("fetus"):
        return f"{noun[:-2]}i"
    if noun.endswith(("x", "ss", "us")):
        return f"{noun}es"
    if noun.endswith(("s", "i", "ae", "a", "um")) or noun.isupper():
        return noun
    return f"{noun}s"


@pytest.mark.parametrize("term_and_name", TERMS, ids=lambda pair: pair[0])
def test_plural_makes_no_difference(term_and_name: tuple[str, str]) -> None:
    term, name = term_and_name
    # heads of the fetus
    noun, of, rest = term.partition(" of ")
    assert resolve(f"{plural(noun)}{of}{rest}").meanings == (name,)


@given(st.text(max_size=30), st.sampled_from(KINDS), st.sampled_from([None, KNOWN, []]))
def test_any_words_resolve_to_what_is_known(
    words: str, kind: tuple[str | None, str | None], known: list[str] | None
) -> None:
    modality, site = kind
    found = resolve(words, modality=modality, site=site, known=known)
    allowed = set(NAMES if known is None else known)
    assert {*found.meanings, *found.suggestions} <= allowed
    assert found.possible == any(can_show(name, modality, site) for name in found.meanings)
    assert all(can_show(name, modality, site) for name in found.suggestions)
    assert not set(found.suggestions) & set(found.meanings)
    assert not (found.possible and found.suggestions) and not (found.outside and found.meanings)


@pytest.mark.parametrize("words", NONSENSE)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("known", [None, KNOWN])
def test_nonsense_means_nothing(words: str, kind: tuple[str | None, str | None], known: list[str] | None) -> None:
    for request in (words, f"the {words}", f"two {words}s", f"a white {words}"):
        found = resolve(request, modality=kind[0], site=kind[1], known=known)
        assert not found.meanings and not found.possible and not found.suggestions and not found.outside


@pytest.mark.parametrize(
    ("words", "modality", "site", "meanings"),
    [
        ("tumour", "MRI", "brain", {"brain tumor", "lower-grade glioma"}),
        ("tumor", "ultrasound", "breast", {"breast lesion"}),
        ("mass", "ultrasound", "thyroid", {"thyroid nodule"}),
        ("nodule", "CT", "chest", {"lung tumor"}),
        ("lesion", "dermoscopy", "skin", {"skin lesion"}),
        ("growth", "endoscopy", "colon", {"polyp"}),
        ("tumor", "CT", "abdomen", {"liver lesion", "kidney tumor", "pancreatic tumor"}),
        ("vessels", "fundus", "retina", {"retinal vessel"}),
        ("vessel", "ultrasound", "neck", {"carotid artery"}),
        ("bleeding", "CT", "head", {"intracranial hemorrhage"}),
        ("stroke", "CT", "head", {"ischemic stroke", "intracranial hemorrhage"}),
        ("disk", "MRI", "spine", {"intervertebral disc"}),
        ("disc", "fundus", "retina", {"optic disc"}),
        ("disc", None, None, {"intervertebral disc", "optic disc"}),
        ("prostate gland", "MRI", "prostate", {"prostate central gland"}),
        ("prostate gland", "pathology", "prostate", {"prostate gland"}),
        ("meningioma", "MRI", "brain", {"brain tumor"}),
        ("breast cancer", "X-ray", "breast", {"breast lesion"}),
        ("cancer of the left breast", "X-ray", "breast", {"breast lesion"}),
        ("malignant breast lesion", None, None, {"breast lesion"}),
        ("the left kidney", "CT", "abdomen", {"kidney"}),
        ("left lung", "X-ray", "chest", {"left lung"}),
        ("lungs", "X-ray", "chest", {"lung"}),
    ],
)
def test_meanings_in_an_image(words: str, modality: str | None, site: str | None, meanings: set[str]) -> None:
    found = resolve(words, modality=modality, site=site)
    assert set(found.meanings) == meanings
    assert found.possible and not found.suggestions
    assert found.ambiguous == (len(meanings) > 1)


def test_a_wide_word_without_a_kind_of_image_has_all_of_its_meanings() -> None:
    meanings = set(resolve("tumor").meanings)
    assert {"brain tumor", "lower-grade glioma", "breast lesion", "lung tumor", "soft-tissue sarcoma"} <= meanings
    assert meanings == {t.name for t in load_targets() if "tumor" in (*t.generic, *t.loose)}


def test_what_cannot_be_told_apart_is_noted() -> None:
    assert resolve("left kidney").notes == resolve("kidney (right)").notes == ("left and right are not told apart",)
    assert resolve("malignant breast lesion").notes == ("'malignant' is ignored",)
    assert resolve("Trachea").notes == ("'Trachea' is read as airways",)


def test_a_whole_is_found_by_its_known_parts() -> None:
    found = resolve("lungs", modality="X-ray", site="chest", known=KNOWN)
    assert found.meanings == ("left lung", "right lung") and found.possible and found.notes and not found.outside
    # and a side is left out where only the whole is known
    assert resolve("left lung", known=["lung"]).meanings == ("lung",)
    assert resolve("subdural hematoma", known=["intracranial hemorrhage"]).suggestions == ("intracranial hemorrhage",)


def test_what_the_image_cannot_show_is_told_with_what_it_can() -> None:
    found = resolve("prostate cancer", modality="X-ray", site="breast", known=KNOWN)
    assert found.meanings == ("prostate tumor",) and not found.possible
    assert found.suggestions == ("breast lesion",)
    assert not resolve("kidney", modality="X-ray", site="chest").possible


def test_unknown_words_have_suggestions_that_make_sense_in_the_image() -> None:
    assert resolve("ovarian cancer", modality="X-ray", site="breast", known=KNOWN).suggestions == ("breast lesion",)
    assert resolve("livr", modality="CT", site="abdomen", known=KNOWN).suggestions == ("liver",)
    assert resolve("livr", modality="X-ray", site="chest", known=KNOWN).suggestions == ()
    # of the terminology, but not of the model
    found = resolve("spleen", modality="CT", site="abdomen", known=KNOWN)
    assert found.outside == ("spleen",) and not found.meanings and not found.possible
    # a nodule of the lung is no other nodule in view
    assert resolve("nodule", modality="CT", site="chest", known=KNOWN).outside == ("lung tumor",)


def test_names_of_a_users_own() -> None:
    known = ["liver tumor", "left ear"]
    assert resolve("Left ears", known=known).meanings == ("left ear",)
    assert resolve("hepatic lesion", known=known).meanings == ("liver tumor",)
    found = resolve("left ear", modality="CT", site="abdomen", known=known)
    assert found.possible and get_target("left ear") is None
