"""The table of targets is complete and names nothing twice."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from unibiomed.images import MODALITIES
from unibiomed.terminology import Target, get_target, load_targets
from unibiomed.terminology.spelling import normalize
from unibiomed.terminology.visibility import known_regions

TARGETS = load_targets()
CATEGORIES = {"anatomy", "lesion", "cell", "device"}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_every_target_is_complete(target: Target) -> None:
    assert target.category in CATEGORIES
    assert re.fullmatch("#[0-9a-f]{6}", target.color)
    assert target.seen
    assert {modality for modality, _ in target.seen} <= set(MODALITIES)
    assert {region for _, region in target.seen} <= known_regions()
    assert target.home <= {region for _, region in target.seen}
    assert target.code is None or re.fullmatch(r"\d{6,18}", target.code)
    assert all(get_target(part) is not None for part in target.parts)
    words = [normalize(word) for word in (*target.generic, *target.loose)]
    assert len(set(words)) == len(words)
    assert not {normalize(name) for name in (target.name, *target.synonyms)} & set(words)


@pytest.mark.parametrize("code", [target.code for target in TARGETS if target.code])
def test_codes_pass_the_check_digit_of_snomed(code: str) -> None:
    """SNOMED CT ids end in a Verhoeff check digit."""
    assert verhoeff(code) == 0


def test_names_and_synonyms_mean_one_target() -> None:
    owners = Counter(
        term for target in TARGETS for term in {normalize(name) for name in (target.name, *target.synonyms)}
    )
    assert not [term for term, count in owners.items() if count > 1]
    assert len({target.color for target in TARGETS}) == len(TARGETS)


def test_a_part_can_be_seen_where_the_whole_is() -> None:
    for target in TARGETS:
        for part in target.parts:
            whole = get_target(part)
            assert whole is not None and whole.seen <= target.seen


def test_targets_are_found_by_their_canonical_name() -> None:
    assert get_target("Liver") is get_target("liver") is not None
    assert get_target("hepatic parenchyma") is None
    assert get_target("liver tumour of my own") is None


def test_targets_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        TARGETS[0].name = "other"  # type: ignore[misc]


def verhoeff(digits: str) -> int:
    """0 where the check digit is right; in the dihedral group of order 10."""

    def product(a: int, b: int) -> int:
        if a < 5:
            return (a + b) % 5 if b < 5 else 5 + (a + b - 5) % 5
        return 5 + (a - 5 - b) % 5 if b < 5 else (a - b) % 5

    step = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]
    table = [list(range(10)), step]
    while len(table) < 8:
        table.append([step[table[-1][digit]] for digit in range(10)])
    found = 0
    for place, digit in enumerate(reversed(digits)):
        found = product(found, table[place % 8][int(digit)])
    return found
