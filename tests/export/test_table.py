"""The table of findings for the terminal."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unibiomed.export import findings_table
from unibiomed.export.formatting import percent, plain, square_mm
from unibiomed.findings import Finding, Interpretation


def example(*findings: Finding) -> Interpretation:
    return Interpretation("segment", "", "", "", findings, 10, 10)


def mask(side: int) -> np.ndarray:
    inside = np.zeros((10, 10), dtype=bool)
    inside[:side, :side] = True
    return inside


def test_the_table() -> None:
    table = findings_table(
        example(
            Finding.from_mask("liver", mask(5), presence=0.983, mask_score=0.5, spacing=(2.0, 2.0)),
            Finding.from_mask("肝臓", mask(0), presence=0.02, spacing=(2.0, 2.0)),
            Finding("box", "box", box=(1, 2, 3, 4)),
        )
    )
    assert table.splitlines() == [
        "#  finding  presence  mask score    area  mm²  box (x0,y0,x1,y1)",
        "─  ───────  ────────  ──────────  ──────  ───  ─────────────────",
        "1  liver      98.3 %      50.0 %  25.0 %  100  0,0,5,5",
        "2  肝臓        2.0 %           -   0.0 %  0.0  not found",
        "3  box             -           -       -    -  1,2,3,4",
    ]


def test_without_spacing_there_is_no_mm2_column() -> None:
    table = findings_table(example(Finding.from_mask("liver", mask(5))))
    assert "mm²" not in table and "0,0,5,5" in table


def test_classified_boxes_have_a_confidence() -> None:
    assert findings_table(example(Finding("polyp", "polyp", confidence=0.913, box=(1, 2, 3, 4)))).splitlines() == [
        "#  finding  confidence  box (x0,y0,x1,y1)",
        "─  ───────  ──────────  ─────────────────",
        "1  polyp        91.3 %  1,2,3,4",
    ]


def test_without_findings_there_is_a_sentence() -> None:
    assert findings_table(example()) == "No findings."


@given(st.text())
def test_control_characters_in_labels_are_removed(label: str) -> None:
    table = findings_table(example(Finding.from_mask(label + "\x1b[31m\r\n\u202e", mask(2))))
    assert len(table.splitlines()) == 3
    assert all(character == "\n" or unicodedata.category(character)[0] != "C" for character in table)


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "-"), (0.0, "0.0 %"), (1.0, "100.0 %"), (0.9731, "97.3 %"), (1e-9, "< 0.1 %"), (0.99999, "> 99.9 %")],
)
def test_percent(value: float | None, words: str) -> None:
    assert percent(value) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "-"), (0.0, "0.0 mm²"), (12.5, "12.5 mm²"), (12345.6, "12,346 mm²"), (0.0123, "0.012 mm²")],
)
def test_square_mm(value: float | None, words: str) -> None:
    assert square_mm(value) == words


def test_plain_truncates_long_text() -> None:
    assert plain("a\tb\n c") == "a b c"
    assert plain("x" * 50, 10) == "x" * 7 + "..."
