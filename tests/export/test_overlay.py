"""The overlay: pixels outside findings are unchanged, findings are distinguishable, and any text can be drawn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unibiomed.errors import InputError
from unibiomed.export import draw_overlay, paint_findings
from unibiomed.export.overlay import PALETTE, SMALLEST_WIDTH
from unibiomed.export.text_rendering import TextRenderer
from unibiomed.findings import Finding, Interpretation


def interpretation(height: int, width: int, *findings: Finding, **words: str) -> Interpretation:
    fields = {"task": "segment", "question": "Where?", "text": "Here.", "raw_text": "", **words}
    return Interpretation(**fields, findings=findings, height=height, width=width)  # type: ignore[arg-type]


def square(height: int, width: int, top: int, left: int, side: int, label: str = "liver") -> Finding:
    mask = np.zeros((height, width), dtype=bool)
    mask[top : top + side, left : left + side] = True
    return Finding.from_mask(label, mask, presence=0.9)


def colors(picture: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(map(int, color)) for color in np.unique(picture.reshape(-1, 3), axis=0)}


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 700), (64, 64), (300, 200), (512, 512), (1500, 2000)])
def test_the_image_is_complete_and_enlarged_by_an_integer_factor(height: int, width: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    page = np.asarray(draw_overlay(pixels, interpretation(height, width, square(height, width, height, width, 1))))
    assert page.shape[1] >= SMALLEST_WIDTH
    scale = max(1, round(SMALLEST_WIDTH / max(height, width)))
    image = pixels.repeat(scale, axis=0).repeat(scale, axis=1)
    left = (page.shape[1] - image.shape[1]) // 2
    tops = [
        top
        for top in range(page.shape[0] - image.shape[0])
        if np.array_equal(page[top, left : left + image.shape[1]], image[0])
        and np.array_equal(page[top : top + image.shape[0], left : left + image.shape[1]], image)
    ]
    assert len(tops) >= 1


def test_pixels_outside_findings_and_the_input_are_unchanged() -> None:
    pixels = np.full((100, 100, 3), 90, dtype=np.uint8)
    painted = paint_findings(pixels, (square(100, 100, 20, 20, 30),))
    assert (pixels == 90).all()
    changed = (painted != 90).any(axis=2)
    assert changed[20:50, 20:50].all()
    changed[15:55, 15:55] = False
    assert not changed.any()
    assert (painted[20, 20:50] == PALETTE[0]).all()


def test_coinciding_findings_are_all_visible() -> None:
    pixels = np.full((120, 120, 3), 128, dtype=np.uint8)
    painted = paint_findings(pixels, tuple(square(120, 120, 20, 20, 80) for _ in range(3)))
    assert set(PALETTE[:3]) <= colors(painted)


def test_a_mask_inside_another_keeps_its_contour() -> None:
    pixels = np.full((120, 120, 3), 128, dtype=np.uint8)
    inner, outer = square(120, 120, 50, 50, 20), square(120, 120, 20, 20, 80)
    for findings in ((inner, outer), (outer, inner)):
        painted = paint_findings(pixels, findings)
        assert (painted[50, 50:70] == PALETTE[findings.index(inner)]).all()


def test_repeated_colors_have_another_fill() -> None:
    pixels = np.full((60, 60, 3), 128, dtype=np.uint8)
    gone = tuple(square(60, 60, 60, 60, 1) for _ in PALETTE)
    first = paint_findings(pixels, (square(60, 60, 5, 5, 50),))[15:45, 15:45]
    eighth = paint_findings(pixels, (*gone, square(60, 60, 5, 5, 50)))[15:45, 15:45]
    assert len(colors(first)) == 1
    assert len(colors(eighth)) == 2


def test_a_box_without_a_mask_is_drawn_as_a_frame() -> None:
    pixels = np.full((60, 60, 3), 128, dtype=np.uint8)
    painted = paint_findings(pixels, (Finding("liver", "liver", box=(10, 10, 50, 50)),))
    assert (painted[10, 10:50] == PALETTE[0]).all()
    assert (painted[20:40, 20:40] == 128).all()


def test_the_contour_is_closed_at_the_border_of_the_image() -> None:
    painted = paint_findings(np.zeros((40, 40, 3), np.uint8), (square(40, 40, 0, 0, 40),))
    assert (painted[0] == PALETTE[0]).all() and (painted[:, -1] == PALETTE[0]).all()


def test_absent_targets_are_only_in_the_legend() -> None:
    pixels = np.zeros((512, 512, 3), dtype=np.uint8)
    absent = square(512, 512, 512, 512, 1, "spleen")
    without, one, two = (draw_overlay(pixels, interpretation(512, 512, *[absent] * n)) for n in range(3))
    assert without.height < one.height < two.height
    assert not set(PALETTE) & colors(np.asarray(one))


def test_question_answer_and_title_are_drawn() -> None:
    pixels = np.zeros((512, 512, 3), dtype=np.uint8)
    page = draw_overlay(pixels, interpretation(512, 512))
    assert draw_overlay(pixels, interpretation(512, 512, question="When?")).tobytes() != page.tobytes()
    assert draw_overlay(pixels, interpretation(512, 512, text="There.")).tobytes() != page.tobytes()
    assert draw_overlay(pixels, interpretation(512, 512), title="Case 1").height > page.height


def test_many_findings_and_long_texts_give_an_image_of_limited_size() -> None:
    found = tuple(square(64, 64, i % 60, i // 10, 3, "word " * 200) for i in range(200))
    page = draw_overlay(np.zeros((64, 64, 3), np.uint8), interpretation(64, 64, *found, text="long " * 100_000))
    assert page.height < 4000


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((5, 6, 3), np.uint8), np.zeros((6, 5), np.uint8), np.zeros((6, 5, 3)), np.zeros((6, 5, 4), np.uint8), []],
)
def test_an_image_of_another_size_or_type_is_refused(pixels: np.ndarray) -> None:
    with pytest.raises(InputError):
        draw_overlay(pixels, interpretation(6, 5))


@settings(max_examples=25)
@given(st.text(), st.text(), st.text())
def test_any_text_can_be_drawn(label: str, question: str, answer: str) -> None:
    finding = square(8, 8, 1, 1, 3, label)
    result = interpretation(8, 8, finding, question=question, text=answer)
    page = draw_overlay(np.zeros((8, 8, 3), np.uint8), result, title=label)
    assert page.mode == "RGB" and page.width >= SMALLEST_WIDTH


def test_lines_fit_and_truncation_is_marked() -> None:
    renderer = TextRenderer(["abc"])
    text = "some words and onewordthatislongerthanawholelineofthispicture and more"
    lines = renderer.wrap(text, 20, 200, 99)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(renderer.width(line, 20) <= 200 for line in lines)
    cut = renderer.wrap(text, 20, 200, 2)
    assert len(cut) == 2 and cut[-1].endswith("...") and renderer.width(cut[-1], 20) <= 200
    assert renderer.wrap("", 20, 200, 2) == []


def test_characters_that_no_font_has_are_replaced() -> None:
    renderer = TextRenderer(["plain"])
    assert renderer.spell("a–b é") == "a-b ?"
    assert renderer.spell("mm²") == "mm²"


def test_classified_boxes_have_no_area_column(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    draw = TextRenderer.draw

    def spy(self: TextRenderer, page: object, place: object, text: str, *rest: object) -> None:
        written.append(text)
        draw(self, page, place, text, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(TextRenderer, "draw", spy)
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    name = Finding("liver", "liver", confidence=0.9, box=(8, 8, 20, 20))
    draw_overlay(pixels, interpretation(64, 64, name))
    assert "confidence" in written and not {"area", "?", "–"} & set(written)
    written.clear()
    draw_overlay(pixels, interpretation(64, 64, name, square(64, 64, 8, 8, 9)))
    assert "area" in written


def test_notes_are_drawn_if_nothing_was_found() -> None:
    pixels = np.zeros((60, 80, 3), dtype=np.uint8)
    nothing = Finding.from_mask("No findings", np.zeros((60, 80), dtype=bool))
    for finding, drawn in ((nothing, True), (square(60, 80, 5, 5, 20), False)):
        without = draw_overlay(pixels, interpretation(60, 80, finding))
        noted = draw_overlay(pixels, interpretation(60, 80, finding, notes=("every pixel has the same value",)))
        assert (noted.height > without.height) == drawn
