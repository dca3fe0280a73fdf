"""What images go through before a reader sees them, at five strengths, to see how much of the score is left.

A change of place (flip, crop, rotation) moves the truth with the pixels; the others leave the truth alone.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

__all__ = ["CHANGES", "STRENGTHS", "Change", "change_image", "change_mask"]

STRENGTHS = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Change:
    """One way to change an image.

    Parameters
    ----------
    pixels : callable
        ``(pixels, level, rng)`` to new pixels of the same size, (height, width, 3) uint8.
    levels : tuple of float
        What each strength means to it.
    mask : callable, optional
        ``(mask, level)`` to the moved mask; None where nothing moves.
    """

    pixels: Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
    levels: tuple[float, float, float, float, float]
    mask: Callable[[np.ndarray, float], np.ndarray] | None = None


def change_image(pixels: np.ndarray, name: str, strength: int, seed: int) -> np.ndarray:
    """An image, changed.

    Parameters
    ----------
    pixels : numpy.ndarray
        (height, width, 3) uint8.
    name : str
        One of `CHANGES`.
    strength : int
        1 to 5.
    seed : int
        Of the noise.

    Returns
    -------
    numpy.ndarray
        (height, width, 3) uint8.
    """
    change = CHANGES[name]
    return change.pixels(pixels, change.levels[strength - 1], np.random.default_rng(seed))


def change_mask(mask: np.ndarray, name: str, strength: int) -> np.ndarray:
    """The truth of a changed image: (height, width) bool in and out."""
    change = CHANGES[name]
    return mask if change.mask is None else change.mask(mask, change.levels[strength - 1])


def _flip(pixels: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    return np.ascontiguousarray(pixels[:, ::-1])


def _contrast(pixels: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    mean = pixels.mean()
    return _rounded((pixels - mean) * level + mean)


def _noise(pixels: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    return _rounded(pixels + rng.normal(0, level, pixels.shape[:2])[..., None])


def _jpeg(pixels: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    memory = io.BytesIO()
    Image.fromarray(pixels).save(memory, "JPEG", quality=round(level))
    return np.asarray(Image.open(memory).convert("RGB"))


def _crop(pixels: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    height, width = pixels.shape[:2]
    part = Image.fromarray(pixels).crop(_inner(height, width, level))
    return np.asarray(part.resize((width, height), Image.Resampling.BILINEAR))


def _crop_mask(mask: np.ndarray, level: float) -> np.ndarray:
    height, width = mask.shape
    part = Image.fromarray(mask.astype(np.uint8)).crop(_inner(height, width, level))
    return np.asarray(part.resize((width, height), Image.Resampling.NEAREST)) > 0


def _inner(height: int, width: int, share: float) -> tuple[int, int, int, int]:
    """Box around the middle that leaves out `share` of each side."""
    dy, dx = round(height * share / 2), round(width * share / 2)
    return dx, dy, max(width - dx, dx + 1), max(height - dy, dy + 1)


def _turn(pixels: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).rotate(level, Image.Resampling.BILINEAR))


def _turn_mask(mask: np.ndarray, level: float) -> np.ndarray:
    return np.asarray(Image.fromarray(mask.astype(np.uint8)).rotate(level, Image.Resampling.NEAREST)) > 0


def _blur(pixels: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    return _rounded(ndimage.gaussian_filter(pixels.astype(np.float32), (level, level, 0)))


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(np.round(values), 0, 255), dtype=np.uint8)


CHANGES: Mapping[str, Change] = {
    # a mirror image has no strength: it is asked for once, as strength 1
    "flip": Change(_flip, (1, 1, 1, 1, 1), lambda mask, level: np.ascontiguousarray(mask[:, ::-1])),
    "contrast": Change(_contrast, (0.8, 0.6, 0.45, 0.3, 0.2)),
    "noise": Change(_noise, (5, 10, 20, 35, 50)),
    "jpeg": Change(_jpeg, (75, 50, 30, 15, 7)),
    "blur": Change(_blur, (0.5, 1, 2, 3, 5)),
    "crop": Change(_crop, (0.05, 0.1, 0.2, 0.3, 0.4), _crop_mask),
    "rotation": Change(_turn, (5, 10, 20, 30, 45), _turn_mask),
}
