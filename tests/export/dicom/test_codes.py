"""Codes of findings: those of the standard mean what they are used for, and what has none gets a private one."""

from __future__ import annotations

import pytest
from pydicom.sr import _concepts_dict
from pydicom.sr.coding import Code

from unibiomed.export.dicom import codes, report, toolkit
from unibiomed.export.dicom.codes import PRIVATE_SCHEME, code_label, private_code
from unibiomed.terminology import finding_site, load_targets, match_target
from unibiomed.terminology.targets import read_table


def standard_meanings(code: Code) -> set[str]:
    """Meanings of a code in pydicom's copy of the standard."""
    table = _concepts_dict.concepts[code.scheme_designator]
    return {entry[code.value][0].lower() for entry in table.values() if code.value in entry}


def used_codes() -> list[Code]:
    found = [toolkit.AI]
    for module in (codes, report):
        for value in vars(module).values():
            items = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else [value]
            for item in items:
                found += [one for one in (item if type(item) is tuple else [item]) if isinstance(one, Code)]
    return found


@pytest.mark.parametrize("code", [code for code in used_codes() if code.scheme_designator in ("DCM", "SCT")], ids=str)
def test_codes_mean_what_the_standard_says(code: Code) -> None:
    known = standard_meanings(code)
    if code.value in ("363679005", "385660001", "C0034375"):
        pytest.skip("not in the lists of pydicom")
    assert code.meaning.lower() in known


def test_sites_mean_what_the_standard_says() -> None:
    names = {target.name for target in load_targets()}
    for name, site in read_table("sites.toml").items():
        assert name in names
        assert site["meaning"].lower() in standard_meanings(Code(site["code"], "SCT", "")), name


def test_every_target_has_codes() -> None:
    for target in load_targets():
        coded = code_label(target.name)
        assert coded.category.meaning != "Spatial and Relational Concept"
        assert coded.color == target.color
        if target.code:
            assert (coded.type.value, coded.type.scheme_designator) == (target.code, "SCT")
            assert coded.note is None
        else:
            assert coded.type.scheme_designator == PRIVATE_SCHEME
            assert coded.note is not None


@pytest.mark.parametrize("label", ["liver", "Livers", "hepatic thing", "tumor", "lesion", "papilla", "cup"])
def test_only_exact_names_get_a_standard_code(label: str) -> None:
    coded = code_label(label)
    if "iver" in label.lower():
        assert coded.type == Code("10200004", "SCT", "Liver")
        assert coded.site == coded.type
    else:
        # "papilla" means the optic disc in one kind of image only
        assert coded.type.scheme_designator == PRIVATE_SCHEME
        assert coded.category.meaning == "Spatial and Relational Concept"
        assert label in str(coded.note)


def test_sides() -> None:
    coded = code_label("Left kidney")
    assert coded.type.value == "64033007"
    assert coded.side == Code("7771000", "SCT", "Left")
    assert code_label("kidney tumor", "right").side == Code("24028007", "SCT", "Right")
    # its own code says the side
    assert code_label("left lung").type.value == "44029006"
    assert code_label("left", "").type.scheme_designator == PRIVATE_SCHEME


def test_finding_sites() -> None:
    site = code_label("kidney tumor").site
    assert site == Code("64033007", "SCT", "Kidney")
    assert finding_site("polyp") is None
    assert code_label("polyp").site is None


def test_private_codes_are_short_and_stable() -> None:
    one = private_code("Ground-glass  opacity")
    assert one.value == private_code("ground-glass opacity").value
    assert one.value != private_code("ground-glass nodule").value
    assert len(one.value) <= 16
    assert len(one.scheme_designator) <= 16
    assert len(private_code("x" * 500).meaning) <= 64


def test_match_target_is_exact() -> None:
    assert match_target("Brain tumours").name == "brain tumor"  # type: ignore[union-attr]
    assert match_target("lung cancer").name == "lung tumor"  # type: ignore[union-attr]
    for words in ("tumor", "left kidney", "malignant liver lesion", "the thing", ""):
        assert match_target(words) is None
