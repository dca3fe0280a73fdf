"""What software and people put on images: burnt-in text, callipers, rulers, ink, hairs, and inset boxes.

Overlays do not change the masks; those that hide what is below keep away from the targets.
"""

from __future__ import annotations

import math
import random
import string
from functools import cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

__all__ = ["draw_overlays"]

Colour = tuple[float, float, float]
WHITE, YELLOW, GREEN, CYAN = (1.0, 1.0, 1.0), (1.0, 0.9, 0.2), (0.3, 1.0, 0.4), (0.3, 0.9, 1.0)
INKS = ((0.25, 0.1, 0.5), (0.1, 0.15, 0.55), (0.05, 0.05, 0.1), (0.1, 0.4, 0.25))
HAIRS = ((0.12, 0.08, 0.06), (0.3, 0.2, 0.12), (0.05, 0.05, 0.05))
WORDS = ("R", "L", "AP", "PA", "SUPINE", "PORTABLE", "Im: 24", "Se: 3", "W: 400 L: 40", "FR 42Hz", "TIS 0.4", "MI 1.1")

TEXT = {
    "CT": 0.2,
    "MRI": 0.2,
    "PET": 0.15,
    "X-ray": 0.25,
    "ultrasound": 0.3,
    "endoscopy": 0.2,
    "OCT": 0.15,
    "fundus": 0.1,
}
"""Probability of text at strength 1."""
MEASURES = {"CT": 0.05, "MRI": 0.05, "X-ray": 0.05, "ultrasound": 0.25, "OCT": 0.05, "pathology": 0.05}
"""Probability of callipers or dotted lines at strength 1."""
RULERS = {"CT": 0.08, "MRI": 0.08, "ultrasound": 0.15, "dermoscopy": 0.15, "pathology": 0.1}
"""Probability of a ruler or scale bar at strength 1."""
STROKES = {"dermoscopy": 0.12, "pathology": 0.06, "X-ray": 0.04}
"""Probability of ink marks at strength 1."""


def draw_overlays(
    modality: str, image: torch.Tensor, masks: torch.Tensor, rng: random.Random, strength: float
) -> torch.Tensor:
    """Draw the overlays that a modality may have.

    Parameters
    ----------
    modality : str
    image : torch.Tensor
        (1 or 3, side, side) float32 in [0, 1].
    masks : torch.Tensor
        (regions, side, side) float32 in [0, 1]; there may be none.
    rng : random.Random
    strength : float
        Factor of the probabilities.

    Returns
    -------
    torch.Tensor
        (1 or 3, side, side) in [0, 1]; with three channels where an overlay has a colour.
    """
    side = image.shape[1]
    if rng.random() < STROKES.get(modality, 0.0) * strength:
        image = _paint(image, _ink(side, rng), rng.choice(INKS), rng.uniform(0.5, 0.95), masks)
    if modality == "dermoscopy" and rng.random() < 0.15 * strength:
        image = _paint(image, _hairs(side, rng), rng.choice(HAIRS), rng.uniform(0.6, 1.0))
    if modality == "endoscopy" and rng.random() < 0.12 * strength:
        image = _inset(image, masks, rng)
    bright = rng.choice((WHITE, WHITE, WHITE, YELLOW, GREEN, CYAN)) if modality != "X-ray" else WHITE
    if rng.random() < RULERS.get(modality, 0.0) * strength:
        dark = modality in ("dermoscopy", "pathology")
        image = _paint(image, _ruler(side, rng), (0.05, 0.05, 0.05) if dark else bright, 0.9)
    if rng.random() < MEASURES.get(modality, 0.0) * strength:
        image = _paint(image, _measure(side, rng), bright, rng.uniform(0.7, 1.0))
    if rng.random() < TEXT.get(modality, 0.0) * strength:
        image = _paint(image, _text(side, rng), bright, rng.uniform(0.7, 1.0))
    return image


def _paint(
    image: torch.Tensor, layer: Image.Image, colour: Colour, opacity: float, kept: torch.Tensor | None = None
) -> torch.Tensor:
    """Blend a colour over the part of the image where `layer` is bright; `kept` masks stay on top."""
    box = layer.getbbox()
    if box is None:
        return image
    left, top, right, bottom = box
    alpha = torch.from_numpy(np.array(layer.crop(box))).float().mul_(opacity / 255)
    if kept is not None and len(kept):
        alpha = alpha * (1 - kept[:, top:bottom, left:right].amax(0))
    if len(image) == 1 and len(set(colour)) > 1:
        image = image.expand(3, -1, -1)
    image = image.clone()
    part = image[:, top:bottom, left:right]
    part += alpha * (torch.tensor(colour[: len(image)])[:, None, None] - part)
    return image


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _layer(side: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    layer = Image.new("L", (side, side))
    return layer, ImageDraw.Draw(layer)


def _text(side: int, rng: random.Random) -> Image.Image:
    """A few short lines in one or two corners."""
    layer, draw = _layer(side)
    font = _font(round(side * rng.uniform(0.025, 0.05)))
    for far_right, far_down in rng.sample(((0, 0), (0, 1), (1, 0), (1, 1)), rng.randint(1, 2)):
        lines = [_word(rng) for _ in range(rng.randint(1, 4))]
        text = "\n".join(lines)
        left, top, right, bottom = draw.multiline_textbbox((0, 0), text, font=font)
        margin = side * rng.uniform(0.01, 0.04)
        x = side - margin - (right - left) if far_right else margin
        y = side - margin - (bottom - top) if far_down else margin
        draw.multiline_text((x, y), text, fill=255, font=font)
    return layer


def _word(rng: random.Random) -> str:
    if rng.random() < 0.4:
        return rng.choice(WORDS)
    signs = string.ascii_uppercase + string.digits * 2 + ":./- "
    return "".join(rng.choice(signs) for _ in range(rng.randint(2, 14)))


def _measure(side: int, rng: random.Random) -> Image.Image:
    """Callipers: crosses, in pairs joined by a dotted line or alone."""
    layer, draw = _layer(side)
    arm = max(2, round(side * rng.uniform(0.008, 0.02)))
    joined = rng.random() < 0.6
    for _ in range(rng.randint(1, 2)):
        x, y = (rng.uniform(0.15, 0.85) * side for _ in range(2))
        length, angle = rng.uniform(0.08, 0.4) * side, rng.uniform(0, math.pi)
        ends = [(x + sign * length / 2 * math.cos(angle), y + sign * length / 2 * math.sin(angle)) for sign in (-1, 1)]
        for a, b in ends:
            draw.line((a - arm, b, a + arm, b), fill=255)
            draw.line((a, b - arm, a, b + arm), fill=255)
        dots = round(length / 5) if joined else 0
        for i in range(1, dots):
            a, b = (first + (last - first) * i / dots for first, last in zip(*ends, strict=True))
            draw.point((a, b), fill=255)
    return layer


def _ruler(side: int, rng: random.Random) -> Image.Image:
    """Ticks at equal distances along one border."""
    layer, draw = _layer(side)
    step, long = side * rng.uniform(0.02, 0.06), max(3, round(side * rng.uniform(0.015, 0.04)))
    start, count = rng.uniform(0, 0.4) * side, rng.randint(6, 24)
    offset = rng.uniform(0.01, 0.05) * side
    upright, far, spine = rng.random() < 0.5, rng.random() < 0.5, rng.random() < 0.5
    base = side - offset if far else offset
    inward = -1 if far else 1
    for i in range(count):
        at = start + i * step
        tip = base + inward * (long if i % 5 == 0 else long // 2)
        draw.line((base, at, tip, at) if upright else (at, base, at, tip), fill=255)
    if spine:
        last = start + (count - 1) * step
        draw.line((base, start, base, last) if upright else (start, base, last, base), fill=255)
    return layer


def _curve(side: int, rng: random.Random, reach: float) -> list[tuple[float, float]]:
    """Points of a curve whose direction changes evenly, `reach` of the side long."""
    x, y, angle = rng.uniform(0, side), rng.uniform(0, side), rng.uniform(0, 2 * math.pi)
    bend = rng.gauss(0, 0.08)
    points = []
    for _ in range(16):
        points.append((x, y))
        x, y = x + reach * side / 16 * math.cos(angle), y + reach * side / 16 * math.sin(angle)
        angle += bend
    return points


def _hairs(side: int, rng: random.Random) -> Image.Image:
    layer, draw = _layer(side)
    for _ in range(rng.randint(3, 25)):
        draw.line(_curve(side, rng, rng.uniform(0.2, 0.9)), fill=rng.randint(120, 255), width=rng.choice([1, 1, 2]))
    return layer


def _ink(side: int, rng: random.Random) -> Image.Image:
    """Pen strokes or dots near the borders."""
    layer, draw = _layer(side)
    for _ in range(rng.randint(1, 3)):
        width = max(2, round(side * rng.uniform(0.01, 0.035)))
        if rng.random() < 0.3:
            x, y = rng.uniform(0, side), rng.choice([0.08, 0.92]) * side
            draw.ellipse((x - width, y - width, x + width, y + width), fill=255)
        else:
            draw.line(_curve(side, rng, rng.uniform(0.1, 0.4)), fill=255, width=width, joint="curve")
    return layer


def _inset(image: torch.Tensor, masks: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """A coloured box with a line drawing in a corner, such as the position of the endoscope, where no target is."""
    side = image.shape[1]
    high, wide = (round(side * rng.uniform(0.12, 0.33)) for _ in range(2))
    margin = rng.choice([0, round(side * 0.02)])
    top = rng.choice([side - high - margin, side - high - margin, margin])
    left = rng.choice([margin, margin, side - wide - margin])
    area = (slice(None), slice(top, top + high), slice(left, left + wide))
    if len(masks) and bool(masks[area].max() > 0):
        return image
    layer, draw = _layer(max(high, wide))
    draw.line(_curve(max(high, wide), rng, 0.8), fill=255, width=max(1, side // 100))
    drawing = torch.from_numpy(np.array(layer)[:high, :wide]).float() / 255
    ground = torch.tensor(rng.choice(((0.1, 0.5, 0.2), (0.0, 0.3, 0.15), (0.1, 0.2, 0.5), (0.0, 0.0, 0.0))))
    image = image.clone()
    image[area] = ground[: len(image), None, None] * (1 - drawing) + drawing
    return image
