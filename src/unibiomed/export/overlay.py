"""Overlay of an interpretation: masks on the image, with question, answer and legend around it."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from unibiomed.errors import InputError
from unibiomed.export.formatting import (
    DISCLAIMER,
    UNKNOWN,
    absent_text,
    percent,
    plain,
    score_heading,
    score_text,
    square_mm,
)
from unibiomed.export.text_rendering import Color, TextRenderer
from unibiomed.findings import Finding, Interpretation

# Okabe and Ito, "Color Universal Design" (2008), without black; consecutive colours are easy to distinguish.
PALETTE: tuple[Color, ...] = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (240, 228, 66),
    (204, 121, 167),
    (213, 94, 0),
    (0, 114, 178),
)
PAPER, INK, SOFT, RULE = (255, 255, 255), (24, 28, 34), (98, 106, 117), (218, 222, 228)
FILL, SHADE = 0.30, 0.45
SMALLEST_WIDTH = 512
MOST_LEGEND_ROWS = 40


def draw_overlay(pixels: np.ndarray, interpretation: Interpretation, *, title: str | None = None) -> Image.Image:
    """Draw the findings on the image; all text is outside the image.

    Small images are enlarged by an integer factor. From top to bottom: title and question, the image, the answer, a
    legend (label, score, area; absent targets as "not found"), and a footer.

    Parameters
    ----------
    pixels : numpy.ndarray
        The image as the model received it, uint8 of shape (height, width, 3).
    interpretation : Interpretation
        The interpretation, of the same height and width.
    title : str, optional
        Heading above the question.

    Returns
    -------
    PIL.Image.Image
        RGB, at least ``SMALLEST_WIDTH`` pixels wide.

    Raises
    ------
    InputError
        If `pixels` is not a uint8 RGB image with the size of the interpretation.
    """
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise InputError("the image is not uint8 of shape (height, width, 3): read it with unibiomed.images.read_image")
    height, width = pixels.shape[:2]
    if (height, width) != (interpretation.height, interpretation.width):
        raise InputError(
            f"the image is {width} x {height} pixels, but the findings are for "
            f"{interpretation.width} x {interpretation.height}: give the image that was interpreted"
        )
    scale = max(1, round(SMALLEST_WIDTH / max(height, width)))
    picture = paint_findings(pixels, interpretation.findings, scale=scale)
    return _Page(interpretation, title, picture.shape[1]).compose(picture)


def paint_findings(pixels: np.ndarray, findings: tuple[Finding, ...], *, scale: int = 1) -> np.ndarray:
    """Draw masks and boxes on a copy of the image.

    Each mask has a translucent fill, an opaque contour inside the mask, and a dark edge outside. Contours that coincide
    are drawn as alternating dashes, so that overlapping findings all remain visible. From the eighth finding on, the
    colours repeat with striped fills.

    Parameters
    ----------
    pixels : numpy.ndarray
        Image, uint8 of shape (height, width, 3).
    findings : tuple of Finding
        Absent findings are skipped but keep their colour; findings with a box but no mask are drawn as a frame.
    scale : int
        Integer factor by which the image is enlarged before drawing.

    Returns
    -------
    numpy.ndarray
        uint8 of shape (height * scale, width * scale, 3).
    """
    canvas = pixels.repeat(scale, axis=0).repeat(scale, axis=1)
    line = max(2, round(max(canvas.shape[:2]) / 320))
    shapes = []
    for number, finding in enumerate(findings):
        if finding.present and finding.box is not None:
            window, inside = _shape(finding, canvas.shape[0], canvas.shape[1], scale, 2 * line)
            shapes.append((number, window, inside, finding.mask is not None))
    for number, window, inside, filled in shapes:
        if filled:
            _blend(canvas[window], inside & _texture(number, window, line), PALETTE[number % len(PALETTE)], FILL)
    edges = [(number, window, inside & ~_shrink(inside, line, False)) for number, window, inside, _ in shapes]
    for (_, window, inside, filled), (_, _, edge) in zip(shapes, edges, strict=True):
        free = ~inside if filled else ~edge
        ring = free & ~_shrink(free, max(1, line // 2), True)
        _blend(canvas[window], ring, (0, 0, 0), SHADE)
    shared = np.zeros(canvas.shape[:2], dtype=np.uint8)
    for number, window, edge in edges:
        before = shared[window].astype(np.uint16)
        mine = edge & (_diagonal(window) // (5 * line) % (before + 1) == before)
        canvas[window][mine] = PALETTE[number % len(PALETTE)]
        shared[window] += edge & (before < 255)
    return canvas


Window = tuple[slice, slice]


def _shape(finding: Finding, height: int, width: int, scale: int, margin: int) -> tuple[Window, np.ndarray]:
    """Window of the enlarged image around a finding, with a margin for the contour, and the mask in this window."""
    assert finding.box is not None
    x0, y0, x1, y1 = (side * scale for side in finding.box)
    top, left = max(0, y0 - margin), max(0, x0 - margin)
    window = slice(top, min(height, y1 + margin)), slice(left, min(width, x1 + margin))
    inside = np.zeros((window[0].stop - top, window[1].stop - left), dtype=bool)
    body: np.ndarray | bool = True
    if finding.mask is not None:
        bx0, by0, bx1, by1 = finding.box
        body = finding.mask[by0:by1, bx0:bx1].repeat(scale, axis=0).repeat(scale, axis=1)
    inside[y0 - top : y1 - top, x0 - left : x1 - left] = body
    return window, inside


def _diagonal(window: Window, sign: int = 1) -> np.ndarray:
    """Index of the diagonal of each pixel in the whole image, so that dashes and stripes align between windows."""
    rows, columns = np.ogrid[window]
    return rows + sign * columns


def _texture(number: int, window: Window, line: int) -> np.ndarray | bool:
    turn = number // len(PALETTE) % 3
    return turn == 0 or _diagonal(window, 1 if turn == 1 else -1) // (3 * line) % 2 == 0


def _shrink(mask: np.ndarray, steps: int, outside: bool) -> np.ndarray:
    """Erode by ``steps`` pixels, with alternating 4- and 8-connectivity for rounder corners."""
    for step in range(steps):
        padded = np.pad(mask, 1, constant_values=outside)
        rows = padded[:-2] & padded[1:-1] & padded[2:]
        if step % 2:
            mask = rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:]
        else:
            mask = rows[:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask


def _blend(canvas: np.ndarray, where: np.ndarray, color: Color, strength: float) -> None:
    """Blend a colour into part of the image, in place."""
    part = canvas[where].astype(np.float32)
    canvas[where] = np.rint(part + strength * (np.asarray(color, dtype=np.float32) - part)).astype(np.uint8)


class _Page:
    """The page around the image. Texts are measured first, so that the page has exactly the height of its content."""

    def __init__(self, interpretation: Interpretation, title: str | None, picture_width: int) -> None:
        self.inner = max(SMALLEST_WIDTH, picture_width)
        self.size = max(15, round(self.inner / 58))
        self.margin = self.size
        self.findings = interpretation.findings[:MOST_LEGEND_ROWS]
        self.hidden = len(interpretation.findings) - len(self.findings)
        self.metric = any(finding.area_mm2 is not None for finding in self.findings)
        # Classified boxes have no area.
        self.sized = any(finding.mask is not None or not finding.present for finding in self.findings)
        heading, question = plain(title or ""), plain(interpretation.question)
        self.origin = " · ".join(filter(None, map(plain, (interpretation.image, interpretation.model))))
        self.rows = [self._row(finding) for finding in self.findings]
        answer = plain(interpretation.text)
        # Notes may explain why nothing was found, for example a blank image.
        nothing = bool(interpretation.findings) and not any(f.present for f in interpretation.findings)
        notes = [plain(f"Note: {note}") for note in interpretation.notes] if nothing else []
        words = [heading, question, answer, self.origin, DISCLAIMER, *notes]
        self.letters = TextRenderer([*words, *(word for row in self.rows for word in row)])
        spell, wrap = self.letters.spell, self.letters.wrap
        self.heading = wrap(spell(heading), self._large, self.inner, 3)
        self.question = wrap(spell(question), self._large if not heading else self.size, self.inner, 4)
        self.answer = wrap(spell(answer), self.size, self.inner, 18)
        self.notes = [line for note in notes for line in wrap(spell(note), self._small, self.inner, 4)]

    @property
    def _large(self) -> int:
        return round(1.2 * self.size)

    @property
    def _small(self) -> int:
        return round(0.8 * self.size)

    def _row(self, finding: Finding) -> list[str]:
        label = plain(finding.label, 400) or UNKNOWN
        if not finding.present:
            return [label, score_text(finding), absent_text(finding), ""]
        area = percent(finding.area_fraction) if finding.mask is not None else UNKNOWN if self.sized else ""
        return [label, score_text(finding), area, square_mm(finding.area_mm2) if self.metric else ""]

    def compose(self, picture: np.ndarray) -> Image.Image:
        """Create the page around the annotated image."""
        # The page is drawn twice: first to measure its height, then at its final size.
        end = self._draw(Image.new("RGB", (self.inner + 2 * self.margin, 1)), None, picture.shape)
        page = Image.new("RGB", (self.inner + 2 * self.margin, end), PAPER)
        self._draw(page, picture, picture.shape)
        return page

    def _draw(self, page: Image.Image, picture: np.ndarray | None, shape: tuple[int, ...]) -> int:
        draw = ImageDraw.Draw(page)
        small = self._small
        y = self.margin
        y = self._lines(draw, y, self.heading, self._large, INK)
        y = self._lines(draw, y, self.question, self.size if self.heading else self._large, INK)
        y += self.size // 2 if self.heading or self.question else 0
        left = self.margin + (self.inner - shape[1]) // 2
        if picture is not None:
            page.paste(Image.fromarray(picture), (left, y))
        draw.rectangle((left - 1, y - 1, left + shape[1], y + shape[0]), outline=RULE)
        y += shape[0] + self.size
        y = self._lines(draw, y, self.answer, self.size, INK)
        y = self._lines(draw, y, self.notes, self._small, SOFT)
        if self.rows:
            y = self._legend(draw, y + (self.size // 2 if self.answer else 0))
        y += self.size // 2
        draw.line((self.margin, y, self.margin + self.inner - 1, y), RULE, max(1, self.size // 15))
        y += self.size // 2
        origin = self.letters.spell(self.origin)
        free = self.inner - self.letters.width(DISCLAIMER, small) - 2 * self.size
        self.letters.draw(draw, (self.margin, y), DISCLAIMER, small, SOFT)
        for line in self.letters.wrap(origin, small, free, 1):
            right = self.margin + self.inner - self.letters.width(line, small)
            self.letters.draw(draw, (right, y), line, small, SOFT)
        return y + small + self.margin

    def _lines(self, draw: ImageDraw.ImageDraw, y: int, lines: list[str], size: int, color: Color) -> int:
        for line in lines:
            self.letters.draw(draw, (self.margin, y), line, size, color)
            y += round(1.4 * size)
        return y

    def _legend(self, draw: ImageDraw.ImageDraw, y: int) -> int:
        """Draw the legend in one column, or in two if there is space."""
        columns = 2 if self.inner >= 50 * self.size and len(self.rows) > 3 else 1
        gap = 2 * self.size
        width = (self.inner - (columns - 1) * gap) // columns
        spelled = [[self.letters.spell(word) for word in row] for row in self.rows]
        heads = ["", score_heading(self.findings), "area" if self.sized else "", ""]
        cells = [max(self.letters.width(row[i], self._small) for row in [heads, *spelled]) for i in (1, 2, 3)]
        half = -(-len(spelled) // columns)
        ends = []
        for column in range(columns):
            x, bottom = self.margin + column * (width + gap), y
            self._numbers(draw, x + width, bottom, heads, cells, SOFT)
            bottom += round(1.5 * self.size)
            for number in range(column * half, min(len(spelled), (column + 1) * half)):
                bottom = self._entry(draw, x, bottom, width, number, spelled[number], cells)
            ends.append(bottom)
        y = max(ends)
        if self.hidden:
            y = self._lines(draw, y, [f"and {self.hidden} more"], self._small, SOFT)
        return y

    def _entry(
        self, draw: ImageDraw.ImageDraw, x: int, y: int, width: int, number: int, row: list[str], cells: list[int]
    ) -> int:
        present = self.findings[number].present
        self._swatch(draw, x, y, number)
        digits = self.letters.width("0" * len(str(len(self.rows))), self.size)
        first = x + 2 * self.size + digits - self.letters.width(str(number + 1), self.size)
        self.letters.draw(draw, (first, y), str(number + 1), self.size, SOFT)
        start = x + round(2.6 * self.size) + digits
        room = x + width - start - sum(cells) - self._gap * sum(map(bool, cells))
        self._numbers(draw, x + width, y, row, cells, INK if present else SOFT)
        for line in self.letters.wrap(row[0], self.size, room, 2):
            self.letters.draw(draw, (start, y), line, self.size, INK if present else SOFT)
            y += round(1.35 * self.size)
        return y + self.size // 5

    @property
    def _gap(self) -> int:
        return round(1.1 * self.size)

    def _numbers(
        self, draw: ImageDraw.ImageDraw, right: int, y: int, row: list[str], cells: list[int], color: Color
    ) -> None:
        """Draw the numbers of a row, right-aligned in their cells."""
        for word, cell in zip(reversed(row[1:]), reversed(cells), strict=True):
            if cell:
                at = right - self.letters.width(word, self._small), y + (self.size - self._small) // 2
                self.letters.draw(draw, at, word, self._small, color)
                right -= cell + self._gap

    def _swatch(self, draw: ImageDraw.ImageDraw, x: int, y: int, number: int) -> None:
        """Draw the colour and texture of a finding; a crossed-out box if it is absent."""
        width, height, line = round(1.4 * self.size), self.size, max(1, self.size // 8)
        finding = self.findings[number]
        if not finding.present:
            draw.rectangle((x, y, x + width - 1, y + height - 1), outline=SOFT, width=max(1, line // 2))
            draw.line((x, y + height - 1, x + width - 1, y), SOFT, max(1, line // 2))
            return
        color = PALETTE[number % len(PALETTE)]
        if finding.mask is not None:
            inside = np.ones((height, width), dtype=bool) & _texture(number, np.s_[0:height, 0:width], line)
            draw.bitmap((x, y), Image.fromarray(inside.astype(np.uint8) * 140), color)
        draw.rectangle((x, y, x + width - 1, y + height - 1), outline=color, width=line)
