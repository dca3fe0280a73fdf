"""Text in images: choice of a font, measurement and line breaking."""

from __future__ import annotations

from functools import lru_cache

from PIL import ImageDraw, ImageFont

# Pillow's built-in font covers little more than ASCII; for other characters one of these system fonts is used.
SYSTEM_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "Arial.ttf",
    "NotoSansCJK-Regular.ttc",
    "wqy-microhei.ttc",
    "Arial Unicode.ttf",
    "msyh.ttc",
)
SUBSTITUTES = {"–": "-", "—": "-", "−": "-", "…": "...", "×": "x", "µ": "u", "μ": "u", "≥": ">=", "≤": "<=", "≈": "~"}
# The superscript 2 is drawn as a small digit, because many fonts lack it.
SUPERSCRIPT = "²"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Color = tuple[int, int, int]


@lru_cache(maxsize=64)
def _load(name: str, size: int) -> Font | None:
    if not name:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@lru_cache(maxsize=4096)
def _draws(name: str, character: str) -> bool:
    font = _load(name, 20)
    # A missing glyph looks like that of a code point that no font has.
    missing = "\U0010fffd"
    return font is not None and (character in " " + SUPERSCRIPT or _shape(font, character) != _shape(font, missing))


def _shape(font: Font, character: str) -> tuple[bytes, tuple[int, int]]:
    mask = font.getmask(character)
    return bytes(mask), mask.size


class TextRenderer:
    """Draws all texts of an image with one font.

    Parameters
    ----------
    texts : list of str
        All texts of the image. The first font that covers every character is used, otherwise the font that covers most
        of them. Characters that it lacks are replaced, see :meth:`spell`.
    """

    def __init__(self, texts: list[str]) -> None:
        self._name = ""
        needed = {c for text in texts for c in text}
        if any(not _draws("", c) and c not in SUBSTITUTES for c in needed):
            names = ["", *(name for name in SYSTEM_FONTS if _load(name, 20) is not None)]
            self._name = max(names, key=lambda name: sum(_draws(name, c) for c in needed))

    def spell(self, text: str) -> str:
        """Replace characters that the font lacks by ASCII substitutes, or by ``?``."""
        return "".join(c if _draws(self._name, c) else SUBSTITUTES.get(c, "?") for c in text)

    def width(self, text: str, size: int) -> int:
        """Width in pixels of a text from :meth:`spell`."""
        return round(sum(self._font(size, raised).getlength(part) for part, raised in _parts(text)))

    def draw(self, canvas: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, color: Color) -> None:
        """Draw a text from :meth:`spell`, starting at x = ``at[0]``, vertically centred at ``at[1] + size // 2``."""
        x, baseline = float(at[0]), at[1] + round(0.86 * size)
        for part, raised in _parts(text):
            font = self._font(size, raised)
            canvas.text((x, baseline - (round(0.33 * size) if raised else 0)), part, color, font, anchor="ls")
            x += font.getlength(part)

    def wrap(self, text: str, size: int, width: int, most: int) -> list[str]:
        """Break a text from :meth:`spell` into at most ``most`` lines of ``width`` pixels; truncation adds ``...``."""
        lines: list[str] = []
        line = ""
        for word in text.split():
            joined = f"{line} {word}" if line else word
            if self.width(joined, size) <= width:
                line = joined
                continue
            if line:
                lines.append(line)
            if len(lines) > most:
                break
            *full, line = self._pieces(word, size, width)
            lines += full
        if line:
            lines.append(line)
        if len(lines) > most:
            lines = lines[:most]
            while lines[-1] and self.width(lines[-1] + "...", size) > width:
                lines[-1] = lines[-1][:-1].rstrip()
            lines[-1] += "..."
        return lines

    def _pieces(self, word: str, size: int, width: int) -> list[str]:
        """Split a word that is wider than a line, as in scripts without spaces."""
        pieces = [""]
        for character in word:
            if pieces[-1] and self.width(pieces[-1] + character, size) > width:
                pieces.append("")
            pieces[-1] += character
        return pieces

    def _font(self, size: int, raised: bool) -> Font:
        font = _load(self._name, max(1, round(0.62 * size)) if raised else size)
        assert font is not None
        return font


def _parts(text: str) -> list[tuple[str, bool]]:
    """Split into pairs (text, raised); the superscript 2 becomes ``("2", True)``."""
    parts: list[tuple[str, bool]] = []
    for number, part in enumerate(text.split(SUPERSCRIPT)):
        if number:
            parts.append(("2", True))
        if part:
            parts.append((part, False))
    return parts
